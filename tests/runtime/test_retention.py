"""Retention: only whole sessions that have ended and are not held go, oldest first, and the record says which."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from cra import CRARuntime, RuntimeConfig
from cra._core.chain import Chain, EventBatch
from cra.errors import CRAError, InvalidRequest, SessionNotFound, StorageCorrupt, StorageError, StorageFull
from cra.protocol.times import format_timestamp
from cra.runtime import administration as module
from cra.runtime.retention import RetentionPolicy
from cra.storage.base import NO_CHANGE, Change
from cra.storage.memory import MemoryStorage
from cra.testing.faults import FaultyStorage
from cra.testing.writer import together
from tests.runtime.desk import Desk, dense

DAY = 86_400


def finished(desk: Desk, count: int, *, days: float = 1) -> list[str]:
    """Return sessions that ended one after the other, that many days apart."""
    session_ids = []
    for _ in range(count):
        session_ids.append(desk.begin())
        desk.runtime.end_session(session_ids[-1])
        desk.clock.advance(days * DAY)
    return session_ids


def left(desk: Desk) -> set[str]:
    own = desk.runtime.administration.session_id
    return {record.id for record in desk.runtime.list_sessions(limit=1000)} - {own}


def purged(desk: Desk) -> list[dict[str, Any]]:
    events = desk.events(desk.runtime.administration.session_id)
    return [payload for event_type, payload in events if event_type == "session.purged"]


def test_what_lands_in_a_session_just_before_it_goes_is_in_the_record_of_its_going(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (session_id,) = finished(desk, 1)
    count = len(desk.events(session_id))
    storage, late = desk.runtime._kernel.storage, list[str]()
    append = storage.append

    def after_another(name: str, head: str, batch: EventBatch, change: Change) -> None:
        if change.purge and not late:
            # Such as the outcome of an action that was running when its session ended.
            record, end = storage.load(session_id)
            other = Chain(session_id, record.trace_id, *end).begin(end.last_us, bytes(64))
            other.add("error.occurred", {})
            append(session_id, end.hash, other, NO_CHANGE)
            late.append(other.head)
        append(name, head, batch, change)

    monkeypatch.setattr(storage, "append", after_another)
    assert desk.runtime.administration.purge(now_us=desk.clock.now_us) == []
    desk.runtime.administration.set_retention({"ended_days": 0, "keep_ended": None}, actor="ann")
    assert desk.runtime.administration.purge() == [session_id]
    assert [(one["head_hash"], one["events"]) for one in purged(desk)] == [(late[0], count + 1)]


@pytest.mark.parametrize("bounds", [{"max_sessions": 4}, {"max_events": 40}])
def test_a_memory_store_that_is_full_is_made_room_in(bounds: dict[str, int]) -> None:
    desk = Desk(MemoryStorage(**bounds))
    session_ids = list[str]()

    def fill() -> None:
        while True:
            session_ids.append(desk.begin())

    with pytest.raises(StorageFull):
        fill()
    for session_id in session_ids[:2]:
        desk.runtime.end_session(session_id)
        desk.clock.advance(1)
    desk.runtime.administration.set_retention({"keep_ended": 0}, actor="ann")
    assert desk.runtime.administration.purge() == session_ids[:2]
    assert desk.begin() in left(desk)


def test_sessions_go_when_they_ended_too_many_days_ago(desk: Desk) -> None:
    old, middle, new = finished(desk, 3)
    active = desk.begin()
    administration = desk.runtime.administration
    # They ended three, two and one days ago; what ended exactly two days ago stays.
    administration.set_retention({"ended_days": 2, "keep_ended": None}, actor="ann")
    assert administration.purge() == [old]
    assert left(desk) == {middle, new, active}
    assert administration.purge(now_us=desk.clock.now_us + 1) == [middle]
    assert administration.purge(now_us=desk.clock.now_us + 1) == []
    desk.clock.advance(1000 * DAY)
    assert administration.purge() == [new]
    assert left(desk) == {active}


def test_sessions_go_when_enough_others_ended_later(desk: Desk) -> None:
    session_ids = finished(desk, 5)
    administration = desk.runtime.administration
    administration.set_retention(RetentionPolicy(keep_ended=2), actor="ann")
    assert administration.purge() == session_ids[:3]
    assert administration.purge() == []
    assert left(desk) == set(session_ids[3:])


def test_either_rule_of_a_policy_is_enough(desk: Desk) -> None:
    session_ids = finished(desk, 4)
    administration = desk.runtime.administration
    administration.set_retention({"ended_days": 3, "keep_ended": 2}, actor="ann")
    assert administration.purge() == session_ids[:2]
    assert [payload["reason"] for payload in purged(desk)] == ["ended_days", "keep_ended"]


def test_nothing_goes_without_a_policy(desk: Desk) -> None:
    session_ids = finished(desk, 2, days=10_000)
    assert desk.runtime.administration.retention() == RetentionPolicy()
    assert desk.runtime.administration.purge() == []
    assert left(desk) == set(session_ids)
    # Nothing was recorded, because nothing was done.
    with pytest.raises(SessionNotFound):
        desk.runtime.get_trace(desk.runtime.administration.session_id)


def test_an_event_says_what_was_purged_so_that_an_exported_copy_can_be_matched(desk: Desk) -> None:
    (session_id,) = finished(desk, 1)
    exported = desk.runtime.get_trace(session_id)
    ended = desk.runtime.get_session(session_id)
    administration = desk.runtime.administration
    administration.set_retention({"keep_ended": 0}, actor="ann")
    administration.purge(actor="bob")
    assert purged(desk) == [
        {
            "actor": "bob",
            "session_id": session_id,
            "agent_id": "agent-1",
            "ended_at": format_timestamp(ended.ended_us or 0),
            "events": len(exported),
            "head_hash": exported[-1].event_hash,
            "reason": "keep_ended",
            "policy": {"ended_days": None, "keep_ended": 0},
        }
    ]
    for gone in (desk.runtime.get_trace, desk.runtime.get_session, desk.runtime.verify_chain):
        with pytest.raises(SessionNotFound):
            gone(session_id)
    assert desk.runtime.verify_chain(administration.session_id)


def test_what_is_held_is_never_purged_and_nothing_goes_in_its_place(desk: Desk) -> None:
    session_ids = finished(desk, 4)
    administration = desk.runtime.administration
    administration.set_retention({"keep_ended": 2}, actor="ann")
    hold = administration.place_hold(session_ids[0], actor="bob", reason="case 17")
    assert administration.holds() == [hold]
    assert (hold.session_id, hold.actor, hold.reason) == (session_ids[0], "bob", "case 17")
    assert administration.purge() == [session_ids[1]]
    assert left(desk) == {session_ids[0], *session_ids[2:]}
    administration.release_hold(session_ids[0], actor="bob")
    assert administration.holds() == []
    assert administration.purge() == [session_ids[0]]
    assert [kind for kind in desk.types(administration.session_id) if kind.startswith("hold")] == [
        "hold.placed",
        "hold.released",
    ]


def test_an_active_session_can_be_held_before_it_ends(desk: Desk) -> None:
    session_id = desk.begin()
    administration = desk.runtime.administration
    administration.place_hold(session_id, actor="bob", reason="case 17")
    desk.runtime.execute(session_id, "ticket.get", {})
    desk.runtime.end_session(session_id)
    administration.set_retention({"keep_ended": 0}, actor="ann")
    assert administration.purge() == []
    assert administration.hold(session_id) is not None


def test_a_hold_may_be_placed_again_for_another_reason(desk: Desk) -> None:
    session_id = desk.begin()
    administration = desk.runtime.administration
    for reason in ("case 17", "case 18"):
        administration.place_hold(session_id, actor="bob", reason=reason)
    assert [hold.reason for hold in administration.holds()] == ["case 18"]


def test_what_does_not_exist_is_not_held_or_released(desk: Desk) -> None:
    administration = desk.runtime.administration
    unknown = "01920000-0000-7000-8000-00000000000a"
    session_id = desk.begin()
    for call in (
        lambda: administration.place_hold(unknown, actor="bob", reason="case 17"),
        lambda: administration.release_hold(unknown, actor="bob"),
        lambda: administration.hold(unknown),
        lambda: administration.release_hold(session_id, actor="bob"),
    ):
        with pytest.raises(SessionNotFound):
            call()
    for reason in ("", "x" * 1001):
        with pytest.raises(InvalidRequest, match="reason"):
            administration.place_hold(session_id, actor="bob", reason=reason)
    assert administration.holds() == []


def test_a_hold_and_a_purge_that_race_are_decided_by_the_record(desk: Desk) -> None:
    other = Desk(desk.store, seed=2)
    desk.runtime.administration.set_retention({"keep_ended": 0}, actor="ann")
    for _ in range(6):
        session_ids = finished(desk, 3)

        def work(number: int, session_ids: list[str] = session_ids) -> Any:
            if number == 3:
                return desk.runtime.administration.purge()
            try:
                other.runtime.administration.place_hold(session_ids[number], actor="bob", reason="case 17")
            except CRAError as error:
                return error.code
            return "held"

        *outcomes, gone = together(4, work)
        # What was held is there, and what was purged could not be held.
        assert [session_id for session_id, code in zip(session_ids, outcomes, strict=True) if code != "held"] == gone
        assert set(outcomes) <= {"held", "session_not_found"}
        assert set(session_ids) - set(gone) <= left(desk)
        assert not set(gone) & left(desk)
    dense(desk.store, [desk.runtime.administration.session_id])


def test_purges_that_race_remove_each_session_once(desk: Desk) -> None:
    session_ids = finished(desk, 12)
    desks = [desk, *(Desk(desk.store, seed=seed) for seed in (2, 3))]
    desk.runtime.administration.set_retention({"keep_ended": 2}, actor="ann")
    gone = together(3, lambda number: desks[number].runtime.administration.purge(limit=4))
    assert Counter(session_id for some in gone for session_id in some) == Counter(session_ids[:10])
    assert sorted(payload["session_id"] for payload in purged(desk)) == sorted(session_ids[:10])


def test_many_sessions_go_in_bounded_batches(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PURGED_AT_ONCE", 3)
    session_ids = finished(desk, 8)
    desk.runtime.administration.set_retention({"keep_ended": 0}, actor="ann")
    assert desk.runtime.administration.purge(limit=4) == session_ids[:4]
    assert desk.runtime.administration.purge() == session_ids[4:]
    spans = Counter(
        event.span_id
        for event in desk.runtime.get_trace(desk.runtime.administration.session_id).of_type("session.purged")
    )
    assert sorted(spans.values()) == [1, 1, 3, 3]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_batch_whose_append_fails_is_purged_whole_or_not_at_all(when: Any) -> None:
    inner = MemoryStorage()
    faulty = FaultyStorage(inner)
    desk = Desk(faulty)
    session_ids = finished(desk, 3)
    desk.runtime.administration.set_retention({"keep_ended": 1}, actor="ann")
    faulty.fail(when)
    with pytest.raises(StorageError):
        desk.runtime.administration.purge()
    assert left(desk) == set(session_ids if when == "before" else session_ids[2:])
    assert len(purged(desk)) == (0 if when == "before" else 2)
    assert desk.runtime.administration.purge() == (session_ids[:2] if when == "before" else [])


@pytest.mark.parametrize(
    "policy",
    [
        {"ended_days": -1},
        {"keep_ended": 1.5},
        {"keep_ended": True},
        {"ended_days": "7"},
        {"ended_days": 1 << 60},
        {"forever": 1},
        RetentionPolicy(ended_days=-1),
        RetentionPolicy(keep_ended=True),
        None,
        [],
    ],
)
def test_a_policy_that_is_none_is_refused(policy: Any) -> None:
    runtime = CRARuntime()
    with pytest.raises(InvalidRequest):
        runtime.administration.set_retention(policy, actor="ann")
    assert runtime.list_sessions() == []


def test_a_policy_that_cannot_be_read_purges_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    session_ids = finished(desk, 2)
    monkeypatch.setattr("cra.runtime.retention.body_of", lambda value: b'{"ended_days":"never"}')
    desk.runtime.administration.set_retention({"ended_days": 0}, actor="ann")
    with pytest.raises(StorageCorrupt, match="stored retention"):
        desk.runtime.administration.purge()
    assert left(desk) == set(session_ids)


def test_who_runs_while_the_session_is_purged_hears_that_the_outcome_is_not_recorded(desk: Desk) -> None:
    session_id = desk.begin()
    administration = desk.runtime.administration
    administration.set_retention({"keep_ended": 0}, actor="ann")

    def purge(parameters: dict[str, Any]) -> None:
        desk.runtime.end_session(session_id)
        assert administration.purge() == [session_id]

    desk.does["ticket.get"] = purge
    with pytest.raises(SessionNotFound) as caught:
        desk.runtime.execute(session_id, "ticket.get", {})
    assert caught.value.hint == "the executor has run and its intent is recorded; its outcome is not"


# The runtime's own setting


def test_the_setting_keeps_that_many_ended_sessions() -> None:
    desk = Desk(MemoryStorage(), retention=2)
    session_ids = finished(desk, 5)
    assert left(desk) == set(session_ids[3:])
    assert [payload["session_id"] for payload in purged(desk)] == session_ids[:3]
    assert {payload["actor"] for payload in purged(desk)} == {"cra.retention"}
    assert desk.runtime.administration.retention() == RetentionPolicy(keep_ended=2)


@pytest.mark.parametrize("policy", [{"ended_days": 90}, {"keep_ended": 4}, {}])
def test_the_setting_takes_nothing_that_the_tenant_s_own_policy_keeps(policy: dict[str, int]) -> None:
    desk = Desk(MemoryStorage(), retention=2)
    desk.runtime.administration.set_retention(policy, actor="ann")
    session_ids = finished(desk, 4)
    assert left(desk) == set(session_ids)
    assert purged(desk) == []


def test_the_setting_does_not_purge_what_is_held() -> None:
    desk = Desk(MemoryStorage(), retention=0)
    session_id = desk.begin()
    desk.runtime.administration.place_hold(session_id, actor="bob", reason="case 17")
    desk.runtime.end_session(session_id)
    other = finished(desk, 1)
    assert left(desk) == {session_id}
    assert [payload["session_id"] for payload in purged(desk)] == other


def test_a_session_has_ended_though_older_ones_could_not_be_purged() -> None:
    faulty = FaultyStorage(MemoryStorage())
    desk = Desk(faulty, retention=0)
    session_id = desk.begin()
    faulty.fail("before", nth=2)  # the end, then the purge
    assert desk.runtime.end_session(session_id).status == "ended"
    assert left(desk) == {session_id}
    finished(desk, 1)
    assert left(desk) == set()


def test_the_setting_holds_on_an_event_loop_too() -> None:
    desk = Desk(MemoryStorage(), asynchronous=True, retention=0)

    async def run() -> None:
        session = await desk.runtime.create_session("agent-1", "goal")
        await desk.runtime.end_session(session.id)
        own = desk.runtime.administration.session_id
        assert [record.id for record in await desk.runtime.list_sessions()] == [own]

    asyncio.run(run())


def test_ending_a_session_does_not_read_all_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStorage()
    runtime = CRARuntime(RuntimeConfig(storage=store, retention=50))
    asked: list[int] = []
    whole: Any = store.ended

    def ended(**named: Any) -> Any:
        asked.append(named["limit"])
        return whole(**named)

    def fail(**named: Any) -> Any:
        raise AssertionError("all sessions were read")

    for _ in range(60):
        runtime.end_session(runtime.create_session("agent-1", "goal").id)
    monkeypatch.setattr(store, "ended", ended)
    monkeypatch.setattr(store, "sessions", fail)
    runtime.end_session(runtime.create_session("agent-1", "goal").id)
    assert store.ended_count() == 50
    assert len(asked) <= 4
