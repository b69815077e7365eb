"""The lane: an event loop and a store that waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import apsw
import pytest

from cra.errors import CRAError, LimitExceeded, SessionEnded, StorageError
from cra.runtime.lane import WouldWait
from cra.storage.sqlite import SQLiteStorage
from cra.testing.faults import FaultyStorage
from tests.runtime.desk import ATLAS, UNLIMITED, Desk, dense

UNKNOWN = "018f0000-0000-7000-8000-0000000000ff"


class Unqueued(SQLiteStorage):
    """The same store for those who wait in threads."""

    append_soon = None  # type: ignore[assignment]


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


async def told(call: Coroutine[Any, Any, Any]) -> Any:
    """Return what a call is answered, as something that can be compared."""
    try:
        answer = await call
    except CRAError as error:
        return error.code, error.message, error.hint, error.details
    return answer


async def story(store: SQLiteStorage, atlas: dict[str, Any]) -> tuple[list[Any], bytes]:
    """Do some of everything, and return the answers and the trace."""
    desk = Desk(store, asynchronous=True, atlas=atlas)
    runtime = desk.runtime
    session = await runtime.create_session("agent-1", "help")
    answers = [
        await told(runtime.execute(session.id, "ticket.get", {})),
        await told(runtime.resolve(session.id, "help")),
        await told(runtime.resolve(session.id, "help", atlas_ids=["com.example.absent"])),
        await told(runtime.resolve(UNKNOWN, "help")),
        await told(runtime.execute(session.id, "ticket.get", {"id": "1"})),
        await told(runtime.execute(session.id, "ticket.get", {"id": 1})),
        await told(runtime.execute(session.id, "ticket.get", [])),
        await told(runtime.execute(UNKNOWN, "ticket.get", {})),
        await told(runtime.execute(session.id, "ticket.delete", {})),
        await told(runtime.execute(session.id, "nobody.home", {})),
        await told(runtime.execute(session.id, "no.such", {})),
        await told(runtime.execute(session.id, "ticket.get", {"id": "2"}, idempotency_key="k")),
        await told(runtime.execute(session.id, "ticket.get", {"id": "2"}, idempotency_key="k")),
        await told(runtime.execute(session.id, "ticket.get", {"id": "3"}, idempotency_key="k")),
        await told(runtime.execute(session.id, "mail.send", {})),
    ]
    pending = (await runtime.approvals.list())[0]
    await runtime.approvals.grant(pending.approval_id, approver="ann")
    answers += [
        await told(runtime.execute(session.id, "mail.send", {})),
        await told(runtime.execute(session.id, "mail.send", {}, approval_id=pending.approval_id)),
        await told(runtime.handle(desk.request(session.id))),
        await told(runtime.handle(desk.request(session.id))),
    ]
    for resolution_id in (answers[1].resolution_id, UNKNOWN):
        call = {"resolution_id": resolution_id, "action_id": "ticket.get", "parameters": {}}
        for operation in ("execute", "validate"):
            answers.append(await told(runtime.handle(desk.request(session.id, operation, execution=call))))
    await runtime.end_session(session.id)
    answers.append(await told(runtime.resolve(session.id, "help")))
    dense(store, [session.id])
    trace = store.events(session.id)
    await runtime.close()
    return answers, trace


@pytest.mark.parametrize("atlas", [ATLAS, UNLIMITED], ids=["limits", "no limits"])
def test_a_queued_call_and_one_in_a_thread_have_the_same_answer_and_the_same_trace(
    tmp_path: Path, atlas: dict[str, Any]
) -> None:
    async def scenario() -> None:
        queued = await story(SQLiteStorage(tmp_path / "queued.db"), atlas)
        waited = await story(Unqueued(tmp_path / "waited.db"), atlas)
        assert queued == waited
        assert queued[1].count(b"\n") > 40

    run(scenario)


def test_the_loop_itself_never_waits_for_the_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        desk = Desk(SQLiteStorage(tmp_path / "cra.db"), asynchronous=True)
        session = await desk.runtime.create_session("agent-1", "help")
        with pytest.raises(WouldWait):
            desk.runtime._kernel.storage.load(session.id)
        assert await asyncio.to_thread(desk.runtime._kernel.storage.load, session.id)
        await desk.runtime.close()

    run(scenario)


def test_atlases_that_get_counters_just_now_are_decided_by_in_a_thread(tmp_path: Path) -> None:
    async def scenario() -> None:
        desk = Desk(SQLiteStorage(tmp_path / "cra.db"), asynchronous=True)
        session = await desk.runtime.create_session("agent-1", "help")
        # As it is seen before they change.
        desk.runtime._lane._takes = lambda: True
        await desk.runtime.resolve(session.id, "help")
        for _ in range(3):
            assert await desk.runtime.execute(session.id, "ticket.close", {}) == {"ok": True}
        with pytest.raises(LimitExceeded):
            await desk.runtime.execute(session.id, "ticket.close", {})
        dense(desk.store, [session.id])
        await desk.runtime.close()

    run(scenario)


def test_the_loop_goes_on_while_the_store_is_held(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStorage(tmp_path / "cra.db")
        desk = Desk(store, asynchronous=True, atlas=UNLIMITED)
        sessions = [await desk.runtime.create_session("agent-1", "help") for _ in range(5)]
        other = hold(store)
        tasks = [asyncio.ensure_future(desk.runtime.resolve(session.id, "help")) for session in sessions]
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        other.execute("ROLLBACK")
        assert len({resolution.resolution_id for resolution in await asyncio.gather(*tasks)}) == 5
        dense(store, [session.id for session in sessions])
        await desk.runtime.close()

    run(scenario)


def hold(store: SQLiteStorage) -> apsw.Connection:
    """Keep a store from writing, until `ROLLBACK`."""
    other = apsw.Connection(store.path)
    other.set_busy_timeout(10_000)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_who_waits_too_long_is_told_and_the_session_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStorage(tmp_path / "cra.db", timeout_seconds=0.1)
        desk = Desk(store, asynchronous=True, atlas=UNLIMITED)
        session = await desk.runtime.create_session("agent-1", "help")
        before = await desk.runtime.resolve(session.id, "help")
        other = hold(store)
        with pytest.raises(StorageError, match=r"the store has not answered within 0\.1 s") as late:
            await desk.runtime.resolve(session.id, "help")
        assert late.value.hint
        other.execute("ROLLBACK")
        store._pool.writer._timeout_s = 60.0
        after = await desk.runtime.resolve(session.id, "help")
        assert after.resolution_id != before.resolution_id
        assert await desk.runtime.execute(session.id, "ticket.get", {}) == {"ok": True}
        dense(store, [session.id])
        await desk.runtime.close()

    run(scenario)


def test_everybody_who_waits_too_long_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStorage(tmp_path / "cra.db", timeout_seconds=0.1)
        desk = Desk(store, asynchronous=True, atlas=UNLIMITED)
        sessions = [await desk.runtime.create_session("agent-1", "help") for _ in range(4)]
        for _ in range(2):
            other = hold(store)
            late = []
            for session in sessions:
                late.append(asyncio.ensure_future(told(desk.runtime.resolve(session.id, "help"))))
                await asyncio.sleep(0.03)
            answers = await asyncio.gather(*late)
            assert [answer[0] for answer in answers] == ["storage_error"] * 4
            other.execute("ROLLBACK")
            # Nothing is kept of those who were told, and the store has them behind it.
            await asyncio.to_thread(store.probe)
            assert not desk.runtime._lane._landings._due
        dense(store, [session.id for session in sessions])
        await desk.runtime.close()

    run(scenario)


def test_what_was_begun_before_the_runtime_is_closed_lands(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStorage(tmp_path / "cra.db")
        desk = Desk(store, asynchronous=True, atlas=UNLIMITED)
        sessions = [await desk.runtime.create_session("agent-1", "help") for _ in range(5)]
        tasks = [asyncio.ensure_future(desk.runtime.resolve(session.id, "help")) for session in sessions]
        await asyncio.sleep(0)
        await desk.runtime.close()
        assert len({resolution.resolution_id for resolution in await asyncio.gather(*tasks)}) == 5
        again = SQLiteStorage(tmp_path / "cra.db")
        dense(again, [session.id for session in sessions])
        again.close()

    run(scenario)


def test_what_a_store_refuses_at_once_is_told_and_the_session_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStorage(tmp_path / "cra.db")
        desk = Desk(store, asynchronous=True, atlas=UNLIMITED)
        session = await desk.runtime.create_session("agent-1", "help")
        await desk.runtime.resolve(session.id, "help")
        store._pool.closed = True
        for call in (desk.runtime.resolve(session.id, "help"), desk.runtime.execute(session.id, "ticket.get", {})):
            with pytest.raises(StorageError, match="the store is closed"):
                await call
        store._pool.closed = False
        assert await desk.runtime.execute(session.id, "ticket.get", {}) == {"ok": True}
        dense(store, [session.id])
        await desk.runtime.close()

    run(scenario)


def test_a_head_that_another_has_moved_is_read_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStorage(tmp_path / "cra.db")
        one = Desk(store, asynchronous=True, atlas=UNLIMITED)
        two = Desk(SQLiteStorage(tmp_path / "cra.db"), seed=2, atlas=UNLIMITED)
        session = await one.runtime.create_session("agent-1", "help")
        for _ in range(3):
            await one.runtime.resolve(session.id, "help")
            two.runtime.resolve(session.id, "help")
            assert await one.runtime.execute(session.id, "ticket.get", {}) == {"ok": True}
            two.runtime.execute(session.id, "ticket.get", {})

        @one.runtime.executor("nobody.home")
        async def meanwhile(parameters: Any) -> Any:
            two.runtime.resolve(session.id, "help")
            return parameters

        assert await one.runtime.execute(session.id, "nobody.home", {"n": 1}) == {"n": 1}
        assert one.types(session.id).count("action.executed") == 7
        two.runtime.end_session(session.id)
        with pytest.raises(SessionEnded):
            await one.runtime.resolve(session.id, "help")
        dense(store, [session.id])
        two.runtime.close()
        await one.runtime.close()

    run(scenario)


def test_tasks_at_one_session_take_turns(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStorage(tmp_path / "cra.db")
        desk = Desk(store, asynchronous=True, atlas=UNLIMITED)
        session = await desk.runtime.create_session("agent-1", "help")
        await desk.runtime.resolve(session.id, "help")
        # More than there are threads, each of which may come to wait for the session.
        calls = [desk.runtime.resolve(session.id, "help") for _ in range(100)]
        calls += [desk.runtime.execute(session.id, "ticket.get", {}) for _ in range(100)]
        await asyncio.gather(*calls)
        dense(store, [session.id])
        types = desk.types(session.id)
        assert types.count("carp.resolution.completed") == 101
        assert types.count("action.executed") == len(desk.calls) == 100
        await desk.runtime.close()

    run(scenario)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_write_that_fails_is_told_and_nothing_is_forgotten(tmp_path: Path, when: Any) -> None:
    async def scenario() -> None:
        faulty = FaultyStorage(SQLiteStorage(tmp_path / "cra.db"))
        desk = Desk(faulty, asynchronous=True, atlas=UNLIMITED)
        session = await desk.runtime.create_session("agent-1", "help")
        # The first write of an execute is its intent, the second its outcome.
        resolve, execute = (desk.runtime.resolve, ("help",)), (desk.runtime.execute, ("ticket.get", {}))
        for nth, (call, rest) in ((1, resolve), (1, execute), (2, execute)):
            await desk.runtime.resolve(session.id, "help")
            faulty.fail(when, nth=nth)
            with pytest.raises(StorageError, match="the fault that the test asked for"):
                await call(session.id, *rest)
            dense(faulty, [session.id])
        assert faulty.failures == 3
        assert len(desk.calls) == 1
        assert desk.types(session.id).count("action.approved") == (1 if when == "before" else 2)
        await desk.runtime.close()

    run(scenario)


def test_a_loop_that_has_ended_leaves_the_session_to_the_next(tmp_path: Path) -> None:
    store = SQLiteStorage(tmp_path / "cra.db")
    desk = Desk(store, asynchronous=True, atlas=UNLIMITED)
    left: list[asyncio.Future[Any]] = []

    async def begin() -> str:
        session = await desk.runtime.create_session("agent-1", "help")
        await desk.runtime.resolve(session.id, "help")
        # Nobody waits for these; the loop's end cancels them.
        left.extend(asyncio.ensure_future(desk.runtime.resolve(session.id, "help")) for _ in range(3))
        await asyncio.sleep(0)
        return str(session.id)

    async def go_on(session_id: str) -> None:
        assert await desk.runtime.execute(session_id, "ticket.get", {}) == {"ok": True}
        dense(store, [session_id])
        await desk.runtime.close()

    session_id = asyncio.run(begin())
    assert all(task.cancelled() for task in left)
    asyncio.run(go_on(session_id))
