"""Promise 8: every door gives the same bytes for the same requests, clock and ids, over every store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cra._core.chain import verify
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage
from cra.storage.open import open_storage
from cra.storage.sqlite import SQLiteStorage
from cra.testing.clock import FixedClock, SeededIds
from tests.doors import doors
from tests.doors.corpus import DESK, FEW, SCRIPTS, SHORT, Door, Script, World, drive

pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("apsw")

NAMES = ("embedded", "async", "http", "client", "async client")
STORES = ("memory", "sqlite", "postgres")
_numbers = count(1)


_expected: dict[tuple[str, str | None], list[bytes]] = {}


def expected(script: Script, actor: str | None) -> list[bytes]:
    """Return what the runtime in this process answers, over memory; every other door has to give it too."""
    if (script.name, actor) not in _expected:
        world = World.of(script)
        with doors.embedded(world, MemoryStorage(), actor=actor) as door:
            _expected[script.name, actor] = drive(world, door)
    return _expected[script.name, actor]


@pytest.fixture(scope="module")
def service() -> Iterator[doors.Service]:
    with doors.serving() as running:
        yield running


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Storage]]:
    """Return a function that gives an empty tenant of a store of some kind, which is opened when first asked for."""
    with ExitStack() as stack:
        opened: dict[str, Storage] = {}

        def empty(kind: str) -> Storage:
            if kind not in opened:
                opened[kind] = _open(kind, tmp_path_factory, stack)
            return opened[kind].of_tenant(f"world-{next(_numbers)}")

        yield empty


def _open(kind: str, folders: pytest.TempPathFactory, stack: ExitStack) -> Storage:
    store: Storage
    if kind == "memory":
        store = MemoryStorage()
    elif kind == "sqlite":
        store = SQLiteStorage(folders.mktemp("doors") / "cra.db", durability="batched")
    else:
        store = open_storage(_database(), max_sessions=1, max_events=1)
    stack.callback(store.close)
    return store


def _database() -> str:
    """Return the URL of an empty PostgreSQL database."""
    pytest.importorskip("psycopg")
    from cra.testing import postgres

    if os.environ.get(postgres.WITHOUT):
        pytest.skip("asked to do without PostgreSQL")
    return postgres.server().database()


def opened(name: str, service: doors.Service, world: World, store: Storage) -> AbstractContextManager[Door]:
    """Return a door by its name."""
    known: dict[str, Callable[[World, Storage], AbstractContextManager[Door]]] = {
        "embedded": partial(doors.embedded, actor=doors.ACTOR),
        "async": partial(doors.asynchronous, actor=doors.ACTOR),
        "http": partial(doors.wire, service),
        "client": partial(doors.client, service),
        "async client": partial(doors.asynchronous_client, service),
    }
    return known[name](world, store)


def check(script: Script, found: list[bytes], actor: str | None) -> None:
    """Compare answers one by one, so that a difference names its step."""
    wanted = expected(script, actor)
    for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
        assert other == one, f"answer {number} of {script.name}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_promise_8_the_same_answer_at_every_door(
    script: Script, service: doors.Service, stores: Callable[[str], Storage]
) -> None:
    for name in NAMES:
        world = World.of(script)
        with opened(name, service, world, stores("memory")) as door:
            check(script, drive(world, door), doors.ACTOR)


@pytest.mark.parametrize("script", FEW, ids=lambda script: script.name)
@pytest.mark.parametrize("kind", STORES[1:])
def test_promise_8_the_same_answer_at_every_door_over_every_store(
    kind: str, script: Script, service: doors.Service, stores: Callable[[str], Storage]
) -> None:
    for name in NAMES:
        world = World.of(script)
        with opened(name, service, world, stores(kind)) as door:
            check(script, drive(world, door), doors.ACTOR)


@pytest.mark.parametrize("kind", STORES[1:])
def test_promise_8_the_same_answer_from_every_store(kind: str, stores: Callable[[str], Storage]) -> None:
    for script in SCRIPTS:
        world = World.of(script)
        with doors.embedded(world, stores(kind)) as door:
            check(script, drive(world, door), None)


@pytest.mark.parametrize("script", [script for script in FEW if not script.short], ids=lambda script: script.name)
def test_promise_8_the_same_answer_from_the_command_line(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _on_the_command_line(script, tmp_path, monkeypatch, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("script", [script for script in SCRIPTS if not script.short], ids=lambda script: script.name)
def test_promise_8_the_same_answer_from_the_command_line_to_everything(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _on_the_command_line(script, tmp_path, monkeypatch, capfd)


def _on_the_command_line(
    script: Script, folder: Path, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer")
    world = World.of(script)
    url = f"sqlite:///{folder}/cra.db?durability=batched"
    with doors.command_line(world, url, folder, patch, capfd) as door:
        check(script, drive(world, door), None)


# What the comparison is worth


def test_the_corpus_has_every_kind_of_answer() -> None:
    answers = [answer for script in SCRIPTS for answer in expected(script, None)]
    whole = [json.loads(answer) for answer in answers if b'"carp_version":' in answer and b"\n" not in answer]
    assert {one["decision"]["type"] for one in whole if "decision" in one} == {
        "allow",
        "deny",
        "partial",
        "requires_approval",
    }
    assert {one["status"] for one in whole if "status" in one} == {"success", "error", "denied", "pending_approval"}
    codes = {one["error"]["code"] for one in whole if one.get("error")}
    codes |= {json.loads(answer[6:])[0] for answer in answers if answer.startswith(b"error ")}
    assert codes >= {
        "action_denied",
        "action_failed",
        "approval_conflict",
        "approval_required",
        "clock_skew",
        "duplicate_request",
        "idempotency_conflict",
        "invalid_parameters",
        "limit_exceeded",
        "resolution_expired",
        "resolution_required",
        "session_ended",
    }
    assert len(answers) > 350


def test_what_is_compared_hangs_on_the_ids_the_clock_and_who_calls() -> None:
    world = World.of(DESK)
    for other in (
        world._replace(ids=SeededIds(99)),
        world._replace(ids=SeededIds(len(DESK.name)), clock=FixedClock(DESK.clock_us + 1)),
    ):
        with doors.embedded(other, MemoryStorage()) as door:
            assert drive(other, door) != expected(DESK, None)
    assert expected(SHORT, None) != expected(SHORT, doors.ACTOR)


# From one store into another


@pytest.mark.parametrize("kind", STORES[1:])
def test_a_trace_verifies_and_goes_on_after_it_has_moved_to_another_store(
    kind: str, stores: Callable[[str], Storage]
) -> None:
    begun = Script("moved", DESK.atlases, DESK.config, DESK.clock_us, DESK.steps[:25])
    world = World.of(begun)
    origin = stores("memory")
    with doors.embedded(world, origin) as door:
        drive(world, door)
    (record,) = origin.sessions()
    moved, back = stores(kind), stores("memory")
    for source, target in ((origin, moved), (moved, back)):
        target.restore(source.dump(record.session_id))
        target.restore_counters(source.counters())
    trace = origin.events(record.session_id)
    assert moved.events(record.session_id) == back.events(record.session_id) == trace
    assert verify(trace).ok
    more: list[Any] = []
    for store in (origin, moved, back):
        later = World(begun, FixedClock(world.clock()), SeededIds(5))
        with doors.embedded(later, store) as door:
            asked = {"goal": "go on", "do": "resolve"}
            more.append([door.resolve(record.session_id, asked), door.trace(record.session_id)])
    assert more[0] == more[1] == more[2]
    assert more[0][1].startswith(trace)


@pytest.mark.parametrize("kind", STORES[1:])
def test_everything_that_was_asked_verifies_after_export_and_import(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("typer")
    from cra.cli import main

    place = f"sqlite:///{tmp_path}/origin.db?durability=batched"
    origin = open_storage(place, max_sessions=1, max_events=1)
    traces: dict[tuple[str, str], bytes] = {}
    for number, script in enumerate(FEW):
        tenant = f"world-{number}"
        world = World.of(script)
        with doors.embedded(world, origin.of_tenant(tenant)) as door:
            check(script, drive(world, door), None)
        for record in origin.of_tenant(tenant).sessions():
            traces[tenant, record.session_id] = origin.of_tenant(tenant).events(record.session_id)
    origin.close()
    target = f"sqlite:///{tmp_path}/target.db" if kind == "sqlite" else _database()
    assert main(["storage", "export", "-o", f"{tmp_path}/all.jsonl", "--storage", place]) == 0
    assert main(["storage", "import", f"{tmp_path}/all.jsonl", "--storage", target]) == 0
    capfd.readouterr()
    moved = open_storage(target, max_sessions=1, max_events=1)
    try:
        assert set(moved.tenants()) == {tenant for tenant, _ in traces}
        for (tenant, session_id), trace in traces.items():
            assert moved.of_tenant(tenant).events(session_id) == trace
            assert verify(trace).ok
    finally:
        moved.close()
    assert len(traces) > len(FEW)
