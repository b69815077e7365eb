"""Texts that have broken somebody's program before, in our own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_SUITE = Path(__file__).parents[1] / "data" / "json-test-suite" / "parsing.json"

# What a string can have in it. Each of them is a good string, and says nothing that a field of ours expects.
STRINGS: tuple[str, ...] = (
    # nothing, nearly nothing, and much
    "", " ", "\t", "\n", ".", "..", "0", "-0", "x" * 255, "x" * 256, "x" * 10_001, "é" * 5000, "\U0001f4a3" * 3000,
    # control characters, each alone; the end of a line in every alphabet
    *"\x01\x07\x08\x0b\x1b\x1f", "\x00", "a\x00b", "\x7f", "\x85", "\u2028", "\u2029",
    "a\r\nX-Injected: 1\r\n\r\nHTTP/1.1 200",
    # from right to left, overridden, isolated, invisible
    "\u202egnp.exe", "\u2066\u2067\u2069", "\u200b\u200c\u200d\ufeff", "\u00ad", "\u061c", "مرحبا", "שלום", "\u180e",
    "\U000e0041",
    # marks upon marks, emoji of many parts, characters beside each other that are not the same
    "Z\u0351\u036b\u0343\u036a\u0302" * 60, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea",
    "é", "e\u0301",
    "\u0430dmin", "admin\u200b", "ａｄｍｉｎ", "ß", "İ", "ı", "ǆ", "Ω", "\ufdfa" * 100, "漢字", "\U0002f804",
    # no characters
    "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\ue000",
    # numbers and words that some parser takes for something
    "NaN", "Infinity", "-Infinity", "1e999", "1E400", "0x10", "1_000", "9" * 5000, "9223372036854775808", "1/0", "null",
    "None", "true", "undefined", "nil", "[object Object]", "__proto__", "constructor", "hasOwnProperty", "__class__",
    # formats and templates
    "%s%s%s%n", "%d", "{}", "{0.__class__}", "{self}", "${7*7}", "#{7*7}", "{{7*7}}", "$(id)", "`id`", "%(x)s",
    "\\x41", "\\u0041",
    # queries, scripts, shells, files
    "' OR '1'='1", "'; DROP TABLE events;--", '"; --', "1; SELECT pg_sleep(60)", "a' UNION SELECT NULL--",
    "$where: '1'",
    "<script>alert(1)</script>", "<!--", "]]>",
    "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>",
    "javascript:alert(1)", "data:text/html,x", "../../../../etc/passwd", "..\\..\\windows\\win.ini", "/etc/passwd",
    "file:///etc/passwd",
    "%2e%2e%2f", "%00", "%c0%ae", "C:\\con", "NUL", "~root", "-rf", "--help", "; ls", "| cat", "& dir", "@@version",
    "=1+1", "@SUM(1)",
    # our own words, in places that they are not for
    "system", "default", "admin", "cra.administration", "cra_default_0123456789abcdef_" + "A" * 43, "cra.retention",
    "*", "**", "a.*",
    "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "{00000000-0000-4000-8000-000000000000}",
    "0" * 64, "sha256:" + "0" * 64, "2026-13-45T99:99:99Z", "0000-00-00T00:00:00Z",
    "9999-12-31T23:59:59.999999999+23:59",
    # patterns that some engine never ends with
    "a" * 4000 + "!", "(a+)+$", "((((((((((x" * 200, "[" * 5000, "\\" * 5000, '"' * 2000,
)  # fmt: skip

# What stands where a string should, as JSON: no string, or one that is none.
VALUES: tuple[str, ...] = (
    "null", "true", "0", "-0", "-0.0", "1.5", "1e400", "-1e400", "1e-400", "9" * 4000, "-" + "9" * 400, "[]", "{}",
    "[[]]", '[""]', '{"":""}',
    '"\\ud800"', '"\\udc00\\ud800"', '"a\\ud800b"', '{"\\ud800":1}', '{"a":1,"a":2}', '{"__proto__":{"a":1}}',
    "[" * 70 + "]" * 70,
    '{"a":' * 70 + "1" + "}" * 70, "[" + "0," * 20_000 + "0]", "NaN", "Infinity", "'a'", '"\t"', '"\\x41"', "01",
    "+1", ".5", "1.", "// x", '"',
)  # fmt: skip

# Bodies that are no text, or no JSON.
BODIES: tuple[bytes, ...] = (
    b"", b" ", b"\x00", b"\xff", b"\xef\xbb\xbf{}", b"{", b"}", b"{}\x00", b"{}{}", b"{}\n{}", b"nul", b"-",
    b"1" * 10_000, b"[" * 100_000,
    b'{"a":' * 20_000, b"[" * 500 + b"]" * 500, b'{"a":1,"a":1}',
    "{}".encode("utf-16"), "{}".encode("utf-32"), b'{"\\ud800":1}',
    b"\x80abc", b"{'a':1}", b"// x\n{}", b"\xed\xa0\x80", b'"\xed\xa0\x80"', b'{"goal":"\xc0\xaf"}', b"<xml/>",
    b"a=1&b=2",
    b"--x\r\nContent-Disposition: form-data\r\n\r\n",
    b"PK\x03\x04" + bytes(100), b"\x1f\x8b\x08" + bytes(40), bytes(100_000),
)  # fmt: skip


def parsing_cases() -> list[tuple[str, bytes]]:
    """Return the cases of the JSON parsing suite: its name and its bytes; a name begins with what is expected."""
    cases: list[dict[str, Any]] = json.loads(_SUITE.read_text(encoding="utf-8"))
    return [(case["name"], case["input"].encode("utf-8", "surrogatepass")) for case in cases if "input" in case]
