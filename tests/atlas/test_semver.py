"""Versions and ranges, against SemVer 2.0.0 and what npm makes of ranges."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra.atlas.semver import Version, parse_range, parse_version
from cra.errors import InvalidInput

# The order of the examples in SemVer 2.0.0, item 11, with some more between.
ASCENDING = [
    "0.0.0-0", "0.0.0", "0.0.1", "0.9.99", "1.0.0-0", "1.0.0-1", "1.0.0-9", "1.0.0-10", "1.0.0--", "1.0.0-A",
    "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
    "1.0.0", "1.0.1-rc.1", "1.0.1", "1.2.0", "1.10.0", "2.0.0", "10.0.0", "99999999999999999999.0.0",
]  # fmt: skip


def test_precedence_is_that_of_the_specification() -> None:
    versions = [parse_version(text) for text in ASCENDING]
    assert sorted(set(versions)) == versions
    for low, high in pairwise(versions):
        assert low < high
        assert low <= high
        assert high > low
        assert high >= low
        assert low != high


def test_a_version_is_written_as_it_was_read() -> None:
    for text in [*ASCENDING, "1.0.0+build.5", "1.0.0-rc.1+001"]:
        assert str(parse_version(text)) == text


def test_the_build_does_not_count_for_order_or_equality() -> None:
    one, other = parse_version("1.2.3+linux"), parse_version("1.2.3+5")
    assert one == other
    assert hash(one) == hash(other)
    assert one in parse_range("=1.2.3")


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.03", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.3-a..b", " 1.2.3", "1.2.3\n",
     "1.2.3.4", "1.2.x", "-1.2.3", "١.2.3", "1.2.3-é", "1." + "9" * 300 + ".0"],
)  # fmt: skip
def test_what_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_version(text)


# (range, inside, outside); the cases follow the tables of npm's semver.
RANGES = [
    ("1.2.3", ["1.2.3", "1.2.3+x"], ["1.2.4", "1.2.2", "1.2.3-rc.1"]),
    ("=1.2.3", ["1.2.3"], ["1.2.4"]),
    ("v1.2.3", ["1.2.3"], ["1.2.4"]),
    ("^1.2.3", ["1.2.3", "1.2.99", "1.99.0"], ["1.2.2", "2.0.0", "2.0.0-rc.1", "1.3.0-rc.1", "1.2.3-rc.1"]),
    ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "0.2.2"]),
    ("^0.0.3", ["0.0.3"], ["0.0.4", "0.0.2"]),
    ("^0.0.3-beta", ["0.0.3-beta", "0.0.3-pr.2", "0.0.3"], ["0.0.4", "0.0.3-alpha"]),
    ("^1.2", ["1.2.0", "1.9.0"], ["1.1.9", "2.0.0"]),
    ("^0.0", ["0.0.0", "0.0.9"], ["0.1.0"]),
    ("^0", ["0.0.0", "0.9.9"], ["1.0.0"]),
    ("^1.x", ["1.0.0", "1.9.9"], ["2.0.0", "0.9.9"]),
    ("^1.2.3-beta.2", ["1.2.3-beta.2", "1.2.3-beta.4", "1.2.3", "1.9.0"], ["1.2.3-beta.1", "1.2.4-beta.4", "2.0.0"]),
    ("~1.2.3", ["1.2.3", "1.2.99"], ["1.3.0", "1.2.2", "1.3.0-rc.1"]),
    ("~1.2", ["1.2.0", "1.2.9"], ["1.3.0", "1.1.9"]),
    ("~1", ["1.0.0", "1.9.9"], ["2.0.0", "0.9.9"]),
    ("~0.2.3", ["0.2.3", "0.2.9"], ["0.3.0"]),
    ("~1.2.3-beta.2", ["1.2.3-beta.2", "1.2.3-beta.4", "1.2.9"], ["1.2.4-beta.2", "1.3.0"]),
    (">=1.2.3", ["1.2.3", "99.0.0"], ["1.2.2", "2.0.0-rc.1"]),
    (">1.2.3", ["1.2.4"], ["1.2.3", "1.2.3+build"]),
    (">1.2", ["1.3.0"], ["1.2.0", "1.2.9"]),
    (">1", ["2.0.0"], ["1.9.9"]),
    (">=1.2", ["1.2.0"], ["1.1.9"]),
    ("<2.0.0", ["1.9.9"], ["2.0.0", "2.0.0-rc.1", "1.9.9-rc.1"]),
    ("<1.2", ["1.1.9"], ["1.2.0", "1.2.0-rc.1"]),
    ("<=1.2", ["1.2.9", "1.0.0"], ["1.3.0"]),
    ("<=1.2.3", ["1.2.3"], ["1.2.4"]),
    (">=1.0.0 <3.0.0", ["1.0.0", "2.9.9"], ["0.9.9", "3.0.0"]),
    (">= 1.0.0  < 3.0.0", ["1.0.0", "2.9.9"], ["0.9.9", "3.0.0"]),
    (">=1.2.3-rc.1 <2.0.0", ["1.2.3-rc.2", "1.2.3", "1.9.0"], ["1.3.0-rc.1", "1.2.3-beta"]),
    ("1.2.x", ["1.2.0", "1.2.9"], ["1.3.0", "1.1.9"]),
    ("1.2.*", ["1.2.0"], ["1.3.0"]),
    ("1.X", ["1.0.0", "1.9.9"], ["2.0.0"]),
    ("1", ["1.0.0", "1.9.9"], ["2.0.0", "0.9.9"]),
    ("*", ["0.0.0", "99.9.9"], ["1.0.0-rc.1"]),
    ("", ["0.0.0", "99.9.9"], ["1.0.0-rc.1"]),
    ("x", ["5.0.0"], []),
    ("1.2.3 - 2.3.4", ["1.2.3", "2.3.4"], ["1.2.2", "2.3.5"]),
    ("1.2 - 2.3.4", ["1.2.0"], ["1.1.9"]),
    ("1.2.3 - 2.3", ["2.3.9"], ["2.4.0"]),
    ("1.2.3 - 2", ["2.9.9"], ["3.0.0"]),
    ("^1.0.0 || ^3.0.0", ["1.5.0", "3.5.0"], ["2.0.0", "4.0.0"]),
    ("<1.0.0||>=2.0.0", ["0.9.0", "2.0.0"], ["1.0.0", "1.9.9"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "inside", "outside"), RANGES, ids=[repr(text) for text, _, _ in RANGES])
def test_a_range_takes_what_npm_takes(text: str, inside: list[str], outside: list[str]) -> None:
    wanted = parse_range(text)
    assert not wanted.empty
    assert [v for v in inside if parse_version(v) not in wanted] == []
    assert [v for v in outside if parse_version(v) in wanted] == []


@pytest.mark.parametrize(
    "text",
    ["latest", "1.2.3.4", "^", ">", "1.2.3 -", "- 1.2.3", "^1.2.3 foo", "1..2", "~>1.2", "=>1", "01.0.0",
     "1.2.3 & 1.2.4", "^1.2.3,<2", "1.2.3 - ^2.0.0", "1.2.3 - 2.0.0 - 3.0.0", "\t1.2.3", "1.2.3\n", "1" * 300,
     "||".join(["1"] * 40), "git://example.org/x", "١.x"],
)  # fmt: skip
def test_what_is_not_a_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="range"):
        parse_range(text)


@pytest.mark.parametrize("text", [">2.0.0 <1.0.0", "<0.0.0", ">1 <1", "^1 ^2", "1.2.3 1.2.4", "<*", ">*"])
def test_a_range_that_nothing_can_be_inside_is_empty(text: str) -> None:
    assert parse_range(text).empty


numbers = st.integers(0, 3)
versions = st.builds(
    Version, numbers, numbers, numbers, st.sampled_from([(), (0,), (1,), ("a",), ("rc", 1), ("rc", 2)])
)
comparators = st.builds(
    lambda operator, version, parts: (
        operator + (str(version) if parts == 3 else ".".join(str(version).split(".")[:parts]))
    ),
    st.sampled_from(["", "^", "~", ">", ">=", "<", "<=", "="]),
    versions,
    st.sampled_from([1, 2, 3, 3]),
)
ranges = st.lists(st.lists(comparators, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=2).map(" || ".join)


@settings(max_examples=300, deadline=None)
@given(versions, versions)
def test_order_is_total_and_agrees_with_equality(one: Version, other: Version) -> None:
    assert (one < other) + (one > other) + (one == other) == 1


@settings(max_examples=300, deadline=None)
@given(ranges, versions)
def test_an_empty_range_holds_nothing_and_a_release_keeps_all_bounds(text: str, version: Version) -> None:
    wanted = parse_range(text)
    if version in wanted:
        assert not wanted.empty
        assert any(all(bound.holds(version) for bound in bounds) for bounds in wanted.alternatives)
    elif not version.pre:
        assert not any(all(bound.holds(version) for bound in bounds) for bounds in wanted.alternatives)
