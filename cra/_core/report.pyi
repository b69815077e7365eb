from typing import Any

from cra._core.schema import Schema

def errors(schema: Schema, value: Any) -> list[tuple[tuple[str | int, ...], str]]: ...
