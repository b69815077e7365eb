"""Canonical JSON: RFC 8785, with integers of any size written exactly."""

import hashlib
import json
import math
from typing import Any

MAX_DEPTH = 128
SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class NotCanonical(ValueError):
    """A value without a canonical form; `pointer` is the RFC 6901 pointer of the place.

    Where an object's key is at fault, the pointer is that of the object: a bad key has no pointer of its own.
    """

    def __init__(self, message: str, pointer: str) -> None:
        super().__init__(f"{message} at `{pointer}`")
        self.pointer = pointer


def dumps(value: Any) -> bytes:
    """Return the one canonical text of `value` as UTF-8."""
    return _write(value, "", 0).encode("utf-8")


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical text, in lower-case hexadecimal."""
    return hashlib.sha256(dumps(value)).hexdigest()


def loads(text: bytes) -> Any:
    """Read strict JSON: UTF-8, no duplicate keys, no NaN or infinities, no lone surrogates, integers exact."""
    value = json.loads(
        text.decode("utf-8"),
        object_pairs_hook=_no_duplicates,
        parse_int=integer,
        parse_constant=_no_constant,
    )
    dumps(value)  # refuses lone surrogates, numbers beyond the range of a double, and too deep a nesting
    return value


def is_canonical(text: bytes) -> bool:
    """Tell whether `text` is exactly what `dumps` writes for the value it stands for."""
    try:
        return dumps(loads(text)) == text
    except (ValueError, RecursionError):
        return False


def _write(value: Any, pointer: str, depth: int) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return string(value, pointer)
    if isinstance(value, int):
        return decimal(value)
    if isinstance(value, float):
        return number(value, pointer)
    if isinstance(value, (list, tuple)):
        _check_depth(depth + 1, pointer)
        return "[" + ",".join(_write(item, f"{pointer}/{i}", depth + 1) for i, item in enumerate(value)) + "]"
    if isinstance(value, dict):
        _check_depth(depth + 1, pointer)
        return "{" + ",".join(_members(value, pointer, depth + 1)) + "}"
    raise NotCanonical(f"a {type(value).__name__} is not JSON", pointer)


def _members(value: dict[Any, Any], pointer: str, depth: int) -> list[str]:
    for key in value:
        if not isinstance(key, str):
            raise NotCanonical("a key is not a string", pointer)
        string(key, pointer)
    return [
        string(key, pointer) + ":" + _write(value[key], f"{pointer}/{_escape_token(key)}", depth)
        for key in sorted(value, key=utf16_units)
    ]


def utf16_units(key: str) -> bytes:
    """Return what keys are sorted by: their UTF-16 code units (big-endian bytes compare the same way)."""
    return key.encode("utf-16-be")


def string(value: str, pointer: str = "") -> str:
    """Write a string: escape `"`, `\\` and what is below U+0020, and nothing else; refuse lone surrogates."""
    out = []
    for char in value:
        if "\ud800" <= char <= "\udfff":
            raise NotCanonical("a lone surrogate has no UTF-8 form", pointer)
        if char in SHORT_ESCAPES:
            out.append(SHORT_ESCAPES[char])
        elif char < "\x20":
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def decimal(value: int) -> str:
    """Write an integer of any size: an optional minus and its decimal digits (Python's `str` stops at 4,300)."""
    if value < 0:
        return "-" + decimal(-value)
    base = 10**1000
    groups = []
    while value >= base:
        value, low = divmod(value, base)
        groups.append(f"{low:01000d}")
    return int.__str__(value) + "".join(reversed(groups))


def integer(text: str) -> int:
    """Read what `decimal` writes, of any length."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    value = 0
    for start in range(0, len(digits), 1000):
        group = digits[start : start + 1000]
        value = value * 10 ** len(group) + int(group)
    return sign * value


def number(value: float, pointer: str = "") -> str:
    """Write a double the way ECMAScript's Number::toString does: the shortest digits that read back the same."""
    if math.isnan(value) or math.isinf(value):
        raise NotCanonical("NaN and infinities are not JSON", pointer)
    if value == 0:
        return "0"
    if value < 0:
        return "-" + number(-value, pointer)
    digits, point = _shortest(value)
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    mantissa = digits if count == 1 else digits[0] + "." + digits[1:]
    return f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _shortest(value: float) -> tuple[str, int]:
    """Return digits d1..dn (first and last not 0) and `point` with value = 0.d1..dn * 10**point."""
    mantissa, _, exponent = float.__repr__(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    point = len(whole) + int(exponent or "0")
    leading = len(digits) - len(digits.lstrip("0"))
    return digits.strip("0"), point - leading


def _check_depth(depth: int, pointer: str) -> None:
    if depth > MAX_DEPTH:
        raise NotCanonical(f"arrays and objects are nested deeper than {MAX_DEPTH}", pointer)


def _escape_token(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("an object has the same key twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
