"""What comes over the wire is bounded, whoever sends it, and what is half there changes nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from cra.errors import StorageError, StorageFull
from cra.server.settings import ServiceSettings
from cra.storage.memory import MemoryStorage
from cra.testing.faults import FaultyStorage
from tests.server.desk import desk, request
from tests.server.identities import make_key
from tests.server.running import Running, read, running

NOBODY = "00000000-0000-4000-8000-000000000000"


def settings(**more: Any) -> ServiceSettings:
    return ServiceSettings(storage="memory", dev=True, **{"shutdown_seconds": 5, **more})


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with running(settings(max_header_bytes=4096, header_timeout_seconds=1, body_timeout_seconds=1)) as found:
        yield found


@pytest.fixture
def client(service: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=20) as found:
        yield found


def raw(service: Running, *pieces: bytes) -> bytes:
    """Send bytes, and return everything that comes back until the service closes or says nothing more."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=15) as line:
        for piece in pieces:
            line.sendall(piece)
        got = b""
        while True:
            try:
                more = line.recv(65536)
            except ConnectionResetError:
                return got
            if not more:
                return got
            got += more


def post(body: bytes, *lines: bytes, path: bytes = b"/v1/sessions", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = [b"POST %b HTTP/1.1" % path, b"Host: 127.0.0.1", b"Content-Type: application/json", *lines]
    return b"\r\n".join([*head, b"Content-Length: %d" % size, b"", b""]) + body


NEW = b'{"agent_id":"a","goal":"g"}'
LAST = b"GET /v1/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/sessions/",
        "//v1/sessions",
        "/v1//sessions",
        "/v1/./sessions",
        "/v1/x/../sessions",
        "/v1/%73essions",
        "/v1/sessions%2F",
        "/v1/sessions/%2e%2e",
        f"/v1/sessions/{NOBODY}%2Ftrace",
        f"/v1/sessions/{NOBODY}%00",
        "/v1/sessions/..",
        "/v1/sessions/.",
        "/V1/sessions",
        "/v1/sessions;a=b",
        "/v1/sessions/%ff",
        "/",
        "*",
    ],
)
def test_a_path_is_what_was_sent_and_reaches_nothing_else(service: Running, path: str) -> None:
    got = raw(service, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert statuses(got)[0] in (400, 404)
    assert b'"sessions":' not in got


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5"],
        [b"Content-Type: text/plain"],
        [b"Host: other"],
        [b"X-API-Key: a", b"X-API-Key: b"],
    ],
)
def test_a_request_that_two_readers_could_read_differently_is_refused(service: Running, lines: list[bytes]) -> None:
    assert statuses(raw(service, post(NEW, *lines), LAST))[0] == 400


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/sess\xffions HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
        b"GET /v1/sessions HTTP/1.1\r\nHost : a\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_400_and_the_connection_ends(service: Running, data: bytes) -> None:
    got = raw(service, data)
    assert statuses(got) == [400], got
    assert json.loads(got.partition(b"\r\n\r\n")[2])["status"] == 400


def test_requests_in_one_piece_are_answered_in_their_order(service: Running) -> None:
    got = raw(service, post(NEW) + b"GET /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + post(NEW) + LAST)
    assert statuses(got) == [201, 404, 201, 200]


def test_garbage_behind_a_request_takes_no_other_answers_place(service: Running) -> None:
    got = raw(service, post(NEW) + b"\x00\x01garbage\r\n\r\n")
    assert statuses(got)[0] == 201
    assert len(statuses(got)) <= 2


def test_a_head_that_is_too_long_is_refused(service: Running) -> None:
    long = raw(service, b"GET /v1/sessions?after=%b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (b"x" * 5000))
    assert statuses(long) == [413]
    endless = raw(service, b"GET /v1/sessions HTTP/1.1\r\nX: ", b"x" * 5000)
    assert statuses(endless) == [413]


@pytest.mark.parametrize(
    ("line", "more"),
    [
        (b"GET /v1/sessions#x HTTP/1.1", b""),
        (b"POST /v1/sessions#x HTTP/1.1", b"Content-Length: 2\r\n"),
        (b"POST /v1/sessions HTTP/1.1", b"Transfer-Encoding: gzip, chunked\r\n"),
        (b"POST /v1/sessions HTTP/1.1", b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
    ],
)
def test_what_would_be_read_as_another_request_is_refused(service: Running, line: bytes, more: bytes) -> None:
    head = line + b"\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" + more + b"\r\n"
    got = raw(service, head + b"{}" + LAST)
    assert statuses(got) == [400] and b'"invalid_request"' in got


def test_a_head_that_is_too_slow_is_given_up(service: Running) -> None:
    assert statuses(raw(service, b"GET /v1/sess")) == [408]
    assert raw(service) == b""


def test_a_body_that_is_too_large_is_refused_before_it_is_read(service: Running) -> None:
    got = raw(service, post(b"", b"Connection: close", length=2 << 20, path=b"/v1/resolve"))
    assert statuses(got)[0] == 413
    chunks = b"Transfer-Encoding: chunked\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    chunks += b"Connection: close\r\n\r\n"
    chunk = b"80000\r\n" + b" " * 0x80000 + b"\r\n"
    got = raw(service, b"POST /v1/sessions HTTP/1.1\r\n" + chunks, chunk, chunk, chunk)
    assert statuses(got)[0] == 413


@pytest.mark.parametrize("lines", [b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n64\r\n"])
def test_the_rest_of_a_request_that_was_answered_already_keeps_no_connection(lines: bytes) -> None:
    with (
        running(settings(keep_alive_seconds=1)) as service,
        socket.create_connection(("127.0.0.1", service.port)) as line,
    ):
        line.settimeout(20)
        line.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\n" + lines)
        assert read(line).startswith(b"HTTP/1.1 404")
        line.sendall(b"x")
        assert line.recv(1000) == b""


def test_what_follows_the_last_chunk_is_no_header_and_is_not_kept() -> None:
    store = MemoryStorage()
    _, key = make_key(store)
    with running(ServiceSettings(storage="memory", shutdown_seconds=5), storage=store) as service:
        body = b'{"agent_id":"a","goal":"g"}'
        head = (
            b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        )
        trailers = b"Authorization: Bearer " + key.encode() + b"\r\nX-Last: 1\r\n"
        whole = head + b"\r\n%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)
        with socket.create_connection(("127.0.0.1", service.port)) as line:
            line.sendall(whole)
            assert read(line).startswith(b"HTTP/1.1 401")
        with socket.create_connection(("127.0.0.1", service.port)) as line:
            line.sendall(head + b"\r\n0\r\n")
            for _ in range(100):
                line.sendall(b"x: y\r\n" * 1000)
            assert read(line).startswith(b"HTTP/1.1 401")
            assert max(len(c.headers) for c in service.server.server_state.connections) == 0


def test_a_half_sent_body_changes_nothing(service: Running, client: httpx.Client) -> None:
    before = len(client.get("/v1/sessions", params={"limit": 1000}).json()["sessions"])
    assert statuses(raw(service, post(NEW[:10], length=len(NEW)))) == [408]
    with socket.create_connection(("127.0.0.1", service.port)) as line:
        line.sendall(post(NEW[:10], length=len(NEW)))
    assert len(client.get("/v1/sessions", params={"limit": 1000}).json()["sessions"]) == before


class Busy:
    """An executor that says when it has begun and goes on when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self, runtime: Any) -> None:
        runtime.register_executor("*", self.run)

    def run(self, parameters: dict[str, Any]) -> Any:
        self.begun.release()
        assert self.go.wait(20)
        return parameters


def resolved(client: httpx.Client) -> dict[str, Any]:
    session: dict[str, Any] = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).json()
    assert client.post("/v1/resolve", json=request(session)).status_code == 200
    return session


def execution(session: dict[str, Any]) -> dict[str, Any]:
    return request(session, "execute", execution={"action_id": "desk.wait", "parameters": {}})


def aside(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(work()))
    thread.start()
    return thread, got


def test_more_calls_than_the_service_can_take_are_told_to_come_back() -> None:
    busy = Busy()
    with (
        running(settings(max_concurrency=2, max_queue=0), atlases=(desk(),), register=busy) as service,
        httpx.Client(base_url=service.url, timeout=20) as client,
    ):
        session = resolved(client)
        calls = [aside(lambda: httpx.post(f"{service.url}/v1/execute", json=execution(session))) for _ in range(2)]
        for _ in calls:
            assert busy.begun.acquire(timeout=10)
        refused = client.post("/v1/resolve", json=request(session))
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/v1/health/live").status_code == 200
        busy.go.set()
        for thread, got in calls:
            thread.join(10)
            assert got[0].json()["status"] == "success"
        assert client.post("/v1/resolve", json=request(session)).status_code == 200


def test_a_caller_who_leaves_while_an_action_runs_leaves_its_outcome_behind() -> None:
    busy = Busy()
    with (
        running(settings(), atlases=(desk(),), register=busy) as service,
        httpx.Client(base_url=service.url, timeout=20) as client,
    ):
        session = resolved(client)
        with socket.create_connection(("127.0.0.1", service.port)) as line:
            line.sendall(post(json.dumps(execution(session)).encode(), path=b"/v1/execute"))
            assert busy.begun.acquire(timeout=10)
        busy.go.set()
        path = f"/v1/sessions/{session['session_id']}"
        while "action.executed" not in client.get(f"{path}/trace").text:
            pass


def test_a_call_that_takes_too_long_is_cut_off_and_recorded() -> None:
    busy = Busy()
    with (
        running(settings(request_timeout_seconds=1), atlases=(desk(),), register=busy) as service,
        httpx.Client(base_url=service.url, timeout=20) as client,
    ):
        session = resolved(client)
        answer = client.post("/v1/execute", json=execution(session))
        assert (answer.status_code, answer.json()["code"]) == (504, "call_timeout")
        events = client.get(f"/v1/sessions/{session['session_id']}/trace").json()["events"]
        assert events[-1]["payload"]["error_code"] == "cancelled"
        busy.go.set()


def test_a_service_that_stops_finishes_what_it_began_and_takes_nothing_new() -> None:
    busy = Busy()
    store = MemoryStorage()
    with (
        running(settings(), storage=store, atlases=(desk(),), register=busy) as service,
        httpx.Client(base_url=service.url, timeout=20) as client,
    ):
        session = resolved(client)
        thread, got = aside(lambda: httpx.post(f"{service.url}/v1/execute", json=execution(session)))
        assert busy.begun.acquire(timeout=10)
        service.ask_to_stop()
        while not service.app.service.closing:
            pass
        with pytest.raises(httpx.TransportError):
            client.get("/v1/sessions")
        busy.go.set()
        thread.join(10)
        assert got[0].json()["status"] == "success"


def test_a_service_that_may_wait_no_longer_cancels_and_records_that() -> None:
    busy = Busy()
    store = MemoryStorage()
    with running(settings(shutdown_seconds=1), storage=store, atlases=(desk(),), register=busy) as service:
        with httpx.Client(base_url=service.url, timeout=20) as client:
            session = resolved(client)
        thread, got = aside(lambda: httpx.post(f"{service.url}/v1/execute", json=execution(session)))
        assert busy.begun.acquire(timeout=10)
        service.stop()
        thread.join(10)
        busy.go.set()
        assert (got[0].status_code, got[0].json()["code"]) == (503, "overloaded")
    last = json.loads(store.of_tenant("default").events(session["session_id"]).splitlines()[-1])
    assert last["payload"]["error_code"] == "cancelled"


def test_a_store_that_is_lost_or_full_allows_nothing_and_says_so() -> None:
    store = FaultyStorage(MemoryStorage())
    with (
        running(settings(), storage=store, atlases=(desk(),)) as service,
        httpx.Client(base_url=service.url, timeout=20) as client,
    ):
        session = resolved(client)
        path = f"/v1/sessions/{session['session_id']}/trace"
        before = client.get(path).content
        for error, status in ((StorageError("the database is gone"), 503), (StorageFull("the disk is full"), 507)):
            store.fail_always("before", error=error)
            for answer in (
                client.post("/v1/resolve", json=request(session)),
                client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}),
                client.put("/v1/retention", json={"keep_ended": 1}),
            ):
                assert (answer.status_code, answer.json()["code"]) == (status, error.code), answer.text
            if status == 503:
                assert client.post("/v1/resolve", json=request(session)).headers["retry-after"] == "1"
            store.heal()
        assert client.get(path).content == before
        assert client.post("/v1/resolve", json=request(session)).status_code == 200
        assert 'cra_appends_total{result="storage_full"}' in client.get("/metrics").text


def test_a_service_whose_store_does_not_answer_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStorage()

    def gone() -> None:
        raise StorageError("the database is gone")

    monkeypatch.setattr(store, "probe", gone, raising=False)
    with running(settings(), storage=store) as service, httpx.Client(base_url=service.url) as client:
        answer = client.get("/v1/health/ready")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")
        assert client.get("/v1/health/live").status_code == 200


def test_few_bodies_larger_than_usual_are_taken_at_once() -> None:
    store = MemoryStorage()
    _, key = make_key(store)
    head = b"POST /v1/atlases HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\n" % key.encode()
    head += b"Content-Type: application/json\r\n"
    large = head + b"Content-Length: %d\r\n\r\n{" % (4 << 20)
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
    with running(ServiceSettings(storage="memory", shutdown_seconds=5), storage=store) as service, ExitStack() as lines:

        def send(text: bytes) -> socket.socket:
            line = lines.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            line.settimeout(20)
            line.sendall(text)
            return line

        held = [send(large if number % 2 else chunked) for number in range(8)]
        places = service.app.service.large

        def is_held(count: int) -> bool:
            until = time.monotonic() + 10
            while places.active != count and time.monotonic() < until:
                time.sleep(0.01)
            return places.active == count

        assert is_held(len(held))
        refused = read(send(large))
        assert refused.startswith(b"HTTP/1.1 503") and b"retry-after" in refused.lower()
        # One of the usual size needs no such place.
        assert read(send(head + b"Content-Length: 2\r\n\r\n{}")).startswith(b"HTTP/1.1 422")
        for line in held:
            line.close()
        assert is_held(0)
