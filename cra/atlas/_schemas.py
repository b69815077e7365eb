"""The JSON Schemas inside an atlas: whether they are valid, and whether examples fit them."""

from collections.abc import Iterator
from typing import Any

from cra.atlas._parts import Piece
from cra.atlas._tree import shown
from cra.atlas.schema_check import ParameterSchema
from cra.errors import InvalidInput, Problem
from cra.protocol.atlas import Action

_REFERENCES = ("/$ref", "/$dynamicRef")
_PROBLEMS_PER_SCHEMA = 50


def schema_problems(piece: Piece, schema: Any, pointer: str) -> list[Problem]:
    """Return what is wrong with the schema that stands at `pointer` of a piece."""
    if schema is True or schema is False or schema == {}:
        return []
    file, place = shown(piece.file), piece.pointer + pointer
    return [
        Problem(_code(schema, inner), shown(words, 300), file=file, pointer=place + inner)
        for inner, words in ParameterSchema.problems(schema)[:_PROBLEMS_PER_SCHEMA]
    ]


def action_problems(piece: Piece, action: Action) -> Iterator[Problem]:
    """Yield what is wrong with an action's schemas, and which examples its parameters do not fit."""
    schema = action.parameters_schema
    problems = schema_problems(piece, schema, "/parameters_schema")
    kinds = schema.get("type", "object")
    if not problems and kinds != "object" and "object" not in kinds:
        words = f"`{shown(str(kinds))}` found, expected `object`: parameters always are one"
        place = piece.pointer + "/parameters_schema/type"
        problems = [Problem("invalid_schema", words, file=shown(piece.file), pointer=place)]
    yield from problems
    if action.examples and not problems:
        yield from _example_problems(piece, action)
    yield from schema_problems(piece, action.returns_schema, "/returns_schema")


def _example_problems(piece: Piece, action: Action) -> Iterator[Problem]:
    check = ParameterSchema(action.parameters_schema)
    for index, example in enumerate(action.examples):
        place = f"{piece.pointer}/examples/{index}"
        try:
            errors = check.errors(example)
        except InvalidInput as error:
            errors = [("", error.message)]
        for pointer, words in errors:
            words = f"the example does not fit parameters_schema: {words}"
            yield Problem("invalid_example", words, file=shown(piece.file), pointer=place + pointer)


def _code(schema: Any, pointer: str) -> str:
    """Tell references that lead outside, which are refused on principle, from what is merely wrong."""
    if not pointer.endswith(_REFERENCES):
        return "invalid_schema"
    value = schema
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value.get(name) if isinstance(value, dict) else None
    return "remote_ref" if isinstance(value, str) and not value.startswith("#") else "invalid_schema"
