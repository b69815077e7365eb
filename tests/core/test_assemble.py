"""Assembly: the answer and its events are what the reference writes, byte for byte."""

import json
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra._core import calls
from cra._core.assemble import Fragments, Prefix
from cra._core.calls import Answer
from cra._core.canonical import dumps
from cra._core.chain import Chain, EventBatch, verify
from cra._core.policy import Outcome, PolicyTable
from cra._core.sha256 import hexdigest
from cra.atlas.snapshot import Snapshot
from cra.errors import NotCanonical
from cra.protocol.carp import Request
from cra.runtime import engine
from cra.runtime.engine import Decided, Rules
from specs.reference import canonical, resolution
from specs.reference.resolution import Settings
from tests.proof import generator
from tests.proof.generator import SESSION, Json, Pair, World
from tests.proof.oracle import Core, session_of, snapshot_of

TRACE = "01920000-0000-7000-8000-00000000000b"
ENTROPY = bytes(range(16))


def decided(core: Core, pair: Pair, request: Json, rules: Rules, snapshot: Snapshot | None = None) -> tuple[Any, bytes]:
    """Decide with the engine; return what it decided and the events it wrote."""
    session = msgspec.structs.replace(session_of(pair, core.world), trace_id=TRACE)
    batch = Chain(SESSION, TRACE).begin(pair.now, ENTROPY)
    ask = engine.ask_of(msgspec.convert(request, Request))
    answer = engine.resolve(snapshot or core.snapshot, session, ask, batch, core.usage(pair), rules)
    return answer, batch.data


def expected(world: World, pair: Pair, request: Json, rules: Rules, answer: Decided) -> tuple[bytes, list[Any]]:
    """Return the reference's answer and events."""
    settings = Settings(rules.ttl_seconds, rules.max_context_tokens, world.default_decision, rules.capture)
    given = {
        "resolution_id": answer.resolution.resolution_id,
        "trace_id": TRACE,
        "session_context": world.session_contexts[pair.session_context],
        "settings": settings,
    }
    arguments = (world.atlases, world.files, request, pair.now, world.usages[pair.usage])
    return canonical.dumps(resolution.resolve(*arguments, **given)), resolution.events(*arguments, **given)


def rules_of(random: Random) -> Rules:
    return Rules(random.choice((0, 60, 3600, 86_400)), random.choice((0, 7, 30, 8000)), random.random() < 0.5)


def test_the_answer_and_every_payload_are_the_reference_s_byte_for_byte(seed: int) -> None:
    random = Random(seed)
    kinds = set()
    for _ in range(60):
        world = generator.world(random, documents=True)
        core = Core(world)
        for number in range(5):
            pair = generator.pair(random, world)._replace(call=None)
            request, rules = generator.request_of(world, pair, number), rules_of(random)
            answer, lines = decided(core, pair, request, rules)
            whole, events = expected(world, pair, request, rules, answer)
            assert answer.canonical == whole, f"seed {seed}"
            assert engine.canonical_resolution(answer.resolution) == whole, f"seed {seed}"
            assert verify(lines)
            written = [json.loads(line) for line in lines.splitlines()]
            assert [event["event_type"] for event in written] == [kind for kind, _ in events], f"seed {seed}"
            for line, (kind, payload) in zip(lines.splitlines(), events, strict=True):
                found = line[line.index(b'"payload":') + 10 : line.index(b',"event_hash"')]
                assert found == canonical.dumps(payload), f"seed {seed}: {kind}"
                kinds.add(kind)
            assert answer.record.offered == {action.action_id for action in answer.resolution.allowed_actions}
    assert kinds == {
        "carp.request.received",
        "policy.evaluated",
        "context.injected",
        "context.redacted",
        "carp.resolution.completed",
    }


def test_what_a_snapshot_remembers_never_answers_for_another_request(seed: int) -> None:
    random = Random(seed)
    for _ in range(12):
        world = generator.world(random, documents=True)
        core, rules = Core(world), Rules(3600, 30, False)
        pairs = [generator.pair(random, world)._replace(call=None) for _ in range(25)]
        for number, pair in enumerate(pairs * 2):
            request = generator.request_of(world, pair, number)
            warm, warm_lines = decided(core, pair, request, rules)
            cold, cold_lines = decided(core, pair, request, rules, snapshot_of(world))
            assert (warm.canonical, warm_lines) == (cold.canonical, cold_lines), f"seed {seed}"
            assert warm.resolution == cold.resolution
            assert warm.record == cold.record


# --- by hand ---------------------------------------------------------------------------------------------------------


def fragments(actions: int = 1, policies: int = 0, blocks: int = 0) -> Fragments:
    return Fragments(
        actions=[(b'"a.%d"' % n, b'{"action_id":"a.%d","requires_confirmation":' % n, b"}") for n in range(actions)],
        atlases=[b'"x.y"'] * actions,
        policies=[(b'"x.y"', b'"p%d"' % n, b'"allow"', b'"r"', (b'{"p%d":[' % n, b"]}")) for n in range(policies)],
        blocks=[(b'{"b":%d}' % n, b'{"i":%d}' % n, b'{"r":%d}' % n) for n in range(blocks)],
        snapshot_digest="00" * 32,
    )


RATE = (3, 15, None, (("k", "v"),), -1, None, None, 0, [0])
PLAIN = (3, 8, None, None, -1, None, None, 0, [0])
ARGUMENTS: dict[str, Any] = {
    "agent_id": "a",
    "goal": "g",
    "risk": "low",
    "hints": (),
    "capabilities": (),
    "atlas_ids": (),
    "context": {},
    "capture": False,
    "ttl_seconds": 1,
}


def batch() -> EventBatch:
    return Chain(SESSION, TRACE).begin(generator.MONDAY, ENTROPY)


def answered(f: Fragments, outcome: Outcome, chosen: list[int], skipped: list[int] | None = None) -> Answer:
    answer, *_ = calls.resolve(
        batch(), f, outcome, f.prefix(outcome, chosen), chosen=chosen, skipped=skipped or [], **ARGUMENTS
    )
    return answer


def test_bonds_and_blocks_are_told_apart_in_what_is_remembered() -> None:
    # Laid end to end, no bond and the blocks [0, 0] once read like one bond of policy 2 and action 0, and no block.
    table = PolicyTable([(0, 0, False)], [PLAIN, PLAIN, RATE])
    bare, bound = table.evaluate("a", 1), table.evaluate("a", 1, {"k": "v"})
    assert (bare.bindings(), bound.bindings()) == ([], [(2, [0])])
    f = fragments(policies=3, blocks=1)
    assert b'"context_blocks":[{"b":0},{"b":0}]' in answered(f, bare, [0, 0]).data
    assert b'"context_blocks":[]' in answered(f, bound, []).data
    assert b'"constraints":[{"p2":["a.0"]}]' in answered(f, bound, []).data
    assert b'"constraints":[]' in answered(f, bare, [0, 0]).data


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=4), st.sets(st.integers(0, 3))), max_size=12))
def test_a_prefix_is_of_its_outcome_and_blocks_whatever_was_asked_before(
    asked: list[tuple[list[int], set[int]]],
) -> None:
    table = PolicyTable(
        [(0, 0, False)] * 2, [(3, 15, None, ((str(n), "v"),), -1, None, None, 0, [n % 2]) for n in range(4)]
    )
    warm = fragments(2, 4, 3)
    for chosen, policies in asked:
        outcome = table.evaluate("a", 0, dict.fromkeys(map(str, policies), "v"))
        assert answered(warm, outcome, chosen).data == answered(fragments(2, 4, 3), outcome, chosen).data


def test_what_is_remembered_is_bounded() -> None:
    table, f = PolicyTable([(0, 0, False)], []), fragments(blocks=400)
    outcome = table.evaluate("a", 0)
    first = f.prefix(outcome, [0])
    assert f.prefix(outcome, [0]) is first
    for number in range(1, 300):
        assert f.prefix(outcome, [number]) is not first
    assert f.prefix(outcome, [0]) is not first
    assert answered(f, outcome, [399]).data == answered(fragments(blocks=400), outcome, [399]).data


def test_a_hash_in_the_trace_is_of_the_bytes_that_are_answered() -> None:
    table, f, events = PolicyTable([(0, 0, False)], []), fragments(), batch()
    outcome = table.evaluate("a", 0)
    for _ in range(2):
        answer, *_ = calls.resolve(events, f, outcome, f.prefix(outcome, []), chosen=[], skipped=[], **ARGUMENTS)
        payload = json.loads(events.data.splitlines()[-1])["payload"]
        assert payload["resolution_hash"] == hexdigest(answer.data)
        assert (answer.prefix.decision_type, answer.prefix.reason) == ("allow", None)


@pytest.mark.parametrize(
    ("chosen", "skipped"), [([1], []), ([-1], []), ([], [1]), ([], [-1]), ([2**40], []), ([], [2**40])]
)
def test_a_block_that_is_not_there_is_refused(chosen: list[int], skipped: list[int]) -> None:
    outcome = PolicyTable([(0, 0, False)], []).evaluate("a", 0)
    with pytest.raises(IndexError, match="block index"):
        answered(fragments(blocks=1), outcome, chosen, skipped)


def test_an_outcome_of_another_snapshot_is_refused() -> None:
    one = PolicyTable([(0, 0, False)], []).evaluate("a", 0)
    for other in (fragments(2), fragments(1, 1), fragments(0)):
        with pytest.raises(ValueError, match="the outcome is of 1 actions and 0 policies, the snapshot has"):
            other.prefix(one, [])
        with pytest.raises(ValueError, match="the outcome is of"):
            calls.resolve(batch(), other, one, fragments().prefix(one, []), chosen=[], skipped=[], **ARGUMENTS)


def test_only_the_core_makes_prefixes_and_answers() -> None:
    outcome, f = PolicyTable([(0, 0, False)], []).evaluate("a", 0), fragments()
    with pytest.raises(ValueError, match="makes a prefix"):
        calls.resolve(batch(), f, outcome, Prefix(), chosen=[], skipped=[], **ARGUMENTS)
    with pytest.raises(ValueError, match="makes an answer"):
        _ = Answer().data
    with pytest.raises(ValueError, match="makes an answer"):
        _ = Answer.__new__(Answer).data


GOOD: dict[str, Any] = {
    "actions": [(b'"a"', b"{", b"}")],
    "atlases": [b'"x"'],
    "policies": [(b'"x"', b'"p"', b'"deny"', b'"r"', (b"{", b"}"))],
    "blocks": [(b"{}", b"{}", b"{}")],
    "snapshot_digest": "0",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("actions", None),
        ("actions", [None]),
        ("actions", [(b"", b"")]),
        ("actions", [(b"", b"", None)]),
        ("actions", [(b"", "", b"")]),
        ("actions", []),
        ("atlases", None),
        ("atlases", [None]),
        ("atlases", ["x"]),
        ("atlases", [b'"x"', b'"y"']),
        ("policies", [(b"", b"", b"", b"")]),
        ("policies", [(b"", b"", b"", b"", None)]),
        ("policies", [(b"", b"", b"", b"", (b"",))]),
        ("policies", [(b"", b"", b"", None, (b"", b""))]),
        ("policies", [()]),
        ("blocks", [(b"", b"")]),
        ("blocks", [(b"", b"", 1)]),
        ("snapshot_digest", None),
        ("snapshot_digest", "é"),
    ],
)
def test_parts_that_are_not_what_they_should_be_are_refused(name: str, value: object) -> None:
    Fragments(**GOOD)
    with pytest.raises((TypeError, ValueError, IndexError)):
        Fragments(**{**GOOD, name: value})


@pytest.mark.parametrize("name", [*ARGUMENTS, "chosen", "skipped", "batch", "f", "outcome", "prefix"])
def test_resolve_refuses_what_is_none(name: str) -> None:
    f = fragments()
    outcome = PolicyTable([(0, 0, False)], []).evaluate("a", 0)
    arguments = {
        "batch": batch(), "f": f, "outcome": outcome, "prefix": f.prefix(outcome, []), "chosen": [], "skipped": [],
        **ARGUMENTS, name: None,
    }  # fmt: skip
    if name == "capture":
        return  # None is as good as False
    with pytest.raises(TypeError):
        calls.resolve(**arguments)


@pytest.mark.parametrize(
    "broken",
    [
        {"goal": "\ud800"},
        {"hints": (b"x",)},
        {"context": {"a": float("nan")}},
        {"agent_id": "\udfff"},
        {"risk": "\ud800"},
    ],
)
def test_what_has_no_canonical_form_is_refused(broken: dict[str, Any]) -> None:
    f = fragments()
    outcome = PolicyTable([(0, 0, False)], []).evaluate("a", 0)
    with pytest.raises(NotCanonical):
        calls.resolve(batch(), f, outcome, f.prefix(outcome, []), chosen=[], skipped=[], **{**ARGUMENTS, **broken})


# --- calls -----------------------------------------------------------------------------------------------------------


def payloads(events: EventBatch) -> list[tuple[str, Any]]:
    assert verify(events.data)
    return [(event["event_type"], event["payload"]) for event in map(json.loads, events.data.splitlines())]


def begun(action_id: str = "a.1", *more: Any) -> calls.Call:
    """Return a call of the action, with the first two ids of a batch."""
    call = calls.Call(action_id, {"b": 1, "a": []}, "h", *more)
    call.begin(batch(), "q")
    return call


def judged(events: EventBatch, f: Fragments, call: calls.Call, action: int = 0, **more: Any) -> int:
    given = {"policies": [], "offered": {"a.0", "a.1"}, "matches": lambda parameters: True, "record": True, **more}
    table = PolicyTable([(0, 0, False)] * 2, given.pop("policies"))
    offered, matches, record = frozenset(given.pop("offered")), given.pop("matches"), given.pop("record")
    return calls.judge(events, table, f, call, action, "a", 0, TRACE, offered, matches, record, **given)


ALLOW_FIRST = [(5, 15, None, None, -1, None, None, 0, [0])]
ASK_FIRST = [(2, 15, None, None, -1, None, None, 0, [0])]
DENY_FIRST = [(0, 15, None, None, -1, None, None, 0, [0])]


def test_the_events_of_a_call_say_what_they_were_given() -> None:
    f, events = fragments(2, 1), batch()
    plain, full = begun(), begun("a.0", "medium", TRACE, True)
    calls.requested(events, f, begun('é"'))
    calls.requested(events, f, full, TRACE, SESSION)
    calls.evaluated(events, f, 1, 0, "rate_limited", 1_000_001)
    calls.evaluated(events, f, 0, 0, "deny")
    assert judged(events, f, plain, 1) == calls.PERMITTED
    more = {"policies": ASK_FIRST, "consent": calls.GRANTED, "approval_id": SESSION, "approver": "mx"}
    assert judged(events, f, full, 0, **more) == calls.PERMITTED
    calls.executed(events, plain, TRACE, "r")
    identity = {"atlas_id": "x.y", "policy_id": "p0"}
    asked = {"parameters_hash": "h", "request_id": "q", "snapshot_digest": "00" * 32}
    ids = {"execution_id": plain.execution_id, "resolution_id": TRACE}
    named = {"parameters": {"a": [], "b": 1}, "approval_id": TRACE, "risk_tier": "medium"}
    assert payloads(events) == [
        ("action.requested", {"action_id": 'é"', **asked, "resolution_id": None}),
        ("action.requested", {"action_id": "a.0", **asked, "resolution_id": TRACE, "replay_of": SESSION, **named}),
        ("policy.evaluated", {"action_id": "a.1", **identity, "result": "rate_limited", "retry_after_seconds": 2}),
        ("policy.evaluated", {"action_id": "a.0", **identity, "result": "deny"}),
        ("action.requested", {"action_id": "a.1", **asked, "resolution_id": TRACE}),
        ("action.approved", {"action_id": "a.1", **ids}),
        ("action.requested", {"action_id": "a.0", **asked, "resolution_id": TRACE, **named}),
        ("policy.evaluated", {"action_id": "a.0", **identity, "result": "allow"}),
        ("action.approved", {"action_id": "a.0", "approval_id": SESSION, "approver": "mx", **ids}),
        ("action.executed", {"action_id": "a.1", "duration_ms": 0, **ids, "result_hash": "r"}),
    ]


@pytest.mark.parametrize(
    ("more", "told", "decision"),
    [
        ({}, calls.PERMITTED, "allow"),
        ({"policies": DENY_FIRST, "offered": ()}, calls.REFUSED, "deny"),
        ({"offered": ()}, calls.UNOFFERED, "allow"),
        ({"policies": ASK_FIRST, "offered": ()}, calls.UNOFFERED, "requires_approval"),
        ({"matches": lambda parameters: False}, calls.INVALID, "allow"),
        ({"matches": lambda parameters: 1}, calls.INVALID, "allow"),
        ({"policies": ASK_FIRST, "matches": lambda parameters: False}, calls.WAITING, "requires_approval"),
        (
            {"policies": ASK_FIRST, "matches": lambda parameters: False, "consent": calls.ABSENT},
            calls.INVALID,
            "requires_approval",
        ),
        ({"policies": ASK_FIRST, "consent": calls.ABSENT}, calls.WAITING, "requires_approval"),
        (
            {"policies": ASK_FIRST, "matches": lambda parameters: False, "consent": calls.GRANTED},
            calls.INVALID,
            "allow",
        ),
        ({"policies": ASK_FIRST, "consent": calls.GRANTED}, calls.PERMITTED, "allow"),
    ],
)
def test_a_call_is_judged_by_policy_then_offer_then_consent_then_parameters(
    more: dict[str, Any], told: int, decision: str
) -> None:
    for record in (True, False):
        events, call = batch(), begun("a.0")
        assert judged(events, fragments(2, 1), call, record=record, **more) == told
        assert (call.decision, call.policy) == (decision, 0 if "policies" in more else -1)
        assert bool(events.count) == (record and told == calls.PERMITTED)


def test_what_raises_while_a_call_is_judged_permits_nothing() -> None:
    def broken(parameters: object) -> bool:
        raise ZeroDivisionError

    events = batch()
    with pytest.raises(ZeroDivisionError):
        judged(events, fragments(2, 1), begun(), matches=broken)
    for action in (2, -1):
        with pytest.raises(IndexError, match="is outside"):
            judged(events, fragments(2, 1), begun(), action)
    with pytest.raises(IndexError, match="policy index 0 is outside"):
        judged(events, fragments(2), begun("a.0"), policies=ALLOW_FIRST)
    with pytest.raises(ValueError, match="no ids"):
        judged(events, fragments(2, 1), calls.Call("a.0", {}, "h"))
    assert not events.count


@pytest.mark.parametrize(("action", "policy"), [(2, 0), (-1, 0), (0, 1), (0, -2)])
def test_an_index_that_is_not_there_is_refused(action: int, policy: int) -> None:
    f = fragments(2, 1)
    with pytest.raises(IndexError, match="is outside"):
        calls.evaluated(batch(), f, action, policy, "deny")
    with pytest.raises(IndexError, match="no policy decided"):
        calls.evaluated(batch(), f, 0, -1, "deny")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé"\n'),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=4),
        max_leaves=12,
    )
)
def test_what_is_taken_is_a_copy_with_the_digest_of_its_canonical_form(value: Any) -> None:
    given = {"a": value}
    call = calls.take("a.0", given)
    assert call.parameters == given and call.parameters is not given
    assert call.parameters["a"] is not value or not isinstance(value, list | dict)
    if isinstance(value, dict):
        copied = call.parameters["a"]
        assert not any(copied[key] is item for key, item in value.items() if isinstance(item, list | dict))
    assert (call.parameters_hash, call.size) == (hexdigest(dumps(given)), len(dumps(given)))
    assert calls.weigh(value) == (hexdigest(dumps(value)), len(dumps(value)))


def test_what_cannot_be_taken_is_refused_however_deep_it_goes() -> None:
    endless: list[Any] = []
    endless.append({"a": endless})
    deep: Any = 0
    for _ in range(100_000):
        deep = (deep,)
    for value in (endless, deep, {"a": {1}}, {1: 2}, "\ud800", float("nan"), object()):
        with pytest.raises(NotCanonical):
            calls.take("a.0", {"a": value})
        with pytest.raises(NotCanonical):
            calls.weigh(value)
    while deep:  # taken apart here, because freeing it in one go would recurse
        (deep,) = deep
