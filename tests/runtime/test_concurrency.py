"""Many threads and tasks on one and on many sessions: one chain each, limits kept, everything once."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from cra.errors import ApprovalConflict, ApprovalRequired, CRAError, IdempotencyConflict, LimitExceeded, SessionEnded
from cra.runtime.executors import ExecutorTable
from cra.storage.base import Storage
from cra.testing.faults import FaultyStorage
from cra.testing.writer import together
from tests.runtime.desk import ATLAS, Desk, dense

THREADS = 16
TASKS = 200


def code_of(call: Any, *arguments: Any, **named: Any) -> str:
    try:
        call(*arguments, **named)
    except CRAError as error:
        return error.code
    return "ok"


async def async_code_of(call: Any, *arguments: Any, **named: Any) -> str:
    try:
        await call(*arguments, **named)
    except CRAError as error:
        return error.code
    return "ok"


# Threads


def test_threads_on_one_session_make_one_chain(desk: Desk) -> None:
    session_id = desk.begin()

    def work(number: int) -> None:
        for turn in range(6):
            desk.runtime.resolve(session_id, f"goal {number} {turn}")
            assert desk.runtime.execute(session_id, "ticket.get", {"id": f"{number}-{turn}"}) == {"ok": True}
            assert code_of(desk.runtime.execute, session_id, "ticket.delete", {}) == "action_denied"

    together(THREADS, work)
    dense(desk.store, [session_id])
    kinds = Counter(desk.types(session_id))
    assert kinds["carp.resolution.completed"] == THREADS * 6 + 1
    assert kinds["action.executed"] == kinds["action.denied"] == len(desk.calls) == THREADS * 6
    assert desk.runtime.get_session(session_id).action_count == THREADS * 6


def test_threads_on_many_sessions_keep_each_apart(desk: Desk) -> None:
    def work(number: int) -> list[str]:
        session_ids = []
        for _ in range(3):
            session_id = desk.begin(f"thread {number}")
            for turn in range(4):
                desk.runtime.execute(session_id, "ticket.get", {"id": f"{number}-{turn}"})
            session_ids.append(session_id)
        return session_ids

    made = [session_id for some in together(THREADS, work) for session_id in some]
    assert len(set(made)) == THREADS * 3
    dense(desk.store, made)
    for session_id in made:
        assert desk.types(session_id).count("action.executed") == 4
    assert len(desk.runtime.list_sessions()) == THREADS * 3


@pytest.mark.parametrize("sessions", [1, THREADS])
def test_threads_never_exceed_a_limit(desk: Desk, sessions: int) -> None:
    ids = [desk.begin() for _ in range(sessions)]

    def work(number: int) -> list[str]:
        session_id = ids[number % sessions]
        return [code_of(desk.runtime.execute, session_id, "ticket.close", {}) for _ in range(3)] + [
            code_of(desk.runtime.execute, session_id, "refund.create", {"amount": 300}) for _ in range(2)
        ]

    codes = [code for some in together(THREADS, work) for code in some]
    done = Counter(action_id for action_id, _ in desk.calls)
    # Three closings in a minute; six times 300 is what 2000 has room for.
    assert done == {"ticket.close": 3, "refund.create": 6}
    assert set(codes) == {"ok", "limit_exceeded"}
    dense(desk.store, ids)
    executed = sum(desk.types(session_id).count("action.executed") for session_id in ids)
    assert executed == codes.count("ok") == 9


def test_threads_with_one_key_run_its_call_once(desk: Desk) -> None:
    session_id = desk.begin()
    for turn in range(5):
        desk.calls.clear()
        codes = together(
            THREADS,
            lambda _, turn=turn: code_of(
                desk.runtime.execute, session_id, "ticket.get", {"turn": turn}, idempotency_key=f"key {turn}"
            ),
        )
        # Who comes while it runs is told so; who comes later gets the answer.
        assert set(codes) <= {"ok", IdempotencyConflict.code}
        assert codes.count("ok") >= 1
        assert len(desk.calls) == 1
    dense(desk.store, [session_id])


@pytest.mark.parametrize("named", [True, False])
def test_threads_use_an_approval_once(desk: Desk, named: bool) -> None:
    session_id = desk.begin()
    with pytest.raises(ApprovalRequired) as asked:
        desk.runtime.execute(session_id, "mail.send", {"to": "all"})
    approval_id = asked.value.approval_id
    granted = together(
        THREADS, lambda number: code_of(desk.runtime.approvals.grant, approval_id, approver=f"p{number}")
    )
    assert Counter(granted) == {"ok": 1, ApprovalConflict.code: THREADS - 1}
    more = {"approval_id": approval_id} if named else {}
    codes = together(THREADS, lambda _: code_of(desk.runtime.execute, session_id, "mail.send", {"to": "all"}, **more))
    assert Counter(codes) == {"ok": 1, ApprovalConflict.code if named else ApprovalRequired.code: THREADS - 1}
    assert len(desk.calls) == 1
    # Those who came too late share one new question.
    pending = desk.runtime.approvals.list(session_id=session_id, status="pending")
    assert len(pending) == (0 if named else 1)
    dense(desk.store, [session_id])


def test_two_runtimes_on_one_store_use_an_approval_once_and_keep_the_limits(store: Storage) -> None:
    desks = [Desk(store, seed=seed) for seed in (1, 2)]
    session_id = desks[0].begin()
    with pytest.raises(ApprovalRequired) as asked:
        desks[0].runtime.execute(session_id, "mail.send", {})
    desks[1].runtime.approvals.grant(asked.value.approval_id, approver="ann")

    def work(number: int) -> list[str]:
        runtime = desks[number % 2].runtime
        return [
            code_of(runtime.execute, session_id, "mail.send", {}, approval_id=asked.value.approval_id),
            code_of(runtime.execute, session_id, "ticket.close", {}),
            code_of(runtime.execute, session_id, "ticket.get", {}, idempotency_key="once"),
        ]

    together(8, work)
    done = Counter(action_id for desk in desks for action_id, _ in desk.calls)
    assert done == {"mail.send": 1, "ticket.close": 3, "ticket.get": 1}
    dense(store, [session_id])


def test_a_session_ends_once_and_nothing_comes_after(desk: Desk) -> None:
    session_id = desk.begin()

    def work(number: int) -> str:
        if number % 4 == 0:
            return code_of(desk.runtime.end_session, session_id)
        return code_of(desk.runtime.execute, session_id, "ticket.get", {})

    codes = together(THREADS, work)
    assert set(codes) <= {"ok", SessionEnded.code, "storage_error"}
    kinds = desk.types(session_id)
    assert kinds.count("session.ended") == 1
    assert kinds.count("action.approved") == len(desk.calls)
    # What was running when it ended still has its outcome; no call begins after the end.
    assert set(kinds[kinds.index("session.ended") :]) <= {"session.ended", "action.executed"}
    dense(desk.store, [session_id])


def test_atlases_change_under_running_threads(desk: Desk) -> None:
    session_id = desk.begin()
    frozen = {**ATLAS, "version": "1.0.1", "policies": [{"policy_id": "all", "type": "deny", "actions": ["*"]}]}

    def work(number: int) -> list[str]:
        if number == 0:
            for turn in range(10):
                desk.runtime.load_atlas_from_json(frozen if turn % 2 == 0 else ATLAS, replace=True)
            return []
        return [code_of(desk.runtime.execute, session_id, "ticket.get", {}) for _ in range(10)]

    codes = {code for some in together(8, work) for code in some}
    assert codes <= {"ok", "action_denied"}
    dense(desk.store, [session_id])
    assert desk.types(session_id).count("action.executed") == len(desk.calls)


def test_threads_survive_a_store_that_fails_now_and_then(store: Storage) -> None:
    faulty = FaultyStorage(store)
    desk = Desk(faulty)
    session_id = desk.begin()
    for nth in range(1, 160, 7):
        faulty.fail("before" if nth % 2 else "after", nth=nth)

    def work(number: int) -> list[str]:
        return [code_of(desk.runtime.execute, session_id, "ticket.get", {}) for _ in range(8)]

    codes = [code for some in together(8, work) for code in some]
    assert set(codes) == {"ok", "storage_error"}
    assert faulty.failures > 5
    faulty.heal()
    dense(faulty, [session_id])
    kinds = Counter(desk.types(session_id))
    # No run without an intent, no answer without an outcome.
    assert len(desk.calls) <= kinds["action.approved"]
    assert codes.count("ok") <= kinds["action.executed"] <= len(desk.calls)


# Tasks


def test_tasks_on_one_and_on_many_sessions_make_chains(store: Storage) -> None:
    async def scenario() -> None:
        desk = Desk(store, asynchronous=True)
        runtime = desk.runtime

        @runtime.executor("nobody.home")
        async def answer(parameters: Any) -> Any:
            await asyncio.sleep(0)
            return parameters

        shared = await runtime.create_session("agent-1", "shared")
        await runtime.resolve(shared.id, "shared")

        async def work(number: int) -> str:
            session_id = shared.id
            if number % 2:
                session = await runtime.create_session("agent-1", f"task {number}")
                session_id = session.id
                await runtime.resolve(session_id, "own")
            assert await runtime.execute(session_id, "nobody.home", {"n": number}) == {"n": number}
            return str(session_id)

        made = await asyncio.gather(*[work(number) for number in range(TASKS)])
        assert len(set(made)) == TASKS // 2 + 1
        dense(store, set(made))
        assert desk.types(shared.id).count("action.executed") == TASKS // 2
        assert (await runtime.verify_chain(shared.id)).ok
        await runtime.close()

    asyncio.run(scenario())


def test_tasks_never_exceed_a_limit_and_run_each_key_once(store: Storage) -> None:
    async def scenario() -> None:
        desk = Desk(store, asynchronous=True)
        runtime = desk.runtime
        sessions = [await runtime.create_session("agent-1", "limits") for _ in range(5)]
        for session in sessions:
            await runtime.resolve(session.id, "limits")

        async def work(number: int) -> str:
            session_id = sessions[number % 5].id
            if number < 40:
                return await async_code_of(runtime.execute, session_id, "ticket.close", {})
            return await async_code_of(runtime.execute, session_id, "ticket.get", {}, idempotency_key="one")

        codes = await asyncio.gather(*[work(number) for number in range(TASKS)])
        assert codes[:40].count("ok") == 3
        assert set(codes[:40]) == {"ok", LimitExceeded.code}
        assert set(codes[40:]) <= {"ok", IdempotencyConflict.code}
        assert Counter(action_id for action_id, _ in desk.calls) == {"ticket.close": 3, "ticket.get": 5}
        dense(store, [session.id for session in sessions])
        await runtime.close()

    asyncio.run(scenario())


def test_tasks_use_an_approval_once(store: Storage) -> None:
    async def scenario() -> None:
        desk = Desk(store, asynchronous=True)
        runtime = desk.runtime
        session = await runtime.create_session("agent-1", "mail")
        await runtime.resolve(session.id, "mail")
        with pytest.raises(ApprovalRequired) as asked:
            await runtime.execute(session.id, "mail.send", {})
        approval_id = asked.value.approval_id
        await runtime.approvals.grant(approval_id, approver="ann")
        calls = [
            async_code_of(runtime.execute, session.id, "mail.send", {}, approval_id=approval_id) for _ in range(50)
        ]
        assert Counter(await asyncio.gather(*calls)) == {"ok": 1, ApprovalConflict.code: 49}
        assert len(desk.calls) == 1
        dense(store, [session.id])
        await runtime.close()

    asyncio.run(scenario())


def test_tasks_that_are_cancelled_anywhere_leave_whole_chains(store: Storage) -> None:
    async def scenario() -> None:
        desk = Desk(store, asynchronous=True)
        runtime = desk.runtime

        @runtime.executor("nobody.home")
        async def wait(parameters: Any) -> Any:
            for _ in range(5):
                await asyncio.sleep(0)
            return parameters

        session = await runtime.create_session("agent-1", "cancel")
        await runtime.resolve(session.id, "cancel")
        tasks = [asyncio.ensure_future(runtime.execute(session.id, "nobody.home", {"n": n})) for n in range(60)]
        for number, task in enumerate(tasks):
            if number % 3 == 0:
                await asyncio.sleep(0)
            if number % 2:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, dict | asyncio.CancelledError) for result in results)
        dense(store, [session.id])
        kinds = Counter(desk.types(session.id))
        # Whatever was permitted has an outcome: done, or cancelled.
        assert kinds["action.approved"] == kinds["action.executed"] + kinds["action.failed"]
        assert kinds["action.executed"] >= sum(isinstance(result, dict) for result in results)
        await runtime.close()

    asyncio.run(scenario())


def test_an_executor_that_is_registered_while_it_is_looked_up_is_found_afterwards() -> None:
    table = ExecutorTable()

    class Interrupted(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            found = super().get(name, default)
            if not self:
                table.register(name, lambda parameters: None, inline=True)
            return found

    table._exact = Interrupted()
    table.find("ticket.get")
    assert table.find("ticket.get") is not None
