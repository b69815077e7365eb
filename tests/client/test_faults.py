"""What goes wrong between a client and a service: what is sent again, what never is, and what is said."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cra.client import AsyncCRAClient, CRAClient
from cra.errors import (
    ActionFailed,
    DuplicateRequest,
    Overloaded,
    RateLimited,
    ServiceError,
    ServiceUnreachable,
    SessionNotFound,
)
from cra.protocol.times import format_timestamp
from cra.runtime.config import system_clock
from tests.client.between import Between, answer
from tests.client.conftest import Work
from tests.server.running import Running

BUSY = json.dumps({"type": "x", "title": "Overloaded", "status": 503, "code": "overloaded", "detail": "no room"})
LIMITED = json.dumps({"type": "x", "title": "Rate limited", "status": 429, "code": "rate_limited", "detail": "slowly"})
PROBLEM = "application/problem+json"


def request(session_id: str, operation: str = "resolve", **more: Any) -> dict[str, Any]:
    from uuid import uuid4

    return {
        "carp_version": "1.0",
        "request_id": str(uuid4()),
        "timestamp": format_timestamp(system_clock()),
        "operation": operation,
        "requester": {"agent_id": "agent-1", "session_id": session_id},
        "task": {"goal": "help"},
        **more,
    }


# Sent again


def test_what_only_reads_is_sent_again_with_full_jitter(
    client: CRAClient, between: Between, session_id: str, waits: list[float]
) -> None:
    between.todo.extend(["cut", "lose", answer(502), answer(504)])
    assert client.get_session(session_id).id == session_id
    # Half of 0.1, 0.2, 0.4, 0.8: the chance of this client is always a half.
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4])


@pytest.mark.parametrize("fate", ["cut", "lose", answer(502), answer(503), answer(504)])
def test_an_execute_runs_once_however_often_it_is_sent(
    fate: str | bytes, client: CRAClient, between: Between, session_id: str, work: Work
) -> None:
    before = len(work.calls)
    between.todo.extend([fate, fate])
    result = client.execute(session_id, "ticket.get", {"id": "once"})
    assert result == {"id": before + 1, "big": 2**80}
    assert len(work.calls) == before + 1
    assert client.verify_chain(session_id, locally=True)


def test_a_failed_execute_whose_answer_was_lost_is_the_same_failure(
    client: CRAClient, between: Between, session_id: str, work: Work
) -> None:
    before = len(work.calls)
    between.todo.append("lose")
    with pytest.raises(ActionFailed, match="it broke") as failed:
        client.execute(session_id, "ticket.get", {"fail": True})
    assert (failed.value.action_id, failed.value.error_code) == ("ticket.get", "executor_error")
    assert len(work.calls) == before + 1


def test_an_execute_that_is_still_running_is_waited_for(
    client: CRAClient, between: Between, session_id: str, work: Work, waits: list[float]
) -> None:
    before = len(work.calls)
    work.gate.clear()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 9:
            work.gate.set()

    client._sleep = sleep
    between.todo.append("leave")
    try:
        result = client.execute(session_id, "note.add", {"text": "slow"})
    finally:
        work.gate.set()
    assert result == {"id": before + 1, "big": 2**80}
    assert len(work.calls) == before + 1
    # More than the attempts at a call that nobody works on.
    assert len(waits) >= 9 > client._settings.max_attempts


def test_a_resolve_is_sent_again(client: CRAClient, between: Between, session_id: str) -> None:
    between.todo.append("lose")
    assert client.resolve(session_id, "again").decision.type == "partial"


def test_a_wire_request_is_sent_again_with_its_own_id(client: CRAClient, between: Between, session_id: str) -> None:
    between.todo.append("cut")
    asked = request(session_id)
    assert json.loads(client.handle(asked))["request_id"] == asked["request_id"]
    with pytest.raises(DuplicateRequest):
        client.handle(asked)


def test_a_wire_request_that_had_arrived_is_not_taken_for_a_duplicate(
    client: CRAClient, between: Between, session_id: str
) -> None:
    between.todo.append("lose")
    with pytest.raises(ServiceUnreachable, match="its answer lost") as lost:
        client.handle(request(session_id))
    assert lost.value.details["sent"] is True
    assert len(client.get_trace(session_id).of_type("carp.resolution.completed")) == 2


def test_a_service_without_room_is_asked_again_after_what_it_says(
    client: CRAClient, between: Between, waits: list[float]
) -> None:
    between.todo.extend([answer(503, BUSY.encode(), "Retry-After: 3", media=PROBLEM)] * 2)
    between.todo.append(answer(429, LIMITED.encode(), "Retry-After: 2", media=PROBLEM))
    # Nothing was done, so even what must not be done twice is sent again.
    assert client.create_session("agent-1", "busy").status == "active"
    assert waits == pytest.approx([3.05, 3.1, 2.2])


@pytest.mark.parametrize(("body", "status", "kind"), [(BUSY, 503, Overloaded), (LIMITED, 429, RateLimited)])
def test_who_is_told_to_wait_longer_than_it_has_is_told_why(
    body: str, status: int, kind: type[Exception], client: CRAClient, between: Between, waits: list[float]
) -> None:
    between.todo.append(answer(status, body.encode(), "Retry-After: 3600", media=PROBLEM))
    with pytest.raises(kind):
        client.list_sessions()
    assert waits == []


def test_a_date_to_come_back_at_is_understood(client: CRAClient, between: Between, waits: list[float]) -> None:
    between.todo.append(answer(503, BUSY.encode(), "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT", media=PROBLEM))
    between.todo.append(answer(503, BUSY.encode(), "Retry-After: nonsense", media=PROBLEM))
    client.list_sessions()
    assert waits == pytest.approx([0.05, 0.1])


# Never sent again


@pytest.mark.parametrize("fate", ["cut", "lose", answer(502), answer(504, b"<html>")])
def test_what_must_not_be_done_twice_is_sent_once(
    fate: str | bytes, client: CRAClient, between: Between, waits: list[float]
) -> None:
    name = f"agent-{len(between.url)}-{hash(fate)}"
    between.todo.append(fate)
    with pytest.raises(ServiceUnreachable, match="whether it took effect is unknown") as lost:
        client.create_session(name, "once")
    assert lost.value.details == {"sent": True, "attempts": 1}
    assert waits == []
    assert len(client.list_sessions(agent_id=name)) == (1 if fate == "lose" else 0)


def test_a_service_that_is_not_there_was_never_sent_anything(waits: list[float]) -> None:
    with CRAClient("http://127.0.0.1:9", "a-secret-key", max_attempts=3) as client:
        client._sleep = waits.append
        with pytest.raises(ServiceUnreachable, match="it was never sent") as nobody:
            client.create_session("agent-1", "g")
    assert nobody.value.details == {"sent": False, "attempts": 3}
    assert "secret" not in str(nobody.value)
    assert len(waits) == 2


def test_the_attempts_are_bounded(client: CRAClient, between: Between, waits: list[float]) -> None:
    between.todo.extend(["cut"] * 10)
    with pytest.raises(ServiceUnreachable, match="after 5 attempts"):
        client.list_sessions()
    assert len(waits) == 4


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_service_that_says_nothing_is_left_at_the_deadline(between: Between, asynchronous: bool) -> None:
    between.todo.extend(["stall"] * 10)
    if asynchronous:

        async def ask() -> None:
            async with AsyncCRAClient(between.url, timeout_s=0.2) as client:
                await client.list_sessions()

        with pytest.raises(ServiceUnreachable, match="whether it took effect is unknown"):
            asyncio.run(ask())
        return
    with CRAClient(between.url, timeout_s=0.2) as client, pytest.raises(ServiceUnreachable, match="ReadTimeout"):
        client.list_sessions()


# Answers that are none


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (answer(200, b"<html>hello</html>"), "what the protocol does not know"),
        (answer(200, b'{"sessions":{}}'), "what the protocol does not know"),
        (answer(200, b'{"sessions":[{"session_id":1}]}'), "what the protocol does not know"),
        (answer(200, b'{"sessions":[],"sessions":[]}'), "what the protocol does not know"),
        (
            answer(200, b'{"sessions":[],"next":"00000000-0000-4000-8000-000000000000"}'),
            "what the protocol does not know",
        ),
        (answer(404, b"not found"), "status 404 and no problem document"),
        (answer(400, b'{"code":7}'), "status 400 and no problem document"),
        (answer(301, b"", "Location: https://elsewhere.test/"), "status 301 and no problem document"),
        (answer(500, b'{"code":"from_the_future","detail":"new words","hint":"h"}', media=PROBLEM), "new words"),
    ],
)
def test_an_answer_that_is_not_the_services_is_an_error(
    raw: bytes, words: str, client: CRAClient, between: Between
) -> None:
    between.todo.append(raw)
    with pytest.raises(ServiceError, match=words) as told:
        client.list_sessions()
    assert type(told.value) is ServiceError
    if b"elsewhere" in raw:
        assert "elsewhere" in str(told.value.hint)


def test_what_is_neither_a_response_nor_a_trace_is_an_error(
    client: CRAClient, between: Between, session_id: str
) -> None:
    for ask in (lambda: client.handle(request(session_id)), lambda: client.get_trace(session_id)):
        for body in (b"<html>\n", b'{"portal":"sign in"}\n', b"{}"):
            between.todo.append(answer(200, body))
            with pytest.raises(ServiceError, match="what the protocol does not know"):
                ask()


def test_an_answer_without_end_is_cut_off(client: CRAClient, between: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    from cra.client import _exchange

    monkeypatch.setattr(_exchange, "MAX_ANSWER_BYTES", 1000)
    between.todo.append(answer(200, b"x" * 100_000))
    with pytest.raises(ServiceError, match="more than 1000 bytes"):
        client.list_sessions()


# The rest


def test_an_address_may_have_a_prefix(service: Running) -> None:
    with_prefix = Between(service.url, prefix="/tools/cra")
    try:
        with CRAClient(with_prefix.url + "/") as client:
            made = client.create_session("agent-1", "behind a prefix")
            assert client.get_session(made.id) == made
        assert with_prefix.heads[0].startswith(b"POST /tools/cra/v1/sessions ")
    finally:
        with_prefix.close()


def test_one_client_serves_many_threads(service: Running) -> None:
    with CRAClient(service.url) as client, ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: client.create_session("agent-1", f"thread {number}"), range(40)))
        again = list(pool.map(lambda record: client.get_session(record.id), made))
    assert again == made


def test_a_name_that_is_no_id_leads_nowhere_else(client: CRAClient, between: Between) -> None:
    before = len(between.heads)
    for name in ("../atlases", "x/../../v1/keys", "", "a" * 36, "%2e%2e", 5):
        with pytest.raises(SessionNotFound):
            client.get_session(name)  # type: ignore[arg-type]
    assert len(between.heads) == before


def test_the_asynchronous_client_sends_again_in_the_same_way(between: Between, session_id: str, work: Work) -> None:
    before = len(work.calls)
    waits: list[float] = []

    async def ask() -> Any:
        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        async with AsyncCRAClient(between.url) as client:
            client._sleep, client._chance = sleep, lambda: 0.5
            between.todo.extend(["cut", "lose", answer(503)])
            return await client.execute(session_id, "ticket.get", {"id": "once"})

    assert asyncio.run(ask()) == {"id": before + 1, "big": 2**80}
    assert len(work.calls) == before + 1
    assert waits == pytest.approx([0.05, 0.1, 0.2])
