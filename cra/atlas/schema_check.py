"""A JSON Schema, checked when it is loaded and ready to judge values."""

from collections.abc import Callable
from functools import cache
from typing import Any

from cra._core import report
from cra._core.schema import Schema
from cra.errors import InvalidInput

__all__ = ["ParameterSchema"]


class ParameterSchema:
    """One schema of an atlas (draft 2020-12), read once; the argument is copied, later changes to it mean nothing.

    `matches` says whether a JSON value fits; it is the compiled check itself, so that calling it costs nothing extra.
    Both it and `errors` raise `InvalidInput` when a value makes the schema take too many steps: that is neither a yes
    nor a no. `format` and `content*` are annotations, as the specification has it.

    A schema is refused, with `InvalidInput`, when it breaks the metaschema, names another dialect, refers to anything
    outside itself and the metaschemas (nothing is ever fetched), leads back to itself without going deeper into the
    value, or has a pattern that could take more than linear time (lookaround, back-references).
    """

    __slots__ = ("_schema", "matches")

    matches: Callable[[Any], bool]

    def __init__(self, schema: Any) -> None:
        compiled, issues = _compile(schema)
        if compiled is None:
            pointer, words = issues[0]
            more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
            raise InvalidInput(
                f"schema{pointer and f' at `{_shown(pointer)}`'}: {words}{more}",
                pointer=pointer,
                hint="expected a schema of JSON Schema draft 2020-12 that refers only to itself",
                details={"problems": [{"pointer": where, "message": what} for where, what in issues]},
            )
        self._schema = compiled
        self.matches = compiled.matches

    def first_error(self, value: Any) -> tuple[str, str] | None:
        """Return the JSON pointer and the words of the first of `errors`, or None."""
        return next(iter(self.errors(value)), None)

    def errors(self, value: Any) -> list[tuple[str, str]]:
        """Return (JSON pointer, words) for everything wrong with a value, outermost places first; at most 500.

        The order does not depend on that of the keys. Words name properties and types, never the value's own strings
        and numbers, so they may be recorded where the parameters may not.
        """
        from cra.atlas._schema_reader import pointer_to

        return [(pointer_to(path), words) for path, words in report.errors(self._schema, value)]

    @staticmethod
    def problems(schema: Any) -> list[tuple[str, str]]:
        """Return (JSON pointer, words) for everything that keeps `schema` from being used, in the order of pointers."""
        return _compile(schema)[1]


# PERF: the reader and the metaschema take 10 ms to import and are needed only when an atlas is loaded.
def _compile(schema: Any) -> tuple[Schema | None, list[tuple[str, str]]]:
    from cra.atlas._metaschema import DOCUMENTS
    from cra.atlas._schema_reader import copied, read_schema

    issues: list[tuple[str, str]] = []
    own = copied(schema, issues)
    if not issues:
        issues = _judge(own)
    if issues:
        return None, sorted(set(issues))
    return read_schema(own, DOCUMENTS, _judge)


def _judge(schema: Any) -> list[tuple[str, str]]:
    """Return what the metaschema says against a schema."""
    from cra.atlas._schema_reader import pointer_to

    try:
        return [(pointer_to(path), words) for path, words in report.errors(_metaschema(), schema)]
    except InvalidInput as error:
        return [("", error.message)]


@cache
def _metaschema() -> Schema:
    from cra.atlas._metaschema import DIALECT, DOCUMENTS
    from cra.atlas._schema_reader import read_schema

    compiled, issues = read_schema({"$ref": DIALECT}, DOCUMENTS)
    if compiled is None:
        raise AssertionError(issues)
    return compiled


def _shown(text: str) -> str:
    text = text if len(text) <= 80 else text[:77] + "..."
    return "".join(c if c.isprintable() and c != "`" else f"\\u{ord(c):04x}" for c in text)
