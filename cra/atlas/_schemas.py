"""The JSON Schemas inside an atlas: whether they are valid, and whether examples fit them."""

import re
from collections.abc import Iterator
from typing import Any

from cra._core.canonical import dumps
from cra.atlas._parts import Piece, count_nodes
from cra.atlas._tree import shown
from cra.atlas.bounds import Bounds
from cra.atlas.schema_check import ParameterSchema
from cra.errors import InvalidInput, Problem
from cra.protocol.atlas import Action

_REFERENCES = ("/$ref", "/$dynamicRef")
_PROBLEMS_PER_SCHEMA = 50
_COUNTS = re.compile(r"\{([0-9]{1,6}),?([0-9]{0,6})\}")
# What the compiler of patterns refuses by itself.
_MAX_PATTERN_STEPS = 4_000


class Checker:
    """Judges the schemas of one atlas, equal ones once, until its bounds are reached."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        # PERF: judging takes about 15 us a value and 0.5 us a step of a pattern, far more than reading them.
        self._values_left = bounds.max_schema_values
        self._steps_left = bounds.max_pattern_steps
        self._example_steps_left = bounds.max_example_steps
        self._judged: dict[bytes, list[tuple[str, str, str]]] = {}
        self._refused = False

    def schema_problems(self, piece: Piece, schema: Any, pointer: str) -> list[Problem]:
        """Return what is wrong with the schema that stands at `pointer` of a piece."""
        if schema is True or schema is False or schema == {} or self._refused:
            return []
        file, place = shown(piece.file), piece.pointer + pointer
        key = dumps(schema)
        found = self._judged.get(key)
        if found is None:
            if words := self._spend(schema):
                self._refused = True
                return [Problem("too_large", words, file=file, pointer=place)]
            found = [
                (_code(schema, inner), inner, shown(words, 300))
                for inner, words in ParameterSchema.problems(schema)[:_PROBLEMS_PER_SCHEMA]
            ]
            self._judged[key] = found
        return [Problem(code, words, file=file, pointer=place + inner) for code, inner, words in found]

    def action_problems(self, piece: Piece, action: Action) -> Iterator[Problem]:
        """Yield what is wrong with an action's schemas, and which examples its parameters do not fit."""
        schema = action.parameters_schema
        problems = self.schema_problems(piece, schema, "/parameters_schema")
        kinds = schema.get("type", "object")
        if not problems and kinds != "object" and "object" not in kinds:
            words = f"`{shown(str(kinds))}` found, expected `object`: parameters always are one"
            place = piece.pointer + "/parameters_schema/type"
            problems = [Problem("invalid_schema", words, file=shown(piece.file), pointer=place)]
        yield from problems
        if action.examples and not problems and not self._refused:
            yield from self._example_problems(piece, action)
        yield from self.schema_problems(piece, action.returns_schema, "/returns_schema")

    def _example_problems(self, piece: Piece, action: Action) -> Iterator[Problem]:
        check, cost = ParameterSchema(action.parameters_schema), _Cost(action.parameters_schema).steps
        for index, example in enumerate(action.examples):
            place = f"{piece.pointer}/examples/{index}"
            self._example_steps_left -= cost * len(dumps(example))
            if self._example_steps_left < 0:
                self._refused = True
                words = "holding the examples against their schemas takes too many steps; give fewer or smaller ones"
                yield Problem("too_large", words, file=shown(piece.file), pointer=place)
                return
            try:
                errors = check.errors(example)
            except InvalidInput as error:
                errors = [("", error.message)]
            for pointer, words in errors:
                words = f"the example does not fit parameters_schema: {words}"
                yield Problem("invalid_example", words, file=shown(piece.file), pointer=place + pointer)

    def _spend(self, schema: Any) -> str | None:
        """Take what judging a schema costs from the bounds; say which one is used up."""
        self._values_left -= count_nodes(schema, self._values_left)
        if self._values_left < 0:
            return f"the schemas of the atlas have more than {self._bounds.max_schema_values} values together"
        self._steps_left -= sum(map(_pattern_steps, _patterns(schema)))
        if self._steps_left < 0:
            return f"the patterns of the atlas have more than {self._bounds.max_pattern_steps} steps together"
        return None


def _patterns(schema: Any) -> Iterator[str]:
    stack = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if isinstance(pattern := item.get("pattern"), str):
                yield pattern
            if isinstance(named := item.get("patternProperties"), dict):
                yield from named
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _pattern_steps(pattern: str) -> int:
    """Return how large a pattern becomes at most when its counted repetitions are written out."""
    steps = len(pattern)
    for low, high in _COUNTS.findall(pattern):
        steps *= max(int(high or low), 1)
        if steps >= _MAX_PATTERN_STEPS:
            return _MAX_PATTERN_STEPS + len(pattern)
    return steps


class _Cost:
    """How many steps a schema may take for each character of a value, at most; more than `MOST` is `MOST`."""

    MOST = 10_000_000
    _DEEP = 200

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        self.steps = self._of(root, 0)

    def _of(self, item: Any, depth: int) -> int:
        if not isinstance(item, dict | list):
            return 1
        known = self._known.get(id(item))
        if known is not None:
            return known
        if depth > self._DEEP:
            return self.MOST
        # A schema that comes back to itself does so further down in the value, which its size accounts for.
        self._known[id(item)] = 1
        steps = 1
        for name, inner in item.items() if isinstance(item, dict) else enumerate(item):
            if steps >= self.MOST:
                break
            if name in ("$ref", "$dynamicRef") and isinstance(inner, str):
                steps += self._of(self._target(inner), depth + 1)
            elif name == "pattern" and isinstance(inner, str):
                steps += _pattern_steps(inner)
            elif name != "$defs":
                steps += self._of(inner, depth + 1)
        self._known[id(item)] = min(steps, self.MOST)
        return self._known[id(item)]

    def _target(self, reference: str) -> Any:
        """Return what a reference points to; the whole schema where finding it takes more than a pointer."""
        value: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(value, dict) or name not in value:
                return self._root
            value = value[name]
        return value


def _code(schema: Any, pointer: str) -> str:
    """Tell references that lead outside, which are refused on principle, from what is merely wrong."""
    if not pointer.endswith(_REFERENCES):
        return "invalid_schema"
    value = schema
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value.get(name) if isinstance(value, dict) else None
    return "remote_ref" if isinstance(value, str) and not value.startswith("#") else "invalid_schema"
