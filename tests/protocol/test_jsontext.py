"""Strict JSON text: everything readers disagree about is refused, with its place."""

import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra.errors import InvalidJSON
from cra.protocol import jsontext
from cra.protocol.jsontext import MAX_DEPTH, MAX_INTEGER_DIGITS, decode

SUITE = json.loads((Path(__file__).parents[1] / "data/json-test-suite/parsing.json").read_text())

# What the suite leaves open, or allows, and this reader refuses: overflow, duplicates, lone surrogates, encodings.
REFUSED_HERE = {
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
    "i_number_huge_exp.json",
    "i_number_neg_int_huge_exp.json",
    "i_number_pos_double_huge_exp.json",
    "i_number_real_neg_overflow.json",
    "i_number_real_pos_overflow.json",
    "i_object_key_lone_2nd_surrogate.json",
    "i_string_1st_surrogate_but_2nd_missing.json",
    "i_string_1st_valid_surrogate_2nd_invalid.json",
    "i_string_UTF-16LE_with_BOM.json",
    "i_string_incomplete_surrogate_and_escape_valid.json",
    "i_string_incomplete_surrogate_pair.json",
    "i_string_incomplete_surrogates_escape_valid.json",
    "i_string_invalid_lonely_surrogate.json",
    "i_string_invalid_surrogate.json",
    "i_string_inverted_surrogates_U+1D11E.json",
    "i_string_lone_second_surrogate.json",
    "i_string_utf16BE_no_BOM.json",
    "i_string_utf16LE_no_BOM.json",
    "i_structure_500_nested_arrays.json",
    "i_structure_UTF-8_BOM_empty_object.json",
}


def refusal(data: bytes | str, **bounds: int) -> InvalidJSON:
    with pytest.raises(InvalidJSON) as caught:
        decode(data, **bounds)
    message = caught.value.message
    assert "\n" not in message
    assert not message.endswith(".")
    assert len(message) < 300
    message.encode()
    return caught.value


@pytest.mark.parametrize("case", SUITE, ids=lambda case: case["name"])
def test_the_json_test_suite_is_read_as_it_says(case: dict[str, str]) -> None:
    text, name = case["input"], case["name"]
    if name.startswith("n_") or name in REFUSED_HERE:
        refusal(text)
        if text.isprintable():
            refusal(text.encode())
    else:
        expected = json.loads(text)
        assert decode(text) == expected
        assert decode(text.encode()) == expected


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"\xff", 0),
        (b'"\xff"', 1),
        (b'"\xc0\xaf"', 1),
        (b'"\xed\xa0\x80"', 1),
        (b'"\xf4\x90\x80\x80"', 1),
        (b'"\xe2\x82"', 1),
        (b'["a", "\x80"]', 7),
        (b'{"a":1}\xfe', 7),
        ("{}".encode("utf-16"), 0),
        ('"\u00e9"'.encode("latin-1"), 1),
    ],
)
def test_bytes_that_are_not_utf8_are_refused_with_their_offset(data: bytes, offset: int) -> None:
    error = refusal(data)
    assert error.message == f"byte {offset} is not UTF-8"
    assert error.details["offset"] == offset


@pytest.mark.parametrize(
    ("text", "message", "pointer"),
    [
        ('{"a":1,"a":1}', "key `a` appears twice", "/a"),
        ('{"a":1,"\\u0061":2}', "key `a` appears twice", "/a"),
        ('{"":1,"":2}', "key `` appears twice", "/"),
        ('{"x":[0,{"a/b":1,"c":2,"a/b":3}]}', "key `a/b` appears twice at `/x/1`", "/x/1/a~1b"),
        ('{"~":{"k":1,"k":2}}', "key `k` appears twice at `/~0`", "/~0/k"),
        ('[[],{},[{"k":1,"k":2}]]', "key `k` appears twice at `/2/0`", "/2/0/k"),
        ('{"a":{"b":{}},"a":{"c":1,"c":2}}', "key `a` appears twice", "/a"),
        ('{"a`\\n":1,"a`\\n":2}', "key `a\\u0060\\u000a` appears twice", "/a`\n"),
        ("NaN", "`NaN` is not JSON", ""),
        ('{"a":[1,Infinity]}', "`Infinity` is not JSON at `/a/1`", "/a/1"),
        ('{"a":-Infinity}', "`-Infinity` is not JSON at `/a`", "/a"),
        ("[1e308,1e309]", "number is too large for a double at `/1`", "/1"),
        ('{"x":{"y":-1e999}}', "number is too large for a double at `/x/y`", "/x/y"),
        ('[1e999,{"a":1,"a":2}]', "number is too large for a double at `/0`", "/0"),
        ('"\\ud800"', "string has a lone surrogate", ""),
        ('["a","\\udfff\\ud800"]', "string has a lone surrogate at `/1`", "/1"),
        ('{"a":{"\\udead":1}}', "key has a lone surrogate at `/a`", "/a"),
        ("[" + "9" * 4301 + "]", "integer has 4301 digits, expected at most 4300 at `/0`", "/0"),
        ("-" + "9" * 5000, "integer has 5000 digits, expected at most 4300", ""),
    ],
)
def test_what_readers_disagree_about_is_refused_with_a_pointer(text: str, message: str, pointer: str) -> None:
    for data in (text, text.encode()):
        error = refusal(data)
        assert (error.message, error.pointer) == (message, pointer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "JSON text is empty"),
        (" \n ", "text ends where a value is expected at line 2 column 2"),
        ("\ufeff{}", "byte order mark at line 1 column 1"),
        ("{}\ufeff", "more text after the value at line 1 column 3"),
        ("1 2", "more text after the value at line 1 column 3"),
        ("{} {}", "more text after the value at line 1 column 4"),
        ("01", "more text after the value at line 1 column 2"),
        ("1.", "more text after the value at line 1 column 2"),
        (".5", "expected a value at line 1 column 1"),
        ("+1", "expected a value at line 1 column 1"),
        ("[1,]", "expected a value at line 1 column 4"),
        ('{"a": 1, }', "expected property name enclosed in double quotes at line 1 column 10"),
        ("[,1]", "expected a value at line 1 column 2"),
        ("[", "text ends where a value is expected at line 1 column 2"),
        ('{"a":', "text ends where a value is expected at line 1 column 6"),
        ("\x00", "expected a value at line 1 column 1"),
        ("\u00a01", "expected a value at line 1 column 1"),
        ("1\u2028", "more text after the value at line 1 column 2"),
        ('{\n "a": tru}', "expected a value at line 2 column 7"),
        ("'a'", "expected a value at line 1 column 1"),
        ("// no\n1", "expected a value at line 1 column 1"),
        ("\ud800", "lone surrogate at line 1 column 1"),
        ('"a\nb"', "invalid control character at line 1 column 3"),
        ('"abc', "unterminated string at line 1 column 1"),
    ],
)
def test_broken_grammar_is_refused_with_line_and_column(text: str, message: str) -> None:
    assert refusal(text).message == message


def test_the_offset_of_an_error_counts_bytes() -> None:
    error = refusal('["\u00e9\U0001f600",\n x]')
    assert error.details == {"line": 2, "column": 2, "offset": 12}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("1.0", 1.0),
        ("1e0", 1.0),
        ("1E+2", 100.0),
        ("1e-999", 0.0),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        (' \t\r\n"a"\n', "a"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\\\ud800"', "\\ud800"),
        ('"\\u0000"', "\0"),
        ('"\x7f\u2028"', "\x7f\u2028"),
        ('{"a":{"a":1},"b":{"a":1}}', {"a": {"a": 1}, "b": {"a": 1}}),
        ("null", None),
        ("[true,false]", [True, False]),
    ],
)
def test_strict_json_is_read(text: str, value: object) -> None:
    for data in (text, text.encode()):
        decoded = decode(data)
        assert decoded == value
        assert type(decoded) is type(value)


def test_minus_zero_with_a_fraction_keeps_its_sign() -> None:
    assert math.copysign(1, decode("-0.0")) == -1


def test_an_integer_at_the_bound_is_exact() -> None:
    digits = "7" * MAX_INTEGER_DIGITS
    assert decode(digits) == int(digits)
    assert decode(f"[-{digits}]") == [-int(digits)]


def test_a_lower_bound_of_the_process_is_an_error_too() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        error = refusal("[" + "1" * 700 + "]" + " " * MAX_INTEGER_DIGITS)
        assert error.message == "integer has 700 digits, more than this process converts at `/0`"
        assert refusal("[" + "1" * 700 + "]").message == error.message
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("bracket", ["[", '{"k":'])
def test_depth_is_bounded_exactly(bracket: str) -> None:
    close = "]" if bracket == "[" else "}"

    def nested(depth: int) -> str:
        return bracket * depth + "0" + close * depth

    decode(nested(MAX_DEPTH))
    decode(nested(3), max_depth=3)
    assert "more than 3" in refusal(nested(4), max_depth=3).message
    refusal(nested(MAX_DEPTH + 1))


def test_brackets_side_by_side_or_in_strings_are_not_depth() -> None:
    assert len(decode("[" + "[]," * 999 + "[]]", max_depth=2)) == 1000
    assert decode(json.dumps(["[{" * 500, '\\"[[[[' * 100, "\\"]), max_depth=1)[2] == "\\"


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"":' * 100_000, '[{"":' * 50_000, "[" * 100_000 + "]" * 100_000, '["' + "[" * 9 + "\\"]
)
def test_hostile_nesting_does_not_reach_the_stack(text: str) -> None:
    refusal(text)


def test_a_depth_beyond_the_interpreters_own_is_an_error_of_ours() -> None:
    refusal("[" * 500_000 + "]" * 500_000, max_depth=1_000_000)


def test_size_is_bounded_in_bytes_before_anything_is_read() -> None:
    assert decode('"\u00e9"', max_bytes=4) == "\u00e9"
    for data in ('"\u00e9\u00e9"', b"\xff" * 9):
        error = refusal(data, max_bytes=5)
        assert "expected at most 5" in error.message


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSON_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_what_json_writes_is_read_back(value: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert json.dumps(decode(text)) == json.dumps(value)
    assert json.dumps(decode(text.encode())) == json.dumps(value)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(['"', "\\", "[", "]", "{", "}", ":", ",", "a", "1", "e9", "\\u", "d800", "-", " "])))
def test_any_text_is_read_as_json_reads_it_or_refused(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        value = decode(text)
    except InvalidJSON:
        return
    assert value == json.loads(text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except InvalidJSON as error:
        error.message.encode()


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet='[]{}"\\a,', max_size=60))
def test_the_depth_scan_never_says_less_than_the_parser_reaches(text: str) -> None:
    def reached(text: str) -> int:
        depth = deepest = index = 0
        while index < len(text):
            c = text[index]
            if c == '"':
                index += 1
                while index < len(text) and text[index] != '"':
                    index += 2 if text[index] == "\\" else 1
                if index >= len(text):
                    return deepest  # the string never ends, so no parser gets past it
            depth += (c in "[{") - (c in "]}")
            deepest = max(deepest, depth)
            index += 1
        return deepest

    assert jsontext._depth(text.encode()) >= reached(text)
