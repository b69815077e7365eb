"""What is answered at once and what goes the long way: the same answers, byte for byte, and the same record."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from cra import CRARuntime, RuntimeConfig
from cra._core.chain import verify
from cra.protocol.times import format_timestamp
from cra.server.access import AccessLog
from cra.server.app import create_app
from cra.server.auth.authenticator import Authenticator
from cra.server.connection import Connection
from cra.server.routes import Route
from cra.server.serve import make_config
from cra.server.service import Service
from cra.server.settings import ServiceSettings
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage
from cra.storage.postgres import PostgresStorage
from cra.storage.sqlite import SQLiteStorage
from cra.testing import postgres
from cra.testing.clock import FixedClock, SeededIds
from cra.testing.faults import FaultyStorage
from tests.server.desk import desk, request
from tests.server.identities import make_key
from tests.server.running import Running, read, running

# The date, and ids of requests that say none.
_OWN = re.compile(rb"\r\ndate: [^\r]*|[0-9a-f]{12}-[0-9a-f]+\b(?!-)")
# What differs in the access log: how long it took, and the ids of keys.
_TOOK = re.compile(r'"microseconds":\d+|key:[a-z0-9]{16}')
SESSION, OTHER, ENDED, NOBODY = (f"01890000-0000-7000-8000-{number:012x}" for number in range(4))


class Way:
    """A service whose clock and ids are fixed, and how often it answered at once."""

    def __init__(self, service: Running, store: Storage, keys: dict[str, str]) -> None:
        self.service, self.store, self.keys = service, store, keys
        self.prompt = 0
        inner: Service = service.app.service
        answer = inner.at_once

        def counted(route: Route, scope: Any, headers: Mapping[bytes, bytes], body: bytes) -> Any:
            found = answer(route, scope, headers, body)
            self.prompt += found is not None
            return found

        inner.at_once = counted  # type: ignore[method-assign]

    def send(self, *pieces: bytes) -> bytes:
        """Send a request in pieces, and return the answer without its date and ids that were made for it."""
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=20) as line:
            for piece in pieces:
                line.sendall(piece)
            return _OWN.sub(b"", read(line))


def keep_keys(it: Way) -> None:
    """Have a service ask no more for the keys it knows: one that has to is not answered at once."""
    authenticator, now = it.service.app.service.authenticate, time.monotonic()
    assert isinstance(authenticator, Authenticator)
    authenticator.directory._monotonic = lambda: now


@contextmanager
def way(store: Storage | None = None, *, long: bool, more: dict[str, Any] | None = None, **auth: Any) -> Iterator[Way]:
    store, clock = store or MemoryStorage(), FixedClock()
    keys = {"admin": make_key(store, clock=clock)[1]}
    keys["agent"] = make_key(store, clock=clock, roles=["agent"], agent_id="a")[1]
    keys["viewer"] = make_key(store, clock=clock, roles=["viewer"])[1]
    keys["expired"] = make_key(store, clock=clock, expires_at="2026-01-01T00:00:00.000001Z")[1]
    settled = {"storage": "memory", "shutdown_seconds": 5, "max_body_bytes": 20_000, **(more or {})}
    given = ServiceSettings(**settled, auth=auth)
    options: dict[str, Any] = {"storage": store, "clock": clock, "ids": SeededIds(1), "atlases": (desk(),)}
    with running(given, **options) as service:
        if long:
            service.app.service.prompt = {}
        found = Way(service, store, keys)
        with httpx.Client(base_url=service.url, headers={"x-api-key": keys["admin"]}, timeout=20) as client:
            for session_id, agent in ((SESSION, "a"), (OTHER, "b"), (ENDED, "a")):
                new = {"agent_id": agent, "goal": "g", "session_id": session_id}
                assert client.post("/v1/sessions", json=new).status_code == 201
            assert client.delete(f"/v1/sessions/{ENDED}").status_code == 200
        clock.advance(us=10)
        yield found


@pytest.fixture(scope="module")
def ways() -> Iterator[tuple[Way, Way]]:
    with way(long=False) as one, way(long=True) as other:
        yield one, other


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgres"])
def ways_of_stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give both ways on each kind of store."""
    with ExitStack() as stack:
        stores: list[Storage] = [MemoryStorage(), MemoryStorage()]
        if request.param == "sqlite":
            folder = tmp_path_factory.mktemp("ways")
            stores = [SQLiteStorage(folder / "one.db"), SQLiteStorage(folder / "other.db")]
        if request.param == "postgres":
            if postgres.WITHOUT in os.environ:
                pytest.skip("nothing of PostgreSQL is tested")
            server = postgres.Server()
            stack.callback(server.close)
            stores = [PostgresStorage(server.database(), pool=4) for _ in range(2)]
        ways = [stack.enter_context(way(store, long=long)) for store, long in zip(stores, (False, True), strict=True)]
        for it in ways:
            keep_keys(it)
        yield tuple(ways)


def carp(number: int, **more: Any) -> dict[str, Any]:
    return {
        "carp_version": "1.0",
        "request_id": f"01890000-0000-7000-9000-{number:012x}",
        "timestamp": format_timestamp(FixedClock()()),
        "operation": "resolve",
        "requester": {"agent_id": "a", "session_id": SESSION},
        "task": {"goal": "help"},
        **more,
    }


def post(body: bytes | dict[str, Any], key: str, *lines: bytes, kind: bytes | None = b"application/json") -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [b"POST /v1/resolve HTTP/1.1", b"Host: 127.0.0.1", b"X-Request-Id: one", *lines]
    if key:
        head.append(b"Authorization: Bearer " + key.encode())
    if kind is not None:
        head.append(b"Content-Type: " + kind)
    return b"\r\n".join([*head, b"Content-Length: %d" % len(text), b"", b""]) + text


GOOD = carp(1)
# A body, who sends it, its media type, and more of its head.
CASES: list[tuple[Any, str, bytes | None, tuple[bytes, ...]]] = [
    (GOOD, "admin", b"application/json", ()),
    (GOOD, "admin", b"application/json", ()),  # again, which is a duplicate
    (carp(2), "agent", b"application/vnd.cra.carp+json", (b"Accept: application/vnd.cra.carp+json",)),
    (carp(3, requester={"agent_id": "b", "session_id": OTHER}), "admin", b"application/json; charset=utf-8", ()),
    (carp(4, requester={"agent_id": "b", "session_id": OTHER}), "agent", b"application/json", ()),
    (carp(5, requester={"agent_id": "a", "session_id": OTHER}), "agent", b"application/json", ()),
    (carp(5, requester={"agent_id": "a", "session_id": OTHER}), "admin", b"application/json", ()),
    (carp(6, requester={"agent_id": "a", "session_id": ENDED}), "admin", b"application/json", ()),
    (carp(7, requester={"agent_id": "a", "session_id": NOBODY}), "admin", b"application/json", ()),
    (carp(8, timestamp="2020-01-01T00:00:00Z"), "admin", b"application/json", ()),
    (carp(9, timestamp="2026-13-01T00:00:00Z"), "admin", b"application/json", ()),
    (carp(10, atlas_ids=["no.such"]), "admin", b"application/json", ()),
    (carp(11, context={"n": 1e400}), "admin", b"application/json", ()),
    (carp(12, context={"n": 2**70, "é": "\U0001f600"}), "admin", b"application/json", ()),
    (carp(13, operation="validate"), "admin", b"application/json", ()),
    (carp(14, more=1), "admin", b"application/json", ()),
    (carp(15, request_id="x"), "admin", b"application/json", ()),
    (b'{"a":1,"a":2}', "admin", b"application/json", ()),
    (b"\xff", "admin", b"application/json", ()),
    (b"", "admin", b"application/json", ()),
    (b"[" * 500, "admin", b"application/json", ()),
    (b" " * 20_001, "admin", b"application/json", ()),
    (carp(16), "viewer", b"application/json", ()),
    (carp(17), "expired", b"application/json", ()),
    (carp(18), "", b"application/json", ()),
    (carp(19), "admin", None, ()),
    (carp(20), "admin", b"text/plain", ()),
    (carp(21), "admin", b"application/json", (b"Content-Encoding: gzip",)),
    (carp(22), "admin", b"application/json", (b"Accept: text/html",)),
    (carp(23), "admin", b"application/json", (b"Origin: https://elsewhere.example",)),
    (carp(24), "admin", b"application/json", (b"X-API-Key: cra_x",)),
    (carp(25), "admin", b"application/json", (b"Connection: Keep-Alive, X-Other", b"X-Other: 1")),
]
# What always goes the long way: more of its head.
LONG = [
    (b"Content-Type: text/plain",),
    (b"X-Other: 1", b"X-Other: 2"),
    (b"Expect: nothing",),
    (b"Expect: 100-continue",),
    (b"Connection: close",),
    (b"Connection: keep-alive, close",),
    (b"Proxy-Connection: close",),
    (b"Connection: upgrade", b"Upgrade: h2c"),
    (b"Transfer-Encoding: chunked",),
]


def test_an_answer_is_the_same_whichever_way_it_went(ways_of_stores: tuple[Way, Way]) -> None:
    one, other = ways = ways_of_stores
    seen = set()
    for body, key, kind, lines in CASES:
        answers = [it.send(post(body, it.keys.get(key, key), *lines, kind=kind)) for it in ways]
        assert answers[0] == answers[1], (body, key, kind, lines)
        seen.add(answers[0][9:12])
    assert seen >= {b"200", b"400", b"401", b"403", b"404", b"406", b"409", b"413", b"415"}, seen
    assert (one.prompt, other.prompt) == (len(CASES), 0)
    for number, more in enumerate(LONG):
        answers = [it.send(post(carp(30 + number), it.keys["admin"], *more)) for it in ways]
        assert answers[0] == answers[1], more
    assert one.prompt == len(CASES)
    traces = [it.store.of_tenant("default").events(SESSION) for it in ways]
    assert traces[0] == traces[1]
    assert traces[0].count(b"carp.resolution.completed") > 3


class Wire(asyncio.Transport):
    """A connection's other side, in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.got = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def write(self, data: Any) -> None:
        assert not self.closed
        self.got += data

    def close(self) -> None:
        self.closed = True


class Inside:
    """A service without sockets, on the loop of whoever asks it."""

    def __init__(self, store: Storage, *, long: bool) -> None:
        clock = FixedClock()
        self.key = make_key(store, clock=clock)[1]
        given = ServiceSettings(storage="memory", max_body_bytes=20_000, max_header_bytes=2000)
        app = create_app(given, storage=store, clock=clock, ids=SeededIds(2), atlases=(desk(),))
        self.config, self.state = make_config(app, given), ServerState()
        self.config.load()
        self.service, self.store, self.prompt = app.service, store, 0
        with CRARuntime(RuntimeConfig(storage=store.of_tenant("default"), clock=clock, ids=SeededIds(3))) as runtime:
            runtime.create_session("a", "g", session_id=SESSION)
        assert isinstance(self.service.authenticate, Authenticator)
        self.flights = self.service.authenticate.directory._flights
        if long:
            self.service.prompt = {}

    async def send(self, pieces: list[bytes]) -> tuple[bytes, bool]:
        """Return what comes back for some pieces, and whether the connection was closed."""
        loop, wire = asyncio.get_running_loop(), Wire()
        line = Connection(self.config, self.state, {}, loop)
        line.connection_made(wire)
        for piece in pieces:
            line.data_received(piece)
            # As many turns as any of this takes when the store is not waited for; what is half there takes no more.
            turns = 0
            while turns < 12:
                await asyncio.sleep(0)
                turns = 0 if self.service.gate.active or self.flights else turns + 1
        line.connection_lost(None)
        while self.state.tasks:
            await asyncio.sleep(0)
        return _OWN.sub(b"", wire.got), wire.closed


_BEGINNINGS = (
    b"\r\n",
    b"POST /v1/resolve HTTP/1.1\r\n",
    b"GET /v1/atlases HTTP/1.1\r\nX: ",
    b"POST /v1/resolve HTTP/1.1\r\nContent-Length: 400\r\n\r\n",
    b"X: y\r\n\r\n",
    b"0\r\n\r\n",
)
_BYTES = (b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b":", b"\0", b"\xff", b"1", b"A")


@st.composite
def spoiled(draw: st.DrawFn, key: str) -> tuple[bytes, list[int]]:
    """Give some requests, with a byte more, less or another here and there, and where they are cut."""
    number = st.integers(0, 10**9)
    parts = draw(
        st.lists(
            st.one_of(
                number.map(lambda number: post(carp(number), key)),
                number.map(lambda number: post(carp(number), key, b"Connection: close")),
                st.just(b"GET /v1/atlases HTTP/1.1\r\nHost: a\r\nX-API-Key: " + key.encode() + b"\r\n\r\n"),
                st.sampled_from(_BEGINNINGS),
            ),
            min_size=1,
            max_size=3,
        )
    )
    text, ends = b"".join(parts), [*accumulate(map(len, parts))]
    cuts = draw(st.lists(st.one_of(st.sampled_from(ends), st.integers(0, len(text))), max_size=3))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, min(len(text), 400)))
        text = text[:at] + draw(st.sampled_from(_BYTES)) + text[at + draw(st.integers(0, 2)) :]
    return text, sorted(cuts)


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "sqlite"])
def test_no_bytes_are_read_otherwise_by_the_short_way(tmp_path: Path, durable: bool) -> None:
    stores = [SQLiteStorage(tmp_path / name) if durable else MemoryStorage() for name in ("one.db", "other.db")]
    ways = Inside(stores[0], long=False), Inside(stores[1], long=True)
    keys = [it.key.encode() for it in ways]
    found = 0

    with asyncio.Runner() as runner:
        for it in ways:
            # The first call of a tenant is never answered at once.
            assert runner.run(it.send([post(carp(0), it.key)]))[0].startswith(b"HTTP/1.1 200 ")

        # What looks like a request, and is a header of another one.
        @example((_BEGINNINGS[2] + post(carp(1), ways[0].key), [len(_BEGINNINGS[2])]))
        @settings(max_examples=100 if durable else 400, deadline=None, suppress_health_check=list(HealthCheck))
        @given(spoiled(ways[0].key))
        def compare(given: tuple[bytes, list[int]]) -> None:
            nonlocal found
            answers = []
            for it, key in zip(ways, keys, strict=True):
                text, cuts = given[0].replace(keys[0], key), given[1]
                pieces = [text[a:b] for a, b in pairwise([0, *cuts, len(text)]) if a < b]
                answers.append(runner.run(it.send(pieces)))
            assert answers[0] == answers[1], given
            found += answers[0][0].count(b'"decision":{')

        compare()
    assert found > 5
    traces = [it.store.of_tenant("default").events(SESSION) for it in ways]
    assert traces[0] == traces[1]


def test_what_is_counted_and_logged_is_the_same_whichever_way_it_went(caplog: pytest.LogCaptureFixture) -> None:
    pages, logs = [], []
    caplog.set_level(logging.INFO, "cra.access")
    for long in (False, True):
        with way(long=long) as it:
            it.service.app.service.access = AccessLog()
            caplog.clear()
            for body, key, kind, lines in CASES[:12]:
                it.send(post(body, it.keys.get(key, key), *lines, kind=kind))
            text = httpx.get(f"{it.service.url}/metrics", headers={"x-api-key": it.keys["admin"]}).text
        logs.append(
            [_TOOK.sub("", record.getMessage()) for record in caplog.records if "resolve" in record.getMessage()]
        )
        pages.append(
            [line for line in text.splitlines() if line.startswith(("cra_requests_total", "cra_decisions_total"))]
        )
    assert pages[0] == pages[1]
    assert logs[0] == logs[1] and len(logs[0]) == 12
    assert any('decision="partial"' in line for line in pages[0])


def test_a_request_that_comes_in_pieces_or_with_others_is_answered_like_one_that_is_alone(
    ways: tuple[Way, Way],
) -> None:
    one, _ = ways
    key = one.keys["admin"]
    for number, cut in enumerate((5, 40, -400, -1)):
        before, text = one.prompt, post(carp(100 + number), key)
        with socket.create_connection(("127.0.0.1", one.service.port), timeout=20) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.sendall(text[:cut])
            # An answer to another caller says that the first piece has been read.
            assert httpx.get(f"{one.service.url}/v1/health/live").status_code == 200
            line.sendall(text[cut:])
            assert read(line).startswith(b"HTTP/1.1 200 ")
            assert one.prompt == before
            line.sendall(post(carp(200 + number), key))
            assert read(line).startswith(b"HTTP/1.1 200 ")
            assert one.prompt == before + 1
    before = one.prompt
    with socket.create_connection(("127.0.0.1", one.service.port), timeout=20) as line:
        both = (
            post(carp(300), key, b"X-Cra: a") + b"GET /v1/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        line.sendall(both + post(carp(301), key))
        got = b""
        while piece := line.recv(65536):
            got += piece
    assert [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"]
    assert b'"decision":{' in got.split(b"HTTP/1.1 ")[1]
    assert one.prompt == before


def test_a_service_that_is_full_answers_nothing_at_once_but_a_refusal(ways: tuple[Way, Way]) -> None:
    one, _ = ways
    service, before = one.service.app.service, one.prompt
    service.calls += service.most_calls
    try:
        assert one.send(post(carp(500), one.keys["admin"])).startswith(b"HTTP/1.1 503 ")
    finally:
        service.calls -= service.most_calls
    assert one.prompt == before


def test_a_call_waits_for_its_turn_when_others_are_worked_on(ways: tuple[Way, Way]) -> None:
    one, _ = ways
    gate, before, loop = one.service.app.service.gate, one.prompt, one.service.loop
    assert loop is not None
    gate.active += 64
    with socket.create_connection(("127.0.0.1", one.service.port), timeout=20) as line:
        line.sendall(post(carp(501), one.keys["admin"]))
        while not gate._waiting:
            assert one.prompt == before
        gate.active -= 63
        loop.call_soon_threadsafe(gate.leave)
        assert read(line).startswith(b"HTTP/1.1 200 ")
    assert one.prompt == before
    assert gate.active == 0


def test_a_limit_counts_every_call_once_whichever_way_it_goes() -> None:
    for long in (False, True):
        with way(long=long, throttle={"key_per_second": 1, "key_burst": 20}) as it:
            key = it.keys["agent"]
            statuses = [it.send(post(carp(number), key))[9:12] for number in range(22)]
        assert statuses[:20] == [b"200"] * 20
        assert b"429" in statuses[20:], statuses


def test_a_key_that_is_revoked_is_soon_refused_at_once_too(ways: tuple[Way, Way]) -> None:
    one, _ = ways
    headers = {"x-api-key": one.keys["admin"]}
    with httpx.Client(base_url=one.service.url, headers=headers, timeout=20) as client:
        made = client.post("/v1/keys", json={"subject": "s", "roles": ["admin"]}).json()
        assert one.send(post(carp(400), made["key"])).startswith(b"HTTP/1.1 200")
        before = one.prompt
        assert client.delete(f"/v1/keys/{made['key_id']}").status_code in (200, 204)
        assert one.send(post(carp(401), made["key"])).startswith(b"HTTP/1.1 401")
        assert one.prompt <= before + 1


def test_what_the_store_refuses_is_allowed_neither_way() -> None:
    store = FaultyStorage(MemoryStorage())
    given = ServiceSettings(storage="memory", dev=True, shutdown_seconds=5)
    with running(given, storage=store, atlases=(desk(),)) as service, httpx.Client(base_url=service.url) as client:
        made = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).json()
        for _ in range(2):
            assert client.post("/v1/resolve", json=request(made)).status_code == 200
            store.fail_always("before")
            assert client.post("/v1/resolve", json=request(made)).status_code == 503
            store.heal()
            service.app.service.prompt = {}


# With a store that is waited for


@contextmanager
def held(store: Storage) -> Iterator[None]:
    """Keep a store from writing for as long as the block."""
    assert isinstance(store, SQLiteStorage)
    other = apsw.Connection(store.path)
    other.set_busy_timeout(10_000)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def both(
    tmp_path: Path, story: Callable[[Way], Any], more: dict[str, Any] | None = None, *, prompt: int | None = None
) -> Any:
    """Tell a story with either way over SQLite, and return what both of them come to: it has to be the same."""
    found = []
    for long in (False, True):
        store = SQLiteStorage(tmp_path / f"{long}.db")
        with way(store, long=long, more=more) as it:
            keep_keys(it)
            assert it.send(post(carp(1), it.keys["admin"])).startswith(b"HTTP/1.1 200 ")
            outcome = story(it)
            # A service that has nothing to do any more holds on to nothing, and its sessions are free.
            if not it.service.app.service.closing:
                assert it.send(post(carp(2), it.keys["admin"])).startswith(b"HTTP/1.1 200 ")
            idle(it)
        trace = SQLiteStorage(tmp_path / f"{long}.db").events(SESSION)
        assert verify(trace).ok
        found.append((outcome, trace))
        if not long and prompt is not None:
            assert it.prompt == prompt
    assert found[0] == found[1]
    return found[0][0]


def idle(it: Way) -> None:
    """Wait until nothing is worked on."""
    service, tasks = it.service.app.service, it.service.server.server_state.tasks
    deadline = time.monotonic() + 20
    while service.calls or service.gate.active or tasks or service.deadlines.tasks:
        assert time.monotonic() < deadline, (service.calls, service.gate.active, tasks, service.deadlines.tasks)


def begun(it: Way, calls: int) -> None:
    """Wait until so many calls are worked on."""
    deadline = time.monotonic() + 20
    while it.service.app.service.gate.active != calls:
        assert time.monotonic() < deadline


def line_to(it: Way) -> socket.socket:
    return socket.create_connection(("127.0.0.1", it.service.port), timeout=20)


def named(number: int, key: str, name: bytes) -> bytes:
    return post(carp(number), key).replace(b"X-Request-Id: one", b"X-Request-Id: " + name)


def test_requests_behind_one_that_waits_for_the_store_are_answered_in_their_order(tmp_path: Path) -> None:
    def story(it: Way) -> list[bytes]:
        key, answers = it.keys["admin"], []
        with line_to(it) as line:
            with held(it.store):
                line.sendall(named(10, key, b"first"))
                begun(it, 1)
                line.sendall(named(11, key, b"second"))
                line.sendall(b"GET /v1/health/live HTTP/1.1\r\nHost: a\r\nX-Request-ID: third\r\n\r\n")
                line.sendall(named(12, key, b"fourth")[:200])
                assert httpx.get(f"{it.service.url}/v1/health/live").status_code == 200
                line.setblocking(False)
                with pytest.raises(BlockingIOError):
                    line.recv(1)
                line.settimeout(20)
                begun(it, 1)
            got = b""
            while got.count(b"HTTP/1.1 ") < 3 or not got.endswith(b"}"):
                got += line.recv(65536)
            answers = _OWN.sub(b"", got).split(b"HTTP/1.1 ")[1:]
            line.sendall(named(12, key, b"fourth")[200:])
            answers.append(_OWN.sub(b"", read(line)))
        return answers

    answers = both(tmp_path, story)
    for answer, name in zip(answers, (b"first", b"second", b"third", b"fourth"), strict=True):
        assert b"\r\nx-request-id: " + name in answer
        assert b"200 OK" in answer[:20]


def test_what_is_not_http_behind_a_request_that_waits_takes_nothing_from_its_answer(tmp_path: Path) -> None:
    def story(it: Way) -> bytes:
        with line_to(it) as line:
            with held(it.store):
                line.sendall(post(carp(10), it.keys["admin"]))
                begun(it, 1)
                line.sendall(b"\0\0\0 no\r\n\r\n")
                assert httpx.get(f"{it.service.url}/v1/health/live").status_code == 200
            got = b""
            while piece := line.recv(65536):
                got += piece
        return _OWN.sub(b"", got)

    got = both(tmp_path, story, prompt=3)
    assert got.startswith(b"HTTP/1.1 200 ") and got.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in got


def test_a_caller_who_does_not_wait_for_the_store_has_been_recorded(tmp_path: Path) -> None:
    def story(it: Way) -> list[str]:
        with held(it.store):
            for number, session_id, agent in ((10, SESSION, "a"), (11, OTHER, "b")):
                with line_to(it) as line:
                    asks = carp(number, requester={"agent_id": agent, "session_id": session_id})
                    line.sendall(post(asks, it.keys["admin"]))
                    begun(it, number - 9)
        idle(it)
        page = httpx.get(f"{it.service.url}/metrics", headers={"x-api-key": it.keys["admin"]}).text
        assert verify(it.store.events(OTHER)).events == 5
        names = ("cra_requests_total", "cra_decisions_total", "cra_appends_total", "cra_calls_active")
        return [line for line in page.splitlines() if line.startswith(names)]

    counted = both(tmp_path, story, prompt=4)
    assert any('route="/v1/resolve",status="200"' in line and line.endswith(" 3.0") for line in counted), counted


def test_calls_that_wait_for_the_store_take_the_places_there_are(tmp_path: Path) -> None:
    def story(it: Way) -> list[bytes]:
        key = it.keys["admin"]
        with line_to(it) as one, line_to(it) as two:
            with held(it.store):
                one.sendall(post(carp(10), key))
                begun(it, 1)
                asks = carp(11, requester={"agent_id": "b", "session_id": OTHER})
                two.sendall(post(asks, key))
                while it.service.app.service.calls < 2:
                    pass
                begun(it, 1)
                refused = it.send(post(carp(12), key))
            return [refused, *(_OWN.sub(b"", read(line)) for line in (one, two))]

    answers = both(tmp_path, story, {"max_concurrency": 1, "max_queue": 1})
    assert [answer[9:12] for answer in answers] == [b"503", b"200", b"200"]
    assert b"\r\nretry-after: " in answers[0]


def test_a_head_that_somebody_else_has_moved_is_decided_on_again(tmp_path: Path) -> None:
    def story(it: Way) -> list[bytes]:
        assert isinstance(it.store, SQLiteStorage)
        answers = []
        config = RuntimeConfig(storage=SQLiteStorage(it.store.path), clock=FixedClock(), ids=SeededIds(9))
        with CRARuntime(config) as other:
            for number in range(10, 13):
                other.resolve(SESSION, "from elsewhere")
                answers.append(it.send(post(carp(number), it.keys["admin"])))
            other.end_session(SESSION)
            ended = it.send(post(carp(13), it.keys["admin"]))
            asks = carp(14, requester={"agent_id": "b", "session_id": OTHER})
            answers += [ended, it.send(post(asks, it.keys["admin"]))]
        return answers

    found = []
    for long in (False, True):
        store = SQLiteStorage(tmp_path / f"{long}.db")
        with way(store, long=long) as it:
            keep_keys(it)
            found.append(story(it))
            idle(it)
            found[-1].append(store.events(SESSION))
            assert it.prompt == (0 if long else 5)
    assert found[0] == found[1]
    assert [answer[9:12] for answer in found[0][:5]] == [b"200", b"200", b"200", b"409", b"200"]
    assert verify(found[0][5]).ok


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_store_that_fails_is_told_the_same_whichever_way(tmp_path: Path, when: Any) -> None:
    found = []
    for long in (False, True):
        store = SQLiteStorage(tmp_path / f"{long}.db")
        faulty = FaultyStorage(store)
        with way(faulty, long=long) as it:
            keep_keys(it)
            answers = [it.send(post(carp(10), it.keys["admin"]))]
            faulty.fail(when)
            answers += [it.send(post(carp(number), it.keys["admin"])) for number in (11, 12)]
            idle(it)
            found.append((answers, store.events(SESSION)))
            assert it.prompt == (0 if long else 3)
    assert found[0] == found[1]
    assert [answer[9:12] for answer in found[0][0]] == [b"200", b"503", b"200"]
    assert verify(found[0][1]).events == (9 if when == "before" else 13)


def test_a_call_that_takes_too_long_is_told_so_when_the_store_has_answered(tmp_path: Path) -> None:
    def story(it: Way) -> bytes:
        with line_to(it) as line:
            with held(it.store):
                line.sendall(post(carp(10), it.keys["admin"]))
                begun(it, 1)
                while it.service.app.service.deadlines.tasks:
                    pass
            return _OWN.sub(b"", read(line))

    answer = both(tmp_path, story, {"request_timeout_seconds": 1}, prompt=3)
    assert answer.startswith(b"HTTP/1.1 504 ") and b'"code":"call_timeout"' in answer


@pytest.mark.parametrize("patient", [True, False])
def test_a_service_that_stops_answers_those_who_wait_for_the_store(tmp_path: Path, patient: bool) -> None:
    def story(it: Way) -> bytes:
        service = it.service.app.service
        with line_to(it) as line, line_to(it) as idle_line:
            with held(it.store):
                line.sendall(post(carp(10), it.keys["admin"]))
                begun(it, 1)
                it.service.ask_to_stop()
                while not service.closing:
                    pass
                # Who waits for nothing is let go at once.
                assert idle_line.recv(1) == b""
                if not patient:
                    # The time is over, and what is worked on is cancelled.
                    loop = it.service.loop
                    assert loop is not None
                    [task] = it.service.server.server_state.tasks
                    loop.call_soon_threadsafe(task.cancel)
                    loop.call_soon_threadsafe(service.new_id)
            got = b""
            while piece := line.recv(65536):
                got += piece
        return _OWN.sub(b"", got)

    got = both(tmp_path, story, {"shutdown_seconds": 20}, prompt=2)
    assert got.startswith(b"HTTP/1.1 200 " if patient else b"HTTP/1.1 503 ")
    assert b"\r\nconnection: close\r\n" in got
