"""One call after another: what runs, what does not, and what is recorded of it."""

import asyncio
import math
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from cra.errors import (
    ActionDenied,
    ActionFailed,
    ActionTimeout,
    ApprovalConflict,
    ApprovalNotFound,
    ApprovalRequired,
    CRAError,
    ExecutorMissing,
    IdempotencyConflict,
    InvalidParameters,
    InvalidRequest,
    LimitExceeded,
    ResolutionExpired,
    ResolutionRequired,
    SessionEnded,
    SessionNotFound,
)
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage
from cra.storage.sqlite import SQLiteStorage
from tests.runtime.desk import ATLAS, STORES, UNLIMITED, Desk, dense, open_store

BIG = 2**300 + 1
UNKNOWN = "018f0000-0000-7000-8000-0000000000ff"


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_store(request.param, tmp_path)


@pytest.fixture
def desk(store: Storage) -> Iterator[Desk]:
    made = Desk(store)
    yield made
    for record in store.sessions():
        dense(store, [record.session_id])
    made.runtime.close()


@pytest.fixture
def session_id(desk: Desk) -> str:
    return desk.begin()


# What an executor does


def test_a_result_is_returned_and_its_digest_recorded(desk: Desk, session_id: str) -> None:
    desk.does["ticket.get"] = {"subject": "ünïcode", "n": [1.5, None, True, BIG]}
    assert desk.runtime.execute(session_id, "ticket.get", {"id": "1"}) == desk.does["ticket.get"]
    assert desk.types(session_id)[-4:] == [
        "action.requested",
        "policy.evaluated",
        "action.approved",
        "action.executed",
    ]
    assert desk.runtime.get_session(session_id).action_count == 1


def test_an_executor_that_raises_is_a_failure_whose_words_stay_out_of_the_record(desk: Desk, session_id: str) -> None:
    def fail(parameters: Any) -> None:
        raise ValueError("the password is hunter2")

    desk.does["ticket.get"] = fail
    with pytest.raises(ActionFailed, match="hunter2") as failed:
        desk.runtime.execute(session_id, "ticket.get", {})
    assert isinstance(failed.value.__cause__, ValueError)
    kind, payload = desk.last(session_id)
    assert (kind, payload["error_code"], payload["error_message"]) == ("action.failed", "executor_error", "ValueError")
    assert b"hunter2" not in desk.store.events(session_id)
    assert desk.runtime.get_session(session_id).action_count == 0


def test_the_words_of_a_failure_are_kept_when_asked_to() -> None:
    desk = Desk(MemoryStorage(), capture_parameters="full")
    session_id = desk.begin()

    def fail(parameters: Any) -> None:
        raise ValueError("no such ticket")

    desk.does["ticket.get"] = fail
    with pytest.raises(ActionFailed):
        desk.runtime.execute(session_id, "ticket.get", {})
    assert "no such ticket" in desk.last(session_id)[1]["error_message"]


@pytest.mark.parametrize(
    "result",
    [object(), {1, 2}, b"bytes", math.nan, math.inf, {"deep": [{"x": math.nan}]}, {1: 2}, "\ud800", lambda _: None],
    ids=lambda result: type(result).__name__,
)
def test_a_result_that_is_not_json_is_a_failure(result: Any) -> None:
    desk = Desk(MemoryStorage())
    session_id = desk.begin()
    desk.does["ticket.get"] = lambda parameters: result
    with pytest.raises(ActionFailed, match="no JSON") as failed:
        desk.runtime.execute(session_id, "ticket.get", {})
    assert failed.value.error_code == "invalid_result"
    assert desk.last(session_id)[1]["error_code"] == "invalid_result"


@pytest.mark.parametrize(("result", "words"), [({"id": "1"}, "/id"), ({}, "id"), ([], "")])
def test_a_result_that_breaks_its_schema_is_a_failure(desk: Desk, session_id: str, result: Any, words: str) -> None:
    desk.does["note.add"] = result
    with pytest.raises(ActionFailed, match=f"breaks returns_schema.*{words}"):
        desk.runtime.execute(session_id, "note.add", {})
    assert desk.last(session_id)[0] == "action.failed"


def test_a_result_that_is_too_large_is_a_failure() -> None:
    desk = Desk(MemoryStorage(), max_result_bytes=1000)
    session_id = desk.begin()
    desk.does["ticket.get"] = "x" * 998
    assert len(desk.runtime.execute(session_id, "ticket.get", {})) == 998
    desk.does["ticket.get"] = "x" * 999
    with pytest.raises(ActionFailed, match="expected at most 1000"):
        desk.runtime.execute(session_id, "ticket.get", {})


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_goes_through_and_leaves_an_outcome(
    desk: Desk, session_id: str, interruption: type[BaseException]
) -> None:
    def interrupt(parameters: Any) -> None:
        raise interruption

    desk.does["ticket.get"] = interrupt
    with pytest.raises(interruption):
        desk.runtime.execute(session_id, "ticket.get", {})
    kind, payload = desk.last(session_id)
    assert (kind, payload["error_code"]) == ("action.failed", "cancelled")
    assert desk.runtime.execute(session_id, "note.add", {}) == {"id": 1}


def test_an_executor_elsewhere_cannot_end_the_caller() -> None:
    desk = Desk(MemoryStorage())
    session_id = desk.begin()

    def leave(parameters: Any) -> None:
        raise SystemExit(3)

    async def leave_loop(parameters: Any) -> Any:
        if parameters:
            return parameters
        raise SystemExit(3)

    desk.runtime.executor("nobody.home")(leave)
    desk.runtime.executor("slow.run")(leave_loop)
    for action_id in ("nobody.home", "slow.run"):
        with pytest.raises(ActionFailed, match="SystemExit"):
            desk.runtime.execute(session_id, action_id, {})
        assert desk.last(session_id)[1]["error_code"] == "executor_error"
    assert desk.runtime.execute(session_id, "slow.run", {"still": "there"}) == {"still": "there"}


def test_an_executor_that_ends_an_iteration_fails_its_call_at_once_on_an_event_loop_too() -> None:
    async def scenario() -> None:
        desk = Desk(MemoryStorage(), asynchronous=True)
        desk.runtime.executor("slow.run")(lambda parameters: next(iter(())))
        session = await desk.runtime.create_session("agent-1", "help")
        await desk.runtime.resolve(session.id, "help")
        with pytest.raises(ActionFailed, match="StopIteration"):
            await desk.runtime.execute(session.id, "slow.run", {})
        assert desk.last(session.id)[1]["error_code"] == "executor_error"

    asyncio.run(scenario())


def test_an_executor_that_hangs_is_left_behind_at_its_deadline(desk: Desk, session_id: str) -> None:
    gate = threading.Event()
    desk.runtime.executor("slow.run")(lambda parameters: gate.wait(30))
    with pytest.raises(ActionTimeout, match="within 1 s"):
        desk.runtime.execute(session_id, "slow.run", {})
    kind, payload = desk.last(session_id)
    assert (kind, payload["error_code"]) == ("action.failed", "timeout")
    # It finishes later, and nothing of that is recorded or returned.
    gate.set()
    assert desk.runtime.execute(session_id, "ticket.get", {}) == {"ok": True}


def test_an_async_executor_that_hangs_is_cancelled_at_its_deadline() -> None:
    async def scenario() -> None:
        desk = Desk(MemoryStorage(), asynchronous=True)
        cancelled = asyncio.Event()

        @desk.runtime.executor("slow.run")
        async def hang(parameters: Any) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        session = await desk.runtime.create_session("agent-1", "help")
        await desk.runtime.resolve(session.id, "help")
        with pytest.raises(ActionTimeout):
            await desk.runtime.execute(session.id, "slow.run", {})
        assert cancelled.is_set()
        assert desk.last(session.id)[1]["error_code"] == "timeout"

    asyncio.run(scenario())


def test_an_async_executor_that_does_not_let_itself_be_cancelled_is_left_behind() -> None:
    async def scenario() -> None:
        desk = Desk(MemoryStorage(), asynchronous=True)
        gate, ended = asyncio.Event(), asyncio.Event()

        @desk.runtime.executor("slow.run")
        async def stubborn(parameters: Any) -> dict[str, bool]:
            while not gate.is_set():
                with suppress(asyncio.CancelledError):
                    await gate.wait()
            ended.set()
            return {"ok": True}

        session = await desk.runtime.create_session("agent-1", "help")
        await desk.runtime.resolve(session.id, "help")
        with pytest.raises(ActionTimeout):
            await desk.runtime.execute(session.id, "slow.run", {})
        assert desk.last(session.id)[1]["error_code"] == "timeout"
        caller = asyncio.ensure_future(desk.runtime.execute(session.id, "slow.run", {}))
        await asyncio.sleep(0.05)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert desk.last(session.id)[1]["error_code"] == "cancelled"
        count = len(desk.events(session.id))
        # They end later, and nothing of that is recorded.
        gate.set()
        await ended.wait()
        await asyncio.sleep(0.05)
        assert len(desk.events(session.id)) == count

    asyncio.run(scenario())


def test_a_timeout_that_the_executor_raises_is_its_own(desk: Desk, session_id: str) -> None:
    def fail(parameters: Any) -> None:
        raise TimeoutError("the database did not answer")

    desk.does["ticket.get"] = fail
    desk.runtime.executor("nobody.home")(fail)
    for action_id in ("ticket.get", "nobody.home"):
        with pytest.raises(ActionFailed) as failed:
            desk.runtime.execute(session_id, action_id, {})
        assert failed.value.error_code == "executor_error"


def test_a_task_that_is_cancelled_leaves_an_outcome(store: Storage) -> None:
    async def scenario() -> None:
        desk = Desk(store, asynchronous=True)
        running = asyncio.Event()

        @desk.runtime.executor("nobody.home")
        async def hang(parameters: Any) -> None:
            running.set()
            await asyncio.Event().wait()

        session = await desk.runtime.create_session("agent-1", "help")
        await desk.runtime.resolve(session.id, "help")
        task = asyncio.ensure_future(desk.runtime.execute(session.id, "nobody.home", {}))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        kind, payload = desk.last(session.id)
        assert (kind, payload["error_code"]) == ("action.failed", "cancelled")
        dense(store, [session.id])
        await desk.runtime.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("atlas", [UNLIMITED, ATLAS], ids=["queued", "in a thread"])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_task_that_is_cancelled_while_its_intent_is_written_runs_nothing_and_says_so(
    tmp_path: Path, atlas: dict[str, Any], key: str | None
) -> None:
    async def scenario() -> None:
        store = SQLiteStorage(tmp_path / "held.db")
        desk = Desk(store, asynchronous=True, atlas=atlas)
        session = await desk.runtime.create_session("agent-1", "help")
        await desk.runtime.resolve(session.id, "help")
        # While another connection writes, an append is neither done nor refused.
        other = apsw.Connection(store.path)
        other.set_busy_timeout(10_000)
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.ensure_future(desk.runtime.execute(session.id, "ticket.get", {}, idempotency_key=key))
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        assert not task.done()
        other.execute("ROLLBACK")
        other.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert desk.calls == []
        assert desk.types(session.id)[-2:] == ["action.approved", "action.failed"]
        assert desk.last(session.id)[1]["error_code"] == "cancelled"
        dense(store, [session.id])
        await desk.runtime.close()

    asyncio.run(scenario())


def test_an_action_without_executor_is_allowed_and_not_run(desk: Desk, session_id: str) -> None:
    with pytest.raises(ExecutorMissing) as missing:
        desk.runtime.execute(session_id, "nobody.home", {})
    assert missing.value.hint
    assert desk.last(session_id)[0] == "error.occurred"
    assert "action.approved" not in desk.types(session_id)


# Parameters


def test_integers_of_any_size_survive(desk: Desk, session_id: str) -> None:
    desk.does["ticket.get"] = lambda parameters: {"twice": parameters["n"] * 2}
    for _ in range(2):
        assert desk.runtime.execute(session_id, "ticket.get", {"n": BIG}, idempotency_key="k") == {"twice": BIG * 2}
    assert desk.calls == [("ticket.get", {"n": BIG})]
    with pytest.raises(ApprovalRequired) as asked:
        desk.runtime.execute(session_id, "mail.send", {"n": -BIG, "deep": [{"n": BIG}]})
    kept = desk.runtime.approvals.get(asked.value.approval_id)
    assert kept.parameters == {"n": -BIG, "deep": [{"n": BIG}]}


def test_the_executor_gets_what_was_decided_about_whatever_the_caller_does(desk: Desk, session_id: str) -> None:
    mine = {"id": "1", "deep": {"list": [1, 2]}}

    def change(parameters: Any) -> Any:
        mine["id"] = "2"
        mine["deep"]["list"].append(3)  # type: ignore[index]
        seen = {"id": parameters["id"], "deep": {"list": list(parameters["deep"]["list"])}}
        parameters["deep"]["list"].clear()
        parameters.clear()
        return seen

    desk.does["ticket.get"] = change
    assert desk.runtime.execute(session_id, "ticket.get", mine) == {"id": "1", "deep": {"list": [1, 2]}}
    assert mine == {"id": "2", "deep": {"list": [1, 2, 3]}}


def test_parameters_that_are_too_large_are_refused_before_anything_is_recorded(store: Storage) -> None:
    desk = Desk(store, max_parameter_bytes=1000)
    session_id = desk.begin()
    before = desk.events(session_id)
    assert len('{"id":""}') == 9
    assert desk.runtime.execute(session_id, "ticket.get", {"id": "x" * 991}) == {"ok": True}
    with pytest.raises(InvalidRequest, match="expected at most 1000"):
        desk.runtime.execute(session_id, "ticket.get", {"id": "x" * 992})
    assert len(desk.events(session_id)) == len(before) + 4
    desk.runtime.close()


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"x": math.nan}, "/execution/parameters/x"),
        ({"deep": [{"y": object()}]}, "/execution/parameters/deep/0/y"),
        ({"\ud800": 1}, "/execution/parameters"),
        ([], "/execution/parameters"),
        (None, "/execution/parameters"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parameters_that_are_not_json_are_refused(parameters: Any, pointer: str) -> None:
    desk = Desk(MemoryStorage())
    session_id = desk.begin()
    before = desk.events(session_id)
    with pytest.raises(InvalidRequest) as refused:
        desk.runtime.execute(session_id, "ticket.get", parameters)
    assert (refused.value.pointer or "").startswith(pointer)
    assert desk.events(session_id) == before


def test_parameters_that_break_the_schema_are_denied_with_their_place(desk: Desk, session_id: str) -> None:
    with pytest.raises(InvalidParameters) as denied:
        desk.runtime.execute(session_id, "ticket.get", {"id": 5})
    assert denied.value.pointer == "/id"
    assert desk.last(session_id)[1]["violation_type"] == "invalid_parameters"
    assert desk.calls == []


# What is not allowed


@pytest.mark.parametrize("action_id", ["", "Ticket.get", "ticket get", "ticket.", 7, None, "a." + "b" * 300])
def test_an_action_id_that_is_none_is_refused(action_id: Any) -> None:
    desk = Desk(MemoryStorage())
    with pytest.raises(InvalidRequest, match="action_id"):
        desk.runtime.execute(desk.begin(), action_id, {})


def test_a_denied_action_names_its_policy_and_is_recorded(desk: Desk, session_id: str) -> None:
    with pytest.raises(ActionDenied, match="deleting is for people") as denied:
        desk.runtime.execute(session_id, "ticket.delete", {})
    assert denied.value.policy_id == "no-delete"
    assert desk.types(session_id)[-4:] == [
        "action.requested",
        "policy.evaluated",
        "action.denied",
        "policy.violated",
    ]


def test_execute_needs_a_resolution(desk: Desk) -> None:
    session = desk.runtime.create_session("agent-1", "help")
    with pytest.raises(ResolutionRequired):
        desk.runtime.execute(session.id, "ticket.get", {})
    other = desk.runtime.resolve(desk.begin(), "elsewhere").resolution_id
    for resolution_id in (other, UNKNOWN):
        with pytest.raises(ResolutionRequired, match="not one of this session"):
            desk.runtime.execute(session.id, "ticket.get", {}, resolution_id)
    assert desk.calls == []


def test_a_resolution_holds_until_it_expires(desk: Desk, session_id: str) -> None:
    resolution_id = desk.runtime.resolve(session_id, "again").resolution_id
    desk.clock.advance(3600, us=-1)
    desk.runtime.execute(session_id, "ticket.get", {}, resolution_id)
    desk.clock.advance(us=1)
    with pytest.raises(ResolutionExpired):
        desk.runtime.execute(session_id, "ticket.get", {}, resolution_id)
    with pytest.raises(ResolutionRequired):
        desk.runtime.execute(session_id, "ticket.get", {})
    assert len(desk.calls) == 1


def test_a_resolution_offers_only_what_it_was_asked_for(desk: Desk, session_id: str) -> None:
    narrow = desk.runtime.resolve(session_id, "refund", required_capabilities=["money"])
    with pytest.raises(ActionDenied, match="does not offer"):
        desk.runtime.execute(session_id, "ticket.get", {}, narrow.resolution_id)
    assert desk.last(session_id)[1]["violation_type"] == "unauthorized"
    desk.runtime.execute(session_id, "refund.create", {"amount": 1}, narrow.resolution_id)
    # Without a name, the newest resolution that offers it counts.
    desk.runtime.execute(session_id, "ticket.get", {})
    assert [action_id for action_id, _ in desk.calls] == ["refund.create", "ticket.get"]


def test_what_is_decided_again_can_only_be_stricter(desk: Desk, session_id: str) -> None:
    resolution_id = desk.runtime.resolve(session_id, "again").resolution_id
    policies = [{"policy_id": "frozen", "type": "deny", "actions": ["*"]}, *ATLAS["policies"]]
    desk.runtime.load_atlas_from_json({**ATLAS, "version": "1.0.1", "policies": policies}, replace=True)
    with pytest.raises(ActionDenied) as denied:
        desk.runtime.execute(session_id, "ticket.get", {}, resolution_id)
    assert denied.value.policy_id == "frozen"
    desk.runtime.unload_atlas("com.example.desk")
    with pytest.raises(ActionDenied, match="not declared"):
        desk.runtime.execute(session_id, "ticket.get", {}, resolution_id)


def test_a_rate_limit_bites_and_says_when_it_is_over(desk: Desk, session_id: str) -> None:
    for _ in range(3):
        desk.runtime.execute(session_id, "ticket.close", {})
        desk.clock.advance(10)
    with pytest.raises(LimitExceeded) as limited:
        desk.runtime.execute(session_id, "ticket.close", {})
    assert (limited.value.policy_id, limited.value.retry_after_s) == ("closings", 30)
    # It counts the agent, in whatever session.
    with pytest.raises(LimitExceeded):
        desk.runtime.execute(desk.begin(), "ticket.close", {})
    desk.clock.advance(30)
    desk.runtime.execute(session_id, "ticket.close", {})
    assert len(desk.calls) == 4


def test_a_budget_counts_what_calls_cost(desk: Desk, session_id: str) -> None:
    for amount in (500, 500, 499.99, 500):
        desk.runtime.execute(session_id, "refund.create", {"amount": amount})
    with pytest.raises(LimitExceeded):
        desk.runtime.execute(session_id, "refund.create", {"amount": 0.02})
    desk.runtime.execute(session_id, "refund.create", {"amount": 0.01})
    for amount in (-1, "5", None, True):
        with pytest.raises(CRAError):
            desk.runtime.execute(session_id, "refund.create", {"amount": amount})
    assert len(desk.calls) == 5


def test_a_denied_call_takes_nothing_from_a_limit(desk: Desk, session_id: str) -> None:
    for amount in (1999, 2001):
        with pytest.raises(ApprovalRequired):
            desk.runtime.execute(session_id, "refund.create", {"amount": amount})
    for _ in range(4):
        desk.runtime.execute(session_id, "refund.create", {"amount": 500})


def test_an_ended_or_unknown_session_takes_no_calls(desk: Desk, session_id: str) -> None:
    ended = desk.runtime.end_session(session_id)
    assert (ended.status, ended.end_reason) == ("ended", "completed")
    for call in (
        lambda: desk.runtime.execute(session_id, "ticket.get", {}),
        lambda: desk.runtime.resolve(session_id, "more"),
        lambda: desk.runtime.end_session(session_id),
        lambda: desk.runtime.simulate(session_id, "more"),
    ):
        with pytest.raises(SessionEnded):
            call()
    for unknown in (UNKNOWN, "x"):
        with pytest.raises(SessionNotFound):
            desk.runtime.execute(unknown, "ticket.get", {})
    assert desk.last(session_id)[0] == "session.ended"


# Idempotency


def test_a_key_runs_its_call_once(desk: Desk, session_id: str) -> None:
    desk.does["ticket.get"] = lambda parameters: {"run": len(desk.calls)}
    answers = [desk.runtime.execute(session_id, "ticket.get", {"id": "1"}, idempotency_key="k") for _ in range(3)]
    assert answers == [{"run": 1}] * 3
    assert desk.types(session_id).count("action.executed") == 1
    repeated = [payload for kind, payload in desk.events(session_id) if "replay_of" in payload]
    assert len(repeated) == 2


def test_a_key_stands_for_one_call(desk: Desk, session_id: str) -> None:
    desk.runtime.execute(session_id, "ticket.get", {"id": "1"}, idempotency_key="k")
    for action_id, parameters in (("ticket.get", {"id": "2"}), ("ticket.close", {"id": "1"})):
        with pytest.raises(IdempotencyConflict):
            desk.runtime.execute(session_id, action_id, parameters, idempotency_key="k")
    assert len(desk.calls) == 1
    # Another session's keys are its own.
    desk.runtime.execute(desk.begin(), "ticket.get", {"id": "2"}, idempotency_key="k")
    assert len(desk.calls) == 2


def test_a_key_keeps_a_failure_too(desk: Desk, session_id: str) -> None:
    def fail(parameters: Any) -> None:
        raise ValueError("once")

    desk.does["ticket.get"] = fail
    failures = []
    for _ in range(2):
        with pytest.raises(ActionFailed) as failed:
            desk.runtime.execute(session_id, "ticket.get", {}, idempotency_key="k")
        failures.append((failed.value.message, failed.value.error_code, failed.value.details))
    assert failures[0] == failures[1]
    assert len(desk.calls) == 1


def test_a_key_is_not_spent_by_a_denial(desk: Desk, session_id: str) -> None:
    for _ in range(3):
        desk.runtime.execute(session_id, "ticket.close", {})
    with pytest.raises(LimitExceeded):
        desk.runtime.execute(session_id, "ticket.close", {}, idempotency_key="k")
    desk.clock.advance(60)
    assert desk.runtime.execute(session_id, "ticket.close", {}, idempotency_key="k") == {"ok": True}


def test_a_key_whose_call_still_runs_is_a_conflict(desk: Desk, session_id: str) -> None:
    def again(parameters: Any) -> Any:
        with pytest.raises(IdempotencyConflict, match="no recorded outcome"):
            desk.runtime.execute(session_id, "ticket.get", {}, idempotency_key="k")
        return {"first": True}

    desk.does["ticket.get"] = again
    assert desk.runtime.execute(session_id, "ticket.get", {}, idempotency_key="k") == {"first": True}
    assert len(desk.calls) == 1


@pytest.mark.parametrize("key", ["", "k" * 256, 7])
def test_a_key_has_1_to_255_characters(key: Any) -> None:
    desk = Desk(MemoryStorage())
    with pytest.raises(InvalidRequest, match="idempotency_key"):
        desk.runtime.execute(desk.begin(), "ticket.get", {}, idempotency_key=key)


# Approvals


def ask(desk: Desk, session_id: str, parameters: dict[str, Any], action_id: str = "mail.send") -> str:
    with pytest.raises(ApprovalRequired) as asked:
        desk.runtime.execute(session_id, action_id, parameters)
    return asked.value.approval_id


def test_a_granted_call_runs_once(desk: Desk, session_id: str) -> None:
    approval_id = ask(desk, session_id, {"to": "ann"})
    assert desk.calls == []
    # Asking again is the same question.
    assert ask(desk, session_id, {"to": "ann"}) == approval_id
    granted = desk.runtime.approvals.grant(approval_id, approver="ann", reason="fine")
    assert (granted.status, granted.approver) == ("granted", "ann")
    assert desk.runtime.execute(session_id, "mail.send", {"to": "ann"}, approval_id=approval_id) == {"ok": True}
    used = desk.runtime.approvals.get(approval_id)
    assert (used.status, used.parameters) == ("used", None)
    with pytest.raises(ApprovalConflict, match="it is used"):
        desk.runtime.execute(session_id, "mail.send", {"to": "ann"}, approval_id=approval_id)
    assert ask(desk, session_id, {"to": "ann"}) != approval_id
    assert len(desk.calls) == 1
    approved = [payload for kind, payload in desk.events(session_id) if kind == "action.approved"]
    assert (approved[0]["approval_id"], approved[0]["approver"]) == (approval_id, "ann")


def test_a_granted_approval_is_found_without_its_id(desk: Desk, session_id: str) -> None:
    desk.runtime.approvals.grant(ask(desk, session_id, {"to": "ann"}), approver="ann")
    assert desk.runtime.execute(session_id, "mail.send", {"to": "ann"}) == {"ok": True}
    ask(desk, session_id, {"to": "ann"})


def test_an_approval_is_used_even_when_its_call_fails(desk: Desk, session_id: str) -> None:
    def fail(parameters: Any) -> None:
        raise ValueError("broken")

    desk.does["mail.send"] = fail
    approval_id = ask(desk, session_id, {})
    desk.runtime.approvals.grant(approval_id, approver="ann")
    with pytest.raises(ActionFailed):
        desk.runtime.execute(session_id, "mail.send", {}, approval_id=approval_id)
    with pytest.raises(ApprovalConflict):
        desk.runtime.execute(session_id, "mail.send", {}, approval_id=approval_id)


def test_an_approval_covers_one_action_and_one_set_of_parameters(desk: Desk, session_id: str) -> None:
    approval_id = ask(desk, session_id, {"amount": 600}, "refund.create")
    desk.runtime.approvals.grant(approval_id, approver="ann")
    with pytest.raises(ApprovalConflict, match="other parameters"):
        desk.runtime.execute(session_id, "refund.create", {"amount": 601}, approval_id=approval_id)
    with pytest.raises(ApprovalConflict, match="for action"):
        desk.runtime.execute(session_id, "mail.send", {"amount": 600}, approval_id=approval_id)
    assert desk.calls == []
    desk.runtime.execute(session_id, "refund.create", {"amount": 600}, approval_id=approval_id)


def test_an_approval_belongs_to_its_session(desk: Desk, session_id: str) -> None:
    approval_id = ask(desk, session_id, {})
    desk.runtime.approvals.grant(approval_id, approver="ann")
    other = desk.begin()
    for unknown in (approval_id, UNKNOWN):
        with pytest.raises(ApprovalNotFound):
            desk.runtime.execute(other, "mail.send", {}, approval_id=unknown)
    ask(desk, other, {})
    assert desk.calls == []


def test_an_approval_ends_with_the_atlases_it_was_asked_under(desk: Desk, session_id: str) -> None:
    approval_id = ask(desk, session_id, {})
    desk.runtime.approvals.grant(approval_id, approver="ann")
    desk.runtime.load_atlas_from_json({**ATLAS, "version": "1.0.1"}, replace=True)
    with pytest.raises(ApprovalConflict, match="atlases have changed"):
        desk.runtime.execute(session_id, "mail.send", {}, approval_id=approval_id)
    assert desk.calls == []


def test_an_approval_expires(desk: Desk, session_id: str) -> None:
    granted, pending = ask(desk, session_id, {"n": 1}), ask(desk, session_id, {"n": 2})
    desk.runtime.approvals.grant(granted, approver="ann")
    desk.clock.advance(3600)
    desk.runtime.resolve(session_id, "again")
    with pytest.raises(ApprovalConflict, match="expired"):
        desk.runtime.execute(session_id, "mail.send", {"n": 1}, approval_id=granted)
    with pytest.raises(ApprovalConflict, match="expired"):
        desk.runtime.approvals.grant(pending, approver="ann")
    assert desk.runtime.approvals.get(pending).status == "expired"
    assert [record.approval_id for record in desk.runtime.approvals.expire()] == [granted]
    assert desk.runtime.approvals.expire() == []
    assert ask(desk, session_id, {"n": 1}) not in (granted, pending)
    assert desk.calls == []


@pytest.mark.parametrize("approver", ["agent-1", " Agent-1 ", "AGENT-1"])
def test_nobody_approves_what_they_asked_for(desk: Desk, session_id: str, approver: str) -> None:
    approval_id = ask(desk, session_id, {})
    for decide in (desk.runtime.approvals.grant, desk.runtime.approvals.reject):
        with pytest.raises(ApprovalConflict, match="asked for"):
            decide(approval_id, approver=approver)
    assert desk.runtime.approvals.get(approval_id).status == "pending"


def test_a_rejected_call_does_not_run(desk: Desk, session_id: str) -> None:
    approval_id = ask(desk, session_id, {"to": "ann"})
    rejected = desk.runtime.approvals.reject(approval_id, approver="ann", reason="no")
    assert (rejected.status, rejected.parameters) == ("rejected", None)
    with pytest.raises(ApprovalConflict, match="it is rejected"):
        desk.runtime.execute(session_id, "mail.send", {"to": "ann"}, approval_id=approval_id)
    for decide in (desk.runtime.approvals.grant, desk.runtime.approvals.reject):
        with pytest.raises(ApprovalConflict):
            decide(approval_id, approver="bob")
    assert desk.calls == []


def test_a_granted_call_is_still_decided_about(desk: Desk, session_id: str) -> None:
    approval_id = ask(desk, session_id, {"amount": 1600}, "refund.create")
    desk.runtime.approvals.grant(approval_id, approver="ann")
    desk.runtime.execute(session_id, "refund.create", {"amount": 500})
    with pytest.raises(LimitExceeded):
        desk.runtime.execute(session_id, "refund.create", {"amount": 1600}, approval_id=approval_id)
    assert desk.runtime.approvals.get(approval_id).status == "granted"
    desk.clock.advance(3599)
    assert len(desk.calls) == 1


def test_approvals_are_listed(desk: Desk, session_id: str) -> None:
    first, second = ask(desk, session_id, {"n": 1}), ask(desk, desk.begin(), {"n": 2})
    assert [record.approval_id for record in desk.runtime.approvals.list()] == [first, second]
    assert [record.approval_id for record in desk.runtime.approvals.list(session_id=session_id)] == [first]
    desk.runtime.approvals.grant(second, approver="ann")
    assert [record.approval_id for record in desk.runtime.approvals.list(status="pending")] == [first]
    with pytest.raises(ApprovalNotFound):
        desk.runtime.approvals.get(UNKNOWN)


def test_an_approval_of_an_ended_session_is_not_decided(desk: Desk, session_id: str) -> None:
    approval_id = ask(desk, session_id, {})
    desk.runtime.end_session(session_id)
    with pytest.raises(SessionEnded):
        desk.runtime.approvals.grant(approval_id, approver="ann")


# Simulation


def test_a_simulation_changes_nothing_and_answers_as_the_real_thing(desk: Desk, session_id: str) -> None:
    ask(desk, session_id, {"n": 1})
    head = desk.store.load(session_id)
    counters = [desk.runtime.simulate(session_id, action_id="ticket.close").canonical for _ in range(5)]
    assert all(b'"status":"success"' in answer for answer in counters)
    statuses = []
    for action_id, parameters in (
        ("ticket.get", {}),
        ("ticket.delete", {}),
        ("mail.send", {"n": 1}),
        ("mail.send", {"n": 2}),
        ("nobody.home", {}),
        ("ticket.get", {"id": 5}),
    ):
        simulated = desk.runtime.simulate(session_id, action_id=action_id, parameters=parameters)
        assert simulated.simulated
        statuses.append(simulated.answer.status)
        assert len(simulated.events) > 0
    assert statuses == ["success", "denied", "pending_approval", "pending_approval", "success", "denied"]
    foreseen = desk.runtime.simulate(session_id, "close tickets")
    assert desk.store.load(session_id) == head
    assert desk.calls == []
    assert len(desk.runtime.approvals.list()) == 1
    answer = desk.runtime.resolve(session_id, "close tickets")
    for same in ("decision", "allowed_actions", "denied_actions", "constraints", "context_blocks"):
        assert getattr(foreseen.answer, same) == getattr(answer, same)
    for _ in range(3):
        desk.runtime.execute(session_id, "ticket.close", {})
    assert desk.runtime.simulate(session_id, action_id="ticket.close").answer.status == "denied"


def test_validating_over_the_wire_changes_nothing(desk: Desk, session_id: str) -> None:
    head = desk.store.load(session_id)
    request = desk.request(session_id, "validate", execution={"action_id": "ticket.get", "parameters": {}})
    answer = desk.runtime.handle(request)
    assert b'"simulated":true' in answer
    assert b'"status":"success"' in answer
    assert (
        desk.runtime.handle(request) == desk.runtime.handle(request)[:0] + answer or desk.store.load(session_id) == head
    )
    assert desk.store.load(session_id) == head
    assert desk.calls == []


def test_validating_a_call_whose_key_is_known_says_simulated_and_records_nothing(desk: Desk, session_id: str) -> None:
    desk.runtime.execute(session_id, "ticket.get", {}, idempotency_key="k")
    head, call = desk.store.load(session_id), {"action_id": "ticket.get", "parameters": {}, "idempotency_key": "k"}
    answer = desk.runtime.handle(desk.request(session_id, "validate", execution=call))
    assert b'"simulated":true' in answer
    assert b'"status":"success"' in answer
    assert (desk.store.load(session_id), len(desk.calls)) == (head, 1)
    assert b'"simulated"' not in desk.runtime.handle(desk.request(session_id, "execute", execution=call))


class Amount(float):
    """A number of somebody else's library, as NumPy's are."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)!r})"


class Word(str):
    """A text of somebody else's library."""


@pytest.mark.parametrize("result", [Amount(1.5), Word("done"), {"of": [Amount(2), {"is": Word("done")}]}])
def test_a_result_of_subclasses_is_recorded_answered_and_repeated(desk: Desk, session_id: str, result: Any) -> None:
    desk.does["ticket.get"] = result
    for _ in range(2):
        assert desk.runtime.execute(session_id, "ticket.get", {}, idempotency_key="once") == result
    assert len(desk.calls) == 1
    assert "action.executed" in desk.types(session_id)
    request = desk.request(session_id, "execute", execution={"action_id": "ticket.get", "parameters": {}})
    assert b'"status":"success"' in desk.runtime.handle(request)


def test_a_cost_of_somebody_elses_number_is_what_it_is(desk: Desk, session_id: str) -> None:
    for _ in range(4):
        desk.runtime.execute(session_id, "refund.create", {"amount": Amount(499.75)})
    with pytest.raises(LimitExceeded):
        desk.runtime.execute(session_id, "refund.create", {"amount": Amount(1.25)})
    desk.runtime.execute(session_id, "refund.create", {"amount": Amount(1)})


def test_who_changes_a_resolution_changes_no_decision(desk: Desk, session_id: str) -> None:
    given = desk.runtime.resolve(session_id, "help a customer")
    for action in given.allowed_actions:
        action.parameters_schema.clear()
    for constraint in given.constraints:
        if isinstance(constraint.parameters.get("when"), dict):
            constraint.parameters["when"]["properties"]["amount"]["exclusiveMinimum"] = 1e9
    # Another atlas, so everything is compiled anew.
    desk.runtime.load_atlas_from_json(
        {"atlas_version": "1.0", "atlas_id": "com.example.other", "version": "1.0.0", "name": "Other"}
    )
    desk.runtime.resolve(session_id, "help a customer")
    with pytest.raises(ApprovalRequired):
        desk.runtime.execute(session_id, "refund.create", {"amount": 600})
    with pytest.raises(InvalidParameters):
        desk.runtime.execute(session_id, "ticket.get", {"id": 5})
