"""What a manifest means: whether its names, files and rules fit together."""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import UnsetType

from cra._core.glob import glob_match
from cra.atlas._hidden import hidden_character
from cra.atlas._parts import SECTIONS, Parts, Piece, escape
from cra.atlas._paths import path_fault
from cra.atlas._schemas import Checker
from cra.atlas._shape import Shape
from cra.atlas._tree import MANIFEST, Tree, shown
from cra.atlas.bounds import Bounds
from cra.atlas.semver import parse_range
from cra.errors import InvalidInput, InvalidJSON, Problem
from cra.protocol.atlas import Conditions, Policy, PolicyType
from cra.protocol.jsontext import decode

_ID_FIELDS = {
    "actions": "action_id",
    "capabilities": "capability_id",
    "context_packs": "pack_id",
    "policies": "policy_id",
}
# What stands in these is free, or judged as a schema.
_FREE = frozenset(["adapters", "metadata", "parameters_schema", "returns_schema", "examples", "parameters", "files"])
_LINES = frozenset(["description", "reason"])
_MAX_PRIORITY = 1_000_000_000


class Names:
    """The ids that an atlas declares; those of pieces with a wrong shape count, so that one fault is told once."""

    def __init__(self, parts: Parts) -> None:
        self.by_section = {section: set(_ids(parts, section)) for section in SECTIONS}
        self.actions = self.by_section["actions"]
        self.capabilities = self.by_section["capabilities"]
        self.packs = self.by_section["context_packs"]
        head = parts.head or {}
        # Rules bind the actions of every loaded atlas, so an atlas of rules may name what it does not declare.
        self.is_alone = not head.get("dependencies") and bool(self.actions or self.capabilities)
        self._guesses_left = 20

    def guess(self, name: str, names: set[str]) -> str:
        """Return `, did you mean ...?` when one of the names is close, else nothing."""
        # PERF: comparing is slow (2 ms for 500 names), so a manifest full of unknown names gets only a few guesses.
        if self._guesses_left == 0 or len(names) > 500 or len(name) > 100:
            return ""
        from difflib import get_close_matches

        self._guesses_left -= 1
        close = get_close_matches(name, sorted(names), 1, 0.75)
        return f", did you mean `{close[0]}`?" if close else ""


def meaning_problems(shape: Shape, parts: Parts, tree: Tree, bounds: Bounds) -> Iterator[Problem]:
    """Yield everything that has the right shape and cannot be meant."""
    names = Names(parts)
    checker = Checker(bounds)
    yield from _text_problems(parts)
    yield from _duplicates(parts, shape)
    if shape.head is not None:
        yield from _range_problems(shape.head.atlas_id, shape.head.dependencies)
    yield from _capability_problems(shape, names)
    yield from _pack_problems(shape, names, tree)
    for piece, policy in shape.policies:
        yield from _policy_problems(piece, policy, names, checker)
    for piece, action in shape.actions:
        yield from checker.action_problems(piece, action)


def _problem(piece: Piece, code: str, message: str, pointer: str = "") -> Problem:
    return Problem(code, message, file=shown(piece.file), pointer=piece.pointer + pointer)


def _ids(parts: Parts, section: str) -> Iterator[str]:
    for piece in parts.pieces[section]:
        name = piece.value.get(_ID_FIELDS[section]) if isinstance(piece.value, dict) else None
        if isinstance(name, str):
            yield name


def _text_problems(parts: Parts) -> Iterator[Problem]:
    """Yield characters that would make a name look like another one where people read it."""
    head = [Piece(MANIFEST, "", parts.head)] if parts.head is not None else []
    for piece in [*head, *(piece for section in SECTIONS for piece in parts.pieces[section])]:
        for pointer, text, lines in _texts(piece.value, "", False):
            if character := hidden_character(text, lines=lines):
                words = f"the text contains the invisible character {character}"
                yield _problem(piece, "invalid_text", words, pointer)


def _texts(value: Any, pointer: str, lines: bool) -> Iterator[tuple[str, str, bool]]:
    if isinstance(value, str):
        yield pointer, value, lines
    elif isinstance(value, dict):
        for name, item in value.items():
            yield pointer, name, False
            if name == "parameters" and isinstance(item, dict):
                # Of a policy's parameters these are read by people.
                item = {key: item[key] for key in ("reason", "unit") if key in item}
            elif name in _FREE:
                continue
            yield from _texts(item, f"{pointer}/{escape(name)}", name in _LINES)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{pointer}/{index}", lines)


def _duplicates(parts: Parts, shape: Shape) -> Iterator[Problem]:
    for section in SECTIONS:
        field, seen = _ID_FIELDS[section], dict[str, Piece]()
        if section == "policies":
            for piece, action in shape.actions:
                if action.requires_confirmation:
                    seen[f"{action.action_id}:requires_confirmation"] = piece
                if not isinstance(action.rate_limit, UnsetType):
                    seen[f"{action.action_id}:rate_limit"] = piece
        for piece in parts.pieces[section]:
            name = piece.value.get(field) if isinstance(piece.value, dict) else None
            if not isinstance(name, str):
                continue
            first = seen.setdefault(name, piece)
            if first is not piece:
                words = f"{field} `{shown(name)}` is taken by `{shown(first.file)}#{first.pointer}`"
                yield _problem(piece, "duplicate_id", words, f"/{field}")
    blocks: dict[str, str] = {}
    for piece, pack in shape.context_packs:
        for index, path in enumerate(pack.files):
            place = f"{piece.pointer}/files/{index}"
            first_place = blocks.setdefault(f"{pack.pack_id}/{path}", place)
            if first_place is not place:
                words = f"block `{shown(f'{pack.pack_id}/{path}')}` is made by `{first_place}` already"
                yield _problem(piece, "duplicate_id", words, f"/files/{index}")


def _range_problems(atlas_id: str, dependencies: Mapping[str, str]) -> Iterator[Problem]:
    for name, text in dependencies.items():
        pointer = f"/dependencies/{escape(name)}"
        if name == atlas_id:
            yield Problem("dependency", "an atlas cannot depend on itself", pointer=pointer)
        try:
            if parse_range(text).empty:
                yield Problem("dependency", f"no version can be inside `{shown(text)}`", pointer=pointer)
        except InvalidInput as error:
            yield Problem("dependency", error.message, pointer=pointer)


def _capability_problems(shape: Shape, names: Names) -> Iterator[Problem]:
    for piece, capability in shape.capabilities:
        for index, glob in enumerate(capability.actions):
            if not is_glob(glob) and glob not in names.actions:
                words = f"action `{shown(glob)}` is not declared{names.guess(glob, names.actions)}"
                yield _problem(piece, "unknown_action", words, f"/actions/{index}")
        for index, pack in enumerate(capability.context_packs):
            if pack not in names.packs:
                words = f"context pack `{shown(pack)}` is not declared{names.guess(pack, names.packs)}"
                yield _problem(piece, "unknown_pack", words, f"/context_packs/{index}")


def _pack_problems(shape: Shape, names: Names, tree: Tree) -> Iterator[Problem]:
    judged: set[str] = set()
    broken = frozenset(problem.file for problem in tree.problems)
    for piece, pack in shape.context_packs:
        yield from _condition_problems(piece, pack.conditions, names)
        if not isinstance(pack.conditions.parameters, UnsetType):
            words = "a context pack is chosen before any call, so it cannot ask for parameters"
            yield _problem(piece, "invalid_condition", words, "/conditions/parameters")
        for index, path in enumerate(pack.files):
            if fault := path_fault(path):
                words = f"`{shown(path)}` cannot be a file of an atlas: {fault}"
                yield _problem(piece, "path_escape", words, f"/files/{index}")
            elif path in tree.files:
                if path not in judged:
                    judged.add(path)
                    yield from _document_problems(path, tree.files[path])
            elif broken.isdisjoint(_with_parents(path)):
                yield _problem(piece, "missing_file", f"`{shown(path)}` is not in the atlas", f"/files/{index}")


def _with_parents(path: str) -> Iterator[str]:
    """Yield a path and the folders above it: if one of them could not be read, that has been told."""
    segments = path.split("/")
    return (shown("/".join(segments[:depth])) for depth in range(1, len(segments) + 1))


def _document_problems(path: str, content: bytes) -> Iterator[Problem]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        yield Problem("not_utf8", f"byte {error.start} is not UTF-8", file=shown(path))
        return
    if "\0" in text:
        yield Problem("not_utf8", f"character {text.index(chr(0))} is NUL, expected text", file=shown(path))
    elif path.endswith(".json"):
        try:
            decode(content, max_bytes=len(content))
        except InvalidJSON as error:
            yield Problem("invalid_json", error.message, file=shown(path), pointer=error.pointer or "")


def _policy_problems(piece: Piece, policy: Policy, names: Names, checker: Checker) -> Iterator[Problem]:
    if not policy.actions:
        yield _problem(piece, "invalid_policy", "no action is named, so the policy can never apply", "/actions")
    if abs(policy.priority) > _MAX_PRIORITY:
        words = f"priority {policy.priority} is out of range, expected -{_MAX_PRIORITY} to {_MAX_PRIORITY}"
        yield _problem(piece, "invalid_policy", words, "/priority")
    if policy.type is PolicyType.SCOPE:
        schema = policy.parameters.get("schema")
        yield from checker.schema_problems(piece, schema, "/parameters/schema")
    yield from _condition_problems(piece, policy.conditions, names)
    if not isinstance(policy.conditions.parameters, UnsetType):
        yield from checker.schema_problems(piece, policy.conditions.parameters, "/conditions/parameters")


def _condition_problems(piece: Piece, conditions: Conditions, names: Names) -> Iterator[Problem]:
    for field in ("risk_tiers", "agents", "capabilities"):
        if getattr(conditions, field) == ():
            words = f"`{field}` lists nothing, so the conditions can never hold; leave it out to mean any"
            yield _problem(piece, "invalid_condition", words, f"/conditions/{field}")
    if not isinstance(conditions.capabilities, UnsetType) and names.is_alone:
        for index, capability in enumerate(conditions.capabilities):
            if capability not in names.capabilities:
                words = f"capability `{shown(capability)}` is not declared{names.guess(capability, names.capabilities)}"
                yield _problem(piece, "unknown_capability", words, f"/conditions/capabilities/{index}")
    if not isinstance(conditions.time_window, UnsetType):
        window, pointer = conditions.time_window, "/conditions/time_window"
        if not window.days:
            yield _problem(piece, "invalid_condition", "no day is listed, so the window never opens", f"{pointer}/days")
        if not time_zone_exists(window.timezone):
            words = f"time zone `{shown(window.timezone)}` does not exist, expected a name as in `Europe/Berlin`"
            yield _problem(piece, "invalid_condition", words, f"{pointer}/timezone")


def time_zone_exists(name: str) -> bool:
    """Say whether the IANA database has this zone; names that mean another zone on another machine do not count."""
    segments = name.split("/")
    if name in ("localtime", "posixrules", "Factory") or segments[0] in ("posix", "right"):
        return False
    if not all(
        segment and segment.replace("_", "").replace("-", "").replace("+", "").isalnum() for segment in segments
    ):
        return False
    # PERF: 4 ms to import; few atlases have hours.
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return False
    return True


def is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def matches_any(glob: str, names: set[str]) -> bool:
    """Say whether a glob or plain id names at least one of `names`."""
    return any(glob_match(glob, name) for name in names) if is_glob(glob) else glob in names
