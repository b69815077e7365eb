"""Live traces: what is written is told, once, in order, from where the reader wants, and to its end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.server.settings import ServiceSettings
from cra.server.websocket import WebSocket
from tests.server.desk import desk
from tests.server.identities import make_key, make_tenant, memory
from tests.server.running import Running, running

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    settings = ServiceSettings(storage="memory", dev=True, shutdown_seconds=5, heartbeat_seconds=1)
    with running(settings, atlases=(desk(),)) as found:
        yield found


@pytest.fixture
def client(service: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=20) as found:
        yield found


@pytest.fixture
def path(client: httpx.Client) -> str:
    return str(client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).headers["location"])


def pieces(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Yield the events of a stream, each as its fields; a comment is under `:`."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            yield fields
            fields = {}
            continue
        name, _, value = line.partition(": ")
        fields[name or ":"] = value


def stored(client: httpx.Client, path: str) -> list[str]:
    return client.get(f"{path}/trace", headers={"accept": "application/x-ndjson"}).text.splitlines()


def socket_of(service: Running, path: str, query: str = "") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{service.port}{path}/trace/live{query}", open_timeout=10)


def rest(live: ClientConnection, got: list[Any]) -> ConnectionClosed:
    """Receive until the end, and return how it ended."""
    while True:
        try:
            got.append(live.recv(timeout=10))
        except ConnectionClosed as closed:
            return closed


def test_a_session_is_followed_from_its_beginning_to_its_end(service: Running, client: httpx.Client, path: str) -> None:
    seen = []
    with client.stream("GET", f"{path}/trace/live") as answer, httpx.Client(base_url=service.url) as writer:
        assert answer.headers["content-type"] == "text/event-stream"
        events = pieces(answer.iter_lines())
        for number, event in enumerate(one for one in events if "data" in one):
            seen.append(event)
            if number == 0:
                writer.post(f"{path}/resolve", json={"goal": "x"})
            if json.loads(event["data"])["event_type"] == "carp.resolution.completed":
                writer.delete(path)
    assert [event["data"] for event in seen] == stored(client, path)
    assert [int(event["id"]) for event in seen] == list(range(len(seen)))


def test_a_reader_resumes_after_the_last_event_that_it_had(client: httpx.Client, path: str) -> None:
    client.post(f"{path}/resolve", json={"goal": "x"})
    client.delete(path)
    lines = stored(client, path)
    for headers, query in (({"last-event-id": "1"}, ""), ({}, "?first=2"), ({"last-event-id": "1"}, "?first=0")):
        text = client.get(f"{path}/trace/live{query}", headers=headers).text
        assert [one["data"] for one in pieces(iter(text.splitlines())) if "data" in one] == lines[2:]
    beyond = client.get(f"{path}/trace/live?first=1000").text
    assert "data" not in beyond
    assert client.get(f"{path}/trace/live", headers={"last-event-id": "x"}).json()["code"] == "invalid_request"
    assert client.get(f"/v1/sessions/{NOBODY}/trace/live").json()["code"] == "session_not_found"


def test_a_quiet_session_has_a_heartbeat(client: httpx.Client, path: str) -> None:
    with client.stream("GET", f"{path}/trace/live?first=1") as answer:
        comments = [event[":"] for _, event in zip(range(3), pieces(answer.iter_lines()), strict=False)]
    assert comments == ["following", "nothing new", "nothing new"]


def test_a_websocket_gets_the_stored_lines_and_a_reason_at_the_end(
    service: Running, client: httpx.Client, path: str
) -> None:
    with socket_of(service, path) as live:
        got = [live.recv(timeout=10)]
        client.post(f"{path}/resolve", json={"goal": "x"})
        client.delete(path)
        closed = rest(live, got)
    assert got == stored(client, path)
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (1000, "the session has ended")
    with socket_of(service, path, "?first=2") as live:
        assert live.recv(timeout=10) == got[2]


def test_a_websocket_that_is_refused_gets_a_problem(service: Running, path: str) -> None:
    for where, status, code in (
        (f"/v1/sessions/{NOBODY}", 404, "session_not_found"),
        (f"{path}/nothing", 404, "route_not_found"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            socket_of(service, where)
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["code"] == code
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{service.port}{path}/trace", open_timeout=10)
    assert refused.value.response.status_code == 400
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{service.port}{path}/trace/live", origin="https://evil.test")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


def test_what_another_process_writes_is_seen(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'cra.db'}"
    with (
        running(ServiceSettings(storage=url, dev=True, shutdown_seconds=5)) as service,
        httpx.Client(base_url=service.url, timeout=20) as client,
        CRARuntime(RuntimeConfig(storage=url)) as other,
    ):
        session = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).json()["session_id"]
        with client.stream("GET", f"/v1/sessions/{session}/trace/live?first=1") as answer:
            events = pieces(answer.iter_lines())
            next(events)
            other.end_session(session)
            assert json.loads(next(e for e in events if "data" in e)["data"])["event_type"] == "session.ended"
            assert list(events) == []


def test_streams_are_bounded_and_a_reader_that_leaves_gives_its_place_back() -> None:
    settings = ServiceSettings(storage="memory", dev=True, shutdown_seconds=5, max_streams=2)
    with running(settings) as service, httpx.Client(base_url=service.url, timeout=20) as client:
        path = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).headers["location"]
        with client.stream("GET", f"{path}/trace/live"), client.stream("GET", f"{path}/trace/live"):
            full = client.get(f"{path}/trace/live")
            assert (full.status_code, full.json()["code"]) == (503, "overloaded")
            assert full.headers["retry-after"] == "1"
            assert client.get("/v1/sessions").status_code == 200
        while service.app.service.streams.active:
            client.get("/v1/health/live")
        with client.stream("GET", f"{path}/trace/live") as again:
            assert again.status_code == 200


def test_nobody_alone_takes_the_places_of_all() -> None:
    settings = ServiceSettings(storage="memory", shutdown_seconds=5, max_streams=16)
    store = memory()
    make_tenant(store, "acme")
    agents = [make_key(store, agent_id="a", roles=["agent"])[1] for _ in range(4)]
    person, elsewhere = make_key(store)[1], make_key(store, "acme")[1]
    with (
        running(settings, storage=store) as service,
        httpx.Client(base_url=service.url, timeout=20) as client,
        ExitStack() as held,
    ):
        new = {"agent_id": "a", "goal": "g"}
        path = client.post("/v1/sessions", json=new, headers={"X-API-Key": agents[0]}).headers["location"]
        theirs = client.post("/v1/sessions", json=new, headers={"X-API-Key": elsewhere}).headers["location"]

        def follow(key: str, path: str = path, method: str = "GET") -> int:
            answer = held.enter_context(client.stream(method, f"{path}/trace/live", headers={"X-API-Key": key}))
            return answer.status_code

        # One credential gets three quarters at most, its tenant seven eighths; and HEAD keeps nothing.
        assert [follow(agents[0]) for _ in range(20)] == [200] * 12 + [503] * 8
        assert follow(person, method="HEAD") == 200
        with pytest.raises(InvalidStatus, match="503"):
            connect(f"ws://127.0.0.1:{service.port}{path}/trace/live", additional_headers={"X-API-Key": agents[0]})
        assert [follow(key) for key in (*agents[1:], person)] == [200, 200, 503, 503]
        assert follow(elsewhere, theirs) == 200
        held.close()
        while service.app.service.streams.active:
            client.get("/v1/health/live")
        assert follow(agents[0]) == 200


def test_a_reader_that_takes_nothing_is_cut_off_and_costs_no_memory() -> None:
    settings = ServiceSettings(storage="memory", dev=True, shutdown_seconds=5, stream_stall_seconds=1)
    with running(settings) as service, httpx.Client(base_url=service.url, timeout=20) as client:
        path = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).headers["location"]
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", service.port))
            slow.sendall(f"GET {path}/trace/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            for _ in range(800):  # more than the system keeps for a reader
                client.post(f"{path}/resolve", json={"goal": "x" * 10_000})
            while 'cra_streams_cut_total{reason="stalled"} 1.0' not in client.get("/metrics").text:
                pass
            assert service.app.service.streams.active == 0


def upgraded(service: Running, path: str) -> socket.socket:
    """Return a connection that is a WebSocket of somebody who reads slowly, if at all."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", service.port))
    line.sendall(
        f"GET {path}/trace/live HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert line.recv(12) == b"HTTP/1.1 101"
    return line


def kept(service: Running) -> list[int]:
    """Return how many bytes each WebSocket has for its reader."""
    return [c.transport.get_write_buffer_size() for c in service.server.server_state.connections if is_socket(c)]


def is_socket(connection: Any) -> bool:
    return isinstance(connection, WebSocket)


def test_pings_of_who_reads_nothing_are_not_answered_without_end(
    service: Running, client: httpx.Client, path: str
) -> None:
    with upgraded(service, path) as line:
        pings = b"\x89\xfd\0\0\0\0" + b"x" * 125
        for _ in range(100):
            line.sendall(pings * 1000)
            assert client.get("/v1/health/live").status_code == 200
        assert max(kept(service)) < 4 << 20


def test_a_message_in_pieces_without_end_is_cut_off(service: Running, path: str) -> None:
    with upgraded(service, path) as line:
        line.settimeout(20)
        line.sendall(b"\x01\x80\0\0\0\0")
        line.sendall(b"\x00\x80\0\0\0\0" * 1000)
        with suppress(ConnectionError):
            while line.recv(65536):
                pass


def test_a_refused_websocket_is_no_error_of_the_service(
    service: Running, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus, match="404"):
        connect(f"ws://127.0.0.1:{service.port}/v1/sessions/{NOBODY}/trace/live")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_service_that_stops_ends_its_streams_and_says_why() -> None:
    seen: list[Any] = []
    with running() as service, httpx.Client(base_url=service.url, timeout=20) as client:
        path = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).headers["location"]
        began = threading.Event()

        def read() -> None:
            with httpx.Client(base_url=service.url, timeout=20) as reader:
                with reader.stream("GET", f"{path}/trace/live") as answer:
                    for event in pieces(answer.iter_lines()):
                        seen.append(event)
                        began.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert began.wait(10)
        service.ask_to_stop()
        reader.join(10)
        assert not reader.is_alive()
    assert seen[-1]["event"] == "error"
    assert json.loads(seen[-1]["data"])["code"] == "overloaded"
