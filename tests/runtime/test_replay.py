"""A recorded session is decided again; other atlases say what they would have decided."""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from cra import ApprovalRequired, CRAError, CRARuntime, RuntimeConfig
from cra.atlas import loader
from cra.atlas.package import Atlas
from cra.errors import InvalidTrace
from cra.runtime.asynchronous import AsyncCRARuntime
from cra.runtime.config import DEFAULT_CONTEXT_TOKENS
from cra.runtime.engine import LIBRARY_RULES
from cra.runtime.replay import first_difference, replay
from cra.runtime.rulings import Ruling
from cra.runtime.whatif import grade_of, what_if
from cra.testing.clock import FixedClock, SeededIds
from specs.reference import chain

Json = dict[str, Any]

SMALL = {"properties": {"amount": {"maximum": 100}}, "required": ["amount"]}
ATLAS: Json = {
    "atlas_version": "1.0",
    "atlas_id": "com.acme.desk",
    "version": "1.0.0",
    "name": "desk",
    "actions": [
        {
            "action_id": "ticket.get",
            "name": "Get",
            "parameters_schema": {"properties": {"id": {"type": "integer"}}, "required": ["id"]},
        },
        {"action_id": "ticket.close", "name": "Close", "risk_tier": "medium"},
        {"action_id": "ticket.delete", "name": "Delete"},
        {"action_id": "refund.create", "name": "Refund"},
        {"action_id": "refund.list", "name": "Refunds", "rate_limit": {"max_calls": 2, "window_seconds": 60}},
    ],
    "policies": [
        {"policy_id": "no-delete", "type": "deny", "actions": ["*.delete"], "reason": "ask the desk"},
        {"policy_id": "large", "type": "require_approval", "actions": ["refund.create"],
         "conditions": {"parameters": {"not": SMALL}}},
        {"policy_id": "day", "type": "budget", "actions": ["refund.create"],
         "parameters": {"limit": 1000, "unit": "EUR", "window": "session", "cost": "/amount"}},
        {"policy_id": "test-only", "type": "deny", "actions": ["ticket.close"],
         "conditions": {"context_matches": {"env": "prod"}}},
    ],
}  # fmt: skip


def variant(version: str, *policies: Json, **fields: Any) -> Atlas:
    return loader.load_json({**ATLAS, "version": version, "policies": [*ATLAS["policies"], *policies], **fields})


def desk(capture: str = "full", atlas: Json = ATLAS, **config: Any) -> tuple[CRARuntime, FixedClock]:
    clock = FixedClock()
    settings = {"clock": clock, "ids": SeededIds(5), "capture_parameters": capture, **config}
    runtime = CRARuntime(RuntimeConfig(**settings))
    runtime.load_atlas_from_json(json.dumps(atlas))
    runtime.register_executor("*", lambda parameters: {"done": True}, inline=True)
    return runtime, clock


def lived(runtime: CRARuntime, clock: FixedClock, *, context: Json | None = None, env: str | None = None) -> bytes:
    """Return the trace of a session in which a bit of everything happens."""
    session = runtime.create_session("agent-1", "help", context=context)
    with suppress(CRAError):
        runtime.execute(session.id, "ticket.get", {"id": 1})
    runtime.resolve(session.id, "help", context=None if env is None else {"env": env}, risk_tier="medium")
    for action_id, parameters in [
        ("ticket.get", {"id": 1}),
        ("ticket.get", {"id": "one"}),
        ("ticket.close", {}),
        ("ticket.delete", {}),
        ("refund.list", {}),
        ("refund.list", {}),
        ("refund.list", {}),
        ("refund.create", {"amount": 40.5}),
        ("refund.create", {}),
        ("refund.create", {"amount": 2000}),
        ("no.such", {}),
    ]:
        clock.advance(us=1500)
        with suppress(CRAError):
            key = "first" if action_id == "ticket.get" else None
            runtime.execute(session.id, action_id, parameters, idempotency_key=key)
    with suppress(CRAError):
        runtime.execute(session.id, "ticket.get", {"id": 1}, idempotency_key="first")
    with pytest.raises(ApprovalRequired) as asked:
        runtime.execute(session.id, "refund.create", {"amount": 500})
    clock.advance(5)
    runtime.approvals.grant(asked.value.approval_id, approver="dana", reason="a good customer")
    runtime.execute(session.id, "refund.create", {"amount": 500}, approval_id=asked.value.approval_id)
    with suppress(CRAError):
        runtime.execute(session.id, "refund.create", {"amount": 500}, approval_id=asked.value.approval_id)
    runtime.resolve(session.id, "once more")
    clock.advance(10)
    runtime.end_session(session.id)
    return runtime.get_trace(session.id).data


def forged(data: bytes, event_type: str, nth: int = 0, **fields: Any) -> bytes:
    """Return the trace with fields of one payload changed, under a good chain."""
    events = [json.loads(line) for line in data.splitlines()]
    place = [number for number, event in enumerate(events) if event["event_type"] == event_type][nth]
    events[place]["payload"].update(fields)
    return b"".join(chain.line(event) for event in chain.link_all(events))


def test_a_session_with_a_bit_of_everything_comes_out_again_byte_for_byte() -> None:
    runtime, clock = desk()
    with runtime:
        data = lived(runtime, clock, context={"env": "test"}, env="prod")
        result = runtime.replay(data)
    assert result.ok
    assert result.complete
    # The other call with the key of the first: which key it was is not in the trace.
    assert [event.event_type for event in result.events if event.status == "given"] == ["error.occurred"]
    assert result.counts()["same"] + 1 == len(result.events) == data.count(b"\n")
    assert result.recorded == result.given
    assert not result.atlases_changed
    assert result.what_if is None
    assert json.loads(json.dumps(result.as_dict()))["ok"] is True


def test_with_digests_only_everything_that_could_be_decided_comes_out_again_and_the_rest_is_named() -> None:
    runtime, clock = desk("hash")
    with runtime:
        data = lived(runtime, clock, context={"env": "test"}, env="prod")
        result = runtime.replay(data)
    assert result.ok
    assert not result.complete
    types = {event.event_type for event in result.not_retained}
    assert "action.approved" in types
    assert "action.requested" not in types
    reasons = {event.reason for event in result.not_retained}
    assert any("policy `large`" in str(reason) for reason in reasons)
    assert any("context" in str(reason) for reason in reasons)


def test_a_call_whose_parameters_do_not_matter_is_decided_although_only_their_digest_was_kept() -> None:
    runtime, _ = desk("hash")
    with runtime:
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help")
        runtime.execute(session.id, "ticket.close", {"secret": "x"})
        with pytest.raises(CRAError):
            runtime.execute(session.id, "ticket.delete", {"secret": "x"})
        result = runtime.replay(runtime.get_trace(session.id))
    assert result.ok
    assert result.complete


def test_the_library_and_the_configuration_mean_the_same_default_budget() -> None:
    assert RuntimeConfig().max_context_tokens == DEFAULT_CONTEXT_TOKENS == LIBRARY_RULES.max_context_tokens


def test_another_token_budget_is_in_the_record_and_used() -> None:
    atlas = {**ATLAS, "context_packs": [{"pack_id": "guide", "name": "Guide", "files": ["a.md", "b.md"]}]}
    runtime = CRARuntime(RuntimeConfig(max_context_tokens=3))
    with runtime:
        runtime.load_atlas_from_json(json.dumps(atlas), {"a.md": "x" * 12, "b.md": "y" * 12})
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help")
        trace = runtime.get_trace(session.id)
        atlases = runtime.list_atlases()
    assert trace[0].payload["max_context_tokens"] == 3
    assert len(trace.of_type("context.redacted")) == 1
    assert replay(trace, atlases).ok


FORGERIES: list[tuple[str, int, Json, str]] = [
    ("policy.evaluated", 0, {"result": "allow"}, "/result"),
    ("policy.evaluated", 0, {"policy_id": "someone"}, "/policy_id"),
    ("carp.resolution.completed", 0, {"allowed_count": 9}, "/allowed_count"),
    ("carp.resolution.completed", 0, {"resolution_hash": "0" * 64}, "/resolution_hash"),
    ("action.approved", 0, {"resolution_id": "01920000-0000-7000-8000-0000000000aa"}, "/resolution_id"),
    ("action.denied", 0, {"reason": "because"}, "/reason"),
    ("policy.violated", 1, {"violation_type": "budget"}, "/violation_type"),
    ("action.executed", 0, {"duration_ms": 77}, "/duration_ms"),
    ("action.requested", 0, {"parameters_hash": "0" * 64}, "/parameters_hash"),
    ("approval.requested", 0, {"policy_id": "other"}, "/policy_id"),
    ("approval.granted", 0, {"action_id": "ticket.get"}, "/action_id"),
    ("session.ended", 0, {"action_count": 0}, "/action_count"),
    (
        "session.started",
        0,
        {"atlases": [{"atlas_id": "com.acme.desk", "version": "1.0.0", "digest": "0" * 64}]},
        "/atlases/0/digest",
    ),
    ("error.occurred", 0, {"error_message": "no"}, "/error_message"),
]


@pytest.mark.parametrize(("event_type", "nth", "fields", "pointer"), FORGERIES)
def test_a_forged_payload_under_a_good_chain_is_found_at_its_place(
    event_type: str, nth: int, fields: Json, pointer: str
) -> None:
    runtime, clock = desk()
    with runtime:
        data = forged(lived(runtime, clock), event_type, nth, **fields)
        result = runtime.replay(data)
    assert not result.ok
    assert (event_type, pointer) in {(event.event_type, event.pointer) for event in result.differences}


def test_an_event_that_was_left_out_or_put_in_is_found() -> None:
    runtime, clock = desk()
    with runtime:
        events = [json.loads(line) for line in lived(runtime, clock).splitlines()]
        place = next(n for n, e in enumerate(events) if e["event_type"] == "policy.evaluated")
        shorter = [e for n, e in enumerate(events) if n != place]
        longer = [*events[: place + 1], {**events[place], "payload": {**events[place]["payload"], "action_id": "x.y"}},
                  *events[place + 1 :]]  # fmt: skip
        for forgery, reason in ((shorter, "decided now, not recorded"), (longer, "recorded, not decided now")):
            numbered = [{**event, "sequence": number} for number, event in enumerate(forgery)]
            result = runtime.replay(b"".join(chain.line(event) for event in chain.link_all(numbered)))
            assert [event.reason for event in result.differences] == [reason]


def test_a_forged_outcome_that_no_value_of_a_lost_parameter_explains_is_found() -> None:
    runtime, clock = desk("hash")
    with runtime:
        data = lived(runtime, clock)
        events = [json.loads(line) for line in data.splitlines()]
        evaluated = [
            e for e in events if e["event_type"] == "policy.evaluated" and e["payload"]["policy_id"] == "large"
        ]
        nth = [e for e in events if e["event_type"] == "policy.evaluated"].index(evaluated[0])
        result = runtime.replay(forged(data, "policy.evaluated", nth, policy_id="no-delete"))
    assert "/policy_id" in {event.pointer for event in result.differences}


def test_a_broken_chain_is_refused_with_the_event_and_nothing_is_decided() -> None:
    runtime, clock = desk()
    with runtime:
        data = lived(runtime, clock)
        with pytest.raises(InvalidTrace, match="event 2: event_hash") as caught:
            runtime.replay(data.replace(b'"goal":"help","operation"', b'"goal":"held","operation"'))
        for none in ("one.trace.jsonl", None, 3):
            with pytest.raises(InvalidTrace, match="expected a Trace or the bytes of one"):
                runtime.replay(none)
        with pytest.raises(InvalidTrace, match="expected `session"):
            runtime.replay(b"")
    assert caught.value.details["reason"] == "hash"


def test_atlases_that_changed_half_way_are_found_by_their_digests() -> None:
    runtime, _ = desk()
    stricter = variant("2.0.0", {"policy_id": "no-get", "type": "deny", "actions": ["ticket.get"]})
    with runtime:
        (first,) = runtime.list_atlases()
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "before")
        runtime.execute(session.id, "ticket.get", {"id": 1})
        runtime._add(stricter, replace=True)
        with pytest.raises(CRAError):
            runtime.execute(session.id, "ticket.get", {"id": 1})
        runtime.resolve(session.id, "after")
        trace = runtime.get_trace(session.id)
    both = replay(trace, [stricter, first])
    assert both.ok
    assert both.atlases_changed
    assert [use.given for use in both.snapshots] == [True, True]
    one = replay(trace, first)
    assert not one.ok
    assert [use.given for use in one.snapshots] == [True, False]
    assert one.what_if is not None


def test_the_default_decision_is_told_by_the_digest() -> None:
    runtime, _ = desk(default_decision="deny")
    with runtime:
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help")
        trace = runtime.get_trace(session.id)
        assert replay(trace, runtime.list_atlases(), default_decision="allow").ok


def test_what_was_retried_after_an_idempotent_answer_or_a_missing_executor_is_taken_as_given() -> None:
    runtime = CRARuntime(RuntimeConfig(capture_parameters="full"))
    with runtime:
        runtime.load_atlas_from_json(json.dumps(ATLAS))
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help")
        with pytest.raises(CRAError, match="no executor"):
            runtime.execute(session.id, "ticket.get", {"id": 1})
        result = runtime.replay(runtime.get_trace(session.id))
    assert result.ok
    assert [event.event_type for event in result.events if event.status == "given"] == ["error.occurred"]


def test_the_asynchronous_runtime_replays_what_the_synchronous_one_recorded_and_the_other_way_round() -> None:
    async def live() -> bytes:
        async with AsyncCRARuntime(RuntimeConfig(capture_parameters="full")) as runtime:
            runtime.load_atlas_from_json(json.dumps(ATLAS))
            runtime.register_executor("*", lambda parameters: None, inline=True)
            session = await runtime.create_session("agent-1", "help")
            await runtime.resolve(session.id, "help")
            await runtime.execute(session.id, "ticket.get", {"id": 1})
            trace = await runtime.get_trace(session.id)
            assert runtime.replay(trace).ok
            return trace.data

    runtime, _ = desk()
    with runtime:
        assert runtime.replay(asyncio.run(live())).complete


def test_a_thousand_random_steps_come_out_again(seed: int) -> None:
    rng = random.Random(seed)
    runtime, clock = desk()
    calls: list[Callable[[], tuple[str, Json]]] = [
        lambda: ("ticket.get", {"id": rng.choice([1, "x", 2**70])}),
        lambda: ("ticket.close", {"note": "é😀"}),
        lambda: ("ticket.delete", {}),
        lambda: ("refund.list", {}),
        lambda: ("refund.create", {"amount": rng.choice([1, 0.1, 99, 101, -1, "a"])}),
    ]
    with runtime:
        session = runtime.create_session("agent-1", "help", context={"env": "test"})
        runtime.resolve(session.id, "help")
        for _ in range(1000):
            clock.advance(rng.choice([0, 0.001, 1, 30]))
            with suppress(CRAError):
                if rng.random() < 0.1:
                    runtime.resolve(
                        session.id, "help", risk_tier=rng.choice(["low", "high"]), context={"a": rng.random()}
                    )
                elif rng.random() < 0.1:
                    pending = runtime.approvals.list(session_id=session.id, status="pending")
                    decide = rng.choice([runtime.approvals.grant, runtime.approvals.reject])
                    decide(rng.choice(pending).approval_id if pending else session.id, approver="dana")
                else:
                    action_id, parameters = rng.choice(calls)()
                    key = rng.choice([None, f"{action_id}{parameters}"])
                    runtime.execute(session.id, action_id, parameters, idempotency_key=key)
        result = runtime.replay(runtime.get_trace(session.id))
    assert result.differences == ()
    assert result.not_retained == ()


# What if


def _changes(found: Any) -> list[tuple[str, str, str, str]]:
    return [
        (verdict.kind, change.action_id, change.before.decision, change.after.decision)
        for verdict in found.verdicts
        for change in verdict.changes
    ]


@pytest.fixture(scope="module")
def kept() -> bytes:
    runtime, clock = desk()
    with runtime:
        return lived(runtime, clock)


OWN = loader.load_json(ATLAS)


def test_the_recorded_atlases_would_have_changed_nothing(kept: bytes) -> None:
    found = what_if(kept, OWN, recorded=[OWN])
    assert not found
    assert found.grade == "same"


def test_a_stricter_version_denies_what_was_allowed_and_says_by_which_policy(kept: bytes) -> None:
    stricter = variant("2.0.0", {"policy_id": "no-close", "type": "deny", "actions": ["ticket.close"]})
    found = what_if(kept, stricter, recorded=[OWN])
    assert set(_changes(found)) == {
        ("resolve", "ticket.close", "allow", "deny"),
        ("call", "ticket.close", "allow", "deny"),
    }
    assert found.grade == "stricter"
    assert {c.after.policy for v in found.changed for c in v.changes} == {"com.acme.desk:no-close"}
    assert json.loads(json.dumps(found.as_dict()))["grade"] == "stricter"


def test_a_version_that_asks_for_approval_and_one_that_no_longer_does(kept: bytes) -> None:
    asking = variant("2.0.0", {"policy_id": "ask", "type": "require_approval", "actions": ["ticket.get"]})
    assert ("call", "ticket.get", "allow", "requires_approval") in _changes(what_if(kept, asking, recorded=[OWN]))
    lax = loader.load_json(
        {**ATLAS, "version": "0.9.0", "policies": [p for p in ATLAS["policies"] if p["policy_id"] != "large"]}
    )
    found = what_if(kept, lax, recorded=[OWN])
    assert ("call", "refund.create", "requires_approval", "allow") in _changes(found)
    # The first 500 would not have waited, so there would have been no budget for the second.
    assert ("call", "refund.create", "approved", "budget_exceeded") in _changes(found)
    assert found.grade == "mixed"


def test_a_person_who_agreed_to_a_call_agreed_to_it_under_other_atlases_too(kept: bytes) -> None:
    other = variant("1.0.1", description="better words")
    assert not what_if(kept, other, recorded=[OWN])


def test_a_new_limit_counts_the_calls_of_the_trace(kept: bytes) -> None:
    limited = variant(
        "2.0.0",
        {"policy_id": "one", "type": "rate_limit", "actions": ["refund.list"],
         "parameters": {"max_calls": 1, "window_seconds": 60}},
    )  # fmt: skip
    found = what_if(kept, limited, recorded=[OWN])
    calls = [change for change in _changes(found) if change[0] == "call"]
    assert calls == [
        ("call", "refund.list", "allow", "rate_limited"),
        # By the new limit now, which comes first.
        ("call", "refund.list", "rate_limited", "rate_limited"),
    ]
    assert "other_sessions" in found.not_retained


def test_an_action_that_is_gone_and_one_that_is_new(kept: bytes) -> None:
    actions = [action for action in ATLAS["actions"] if action["action_id"] != "ticket.close"]
    other = variant("2.0.0", actions=[*actions, {"action_id": "ticket.open", "name": "Open"}])
    found = what_if(kept, other, recorded=[OWN])
    assert ("resolve", "ticket.close", "allow", "not_offered") in _changes(found)
    assert ("resolve", "ticket.open", "not_offered", "allow") in _changes(found)
    assert found.grade == "mixed"


def test_without_the_recorded_atlases_what_the_default_decided_is_unknown(kept: bytes) -> None:
    found = what_if(kept, variant("2.0.0"))
    assert ("resolve", "ticket.get", "unknown", "allow") in _changes(found)
    assert "decisions" in found.not_retained


def test_what_the_record_proves_about_lost_parameters_is_used_and_the_rest_is_unknown() -> None:
    runtime, clock = desk("hash")
    huge = {
        "policy_id": "huge",
        "type": "deny",
        "actions": ["refund.create"],
        "conditions": {"parameters": {"const": 1}},
    }
    with runtime:
        data = lived(runtime, clock)
        same_question = runtime.what_if(data, variant("1.0.1", description="x"))
        other_question = runtime.what_if(data, variant("2.0.0", huge))
    assert [change for change in _changes(same_question) if change[0] == "call"] == []
    assert ("call", "refund.create", "allow", "unknown") in _changes(other_question)
    assert "parameters" in other_question.not_retained
    assert any("allow" in words and "deny" in words for verdict in other_question.calls for words in verdict.unknown)


def test_context_blocks_that_would_have_come_or_gone_are_named() -> None:
    pack = {"context_packs": [{"pack_id": "guide", "name": "Guide", "files": ["a.md", "b.md"]}]}
    old = loader.load_json({**ATLAS, **pack}, {"a.md": "one", "b.md": "two"})
    new = loader.load_json(
        {
            **ATLAS,
            "version": "2.0.0",
            "context_packs": [{"pack_id": "guide", "name": "Guide", "files": ["a.md", "c.md"]}],
        },
        {"a.md": "uno", "c.md": "three"},
    )
    runtime = CRARuntime()
    with runtime:
        runtime._add(old, replace=False)
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help")
        (verdict,) = runtime.what_if(runtime.get_trace(session.id), new).resolves
    assert [(block.block_id, block.change) for block in verdict.blocks] == [
        ("guide/a.md", "changed"),
        ("guide/b.md", "removed"),
        ("guide/c.md", "added"),
    ]
    assert verdict.grade == "neutral"


@pytest.mark.parametrize(
    ("before", "after", "grade"),
    [
        ("allow", "allow", "same"),
        ("allow", "deny", "stricter"),
        ("allow", "requires_approval", "stricter"),
        ("requires_approval", "deny", "stricter"),
        ("deny", "rate_limited", "neutral"),
        ("deny", "not_offered", "neutral"),
        ("rate_limited", "allow", "looser"),
        ("approved", "allow", "looser"),
        ("approved", "requires_approval", "neutral"),
        ("allow", "unknown", "unknown"),
    ],
)
def test_changes_are_graded_by_what_the_agent_may_do(before: Any, after: Any, grade: str) -> None:
    assert grade_of(Ruling(decision=before), Ruling(decision=after)) == grade


@pytest.mark.parametrize(
    ("one", "other", "pointer"),
    [
        ({"a": 1}, {"a": 1.0}, None),
        ({"a": 1}, {"a": True}, "/a"),
        ({"a": [1, {"b/~": 2}]}, {"a": [1, {"b/~": 3}]}, "/a/1/b~1~0"),
        ({"a": 1, "b": 2}, {"b": 3}, "/a"),
        ([1], [1, 2], "/1"),
        (None, {}, ""),
    ],
)
def test_the_first_difference_is_named_by_its_pointer(one: Any, other: Any, pointer: str | None) -> None:
    found = first_difference(one, other)
    assert (None if found is None else found[0]) == pointer


GOLD: Json = {
    "atlas_version": "1.0",
    "atlas_id": "com.acme.gold",
    "version": "1.0.0",
    "name": "gold",
    "actions": [{"action_id": "refund.create", "name": "Refund"}, {"action_id": "refund.list", "name": "Refunds"}],
    "policies": [
        {"policy_id": "gold", "type": "allow", "actions": ["*.create"],
         "conditions": {"context_matches": {"plan": "gold"}}},
        {"policy_id": "all", "type": "allow", "actions": ["*.list"]},
    ],
    "context_packs": [
        {"pack_id": "gold", "name": "Gold", "files": ["gold.md"], "conditions": {"context_matches": {"plan": "gold"}}}
    ],
}  # fmt: skip


@pytest.mark.parametrize("plan", ["gold", "free"])
def test_what_a_lost_context_let_a_resolve_offer_is_taken_from_the_record(plan: str) -> None:
    atlas = loader.load_json(GOLD, {"gold.md": "be generous"})
    looser = loader.load_json({**GOLD, "version": "1.0.1", "description": "better words"}, {"gold.md": "be generous"})
    runtime = CRARuntime(RuntimeConfig(clock=FixedClock(), ids=SeededIds(3)))
    with runtime:
        runtime.load_atlas(atlas)
        runtime.register_executor("*", lambda parameters: None, inline=True)
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help", context={"plan": plan})
        with suppress(CRAError):
            runtime.execute(session.id, "refund.create", {})
        trace = runtime.get_trace(session.id)
    result = replay(trace, atlas)
    assert result.differences == ()
    assert "carp.resolution.completed" in {event.event_type for event in result.not_retained}
    # The same atlases decide the same and choose the same documents, whatever the context was.
    assert what_if(trace, atlas, recorded=[atlas]).grade == "same"
    # Others may have allowed the call: what it hangs on is named, and no offer is made up.
    assert {change[3] for change in _changes(what_if(trace, looser)) if change[0] == "call"} == {"unknown"}


def test_many_versions_are_found_in_the_order_in_which_they_took_each_others_place() -> None:
    runtime = CRARuntime(RuntimeConfig(clock=FixedClock(), ids=SeededIds(3)))
    given = []
    with runtime:
        for name in ("one", "two", "three"):
            given.append(loader.load_json({**GOLD, "atlas_id": f"com.acme.{name}", "actions": [], "context_packs": []}))
            runtime.load_atlas(given[-1])
        session = runtime.create_session("agent-1", "help")
        for number in range(1, 9):
            again = given[number % 3]
            given.append(
                loader.load_json(
                    {**GOLD, "atlas_id": again.atlas_id, "version": f"2.{number}.0", "actions": [], "context_packs": []}
                )
            )
            runtime.load_atlas(given[-1], replace=True)
            runtime.resolve(session.id, "help")
        result = replay(runtime.get_trace(session.id), given)
    assert result.ok
    assert all(use.given for use in result.snapshots)
    assert len(result.snapshots) == 8


@pytest.mark.parametrize("reason", [{"reason": ""}, {}, {"reason": "the till is empty"}])
def test_a_budget_that_is_used_up_says_the_same_whatever_a_lost_cost_was(reason: Json) -> None:
    budget = {"policy_id": "till", "type": "budget", "actions": ["*"], **reason,
              "parameters": {"limit": 0.000001, "unit": "EUR", "window": "session", "cost": "/amount"}}  # fmt: skip
    runtime, _ = desk("hash", {**ATLAS, "policies": [budget]})
    with runtime:
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help")
        for _ in range(2):
            with suppress(CRAError):
                runtime.execute(session.id, "refund.create", {"amount": 0.000001})
        trace = runtime.get_trace(session.id)
        assert "action.denied" in {event.event_type for event in trace}
        assert runtime.replay(trace).differences == ()
