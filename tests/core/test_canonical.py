"""Canonical JSON against a slow reference, RFC 8785's own vectors, and a reader."""

import enum
import hashlib
import json
import math
import struct
import sys
from collections import OrderedDict
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cra._core.canonical import digest, dumps
from cra.errors import NotCanonical

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
ESCAPES = st.text(alphabet='"\\/\x00\x08\t\n\x0b\x0c\r\x1f \x7fé\ue000\uffff😀', max_size=24)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FLOATS | TEXT | ESCAPES,
    lambda children: st.lists(children, max_size=6) | st.dictionaries(TEXT | ESCAPES, children, max_size=6),
    max_leaves=30,
)


def _number(value: float) -> str:
    """ECMAScript's Number::toString, from the shortest digits that Python finds."""
    if value == 0:
        return "0"
    if value < 0:
        return "-" + _number(-value)
    parts = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(parts.exponent, int)
    s = "".join(map(str, parts.digits))
    k = len(s)
    n = k + parts.exponent
    if k <= n <= 21:
        return s + "0" * (n - k)
    if 0 < n <= 21:
        return s[:n] + "." + s[n:]
    if -6 < n <= 0:
        return "0." + "0" * -n + s
    e = f"e{n - 1:+d}"
    return s + e if k == 1 else f"{s[0]}.{s[1:]}{e}"


def _reference(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            return str(Decimal(value))
        case float():
            return _number(value)
        case dict():
            members = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
            return "{" + ",".join(f"{_reference(k)}:{_reference(v)}" for k, v in members) + "}"
        case list():
            return "[" + ",".join(map(_reference, value)) + "]"
    raise AssertionError(value)


@given(VALUES)
def test_any_value_is_written_as_the_reference_writes_it(value: object) -> None:
    assert dumps(value).decode() == _reference(value)


def _same(read: object, written: object) -> bool:
    match written:
        case float():  # whole ones are read as int, perhaps with other digits than the double has
            return isinstance(read, int | float) and float(read) == written
        case list():
            return isinstance(read, list) and len(read) == len(written) and all(map(_same, read, written))
        case dict():
            return (
                isinstance(read, dict)
                and read.keys() == written.keys()
                and all(_same(read[k], written[k]) for k in read)
            )
    return read == written and type(read) is type(written)


@given(VALUES)
@example(4.693567566222969e16)
def test_what_is_written_reads_back_as_the_same_value(value: object) -> None:
    assert _same(json.loads(dumps(value)), value)
    assert dumps(json.loads(dumps(value))) == dumps(value)


@given(VALUES)
def test_the_digest_is_the_sha_256_of_the_bytes(value: object) -> None:
    assert digest(value) == hashlib.sha256(dumps(value)).hexdigest()


@given(FLOATS)
@example(5e-324)
@example(1e21)
@example(123456789012345680000.0)
@example(-1e-7)
@example(2.0**53)
def test_a_number_reads_back_exactly_and_has_the_ecmascript_form(value: float) -> None:
    text = dumps(value).decode()
    assert text == _number(value)
    assert float(text) == value


# RFC 8785, appendix B.
RFC_8785_NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


@pytest.mark.parametrize(("bits", "text"), RFC_8785_NUMBERS.items())
def test_the_numbers_of_rfc_8785_are_written_as_it_says(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert dumps(value).decode() == text


def test_the_keys_of_rfc_8785_are_sorted_as_it_says() -> None:
    keys = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    order = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(dumps(keys))) == order


def test_the_sample_of_rfc_8785_is_written_as_it_says() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert dumps(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


@given(st.lists(st.text(alphabet="ab\x00\ud7ff\ue000\uffff\U00010000😀", max_size=12), unique=True, max_size=60))
def test_keys_are_sorted_by_utf_16_code_units_however_many_and_long(keys: list[str]) -> None:
    expected = sorted(keys, key=lambda key: key.encode("utf-16-be"))
    assert list(json.loads(dumps(dict.fromkeys(keys)))) == expected


def test_a_large_object_is_sorted_and_nested_objects_survive_the_growth_of_the_scratch() -> None:
    value = {f"k{i * 7919 % 5003}": {f"x{j}": j for j in range(i % 40)} for i in range(5003)}
    assert dumps(value).decode() == json.dumps(value, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("digits", [18, 19, 20, 639, 640, 4300, 4301, 20_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_of_any_size_is_written_exactly(digits: int, sign: int) -> None:
    assert dumps(sign * 10**digits) == b"-"[: sign < 0] + b"1" + b"0" * digits
    assert dumps(sign * (10**digits - 1)) == b"-"[: sign < 0] + b"9" * digits


def test_a_large_integer_is_written_under_the_strictest_digit_limit() -> None:
    before = sys.get_int_max_str_digits()
    value = 7**5000
    sys.set_int_max_str_digits(0)
    expected = str(value)
    try:
        sys.set_int_max_str_digits(640)
        assert dumps(value).decode() == expected
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("value", [0, 9, 10, 99, 100, 2**31, 2**63 - 1, -(2**63), 2**63, 2**64, -1])
def test_integers_at_the_edges_of_machine_words_are_exact(value: int) -> None:
    assert dumps(value).decode() == str(value)


class _Colour(enum.StrEnum):
    RED = "red"


class _Level(enum.IntEnum):
    HIGH = 3


class _Half(float):
    def __repr__(self) -> str:
        return "half"


def test_subclasses_are_written_as_what_they_extend() -> None:
    value = OrderedDict([(_Colour.RED, _Level.HIGH), ("half", _Half(0.5)), ("pair", (1, (2,)))])
    assert dumps(value) == b'{"half":0.5,"pair":[1,[2]],"red":3}'


@pytest.mark.parametrize(
    ("value", "pointer", "message"),
    [
        (math.nan, "", "number is `nan`"),
        ({"a": [0, {"b/~": math.inf}]}, "/a/1/b~1~0", "number is `inf`"),
        ({"text": ["ok", "a\ud800"]}, "/text/1", "lone surrogate at index 1"),
        ({"a": {"\udc00": 1}}, "/a", "lone surrogate at index 0"),
        ([{1: 2}], "/0", "key has type `int`"),
        ([b"bytes"], "/0", "type `bytes`"),
        ({"a": (1, {2})}, "/a/1", "type `set`"),
        (Decimal(1), "", "type `Decimal`"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value: object, pointer: str, message: str) -> None:
    with pytest.raises(NotCanonical, match=message) as caught:
        dumps(value)
    assert caught.value.pointer == pointer
    assert caught.value.hint


class _Twin(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def test_two_keys_with_the_same_text_are_refused() -> None:
    with pytest.raises(NotCanonical, match="key twice") as caught:
        dumps({"outer": {_Twin("same"): 1, _Twin("same"): 2}})
    assert caught.value.pointer == "/outer/same"


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}])
def test_nesting_is_bounded_at_128_levels(wrap: object) -> None:
    value: object = 1
    for _ in range(128):
        value = wrap(value)  # type: ignore[operator]
    assert json.loads(dumps(value))
    with pytest.raises(NotCanonical, match="more than 128 deep"):
        dumps(wrap(value))  # type: ignore[operator]


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[object] = []
    value.append({"self": value})
    with pytest.raises(NotCanonical, match="more than 128 deep"):
        dumps(value)


def test_a_refused_value_keeps_no_reference_to_its_parts() -> None:
    held = f"a text that nothing else holds, {id(object())}"
    before = sys.getrefcount(held)
    for _ in range(10):
        with pytest.raises(NotCanonical):
            dumps({"a": {held: held, "z": object()}})
    assert sys.getrefcount(held) == before


@given(st.integers(0, 40), st.sampled_from(['"', "\\", "\x1f", "\n", "é", "😀", "\x7f"]), st.integers(0, 40))
def test_a_character_is_escaped_alike_wherever_it_stands(before: int, character: str, after: int) -> None:
    text = "x" * before + character + "y" * after
    assert dumps(text).decode() == _reference(text)
