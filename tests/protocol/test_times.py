"""Timestamps: what is one, and that the short way and the long way agree."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cra.errors import InvalidInput
from cra.protocol.times import format_timestamp, parse_timestamp

OURS = "2026-01-31T12:34:56.123456Z"


def parsed(text: str) -> int | None:
    try:
        return parse_timestamp(text)
    except InvalidInput:
        return None


@given(st.integers(0, 253402300799999999))
@example(0)
@example(253402300799999999)
def test_what_is_written_is_read_back(us: int) -> None:
    assert parse_timestamp(format_timestamp(us)) == us


@given(st.integers(0, 26), st.characters(), st.integers(0, 26), st.sampled_from("0123456789-+:.,TtZzW "))
@example(11, "2", 12, "4")
def test_the_short_way_takes_only_what_the_long_way_takes(at: int, mark: str, other: int, digit: str) -> None:
    text = list(OURS)
    text[at], text[other] = mark, digit
    changed = "".join(text)
    # The same moment, written so that only the long way reads it.
    longer = re.sub(r"Z$", "+00:00", changed)
    assert parsed(changed) == (parsed(longer) if changed.endswith("Z") else parsed(changed))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-31T12:34:56Z", "2026-01-31T12:34:56.000000Z"),
        ("2026-01-31t12:34:56.1234569z", OURS),
        ("2026-01-31T14:34:56.123456+02:00", OURS),
        ("2026-01-31T00:04:56.123456-12:30", OURS),
    ],
)
def test_other_forms_of_rfc_3339_are_read(text: str, same: str) -> None:
    assert parse_timestamp(text) == parse_timestamp(same)


@pytest.mark.parametrize(
    "text",
    [
        "", "2026-01-31", "2026-01-31 12:34:56.123456Z", "2026-02-30T12:34:56.123456Z", "2026-01-31T24:00:00.000000Z",
        "2026-01-31T12:34:60.123456Z", "2026-01-31T12:34:56,123456Z", "2026-W05-6T12:34:56.123456Z", "x" * 1000,
        "2026-01-31T12:34:56.123456+24:00", "\u0662026-01-31T12:34:56.123456Z"[:27], "0000-01-31T12:34:56.123456Z",
    ],
)  # fmt: skip
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected an RFC 3339 date-time"):
        parse_timestamp(text)
