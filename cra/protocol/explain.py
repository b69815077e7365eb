"""Explaining what a value does not fit: msgspec's errors in our words, with the place and what was expected."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from cra.protocol.fields import ACTION_ID_PATTERN, ATLAS_ID_PATTERN, HASH_PATTERN, TIMESTAMP_PATTERN, UUID_PATTERN

_AT = re.compile(r" - at `(?:key in )?(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_CHOICE = re.compile(r"Invalid enum value (.*)$")
# How msgspec quotes patterns, and what they mean.
_PATTERNS = {
    f"`str` matching regex {pattern!r}": words
    for pattern, words in (
        (UUID_PATTERN, "a UUID of 36 lower-case characters"),
        (TIMESTAMP_PATTERN, "an RFC 3339 date-time"),
        (HASH_PATTERN, "64 lower-case hexadecimal digits"),
        (ATLAS_ID_PATTERN, "lower-case words joined by dots"),
        (ACTION_ID_PATTERN, "lower-case words joined by dots"),
    )
}


def explain(error: msgspec.ValidationError, kind: Any) -> tuple[str, str]:
    """Return what is wrong with a value that is no `kind`, as a clause, and the JSON pointer of the place."""
    words, steps = str(error), list[str]()
    match = _AT.search(words)
    if match is not None:
        words = words[: match.start()]
        steps = [name or index for name, index in _STEP.findall(match[1])]
    for pattern, meaning in _PATTERNS.items():
        words = words.replace(pattern, meaning)
    chosen = _CHOICE.match(words)
    choices = list(_choices(kind, steps)) if chosen is not None else []
    if chosen is not None and choices:
        words = f"found `{chosen[1].strip(chr(39))}`, expected one of {', '.join(choices)}"
    return words[:1].lower() + words[1:], "".join(["/" + step.replace("~", "~0").replace("/", "~1") for step in steps])


def _choices(kind: Any, steps: Iterable[str]) -> Iterator[str]:
    """Yield what may stand at a place of a value that is a `kind`, where it is one of several words."""
    from msgspec import inspect

    found = [inspect.type_info(kind)]
    for step in steps:
        found = [inner for one in _alternatives(found) for inner in _inside(one, step)]
    for one in _alternatives(found):
        if isinstance(one, inspect.EnumType):
            yield from (str(member.value) for member in one.cls)
        elif isinstance(one, inspect.LiteralType):
            yield from map(str, one.values)


def _alternatives(types: Iterable[msgspec.inspect.Type]) -> Iterator[msgspec.inspect.Type]:
    from msgspec import inspect

    for one in types:
        if isinstance(one, inspect.Metadata):
            yield from _alternatives([one.type])
        elif isinstance(one, inspect.UnionType):
            yield from _alternatives(one.types)
        else:
            yield one


def _inside(one: msgspec.inspect.Type, step: str) -> Iterator[msgspec.inspect.Type]:
    from msgspec import inspect

    if isinstance(one, inspect.StructType):
        yield from (field.type for field in one.fields if field.encode_name == step)
    elif isinstance(one, inspect.ListType | inspect.VarTupleType | inspect.SetType):
        yield one.item_type
    elif isinstance(one, inspect.DictType):
        yield one.value_type
