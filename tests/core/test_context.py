"""Context assembly against the reference, and by hand at the edges."""

import hashlib
import unicodedata
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cra._core.context import ContextIndex, words
from specs.reference import context as reference
from tests.proof import generator
from tests.proof.oracle import snapshot_of

Block = tuple[int, int, int, int, str, str]


def block(text: str, *, atlas: int = 0, pack: int = 0, priority: int = 100, tokens: int | None = None) -> Block:
    size = -(-len(text) // 4) if tokens is None else tokens
    return (atlas, pack, priority, size, hashlib.sha256(text.encode()).hexdigest(), text)


# --- random: the same blocks in the same order as the reference ------------------------------------------------------

TEXTS = st.text("ab cß.İ", max_size=12) | st.sampled_from(["a a b", "b a a", "c", "", "straße STRASSE", "x y z a"])


@settings(max_examples=250)
@given(
    st.lists(st.tuples(TEXTS, st.integers(0, 3), st.sampled_from([0, 100, 100])), max_size=10),
    st.lists(st.none() | st.integers(1, 8), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    TEXTS,
    st.lists(TEXTS, max_size=2),
    st.integers(0, 30),
)
@example([("a", 0, 100), ("a", 1, 100), ("a b", 0, 100)], [None, 1, None, None], [True] * 4, "b", [], 30)
def test_blocks_are_chosen_and_ordered_as_in_the_reference(
    blocks: list[tuple[str, int, int]],
    limits: list[int | None],
    opened: list[bool],
    goal: str,
    hints: list[str],
    budget: int,
) -> None:
    # Packs 0 and 1 are of the first atlas, 2 and 3 of the second; blocks in manifest order, so packs ascend.
    blocks = sorted(blocks, key=lambda item: item[1])
    index = ContextIndex(
        [block(text, atlas=pack // 2, pack=pack, priority=100 * pack + weight) for text, pack, weight in blocks],
        [-1 if limit is None else limit for limit in limits],
    )
    chosen, skipped = index.select(goal, tuple(hints), bytes(opened), budget)

    ranked: list[tuple[int, int, int, reference.Block]] = []
    for atlas in (0, 1):
        mine = [number for number, (_, pack, _) in enumerate(blocks) if pack // 2 == atlas]
        scores = reference.scores([blocks[number][0] for number in mine], goal, hints)
        for number, score in zip(mine, scores, strict=True):
            text, pack, weight = blocks[number]
            manifest: dict[str, Any] = {"pack_id": str(pack), "priority": 100 * pack + weight}
            if limits[pack] is not None:
                manifest["max_tokens"] = limits[pack]
            if opened[pack]:
                made = reference.Block({"atlas_id": str(atlas)}, manifest, str(number), text)
                ranked.append((-made.priority, -score, number, made))
    ordered = [made for *_, made in sorted(ranked, key=lambda item: item[:3])]
    kept, left = reference.fit(reference.without_duplicates(ordered), budget)
    assert chosen == [int(made.file) for made in kept]
    assert skipped == [int(made.file) for made in left]


def test_the_packs_and_blocks_of_a_snapshot_are_the_reference_s(seed: int) -> None:
    random = Random(seed)
    seen = 0
    for _ in range(60):
        world = generator.world(random, documents=True)
        snapshot = snapshot_of(world)
        if snapshot.context is None:
            continue
        for number in range(6):
            pair = generator.pair(random, world)
            request = generator.request_of(world, pair, number)
            task, session = request["task"], world.session_contexts[pair.session_context]
            budget = random.choice((0, 9, 40, 8000))
            context = {**request.get("context", {}), **session}
            packs = snapshot.open_packs(
                pair.agent, generator.TIERS.index(pair.tier), context, snapshot.open_windows(pair.now),
                pair.atlas_ids, pair.capabilities,
            )  # fmt: skip
            hints = tuple(task.get("context_hints", ()))
            found = snapshot.context.select(task["goal"], hints, packs, budget)
            expected = reference.select(world.atlases, world.files, request, pair.now, budget, session)
            for mine, theirs in zip(found, expected, strict=True):
                shown = [(snapshot.blocks[at].source, snapshot.blocks[at].block_id) for at in mine]
                wanted = [(other.atlas["atlas_id"], other.wire()["block_id"]) for other in theirs]
                assert shown == wanted, f"seed {seed}"
                seen += len(mine)
    assert seen > 100


@given(st.text(max_size=40) | st.text("aB1 ßŒé\u0130\u0345²Ⅷ\u200d٣-_.", max_size=20))
@example("İstanbul STRASSE ﬁn ²½ x_y don't 日本語 é")
@example("\ud800a")
def test_words_are_the_runs_of_alphanumeric_characters_of_the_casefolded_text(text: str) -> None:
    assert words(text) == reference.words(text)


def test_every_character_is_in_a_word_or_between_words_as_str_isalnum_says() -> None:
    for code in range(0x110000):
        char = chr(code)
        if len(folded := char.casefold()) == 1:
            assert words(char) == ([folded] if folded.isalnum() else []), unicodedata.name(char, hex(code))


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_priority_then_relevance_then_manifest_order() -> None:
    index = ContextIndex(
        [
            block("nothing here"),
            block("refund"),
            block("also nothing", priority=200),
            block("refund and much more text behind it"),
        ],
        [-1],
    )
    assert index.select("refund", (), b"\x01", 100) == ([2, 1, 3, 0], [])
    assert index.select("", (), b"\x01", 100) == ([2, 0, 1, 3], [])
    assert index.select("", ("REFUND",), b"\x01", 100) == ([2, 1, 3, 0], [])


def test_a_block_that_does_not_fit_is_skipped_and_smaller_ones_follow() -> None:
    index = ContextIndex([block("a", tokens=5), block("b", tokens=6), block("c", tokens=1), block("d", tokens=0)], [-1])
    assert index.select("", (), b"\x01", 6) == ([0, 2, 3], [1])
    assert index.select("", (), b"\x01", 5) == ([0, 3], [1, 2])
    assert index.select("", (), b"\x01", 0) == ([3], [0, 1, 2])


def test_the_limit_of_a_pack_counts_only_its_own_blocks() -> None:
    blocks = [block("a", tokens=3), block("b", tokens=3), block("c", pack=1, tokens=3), block("d", pack=1, tokens=9)]
    assert ContextIndex(blocks, [3, -1]).select("", (), b"\x01\x01", 100) == ([0, 2, 3], [1])


def test_the_first_of_equal_contents_is_kept_even_if_it_then_does_not_fit() -> None:
    index = ContextIndex([block("same"), block("same", pack=1), block("same", atlas=1, pack=2)], [-1, -1, -1])
    assert index.select("", (), b"\x01\x01\x01", 100) == ([0], [])
    assert index.select("", (), b"\x00\x01\x01", 100) == ([1], [])
    assert index.select("", (), b"\x01\x01\x01", 0) == ([], [0])


def test_a_closed_pack_counts_for_relevance_and_nothing_else() -> None:
    # Rarity is a matter of the atlas, not of who asks.
    texts = [block("a b"), block("b c c"), block("a a", pack=1), block("a", pack=1)]
    index = ContextIndex(texts, [-1, -1])
    assert index.select("a b c", (), b"\x01\x00", 100)[0] == sorted(
        (0, 1), key=lambda at: -reference.scores([text[5] for text in texts], "a b c", [])[at]
    )
    assert index.select("a", (), b"\x00\x00", 100) == ([], [])


def test_an_index_of_nothing_chooses_nothing() -> None:
    assert ContextIndex([], []).select("goal", ("hint",), b"", 100) == ([], [])
    assert ContextIndex([], [-1, 5]).select("goal", (), b"\x01\x01", 100) == ([], [])
    assert ContextIndex([block("")], [-1]).select("a", (), b"\x01", 0) == ([0], [])


@pytest.mark.parametrize("packs", [b"", b"\x01\x01", b"\x01" * 100])
def test_packs_of_another_size_are_refused(packs: bytes) -> None:
    with pytest.raises(ValueError, match="expected 1"):
        ContextIndex([block("a")], [-1]).select("a", (), packs, 10)


@pytest.mark.parametrize(
    ("blocks", "limits"),
    [
        ([block("a", pack=1)], [-1]),
        ([block("a", pack=-1)], [-1]),
        ([block("a")], []),
        ([block("a", pack=2**40)], [-1]),
        ([block("a", atlas=2**40)], [-1]),
        ([block("a", priority=2**40)], [-1]),
        ([block("a", tokens=2**70)], [-1]),
        ([(0, 0, 0, 0, "d")], [-1]),
        ([()], [-1]),
        ([None], [-1]),
        ([(0, 0, 0, 0, "d", None)], [-1]),
        ([(0, 0, 0, 0, "d", b"a")], [-1]),
        ([(0, 0, 0, None, "d", "a")], [-1]),
        (None, [-1]),
        ([], None),
    ],
)
def test_what_is_not_well_formed_is_refused(blocks: Any, limits: Any) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        ContextIndex(blocks, limits)


def test_the_doors_refuse_none_and_what_is_of_another_type() -> None:
    index = ContextIndex([block("a")], [-1])
    good: dict[str, Any] = {"goal": "a", "hints": (), "packs": b"\x01", "budget_tokens": 5}
    assert index.select(**good) == ([0], [])
    for name, value in (
        ("goal", None), ("goal", b"a"), ("hints", None), ("hints", ["a"]), ("hints", (None,)), ("hints", (1,)),
        ("packs", None), ("packs", "a"), ("packs", bytearray(1)), ("budget_tokens", None), ("budget_tokens", "5"),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            index.select(**{**good, name: value})
    with pytest.raises(OverflowError):
        index.select(**{**good, "budget_tokens": 2**70})
    with pytest.raises(TypeError):
        ContextIndex([block("a")], [None]).select(**good)  # type: ignore[list-item]
    for value in (None, b"a", 1):
        with pytest.raises(TypeError):
            words(value)  # type: ignore[arg-type]
