"""What a program hands in or gets out is its own: changing it later changes nothing that is decided or recorded."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from cra.errors import ActionDenied, ActionFailed, InvalidRequest, SessionEnded
from cra.protocol.carp import Request
from cra.protocol.codec import to_struct
from cra.runtime.sync import CRARuntime
from cra.storage.base import SessionRecord
from cra.storage.memory import MemoryStorage
from cra.storage.sqlite import SQLiteStorage
from tests.runtime.desk import ATLAS, Desk, open_store

GUARDED: dict[str, Any] = {
    **ATLAS,
    "policies": [
        {"policy_id": "live", "type": "deny", "actions": ["*"], "conditions": {"context_matches": {"env": "live"}}},
        {"policy_id": "rest", "type": "allow", "actions": ["*"]},
    ],
}


def _created(runtime: CRARuntime, record: SessionRecord) -> SessionRecord:
    return record


def _read(runtime: CRARuntime, record: SessionRecord) -> SessionRecord:
    return runtime.get_session(record.session_id)


def _listed(runtime: CRARuntime, record: SessionRecord) -> SessionRecord:
    return runtime.list_sessions()[0]


@pytest.mark.parametrize("context", [{"env": "live"}, {}])
@pytest.mark.parametrize("record_of", [_created, _read, _listed])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_record_that_was_returned_is_not_what_decisions_go_by(
    kind: str, record_of: Callable[[CRARuntime, SessionRecord], SessionRecord], context: dict[str, str], tmp_path: Path
) -> None:
    desk = Desk(open_store(kind, tmp_path), atlas=GUARDED)
    created = desk.runtime.create_session("agent-1", "g", context=context, metadata={"of": ["it"]})
    held = record_of(desk.runtime, created)
    held.context["env"] = "test" if context else "live"
    held.metadata["of"].append("more")
    resolution = desk.runtime.resolve(created.id, "g", context={} if context else {"env": "test"})
    assert bool(resolution.allowed_actions) is not bool(context)
    kept = desk.runtime.get_session(created.id)
    assert (kept.context, kept.metadata) == (context, {"of": ["it"]})
    ended = desk.runtime.end_session(created.id)
    ended.metadata["of"].clear()
    assert desk.runtime.get_session(created.id).metadata == {"of": ["it"]}


def test_a_request_that_was_handed_in_is_not_what_calls_go_by() -> None:
    desk = Desk(MemoryStorage(), atlas=GUARDED)
    session_id = desk.runtime.create_session("agent-1", "g").id
    request = to_struct(desk.request(session_id, context={"env": "test"}), Request, what="request")
    desk.runtime.resolve(session_id, request)
    request.context["env"] = "live"
    assert desk.runtime.execute(session_id, "ticket.get", {}) == {"ok": True}
    offered = desk.runtime.resolve(session_id, "g", context={"env": "live"})
    with pytest.raises(ActionDenied):
        desk.runtime.execute(session_id, "ticket.get", {}, offered.resolution_id)


def test_an_executor_gets_the_plain_values_that_were_hashed() -> None:
    class Text(str):
        def __str__(self) -> str:
            return "other"

    class Number(int):
        def __index__(self) -> int:
            return 7

    class Share(float):
        def __repr__(self) -> str:
            return "7.0"

    desk = Desk(MemoryStorage())
    session_id = desk.begin()
    given = {Text("name"): Text("x"), "n": Number(1), "part": [Share(0.5), True, None]}
    desk.runtime.execute(session_id, "ticket.get", OrderedDict(given))
    ((_, got),) = desk.calls
    assert got == {"name": "x", "n": 1, "part": [0.5, True, None]}
    assert [type(value) for value in (got, *got, *got.values(), *got["part"])] == [
        dict, str, str, str, str, int, list, float, bool, type(None),
    ]  # fmt: skip


def test_a_result_that_its_schema_cannot_judge_fails_the_call_and_is_recorded() -> None:
    slow = {"items": {"anyOf": [*[{"not": {"type": "integer"}}] * 400, {"type": "integer"}]}}
    actions = [{**action, "returns_schema": slow} for action in ATLAS["actions"]]
    desk = Desk(MemoryStorage(), atlas={**ATLAS, "actions": actions})
    session_id = desk.begin()
    desk.does["ticket.get"] = list(range(200_000))
    for _ in range(2):
        with pytest.raises(ActionFailed, match="could not be held against returns_schema") as failed:
            desk.runtime.execute(session_id, "ticket.get", {}, idempotency_key="k")
        assert failed.value.error_code == "invalid_result"
    assert desk.types(session_id).count("action.failed") == len(desk.calls) == 1


def test_an_executor_that_ends_as_its_wait_is_over_has_ended() -> None:
    class Late(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            if timeout:
                super().result()
                raise TimeoutError
            return super().result(timeout)

    desk = Desk(MemoryStorage())
    desk.runtime.register_executor("slow.*", lambda parameters: {"moved": "money"})

    def submit(function: Callable[..., Any], *arguments: Any) -> Late:
        future = Late()
        future.set_result(function(*arguments))
        return future

    desk.runtime._workers.submit = submit
    session_id = desk.begin()
    assert desk.runtime.execute(session_id, "slow.run", {}) == {"moved": "money"}
    assert desk.last(session_id)[0] == "action.executed"


def test_what_would_be_answered_in_a_session_that_another_process_has_ended_is_that(tmp_path: Path) -> None:
    desk = Desk(SQLiteStorage(tmp_path / "cra.db"))
    session_id = desk.begin()
    Desk(SQLiteStorage(tmp_path / "cra.db"), seed=2).runtime.end_session(session_id)
    call = {"action_id": "ticket.get", "parameters": {}}
    for asked in (
        lambda: desk.runtime.simulate(session_id, "g"),
        lambda: desk.runtime.simulate(session_id, action_id="ticket.get"),
        lambda: desk.runtime.handle(desk.request(session_id, "validate", execution=call)),
    ):
        with pytest.raises(SessionEnded):
            asked()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_trace_has_no_events_before_its_first(kind: str, tmp_path: Path) -> None:
    desk = Desk(open_store(kind, tmp_path))
    session_id = desk.begin()
    for first, count, name in ((-1, None, "first"), (-5, 3, "first"), (0, -1, "count")):
        with pytest.raises(InvalidRequest, match=f"{name} is `-") as refused:
            desk.runtime.get_trace(session_id, first, count)
        assert refused.value.pointer == f"/{name}"
    assert json.loads(desk.runtime.get_trace(session_id, 0, 1).data)["sequence"] == 0
    assert len(desk.runtime.get_trace(session_id, 0, 0)) == len(desk.runtime.get_trace(session_id, 10**9)) == 0
