"""The parts of a manifest: its head and its pieces, from whichever file they come."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from cra.atlas._tree import MANIFEST, Tree, shown
from cra.atlas.bounds import Bounds
from cra.errors import InvalidJSON, Problem
from cra.protocol.jsontext import decode

SECTIONS = ("actions", "capabilities", "context_packs", "policies")
# The sections that folders of JSON files add to, and the other endings that may lie there.
_FOLDERS = ("actions", "policies")
_SUFFIXES = (".json", ".md", ".txt")


class Piece(NamedTuple):
    """One action, capability, pack or policy, as it was written and where."""

    file: str
    pointer: str
    value: Any


class Parts(msgspec.Struct):
    """A manifest taken apart; `head` is None when there is none that could be read."""

    head: dict[str, Any] | None = None
    pieces: dict[str, list[Piece]] = msgspec.field(default_factory=lambda: {section: [] for section in SECTIONS})
    problems: list[Problem] = msgspec.field(default_factory=list)


def escape(step: str) -> str:
    """Return one step of a JSON pointer."""
    return step.replace("~", "~0").replace("/", "~1")


def read_json(tree: Tree, path: str, bounds: Bounds) -> Any:
    """Return the value of one JSON file of the tree, or raise `InvalidJSON`."""
    value = decode(tree.files[path], max_bytes=bounds.max_json_bytes, max_depth=bounds.max_json_depth)
    if (nodes := count_nodes(value, bounds.max_json_nodes)) > bounds.max_json_nodes:
        raise InvalidJSON(f"JSON text has {nodes} values or more, expected at most {bounds.max_json_nodes}")
    return value


def count_nodes(value: Any, limit: int) -> int:
    """Return how many values stand in `value`, or some number above `limit`."""
    count, stack = 1, [value]
    while stack and count <= limit:
        item = stack.pop()
        items = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        count += len(items)
        if count <= limit:
            stack.extend(inner for inner in items if isinstance(inner, dict | list))
    return count


def named_files(manifest: Any) -> Iterator[str]:
    """Yield the paths that the packs of a manifest name, however wrong the rest of it is."""
    packs = manifest.get("context_packs") if isinstance(manifest, dict) else None
    for pack in packs if isinstance(packs, list) else ():
        files = pack.get("files") if isinstance(pack, dict) else None
        for path in files if isinstance(files, list) else ():
            if isinstance(path, str):
                yield path


def take_apart(tree: Tree, bounds: Bounds) -> Parts:
    """Take the manifest of a tree apart, adding what lies in `policies/`, `actions/` and `adapters/`.

    A folder's files come after the manifest's own entries, in the order of their names.
    """
    parts = Parts()
    if MANIFEST not in tree.files:
        told = any(problem.file == MANIFEST for problem in tree.problems) or (tree.problems and not tree.files)
        if not told:
            inside = next((path for path in sorted(tree.files) if path.endswith("/" + MANIFEST)), None)
            words = f"expected at the top, found `{shown(inside)}`" if inside else "there is none"
            parts.problems.append(Problem("missing_file", f"`{MANIFEST}` is missing: {words}"))
        return parts
    value = _decoded(tree, MANIFEST, bounds, parts)
    if parts.problems:
        return parts
    if not isinstance(value, dict):
        parts.problems.append(Problem("schema", f"the manifest is {json_type(value)}, expected an object"))
        return parts
    head = {name: item for name, item in value.items() if name not in SECTIONS or not isinstance(item, list)}
    for section in SECTIONS:
        items = value.get(section)
        if isinstance(items, list):
            pieces = [Piece(MANIFEST, f"/{section}/{index}", item) for index, item in enumerate(items)]
            parts.pieces[section] += pieces
    parts.head = head
    for path in sorted(tree.files):
        if path.partition("/")[0] in (*_FOLDERS, "adapters"):
            _add_file(tree, path, bounds, parts, head)
    return parts


def _add_file(tree: Tree, path: str, bounds: Bounds, parts: Parts, head: dict[str, Any]) -> None:
    folder, _, name = path.partition("/")
    if "/" in name or not name.endswith(_SUFFIXES):
        # INVARIANT: no rule is overlooked because its file has an unusual name or place.
        words = f"`{shown(path)}` is not read, expected `{folder}/<name>.json`"
        parts.problems.append(Problem("unexpected_file", words, file=shown(path)))
    elif name.endswith(".json"):
        before = len(parts.problems)
        value = _decoded(tree, path, bounds, parts)
        if len(parts.problems) > before:
            return
        if folder == "adapters":
            _add_adapter(path, name.removesuffix(".json"), value, parts, head)
        else:
            parts.pieces[folder] += _pieces(path, folder, value, parts)


def _decoded(tree: Tree, path: str, bounds: Bounds, parts: Parts) -> Any:
    try:
        return read_json(tree, path, bounds)
    except InvalidJSON as error:
        large = "expected at most" in error.message and "bytes" in error.message
        code = "too_large" if large else "invalid_json"
        parts.problems.append(Problem(code, error.message, file=shown(path), pointer=error.pointer or ""))
        return None


def _pieces(path: str, section: str, value: Any, parts: Parts) -> list[Piece]:
    """Return the pieces of one file: one object, a list of them, or an object with the section's name."""
    pointer, items = "", value
    if isinstance(value, dict) and section in value:
        pointer, items = f"/{section}", value[section]
        for extra in sorted(value.keys() - {section}):
            words = f"`{shown(extra)}` is unknown beside `{section}`"
            parts.problems.append(Problem("schema", words, file=shown(path), pointer=f"/{escape(extra)}"))
    elif isinstance(value, dict):
        return [Piece(path, "", value)]
    if not isinstance(items, list):
        words = f"{json_type(items)} found, expected one object or an array of them"
        parts.problems.append(Problem("schema", words, file=shown(path), pointer=pointer))
        return []
    return [Piece(path, f"{pointer}/{index}", item) for index, item in enumerate(items)]


def _add_adapter(path: str, name: str, value: Any, parts: Parts, head: dict[str, Any]) -> None:
    adapters = head.get("adapters", {})
    if isinstance(adapters, dict):
        if name in adapters:
            words = f"adapter `{shown(name)}` is defined in `{MANIFEST}` too"
            parts.problems.append(Problem("duplicate_id", words, file=shown(path)))
        head["adapters"] = {**adapters, name: value}


def json_type(value: Any) -> str:
    """Return what JSON calls a value, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
