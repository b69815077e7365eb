"""The shape of a manifest: its parts as structs, or every way in which they break the schema."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cra.atlas._parts import Parts, Piece, count_nodes, escape, json_type
from cra.atlas._tree import MANIFEST, shown
from cra.atlas.bounds import Bounds
from cra.errors import Problem
from cra.protocol import atlas
from cra.protocol.atlas import SEMVER_PATTERN, Action, Capability, ContextPack, Manifest, Policy, PolicyType
from cra.protocol.explain import explain

# PERF: jsonschema takes 60 ms to import and is needed only to explain what is wrong.
if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

T = TypeVar("T", bound=msgspec.Struct)

KINDS: dict[str, type[msgspec.Struct]] = {
    "actions": Action,
    "capabilities": Capability,
    "context_packs": ContextPack,
    "policies": Policy,
}
_PARAMETERS: dict[PolicyType, type[msgspec.Struct]] = {
    PolicyType.ALLOW: atlas.ReasonParameters,
    PolicyType.DENY: atlas.ReasonParameters,
    PolicyType.REQUIRE_APPROVAL: atlas.ReasonParameters,
    PolicyType.REQUIRES_APPROVAL: atlas.ReasonParameters,
    PolicyType.RATE_LIMIT: atlas.RateLimitParameters,
    PolicyType.BUDGET: atlas.BudgetParameters,
    PolicyType.SCOPE: atlas.ScopeParameters,
}
# PERF: the structs say yes in microseconds; jsonschema, asked only where they say no, takes about 20 us a value.
# So that a hostile manifest cannot keep it busy, it explains at most this many values; beyond, the struct's one error.
_EXPLAINED_NODES = 20_000


class Shape(msgspec.Struct):
    """What has the right shape: the head (as a manifest without lists), and the pieces with where they stand."""

    head: Manifest | None
    actions: list[tuple[Piece, Action]]
    capabilities: list[tuple[Piece, Capability]]
    context_packs: list[tuple[Piece, ContextPack]]
    policies: list[tuple[Piece, Policy]]
    problems: list[Problem]

    def manifest(self) -> Manifest | None:
        """Return the effective manifest, of all that has the right shape."""
        if self.head is None:
            return None
        return msgspec.structs.replace(
            self.head,
            actions=tuple(action for _, action in self.actions),
            capabilities=tuple(capability for _, capability in self.capabilities),
            context_packs=tuple(pack for _, pack in self.context_packs),
            policies=tuple(policy for _, policy in self.policies),
        )


def shape_of(parts: Parts, bounds: Bounds) -> Shape:
    """Turn parts into structs, with a problem for everything that breaks the schema."""
    work = _Work(bounds.max_problems)
    head = None
    if parts.head is not None:
        piece = Piece(MANIFEST, "", parts.head)
        head = work.convert(piece, Manifest, "")
    most = {
        "actions": bounds.max_actions,
        "capabilities": bounds.max_capabilities,
        "context_packs": bounds.max_context_packs,
        "policies": bounds.max_policies,
    }
    found: dict[str, list[Any]] = {}
    for section, kind in KINDS.items():
        pieces = parts.pieces[section]
        if len(pieces) > most[section]:
            words = f"there are {len(pieces)} {section}, expected at most {most[section]}"
            work.problems.append(Problem("too_large", words, pointer=f"/{section}"))
            pieces = []
        converted = ((piece, work.convert(piece, kind, kind.__name__)) for piece in pieces)
        found[section] = [(piece, struct) for piece, struct in converted if struct is not None]
    return Shape(head, **found, problems=work.problems)


class _Work:
    """One pass over the parts, and how much explaining it may still do."""

    def __init__(self, max_problems: int) -> None:
        self.problems: list[Problem] = []
        self.problems_left = max_problems
        self.nodes_left = _EXPLAINED_NODES

    def convert(self, piece: Piece, kind: type[T], definition: str) -> T | None:
        """Return the struct of one piece, or None with its problems noted."""
        try:
            struct = msgspec.convert(piece.value, kind, strict=True)
        except msgspec.ValidationError as error:
            self._explain(piece, definition, error, kind)
            return None
        if isinstance(struct, Policy):
            try:
                msgspec.convert(struct.parameters, _PARAMETERS[struct.type], strict=True)
            except msgspec.ValidationError as error:
                self._explain(piece, definition, error, _PARAMETERS[struct.type], "/parameters")
                return None
        return struct

    def _explain(
        self, piece: Piece, definition: str, error: msgspec.ValidationError, kind: Any, inner: str = ""
    ) -> None:
        if self.problems_left <= 0:
            return
        found = []
        nodes = count_nodes(piece.value, self.nodes_left)
        if nodes <= self.nodes_left:
            self.nodes_left -= nodes
            found = sorted(set(_violations(piece.value, definition)))
        if not found:
            words, pointer = explain(error, kind)
            found = [(inner + pointer, words)]
        self.problems_left -= len(found)
        file = shown(piece.file)
        self.problems += [Problem("schema", words, file=file, pointer=piece.pointer + inner) for inner, words in found]


@cache
def _validator(definition: str) -> "Validator":
    from jsonschema import Draft202012Validator

    from cra.protocol.schema import schemas

    document = schemas()["atlas-manifest"]
    if definition:
        document = {"$schema": document["$schema"], "$ref": f"#/$defs/{definition}", "$defs": document["$defs"]}
    return Draft202012Validator(document)


def _violations(value: Any, definition: str) -> Iterator[tuple[str, str]]:
    """Yield the pointer and the words of every violation of the committed schema."""
    for error in _validator(definition).iter_errors(value):
        steps = [escape(str(step)) for step in error.absolute_path]
        for step, words in _words(error):
            yield "".join("/" + step for step in [*steps, *([escape(step)] if step else [])]), words


def _words(error: "ValidationError") -> Iterator[tuple[str, str]]:
    """Yield what an error says, each with the step below its place that it is about."""
    rule: Any = error.validator_value
    value: Any = error.instance
    schema: Any = error.schema
    match error.validator:
        case "required":
            yield from (("", f"`{name}` is missing") for name in rule if name not in value)
        case "additionalProperties":
            known = schema["properties"]
            for name in value:
                if name not in known:
                    yield name, f"`{shown(name)}` is unknown, expected {_listed(sorted(known))}"
        case "type":
            yield "", f"{json_type(value)} found, expected {_type_words(rule)}"
        case "enum":
            yield "", f"{_quoted(value)} found, expected {_listed(rule, ' or ')}"
        case "anyOf":
            choices = " or ".join(dict.fromkeys(_choice_words(choice) for choice in rule))
            yield "", f"{_quoted(value)} found, expected {choices}"
        case "pattern":
            step = value if "propertyNames" in error.absolute_schema_path else ""
            yield step, f"{_quoted(value)} found, expected {_pattern_words(rule)}"
        case keyword:
            yield "", f"{_quoted(value)} found, expected {_BOUNDS.get(str(keyword), _other(str(keyword)))(rule)}"


def _other(keyword: str) -> Callable[[Any], str]:
    return lambda rule: f"{keyword} {json.dumps(rule)}"


_BOUNDS: dict[str, Callable[[Any], str]] = {
    "minimum": lambda rule: f"at least {rule}",
    "maximum": lambda rule: f"at most {rule}",
    "exclusiveMinimum": lambda rule: f"more than {rule}",
    "exclusiveMaximum": lambda rule: f"less than {rule}",
    "minLength": lambda rule: f"at least {rule} character{'s' * (rule != 1)}",
    "maxLength": lambda rule: f"at most {rule} characters",
    "minItems": lambda rule: f"at least {rule} item{'s' * (rule != 1)}",
    "maxItems": lambda rule: f"at most {rule} items",
}


def _type_words(rule: str | list[str]) -> str:
    articles = {"object": "an object", "array": "an array", "integer": "an integer", "null": "null"}
    return " or ".join(articles.get(name, f"a {name}") for name in ([rule] if isinstance(rule, str) else rule))


def _choice_words(choice: dict[str, Any]) -> str:
    if "enum" in choice:
        return _listed(choice["enum"], " or ")
    words = _type_words(choice["type"]) if "type" in choice else "something else"
    bounds = [_BOUNDS[keyword](choice[keyword]) for keyword in sorted(choice.keys() & _BOUNDS.keys(), reverse=True)]
    return f"{words} of {' and '.join(bounds)}" if bounds else words


def _pattern_words(pattern: str) -> str:
    if pattern == SEMVER_PATTERN:
        return "a SemVer 2.0.0 version, as in `1.4.0`"
    return f"text that matches `{pattern.removesuffix('(?!' + chr(92) + 'n)')}`"


def _listed(values: list[Any], last: str = ", ") -> str:
    quoted = [f"`{value}`" for value in values]
    return last.join([*[", ".join(quoted[:-1])] * (len(quoted) > 1), quoted[-1]])


def _quoted(value: Any) -> str:
    if isinstance(value, dict | list):
        return json_type(value)
    return f"`{shown(value if isinstance(value, str) else json.dumps(value), 60)}`"
