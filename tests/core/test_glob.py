"""Globs: `*`, `?`, and everything else literal."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cra._core.glob import glob_match, matching


def _as_regex(pattern: str) -> re.Pattern[str]:
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.compile("".join(parts), re.DOTALL)


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("*", "ticket.delete", True),
        ("**", "", True),
        ("ticket.*", "ticket.reply.draft", True),
        ("ticket.*", "ticket.", True),
        ("ticket.*", "ticket", False),
        ("*.delete", "ticket.delete", True),
        ("*.delete", "ticket.deleted", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*ab*ba*", "abba", True),
        ("*ab*ba*", "aba", False),
        ("?", "", False),
        ("?", "é", True),
        ("?", "😀", True),
        ("??", "😀", False),
        ("*?", "😀", True),
        ("?*?", "é", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        (r"\*", r"\anything", True),
        ("Ticket.*", "ticket.get", False),
        ("a.c", "abc", False),
        ("*", "line\nbreak", True),
        ("a*b*c*d", "a.b.c.d", True),
        ("a*b*c*d", "a.c.b.d", False),
    ],
)
def test_a_glob_matches_what_it_says(pattern: str, text: str, matches: bool) -> None:
    assert glob_match(pattern, text) is matches


@given(st.text(alphabet="ab.*?é😀", max_size=10), st.text(alphabet="ab.é😀\n", max_size=14))
@example("*a?", "a😀a")
def test_a_glob_means_the_same_as_its_regular_expression(pattern: str, text: str) -> None:
    assert glob_match(pattern, text) is bool(_as_regex(pattern).fullmatch(text))


@given(st.text(max_size=20))
def test_text_without_wildcards_matches_only_itself(text: str) -> None:
    text = text.replace("*", "").replace("?", "")
    assert glob_match(text, text)
    assert not glob_match(text, text + "x")
    assert not glob_match(text + "x", text)


def test_many_stars_do_not_make_it_slow() -> None:
    # A backtracking matcher would need more steps here than the age of the universe has nanoseconds.
    assert not glob_match("*a" * 60 + "b", "a" * 20_000)
    assert glob_match("*a" * 60, "a" * 20_000)


@pytest.mark.parametrize("arguments", [(None, "a"), ("a", None), (b"a", "a")])
def test_the_door_takes_text_only(arguments: tuple[str, str]) -> None:
    with pytest.raises(TypeError):
        glob_match(*arguments)


@given(st.lists(st.text(alphabet="ab*?é", max_size=4), max_size=4), st.lists(st.text(alphabet="abé", max_size=5)))
def test_what_matches_one_of_several_is_what_matches_one_by_one(patterns: list[str], texts: list[str]) -> None:
    one_by_one = [n for n, text in enumerate(texts) if any(glob_match(pattern, text) for pattern in patterns)]
    assert matching(tuple(patterns), texts) == one_by_one
    for wrong in ((None, []), ((), None), ((None,), ["a"]), (("a",), [1])):
        with pytest.raises(TypeError):
            matching(*wrong)  # type: ignore[arg-type]
