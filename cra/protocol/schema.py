"""JSON Schemas of the wire format, generated from the structs: `python -m cra.protocol.schema [--check] [DIR]`."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from cra.protocol import atlas, carp, trace

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BASE = "https://cra-protocol.org/schemas/1.0/"

_DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "carp-request": carp.Request,
    "carp-resolution": carp.Resolution,
    "execute-response": carp.ExecuteResponse,
    "trace-event": trace.Event,
    "atlas-manifest": atlas.Manifest,
}

# What a policy's `parameters` must look like, by its type.
_POLICY_PARAMETERS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    atlas.RateLimitParameters: ("rate_limit",),
    atlas.BudgetParameters: ("budget",),
    atlas.ScopeParameters: ("scope",),
    atlas.ReasonParameters: ("allow", "deny", "require_approval", "requires_approval"),
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return every document's schema (draft 2020-12), by name."""
    return {name: _document(name, kind) for name, kind in _DOCUMENTS.items()}


def _document(name: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    extra = tuple(_POLICY_PARAMETERS) if kind is atlas.Manifest else ()
    (root, *_), definitions = msgspec.json.schema_components((kind, *extra), ref_template="#/$defs/{name}")
    definitions = dict(definitions)
    body = definitions.pop(root["$ref"].rpartition("/")[2])
    if kind is carp.Request:
        body["allOf"] = [_execution_rule()]
    if kind is atlas.Manifest:
        definitions["Policy"]["allOf"] = _parameter_rules()
        definitions["Policy"]["required"] = sorted(definitions["Policy"]["required"])
    return {"$schema": DIALECT, "$id": f"{BASE}{name}.json", **body, "$defs": dict(sorted(definitions.items()))}


def _execution_rule() -> dict[str, Any]:
    resolve = {"properties": {"operation": {"const": "resolve"}}}
    return {"if": resolve, "then": {"properties": {"execution": False}}, "else": {"required": ["execution"]}}


def _parameter_rules() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = []
    for kind, types in _POLICY_PARAMETERS.items():
        needed = any(field.required for field in msgspec.structs.fields(kind))
        then: dict[str, Any] = {"properties": {"parameters": {"$ref": f"#/$defs/{kind.__name__}"}}}
        if needed:
            then["required"] = ["parameters"]
        condition = {"properties": {"type": {"enum": list(types)}}, "required": ["type"]}
        rules.append({"if": condition, "then": then})
    return rules


def render(schema: dict[str, Any]) -> str:
    """Return a schema as it is committed: two spaces, a final line feed."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the schemas, or with `--check` name those that differ and return 1."""
    check = "--check" in arguments
    folders = [argument for argument in arguments if argument != "--check"]
    folder = Path(folders[0] if folders else "specs/schemas")
    drifted = 0
    for name, schema in schemas().items():
        path, text = folder / f"{name}.json", render(schema)
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{path} differs from the structs; run python -m cra.protocol.schema\n")
            drifted = 1
    return drifted


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
