"""Watchers: who waits is told after the commit, in any thread, and never in its way."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from cra.errors import ApprovalNotFound, ApprovalRequired, InvalidRequest, StorageError
from cra.runtime import approvals as module
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage
from cra.testing.faults import FaultyStorage
from cra.testing.writer import together
from tests.runtime.desk import Desk

LONG = 60.0  # seconds that no test waits


def asked(desk: Desk) -> str:
    """Return the id of an approval that waits."""
    session_id = desk.begin()
    with pytest.raises(ApprovalRequired) as caught:
        desk.runtime.execute(session_id, "mail.send", {})
    return caught.value.approval_id


def test_a_watcher_finds_the_events_that_it_is_told_of(desk: Desk) -> None:
    session_id = desk.begin()
    seen: list[list[str]] = []
    subscription = desk.runtime.subscribe(session_id, lambda: seen.append(desk.types(session_id)))
    before = len(desk.types(session_id))
    desk.runtime.execute(session_id, "ticket.get", {})
    # The intent, then the outcome.
    assert [types[before:][-1] for types in seen] == ["action.approved", "action.executed"]
    desk.runtime.end_session(session_id)
    assert seen[-1][-1] == "session.ended"
    subscription.close()
    subscription.close()
    assert len(seen) == 3


def test_only_who_watches_a_session_is_told_of_it(desk: Desk) -> None:
    one, other = desk.begin(), desk.begin()
    told: list[str] = []
    with desk.runtime.subscribe(one, lambda: told.append("a")), desk.runtime.subscribe(one, lambda: told.append("b")):
        desk.runtime.resolve(other, "goal")
        assert told == []
        desk.runtime.resolve(one, "goal")
        assert told == ["a", "b"]
    desk.runtime.resolve(one, "goal")
    assert told == ["a", "b"]
    assert desk.runtime._kernel.watchers.by_session == {}


def test_a_watcher_that_fails_breaks_nothing(desk: Desk) -> None:
    session_id = desk.begin()
    told = Event()

    def fail() -> None:
        raise RuntimeError("the reader has gone")

    with desk.runtime.subscribe(session_id, fail), desk.runtime.subscribe(session_id, told.set):
        assert desk.runtime.execute(session_id, "ticket.get", {}) == {"ok": True}
    assert told.is_set()


def test_a_commit_that_failed_is_not_told() -> None:
    faulty = FaultyStorage(MemoryStorage())
    desk = Desk(faulty)
    session_id = desk.begin()
    told: list[int] = []
    with desk.runtime.subscribe(session_id, lambda: told.append(1)):
        faulty.fail("before")
        with pytest.raises(StorageError):
            desk.runtime.resolve(session_id, "goal")
    assert told == []


def test_changes_of_administration_are_told(desk: Desk) -> None:
    administration = desk.runtime.administration
    told: list[str] = []
    with desk.runtime.subscribe(
        administration.session_id, lambda: told.append(desk.last(administration.session_id)[0])
    ):
        administration.set_retention({"keep_ended": 3}, actor="ann")
        administration.set_retention({"keep_ended": 4}, actor="ann")
    assert told == ["retention.set", "retention.set"]


def test_watchers_come_and_go_while_sessions_are_written(desk: Desk) -> None:
    session_id = desk.begin()
    told: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if number:
                with desk.runtime.subscribe(session_id, lambda: told.append(number)):
                    desk.runtime.resolve(session_id, "goal")
            else:
                desk.runtime.resolve(session_id, "goal")

    together(4, work)
    # Everybody was there for their own commit at least.
    assert all(told.count(number) >= 20 for number in (1, 2, 3))
    assert desk.runtime._kernel.watchers.by_session == {}


# Waiting for a decision


@pytest.mark.parametrize("decision", ["grant", "reject"])
def test_who_waits_for_an_approval_has_it_as_soon_as_it_is_decided(
    desk: Desk, decision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Were it not told, it would not come back in the time that tests have.
    monkeypatch.setattr(module, "POLL_SECONDS", LONG)
    approval_id = asked(desk)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(desk.runtime.approvals.wait, approval_id, LONG) for _ in range(3)]
        getattr(desk.runtime.approvals, decision)(approval_id, approver="ann")
        records = [future.result(30) for future in waiting]
    assert {record.status for record in records} == {"granted" if decision == "grant" else "rejected"}
    assert desk.runtime._kernel.watchers.by_session == {}


def test_a_decision_of_another_process_is_seen_by_who_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    approval_id = asked(desk)
    other = Desk(desk.store, seed=2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(desk.runtime.approvals.wait, approval_id, LONG)
        other.runtime.approvals.grant(approval_id, approver="ann")
        assert waiting.result(30).status == "granted"


def test_who_has_waited_long_enough_gets_it_as_it_is(desk: Desk) -> None:
    approval_id = asked(desk)
    assert desk.runtime.approvals.wait(approval_id, 0).status == "pending"
    assert desk.runtime.approvals.wait(approval_id, 0.01).status == "pending"
    # Nobody waits for what is over.
    desk.clock.advance(3600)
    assert desk.runtime.approvals.wait(approval_id, LONG).status == "pending"
    desk.runtime.approvals.expire()
    assert desk.runtime.approvals.wait(approval_id, LONG).status == "expired"


def test_a_wait_is_bounded_and_for_something_that_exists(desk: Desk) -> None:
    approval_id = asked(desk)
    wrong: Any
    for wrong in (-1, 3601, float("nan"), float("inf"), True, "5", None):
        with pytest.raises(InvalidRequest, match="seconds"):
            desk.runtime.approvals.wait(approval_id, wrong)
    with pytest.raises(ApprovalNotFound):
        desk.runtime.approvals.wait("01920000-0000-7000-8000-00000000000a", LONG)


def test_many_wait_on_an_event_loop_without_a_thread_each(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", LONG)
    desk = Desk(store, asynchronous=True)

    async def run() -> None:
        runtime = desk.runtime
        session = await runtime.create_session("agent-1", "goal")
        await runtime.resolve(session.id, "goal")
        with pytest.raises(ApprovalRequired) as caught:
            await runtime.execute(session.id, "mail.send", {})
        approval_id = caught.value.approval_id
        # More than the runtime has threads for its store.
        waiting = [asyncio.create_task(runtime.approvals.wait(approval_id, LONG)) for _ in range(200)]
        for _ in range(3):
            assert (await runtime.approvals.get(approval_id)).status == "pending"
        await runtime.approvals.grant(approval_id, approver="ann")
        async with asyncio.timeout(30):
            records = await asyncio.gather(*waiting)
        assert {record.status for record in records} == {"granted"}
        assert (await runtime.approvals.wait(approval_id, 0)).status == "granted"

    asyncio.run(run())
    assert desk.runtime._kernel.watchers.by_session == {}


def test_who_stops_waiting_on_an_event_loop_is_forgotten(store: Storage) -> None:
    desk = Desk(store, asynchronous=True)

    async def run() -> None:
        runtime = desk.runtime
        session = await runtime.create_session("agent-1", "goal")
        await runtime.resolve(session.id, "goal")
        with pytest.raises(ApprovalRequired) as caught:
            await runtime.execute(session.id, "mail.send", {})
        approval_id = caught.value.approval_id
        assert (await runtime.approvals.wait(approval_id, 0.01)).status == "pending"
        task = asyncio.create_task(runtime.approvals.wait(approval_id, LONG))
        while not runtime._kernel.watchers.by_session:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert desk.runtime._kernel.watchers.by_session == {}
