"""Policy tables: by hand at the edges, and against the reference at random."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra._core.policy import DECISIONS, PHASES, Outcome, PolicyTable
from specs.reference import policy as reference
from specs.reference.glob import any_match
from tests.proof import generator
from tests.proof.oracle import Core, Oracle, pairs_of

DENY, SCOPE, APPROVAL, RATE, BUDGET, ALLOW = range(6)
ANY = 15


def row(phase: int, bound: list[int] | None = None, **given: Any) -> tuple[Any, ...]:
    """Return a policy of a table; about action 0 if nothing else is said."""
    fields = {"mask": ANY, "agents": None, "context": None, "window": -1, "when": None, "scope": None, "atlas": 0}
    assert given.keys() <= fields.keys()
    return (phase, *(fields | given).values(), [0] if bound is None else bound)


def table(*policies: tuple[Any, ...], closed: bool = True, risk: int = 0, windows: int = 0) -> PolicyTable:
    """Return a table of one action."""
    return PolicyTable([(risk, 0, closed)], list(policies), windows)


def test_the_words_and_phases_are_those_of_the_protocol() -> None:
    assert tuple(reference.PHASES) == PHASES
    assert DECISIONS == ("allow", "deny", "requires_approval", "rate_limited", "budget_exceeded")


# --- random: the same answers as the reference, at resolve and at execute --------------------------------------------


def test_random_tables_decide_as_the_reference_at_resolve_and_at_execute(seed: int) -> None:
    for world, pairs in pairs_of(Random(seed), 40, 60):
        core, oracle = Core(world), Oracle(world)
        for pair in pairs:
            assert core.answer(pair) == oracle.answer(pair), f"seed {seed}: {pair} {world}"


def test_the_counts_and_lists_of_an_outcome_agree_with_its_decisions(seed: int) -> None:
    for world, pairs in pairs_of(Random(seed), 15, 20):
        core = Core(world)
        for pair in pairs:
            context = world.contexts[pair.context]
            windows = core.snapshot.open_windows(pair.now)
            considered = core.snapshot.considered(pair.atlas_ids, pair.capabilities)
            risk = generator.TIERS.index(pair.tier)
            outcome = core.snapshot.table.evaluate(pair.agent, risk, context, windows, core.usage(pair), considered)
            made = [outcome.decision(action) for action in range(outcome.size)]
            words = [decided[0] for decided in made if decided]
            assert outcome.allowed_count == words.count("allow")
            assert outcome.approval_count == words.count("requires_approval")
            assert outcome.denied_count == len(words) - outcome.allowed_count - outcome.approval_count
            assert outcome.refused() == [
                (action, *decided)
                for action, decided in enumerate(made)
                if decided and decided[0] not in ("allow", "requires_approval")
            ]
            plain, confirming = list(range(outcome.size)), list(range(100, 100 + outcome.size))
            assert outcome.offered(plain, confirming) == tuple(
                action + 100 * (decided[0] == "requires_approval")
                for action, decided in enumerate(made)
                if decided and decided[0] in ("allow", "requires_approval")
            )
            bindings = outcome.bindings()
            assert [policy for policy, _ in bindings] == sorted({policy for policy, _ in bindings})
            offered = {action % 100 for action in outcome.offered(plain, confirming)}
            for _, actions in bindings:
                assert actions == sorted(set(actions)) != []
                assert offered.issuperset(actions)


@settings(max_examples=200)
@given(
    st.lists(st.text("ab*?é.", max_size=6), max_size=3),
    st.text("abé.", max_size=8),
    st.dictionaries(st.sampled_from("kl"), st.text("ab*?1t", max_size=4), min_size=1, max_size=2),
    st.dictionaries(st.sampled_from("klm"), st.sampled_from(["a", "ab", "", 1, 1.0, True, None, [], {}, "1"])),
)
def test_agents_and_context_hold_as_in_the_reference(
    agents: list[str], agent: str, matches: dict[str, str], context: dict[str, Any]
) -> None:
    one = table(row(ALLOW, agents=agents, context=tuple(matches.items())))
    held = any_match(agents, agent) and reference.context_holds(matches, context)
    assert one.evaluate(agent, 0, context).decision(0) == (("allow", 0) if held else ("deny", -1))
    assert one.decide(0, agent, 0, context) == (("allow", 0) if held else ("deny", -1))


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 15))
def test_a_restriction_needs_any_tier_of_the_range_and_a_permission_every_one(own: int, asked: int, mask: int) -> None:
    tiers = range(own, max(own, asked) + 1)
    listed = [bool(mask >> tier & 1) for tier in tiers]
    assert (table(row(DENY, mask=mask), closed=False, risk=own).decide(0, "a", asked)[0] == "deny") is any(listed)
    assert (table(row(ALLOW, mask=mask), risk=own).decide(0, "a", asked)[0] == "allow") is all(listed)
    # Approval restricts what is open as a restriction, and opens what is closed as a permission.
    for closed, holds in ((False, any(listed)), (True, all(listed))):
        one = table(row(APPROVAL, mask=mask), closed=closed, risk=own)
        assert (one.evaluate("a", asked).decision(0) == ("requires_approval", 0)) is holds
    for phase in (RATE, BUDGET):
        assert (table(row(phase, mask=mask), risk=own).limits(0, "a", asked) == [0]) is any(listed)


# --- by hand ---------------------------------------------------------------------------------------------------------


def yes(_: object) -> bool:
    return True


def no(_: object) -> bool:
    return False


def test_nothing_is_decided_where_there_is_nothing() -> None:
    empty = PolicyTable([], [])
    outcome = empty.evaluate("a", 0)
    assert (outcome.size, outcome.allowed_count, outcome.refused(), outcome.offered([], [])) == (0, 0, [], ())
    assert outcome.bindings() == []
    assert (empty.action_count, empty.policy_count, empty.window_count) == (0, 0, 0)


@pytest.mark.parametrize(
    ("one", "usage", "resolved", "executed"),
    [
        (table(), None, ("deny", -1), ("deny", -1)),
        (table(closed=False), None, ("allow", -1), ("allow", -1)),
        (table(row(DENY), row(ALLOW)), None, ("deny", 0), ("deny", 0)),
        (table(row(DENY, when=yes), row(ALLOW)), None, ("allow", 1), ("deny", 0)),
        (table(row(DENY, when=no), row(ALLOW)), None, ("allow", 1), ("allow", 1)),
        (table(row(SCOPE, scope=no), row(ALLOW)), None, ("allow", 1), ("deny", 0)),
        (table(row(SCOPE, scope=yes), row(ALLOW)), None, ("allow", 1), ("allow", 1)),
        (table(row(SCOPE, scope=no, when=no), row(ALLOW)), None, ("allow", 1), ("allow", 1)),
        (table(row(APPROVAL)), None, ("requires_approval", 0), ("requires_approval", 0)),
        (table(row(APPROVAL, when=yes), row(ALLOW)), None, ("allow", 1), ("requires_approval", 0)),
        (table(row(APPROVAL, atlas=1)), None, ("deny", -1), ("deny", -1)),
        (table(row(APPROVAL, atlas=1), row(ALLOW)), None, ("requires_approval", 0), ("requires_approval", 0)),
        (table(row(APPROVAL, atlas=1), row(APPROVAL)), None, ("requires_approval", 0), ("requires_approval", 0)),
        (table(row(APPROVAL, atlas=1), closed=False), None, ("requires_approval", 0), ("requires_approval", 0)),
        (table(row(APPROVAL), row(RATE), row(ALLOW)), {1: 5}, ("requires_approval", 0), ("requires_approval", 0)),
        (table(row(RATE), row(BUDGET), row(ALLOW)), {1: -1}, ("budget_exceeded", 1), ("budget_exceeded", 1)),
        (table(row(RATE), row(BUDGET), row(ALLOW)), {0: 5, 1: 5}, ("rate_limited", 0), ("rate_limited", 0)),
        (table(row(RATE), row(BUDGET), row(ALLOW)), {1: -2}, ("deny", 1), ("deny", 1)),
        (table(row(RATE), row(ALLOW)), {0: 0}, ("allow", 1), ("allow", 1)),
        (table(row(RATE)), {}, ("deny", -1), ("deny", -1)),
        (table(row(RATE)), {0: 5}, ("rate_limited", 0), ("rate_limited", 0)),
        (table(row(ALLOW, when=no)), None, ("allow", 0), ("deny", -1)),
        (table(row(ALLOW, when=yes)), None, ("allow", 0), ("allow", 0)),
        (table(row(DENY, []), row(ALLOW)), None, ("allow", 1), ("allow", 1)),
    ],
)
def test_the_order_of_phases(
    one: PolicyTable, usage: Any, resolved: tuple[str, int], executed: tuple[str, int]
) -> None:
    assert one.evaluate("a", 0, None, None, usage).decision(0) == resolved
    assert one.decide(0, "a", 0, None, None, usage, {}) == executed


def test_a_granted_approval_passes_its_own_phase_and_no_other() -> None:
    for policies, usage, expected in (
        ((row(APPROVAL),), None, ("allow", 0)),
        ((row(DENY), row(APPROVAL)), None, ("deny", 0)),
        ((row(SCOPE, scope=no), row(APPROVAL)), None, ("deny", 0)),
        ((row(APPROVAL), row(RATE)), {1: 1}, ("rate_limited", 1)),
        ((row(APPROVAL), row(BUDGET)), {1: -2}, ("deny", 1)),
        ((row(APPROVAL, atlas=1),), None, ("deny", -1)),
        ((row(APPROVAL, atlas=1), row(ALLOW)), None, ("allow", 0)),
        ((row(ALLOW),), None, ("allow", 0)),
        ((), None, ("deny", -1)),
    ):
        assert table(*policies).decide(0, "a", 0, None, None, usage, {}, True) == expected


def test_a_value_that_is_a_kind_of_string_is_compared_as_a_string() -> None:
    class Word(str):
        __slots__ = ()

    one = table(row(DENY, context=(("env", "prod"),)), closed=False)
    assert one.evaluate("a", 0, {"env": Word("prod")}).decision(0) == ("deny", 0)


def test_a_time_window_holds_where_its_byte_says_so() -> None:
    one = table(row(ALLOW, window=1), windows=2)
    assert one.evaluate("a", 0, None, b"\x00\x01").decision(0) == ("allow", 0)
    assert one.evaluate("a", 0, None, b"\x01\x00").decision(0) == ("deny", -1)
    assert one.evaluate("a", 0, None, b"\x00\x01").bindings() == [(0, [0])]
    for wrong in (None, b"", b"\x01", b"\x01" * 3):
        with pytest.raises(ValueError, match="expected 2 bytes"):
            one.evaluate("a", 0, None, wrong)
        with pytest.raises(ValueError, match="expected 2 bytes"):
            one.decide(0, "a", 0, None, wrong)
    with pytest.raises(ValueError, match="expected 0 bytes"):
        table().evaluate("a", 0, None, b"\x01")


def test_only_considered_actions_are_decided_and_bound() -> None:
    one = PolicyTable([(0, 0, False)] * 3, [row(RATE, [0, 1, 2])])
    outcome = one.evaluate("a", 0, considered=b"\x01\x00\x01")
    assert [outcome.decision(action) for action in range(3)] == [("allow", -1), None, ("allow", -1)]
    assert (outcome.bindings(), outcome.allowed_count, outcome.denied_count) == ([(0, [0, 2])], 2, 0)
    assert one.evaluate("a", 0, considered=b"\x00" * 3).offered([1] * 3, [2] * 3) == ()
    for wrong in (b"", b"\x01" * 2, b"\x01" * 4):
        with pytest.raises(ValueError, match="considered has"):
            one.evaluate("a", 0, considered=wrong)


def test_what_binds_a_denied_action_is_not_told() -> None:
    one = PolicyTable([(0, 0, True)] * 2, [row(RATE, [0, 1]), row(ALLOW, [1])])
    outcome = one.evaluate("a", 0)
    assert (outcome.refused(), outcome.bindings()) == ([(0, "deny", -1)], [(0, [1])])


def test_limits_are_those_whose_conditions_hold_for_the_call() -> None:
    one = table(
        row(DENY, when=no), row(RATE), row(RATE, agents=["b"]), row(RATE, when=no), row(RATE, mask=8),
        row(BUDGET, context=(("k", "v"),)), row(BUDGET, when=yes), row(BUDGET, window=0), row(ALLOW), windows=1,
    )  # fmt: skip
    assert one.limits(0, "a", 0, {"k": "v"}, b"\x00", {}) == [1, 5, 6]
    assert one.limits(0, "b", 3, {}, b"\x01", {}) == [1, 2, 4, 6, 7]
    assert table(row(ALLOW)).limits(0, "a", 0) == []


@pytest.mark.parametrize("action", [1, -1, 2**30])
def test_an_action_that_is_not_there_is_an_index_error(action: int) -> None:
    one = table(row(RATE))
    for call in (
        lambda: one.decide(action, "a", 0),
        lambda: one.limits(action, "a", 0),
        lambda: one.evaluate("a", 0).decision(action),
    ):
        with pytest.raises(IndexError, match=r"is outside 0\.\.0"):
            call()


@pytest.mark.parametrize("risk", [-1, 4, 255, 2**31 - 1])
def test_a_risk_out_of_range_is_refused(risk: int) -> None:
    with pytest.raises(ValueError, match="risk is"):
        table().evaluate("a", risk)
    with pytest.raises(ValueError, match="risk is"):
        table().decide(0, "a", risk)
    with pytest.raises(ValueError, match="risk is"):
        table(row(RATE)).limits(0, "a", risk)
    with pytest.raises(ValueError, match="risk is"):
        table(risk=risk)


@pytest.mark.parametrize(
    "policies",
    [
        [row(ALLOW, [1])],
        [row(DENY, [1])],
        [row(DENY, [-1])],
        [row(RATE, [2**40])],
        [row(RATE, [2**70])],
        [row(RATE, [None])],  # type: ignore[list-item]
        [row(RATE, [0.5])],  # type: ignore[list-item]
        [row(6)],
        [row(-1)],
        [row(ALLOW), row(DENY)],
        [row(ALLOW, atlas=1)],
        [row(DENY, window=0)],
        [row(DENY, mask=256)],
        [row(DENY, mask=-1)],
        [row(DENY, agents=[1])],
        [row(DENY, agents=["\ud800"])],
        [row(DENY, agents=1)],
        [row(DENY, context=(("k",),))],
        [row(DENY, context=(("k", None),))],
        [row(DENY)[:-1]],
        [None],
        [()],
    ],
)
def test_a_table_that_is_not_well_formed_is_refused(policies: list[Any]) -> None:
    with pytest.raises((ValueError, IndexError, TypeError, OverflowError, AttributeError)):
        PolicyTable([(0, 0, True)], policies)


@pytest.mark.parametrize("actions", [[None], [()], [(0, 0)], [("0", 0, True)], [(0, 2**40, True)], [(0, None, True)]])
def test_actions_that_are_not_well_formed_are_refused(actions: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        PolicyTable(actions, [])


def test_the_doors_refuse_none_and_what_is_of_another_type() -> None:
    one = table(row(RATE), closed=False)
    outcome = one.evaluate("a", 0)
    for call in (
        lambda: PolicyTable(None, []),  # type: ignore[arg-type]
        lambda: PolicyTable([], None),  # type: ignore[arg-type]
        lambda: one.evaluate(None, 0),  # type: ignore[arg-type]
        lambda: one.evaluate(b"a", 0),  # type: ignore[arg-type]
        lambda: one.evaluate("a", None),  # type: ignore[arg-type]
        lambda: one.evaluate("a", 0, []),  # type: ignore[arg-type]
        lambda: one.evaluate("a", 0, None, bytearray()),  # type: ignore[arg-type]
        lambda: one.evaluate("a", 0, None, None, []),  # type: ignore[arg-type]
        lambda: one.decide(0, None, 0),  # type: ignore[arg-type]
        lambda: one.decide(None, "a", 0),  # type: ignore[arg-type]
        lambda: one.limits(0, None, 0),  # type: ignore[arg-type]
        lambda: outcome.offered(None, []),  # type: ignore[arg-type]
        lambda: outcome.offered([], None),  # type: ignore[arg-type]
        lambda: outcome.decision(None),  # type: ignore[arg-type]
        lambda: Outcome(None),  # type: ignore[arg-type]
        lambda: Outcome(1, []),  # type: ignore[arg-type]
    ):
        with pytest.raises((TypeError, AttributeError)):
            call()
    for lists in (([], [1]), ([1], []), ([1, 2], [1, 2])):
        with pytest.raises(ValueError, match="expected two lists of 1"):
            outcome.offered(*lists)
    for size in (-1, 2**62, 2**60):
        with pytest.raises((ValueError, MemoryError)):
            Outcome(size)
    blank = Outcome(2)
    assert (blank.decision(1), blank.refused(), blank.bindings()) == (None, [], [])


def test_whatever_a_condition_raises_is_raised_and_decides_nothing() -> None:
    def fails(_: object) -> bool:
        raise RuntimeError("no answer")

    for one in (table(row(ALLOW, when=fails)), table(row(DENY, when=fails), closed=False)):
        with pytest.raises(RuntimeError, match="no answer"):
            one.decide(0, "a", 0, parameters={})
    with pytest.raises(RuntimeError, match="no answer"):
        table(row(SCOPE, scope=fails), closed=False).decide(0, "a", 0, parameters={})
    with pytest.raises(TypeError):
        table(row(SCOPE), closed=False).decide(0, "a", 0, parameters={})
    with pytest.raises(RuntimeError, match="no answer"):
        table(row(RATE, when=fails)).limits(0, "a", 0, parameters={})
    conditional = table(row(DENY, context=(("k", "v"),)), row(DENY, agents=["b"]), closed=False)
    for agent, context in (("\ud800", {}), ("a", {"k": "\ud800"}), ("a", {"k": object()}), ("a", {"k": float("nan")})):
        with pytest.raises(ValueError if isinstance(context.get("k"), str) or not context else Exception):
            conditional.evaluate(agent, 0, context)


def test_many_policies_and_bonds_survive_the_growth_of_the_lists() -> None:
    one = PolicyTable([(0, 0, False)] * 300, [row(RATE, list(range(300))) for _ in range(40)])
    outcome = one.evaluate("a", 0)
    assert outcome.bindings() == [(policy, list(range(300))) for policy in range(40)]
    assert one.limits(299, "a", 0) == list(range(40))
