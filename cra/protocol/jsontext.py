"""Strict JSON text to Python builtins."""

import math
import re
from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate
from json import JSONDecodeError
from json.decoder import JSONDecoder
from typing import Any, NoReturn

import msgspec

from cra.errors import InvalidJSON

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_INTEGER_DIGITS", "decode"]

MAX_BYTES = 16 << 20
# The depth that canonical JSON can write: what is read can be hashed.
MAX_DEPTH = 128
# What Python converts in both directions by default; conversion takes quadratic time, so there must be some bound.
MAX_INTEGER_DIGITS = 4300

_FAST_BYTES = 1 << 20
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * (MAX_INTEGER_DIGITS + 1)
_read = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode
_compact = msgspec.json.format

_SPACE = re.compile(r"[ \t\n\r]*+")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_STEP = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def decode(data: bytes | str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of one strict JSON text (RFC 8259), or raise `InvalidJSON` saying what is wrong and where.

    Beyond the grammar it refuses what readers disagree about: a byte order mark, duplicate keys, NaN and Infinity,
    numbers too large for a float, integers of more than 4300 digits, lone surrogates, anything after the value, more
    than `max_depth` nested arrays and objects. `1` gives an int, `1.0` and `1e0` give a float. `max_bytes` counts
    UTF-8. Time is linear in the size.
    """
    if type(data) is str:
        text = data
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            raise _at(text, error.start, "lone surrogate") from None
    else:
        text = None
        raw = data  # type: ignore[assignment]  # what is neither is refused by `count` below
    if len(raw) > max_bytes:
        raise InvalidJSON(f"JSON text is {len(raw)} bytes long, expected at most {max_bytes}")
    # PERF: counting takes 0.1 us; only a text with that many brackets can be too deep.
    if raw.count(b"[") + raw.count(b"{") > max_depth and _depth(raw) > max_depth:
        raise InvalidJSON(f"JSON text nests more than {max_depth} arrays and objects")
    # PERF: 1.5 us instead of 3.5 for a request. msgspec alone is not strict; but a text that is exactly what it writes
    # for the value it read has no duplicate key, and nothing else that is refused here but long integers.
    if len(raw) <= MAX_INTEGER_DIGITS or (len(raw) <= _FAST_BYTES and _LONG not in raw.translate(_ZEROS)):
        try:
            value = _read(raw)
            written = _write(value)
            if written == raw or written == _compact(raw, indent=-1):
                return value
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass  # the strict pass below says what is wrong, and where
    if text is None:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidJSON(
                f"byte {error.start} is not UTF-8", hint="send JSON as UTF-8", details={"offset": error.start}
            ) from None
    # PERF: a text shorter than the bound cannot hold a longer integer, and is spared a call for each one.
    scan = _scan if len(raw) <= MAX_INTEGER_DIGITS else _scan_bounding_integers
    start = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches the empty string
    try:
        value, end = scan(text, start)
    except StopIteration as error:
        raise _expected_value(text, error.value) from None
    except JSONDecodeError as error:
        raise _syntax(error) from None
    except (_Refused, ValueError):  # ValueError: this process lowered `sys.set_int_max_str_digits`
        _locate(text, start)
    except RecursionError:
        raise InvalidJSON("JSON text nests too deep for the room left on the stack") from None
    if end != len(text):
        end = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # as above
        if end != len(text):
            raise _at(text, end, "more text after the value")
    if "\\u" in text and _SURROGATE_ESCAPE.search(text):
        _refuse_surrogates(value)
    return value


class _Refused(Exception):
    """Something in the text is refused; only the second, slower pass finds out where."""


class _Members:
    """An object in the second pass that is refused, or holds something that is; its members are as written."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


class _Bad:
    """A number in the second pass that is refused."""

    __slots__ = ("words",)

    def __init__(self, words: str) -> None:
        self.words = words


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Refused
    return members


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise _Refused
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_INTEGER_DIGITS and len(text.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise _Refused
    return int(text)


def _constant(text: str) -> NoReturn:
    raise _Refused


class _Marker:
    """The hooks of the second pass: they mark what is refused, and drop objects that end before the first mark."""

    def __init__(self) -> None:
        self.found = False

    def object(self, pairs: list[tuple[str, Any]]) -> _Members | None:
        if not self.found and len(dict(pairs)) == len(pairs):
            return None
        self.found = True
        return _Members(pairs)

    def float(self, text: str) -> _Bad | None:
        return None if math.isfinite(float(text)) else self.bad("number is too large for a double")

    def integer(self, text: str) -> _Bad | None:
        digits = len(text.lstrip("-"))
        if digits > MAX_INTEGER_DIGITS:
            return self.bad(f"integer has {digits} digits, expected at most {MAX_INTEGER_DIGITS}")
        if digits > 640:  # the lowest bound a process can have
            try:
                int(text)
            except ValueError:
                return self.bad(f"integer has {digits} digits, more than this process converts")
        return None

    def constant(self, text: str) -> _Bad:
        return self.bad(f"`{text}` is not JSON")

    def bad(self, words: str) -> _Bad:
        self.found = True
        return _Bad(words)


def _scanner(**hooks: Any) -> Callable[[str, int], tuple[Any, int]]:
    scan: Callable[[str, int], tuple[Any, int]] = JSONDecoder(**hooks).scan_once  # type: ignore[attr-defined]  # not in typeshed
    return scan


# PERF: without `parse_int` the scanner converts integers itself, 60 ns less for each.
_scan = _scanner(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
_scan_bounding_integers = _scanner(
    object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant
)


def _depth(raw: bytes) -> int:
    """Return how deep the brackets outside strings nest; exact wherever a parser could get to."""
    if b'"' in raw:
        raw = _STRING.sub(b"", raw)
    return max(accumulate(array("b", raw.translate(_STEP, _NOT_BRACKETS)), initial=0))


def _locate(text: str, start: int) -> NoReturn:
    """Parse again, keeping what was refused, and raise for the first of it in the order of the text."""
    marker = _Marker()
    scan = _scanner(
        object_pairs_hook=marker.object,
        parse_float=marker.float,
        parse_int=marker.integer,
        parse_constant=marker.constant,
    )
    try:
        value, _ = scan(text, start)
    except StopIteration as error:
        raise _expected_value(text, error.value) from None
    except JSONDecodeError as error:
        raise _syntax(error) from None
    for pointer, item in _walk(value):
        if type(item) is _Bad:
            raise InvalidJSON(f"{item.words}{_where(pointer)}", pointer=pointer)
        if type(item) is _Members:
            seen = set()
            for key, _ in item.pairs:
                if key in seen:
                    place = f"{pointer}/{_escape(key)}"
                    raise InvalidJSON(f"key {_quote(key)} appears twice{_where(pointer)}", pointer=place)
                seen.add(key)
    raise AssertionError("the second pass accepts what the first refused")


def _refuse_surrogates(value: Any) -> None:
    for pointer, item in _walk(value):
        texts = (item,) if type(item) is str else item if type(item) is dict else ()
        for text in texts:
            if not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    what = "string has" if type(item) is str else "key has"
                    raise InvalidJSON(f"{what} a lone surrogate{_where(pointer)}", pointer=pointer) from None


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield everything but plain numbers and constants with its JSON pointer, in the order of the text."""
    stack: list[Iterator[tuple[Any, Any]]] = [iter((("", value),))]
    path: list[str] = []
    plain = (int, float, bool, type(None))
    while stack:
        for key, item in stack[-1]:
            kind = type(item)
            if kind in plain:
                continue
            step = f"/{_escape(key)}" if type(key) is str else f"/{key}"
            pointer = "".join(path) + step if path else ""
            yield pointer, item
            if kind is list:
                stack.append(enumerate(item))
            elif kind is dict:
                stack.append(iter(item.items()))
            elif kind is _Members:
                stack.append(iter(item.pairs))
            else:
                continue
            path.append(step if path else "")
            break
        else:
            stack.pop()
            if path:
                path.pop()


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _quote(text: str) -> str:
    """Return user input for a message: in backticks, on one line, at most 80 characters, always encodable."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return "`" + "".join(c if c.isprintable() and c != "`" else f"\\u{ord(c):04x}" for c in shown) + "`"


def _where(pointer: str) -> str:
    return f" at {_quote(pointer)}" if pointer else ""


def _syntax(error: JSONDecodeError) -> InvalidJSON:
    if error.msg.startswith("Illegal trailing comma"):
        # NOTE: CPython 3.13 tells trailing commas apart and points at the comma; here every version says the same.
        after = _SPACE.match(error.doc, error.pos + 1).end()  # type: ignore[union-attr]  # as above
        if error.doc[after] == "]":
            return _expected_value(error.doc, after)
        return _at(error.doc, after, "expected property name enclosed in double quotes")
    words = error.msg[:1].lower() + error.msg[1:]
    words = words.removesuffix(" at").removesuffix(" starting").replace("expecting", "expected")
    return _at(error.doc, error.pos, words)


def _expected_value(text: str, index: int) -> InvalidJSON:
    if index < len(text):
        if text[index] == "\ufeff":
            return _at(text, index, "byte order mark")
        return _at(text, index, "expected a value")
    return _at(text, len(text), "text ends where a value is expected") if text else InvalidJSON("JSON text is empty")


def _at(text: str, index: int, words: str) -> InvalidJSON:
    line = text.count("\n", 0, index) + 1
    column = index - text.rfind("\n", 0, index)
    offset = len(text[:index].encode("utf-8", "surrogatepass"))
    return InvalidJSON(
        f"{words} at line {line} column {column}", details={"line": line, "column": column, "offset": offset}
    )
