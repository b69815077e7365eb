"""Write the HTTP surface as one JSON document, which the service gives: `python -m specs.bundle`."""

import json
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
BUNDLE = HERE.parent / "cra" / "server" / "openapi.json"


def bundle() -> bytes:
    """Return `openapi.yaml` with the schemas of the wire format inside it, each reference within the document."""
    document: dict[str, Any] = yaml.safe_load((HERE / "openapi.yaml").read_text(encoding="utf-8"))
    schemas = document["components"]["schemas"]
    for path in sorted((HERE / "schemas").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        schema.pop("$id", None)
        schema.pop("$schema", None)
        name = _name(path.name)
        schemas[name] = _moved(schema, {"#/$defs/": f"#/components/schemas/{name}/$defs/"})
    whole = {f"schemas/{path.name}": f"#/components/schemas/{_name(path.name)}" for path in HERE.glob("schemas/*.json")}
    return json.dumps(_moved(document, whole), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _name(file: str) -> str:
    return "".join(part.capitalize() for part in file.removesuffix(".json").split("-"))


def _moved(value: Any, prefixes: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_moved(item, prefixes) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _moved(item, prefixes) for key, item in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str):
        for prefix, target in prefixes.items():
            if reference.startswith(prefix):
                found["$ref"] = target + reference.removeprefix(prefix)
    return found


if __name__ == "__main__":
    BUNDLE.write_bytes(bundle())
