"""Two traces are compared by meaning."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra import ActionDenied, CRARuntime, RuntimeConfig
from cra.audit import diff as comparing
from cra.audit.diff import GRADES, diff
from cra.errors import InvalidTrace
from cra.testing.clock import FixedClock, SeededIds
from specs.reference import chain

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.acme.desk",
    "version": "1.0.0",
    "name": "desk",
    "actions": [
        {"action_id": "ticket.get", "name": "Get"},
        {"action_id": "ticket.close", "name": "Close"},
        {"action_id": "ticket.delete", "name": "Delete"},
    ],
    "policies": [{"policy_id": "no-delete", "type": "deny", "actions": ["*.delete"]}],
}
STRICTER = {
    **ATLAS,
    "version": "2.0.0",
    "policies": [*ATLAS["policies"], {"policy_id": "no-close", "type": "deny", "actions": ["*.close"]}],  # type: ignore[misc]
}
Steps = list[tuple[str, str]]


def record(
    steps: Steps, atlas: object = ATLAS, *, seed: int = 0, start_us: int = 10**15, result: object = None
) -> bytes:
    """Return the trace of a session that resolves goals and calls actions."""
    clock = FixedClock(start_us)
    with CRARuntime(RuntimeConfig(clock=clock, ids=SeededIds(seed))) as runtime:
        runtime.load_atlas_from_json(json.dumps(atlas))
        runtime.register_executor("*", lambda parameters: result, inline=True)
        session = runtime.create_session("agent-1", "help")
        for what, subject in [("resolve", "begin"), *steps]:
            clock.advance(us=1000 + seed)
            if what == "resolve":
                runtime.resolve(session.id, subject)
                continue
            with suppress(ActionDenied):
                runtime.execute(session.id, subject, {})
        runtime.end_session(session.id)
        return runtime.get_trace(session.id).data


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("resolve"), st.sampled_from(["read", "close"])),
        st.tuples(st.just("call"), st.sampled_from(["ticket.get", "ticket.close", "ticket.delete"])),
    ),
    max_size=6,
)


@settings(max_examples=40)
@given(STEPS)
def test_two_runs_of_one_thing_differ_in_nothing(steps: Steps) -> None:
    assert not diff(record(steps), record(steps, seed=7, start_us=2 * 10**15))


@settings(max_examples=40)
@given(STEPS, STEPS)
def test_a_diff_the_other_way_round_has_the_same_grade_and_as_many_events_on_each_side(one: Steps, two: Steps) -> None:
    before, after = record(one), record(two, seed=1)
    there, back = diff(before, after), diff(after, before)
    assert there.grade == back.grade
    assert (there.before_events, there.after_events) == (back.after_events, back.before_events)
    assert bool(there) == bool(back)


def test_another_result_is_behaviour() -> None:
    found = diff(record([("call", "ticket.get")]), record([("call", "ticket.get")], result={"a": 1}))
    assert found.grade == "behaviour"
    assert [difference.pointer for difference in found.differences] == ["/result_hash"]


def test_a_stricter_atlas_that_denies_a_call_is_a_decision() -> None:
    steps = [("call", "ticket.get"), ("call", "ticket.close")]
    found = diff(record(steps), record(steps, STRICTER))
    assert found.grade == "decision"
    assert {d.event_type for d in found.differences if d.grade == "decision"} >= {"action.approved", "action.denied"}


def test_a_stricter_atlas_that_changes_no_decision_of_the_session_is_words_and_digests() -> None:
    atlas = {**ATLAS, "version": "1.0.1", "description": "better words"}
    found = diff(record([("call", "ticket.get")]), record([("call", "ticket.get")], atlas))
    assert found.grade == "cosmetic"
    assert {difference.pointer for difference in found.differences} == {"/atlases", "/snapshot_digest"}


def test_a_call_that_was_inserted_does_not_shift_the_others() -> None:
    steps = [("call", "ticket.get"), ("call", "ticket.delete"), ("call", "ticket.get")]
    found = diff(record(steps), record([steps[0], ("call", "ticket.close"), *steps[1:]]))
    alone = [difference for difference in found.differences if difference.before_index is None]
    assert [(one.event_type, one.after.get("action_id")) for one in alone] == [
        ("action.requested", "ticket.close"),
        ("action.approved", "ticket.close"),
        ("action.executed", "ticket.close"),
    ]
    assert [d.event_type for d in found.differences if d not in alone] == ["session.ended"]


def test_the_grade_of_the_whole_is_the_gravest() -> None:
    found = diff(record([]), record([("call", "ticket.delete")]))
    assert found.grade == "decision"
    assert sum(found.counts().values()) == len(found.differences)
    assert list(found.counts()) == list(GRADES[1:])
    assert json.loads(json.dumps(found.as_dict()))["grade"] == "decision"


def test_a_broken_chain_is_refused_with_its_event() -> None:
    good = record([("call", "ticket.get")])
    with pytest.raises(InvalidTrace, match="event 1") as caught:
        diff(good, good.replace(b'"goal":"begin"', b'"goal":"begun"'))
    assert caught.value.details["index"] == 1


def test_sessions_that_repeat_themselves_are_compared_in_bounded_time() -> None:
    # What repeats in two rhythms is the worst there is: this took sixteen seconds with 1,500 requests, and eight times
    # as long with twice as many.
    one = record([("resolve", "ab"[at % 2]) for at in range(1500)])
    other = record([("resolve", "ba"[at // 2 % 2]) for at in range(1500)], seed=1)
    began = time.process_time()
    assert diff(one, other)
    assert time.process_time() - began < 6


def test_without_the_effort_to_look_for_more_what_begins_and_ends_alike_is_still_paired(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = [("resolve", "read"), ("call", "ticket.get")] * 20
    more = [*steps[:20], ("call", "ticket.close"), *steps[20:]]
    before, again, longer = record(steps), record(steps, seed=1), record(more, seed=2)
    expected = diff(before, longer)
    monkeypatch.setattr(comparing, "_MOST_STEPS", 0)
    assert not diff(before, again)
    assert diff(before, longer).differences == expected.differences
    assert diff(before, longer).grade == "decision"


ONE, TWO = "01920000-0000-7000-8000-0000000000a1", "01920000-0000-7000-8000-0000000000a2"


@pytest.mark.parametrize(
    ("event_type", "before", "after"),
    [
        ("session.started", {"agent_id": ONE}, {"agent_id": TWO}),
        ("session.started", {"parent_session_id": ONE}, {}),
        ("carp.request.received", {"goal": f"refund {ONE}"}, {"goal": f"refund {TWO}"}),
        ("carp.request.received", {"goal": "by 2026-01-01T00:00:00Z"}, {"goal": "by 2027-01-01T00:00:00Z"}),
        ("action.approved", {"approver": ONE}, {"approver": TWO}),
        ("action.approved", {"approval_id": ONE}, {}),
    ],
)
def test_an_id_or_a_time_that_somebody_said_is_not_put_aside(
    event_type: str, before: dict[str, str], after: dict[str, str]
) -> None:
    def told(fields: dict[str, str]) -> bytes:
        events = [json.loads(line) for line in record([("call", "ticket.get")]).splitlines()]
        for event in events:
            if event["event_type"] == event_type:
                event["payload"].update(fields)
        return b"".join(chain.line(event) for event in chain.link_all(events))

    found = diff(told(before), told(after))
    assert [(one.event_type, one.pointer) for one in found.differences] == [(event_type, f"/{name}") for name in before]
    assert found.grade == "behaviour"
    assert not diff(told(before), told(before))
