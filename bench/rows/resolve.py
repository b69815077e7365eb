"""Resolve: the benchmark atlas, the sizes, and context, beside SHA-256 over the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from bench import data, work
from bench.effort import Effort
from bench.harness import Call, Candidate, Prepared, Setup, always, race
from bench.table import Section, timed
from cra import CRARuntime
from cra._core.canonical import dumps
from cra.protocol.times import format_timestamp
from cra.runtime.config import system_clock
from cra.storage.base import Change, Removal
from cra.storage.memory import MemoryStorage

SEEN = "resolve, other goal each time"
FRESH = "resolve, first of a new session"
UNSEEN = "resolve, decisions never seen before"
WIRE = "handle, request and response as JSON bytes"
BULK = "floor: SHA-256 of as many blocks, one message"
EACH = "floor: SHA-256 of each message"
KEPT = "floor: one message, and keeping as many bytes as are stored"
HASHLIB = "floor: hashlib.sha256 of each message"

SIZES = tuple((actions, policies) for actions in (5, 50, 200) for policies in (1, 20, 100))


def five(effort: Effort) -> list[Section]:
    """Measure the five-action atlas: seven events, all hashed and stored in memory."""
    document = data.five_actions()
    messages, events = _messages(document)
    if events != 7:
        raise AssertionError(f"a resolve of the benchmark atlas is {events} events, expected 7")
    timings = race(
        [
            Candidate(SEEN, _seen(document, None, events)),
            Candidate(FRESH, _fresh(document)),
            Candidate(UNSEEN, _unseen(document, None, events)),
            Candidate(WIRE, _wire(document)),
            *_floors(messages),
            Candidate(KEPT, _hash_and_keep(document, messages)),
            Candidate(HASHLIB, always(work.each_hash(messages, lambda message: hashlib.sha256(message).digest()))),
        ],
        rounds=effort.rounds,
        turn_seconds=effort.turn_seconds,
        least=effort.least,
    )
    note = (
        f"{events} events; {len(messages)} messages are hashed: the request, the resolution and each event's preimage, "
        f"{sum(map(len, messages)):,} bytes in {work.blocks_of(messages)} blocks. What a resolution begins with is "
        "written and hashed once for as long as the same decisions recur, so the second and third of our rows matter: "
        "a new session has nothing of its own, and `never seen before` starts from a snapshot just loaded."
    )
    return [timed("resolve", "resolve, 5 actions", timings.values(), ours=(SEEN, FRESH, UNSEEN, WIRE), note=note)]


def sizes(effort: Effort) -> list[Section]:
    """Measure 5, 50 and 200 actions under 1, 20 and 100 policies."""
    found = []
    for actions, policies in SIZES:
        document = data.sized(actions, policies)
        messages, events = _messages(document)
        size = f"{actions} actions, {policies} {'policy' if policies == 1 else 'policies'}"
        names = f"{size}: decisions seen before", f"{size}: never seen"
        timings = race(
            [
                Candidate(names[0], _seen(document, None, events)),
                Candidate(names[1], _unseen(document, None, events)),
                Candidate(f"floor: one SHA-256 of {work.blocks_of(messages)} blocks", always(work.bulk_hash(messages))),
            ],
            rounds=max(1, effort.rounds * 2 // 3),
            turn_seconds=effort.turn_seconds / 2,
            least=effort.least,
        )
        found.append(
            timed(f"resolve-{actions}-{policies}", f"resolve, {size}, {events} events", timings.values(), ours=names)
        )
    return found


def context(effort: Effort) -> list[Section]:
    """Measure the five-action atlas with 20 KiB of context in five documents, ranked by each goal."""
    document, files = data.with_context(data.five_actions("com.test.context"), 20 * 1024)
    messages, events = _messages(document, files)
    timings = race(
        [
            Candidate(SEEN, _seen(document, files, events)),
            Candidate(UNSEEN, _unseen(document, files, events)),
            *_floors(messages),
        ],
        rounds=effort.rounds,
        turn_seconds=effort.turn_seconds,
        least=effort.least,
    )
    note = (
        f"{events} events, {sum(map(len, messages)):,} bytes hashed. The blocks that a resolution begins with are "
        "hashed once while the same ones are chosen in the same order, which is how `seen` can be below its floor."
    )
    title = "resolve, 5 actions, 20 KiB of context"
    return [timed("resolve-context", title, timings.values(), ours=(SEEN, UNSEEN), note=note)]


def _floors(messages: list[bytes]) -> list[Candidate]:
    return [
        Candidate(BULK, always(work.bulk_hash(messages))),
        Candidate(EACH, always(work.each_hash(messages))),
    ]


def _hash_and_keep(document: dict[str, Any], messages: list[bytes]) -> Setup:
    """Hash in one go, and keep a copy of what is stored: memory never touched before costs more than its copy."""
    store = MemoryStorage()
    runtime = work.runtime_of(document, storage=store)
    session_id = work.session_of(runtime)
    runtime.resolve(session_id, work.GOALS[0])
    kept = store._logs[session_id].pieces[-1]
    if not isinstance(kept, bytes):
        raise TypeError("the store keeps no bytes")
    stored = memoryview(kept)
    digest = work.bulk_hash(messages)

    def setup() -> Iterator[Call]:
        held: list[bytes] = []
        keep = held.append

        def call() -> None:
            digest()
            keep(bytes(stored))

        yield call

    return setup


def _messages(document: dict[str, Any], files: dict[str, str] | None = None) -> tuple[list[bytes], int]:
    runtime = work.runtime_of(document, files)
    messages = work.messages_of_resolve(runtime, work.session_of(runtime))
    return messages, len(messages) - 2


def _seen(document: dict[str, Any], files: dict[str, str] | None, events: int) -> Setup:
    runtime = work.runtime_of(document, files)

    def setup() -> Iterator[Call]:
        session_id = work.session_of(runtime)
        yield work.resolving(runtime, session_id)
        work.expect_chain(runtime, session_id, events)
        _forget(runtime, session_id)

    return setup


def _unseen(document: dict[str, Any], files: dict[str, str] | None, events: int) -> Setup:
    runtime = work.runtime_of(document, files)
    snapshot = runtime.snapshot

    def forget() -> None:
        # What a snapshot remembers of decisions lives in its fragments; new ones remember nothing.
        snapshot.fragments = snapshot._fragments()

    def setup() -> Iterator[Prepared]:
        session_id = work.session_of(runtime)
        yield Prepared(forget, work.resolving(runtime, session_id))
        work.expect_chain(runtime, session_id, events)
        _forget(runtime, session_id)

    return setup


def _fresh(document: dict[str, Any]) -> Setup:
    def setup() -> Iterator[Prepared]:
        runtime = work.runtime_of(document)
        made: list[str] = []
        resolve, goal = runtime.resolve, cycle(work.GOALS).__next__
        yield Prepared(lambda: made.append(work.session_of(runtime)), lambda: resolve(made[-1], goal()))
        work.expect_chain(runtime, made[-1], 7)

    return setup


def _wire(document: dict[str, Any]) -> Setup:
    def setup() -> Iterator[Prepared]:
        runtime = work.runtime_of(document)
        session_id = work.session_of(runtime)
        goal = cycle(work.GOALS).__next__
        numbers = iter(range(1 << 40))
        request = [b""]

        def prepare() -> None:
            request[0] = dumps(
                {
                    "carp_version": "1.0",
                    "request_id": f"00000000-0000-7000-8000-{next(numbers):012x}",
                    "timestamp": format_timestamp(system_clock()),
                    "operation": "resolve",
                    "requester": {"agent_id": data.AGENT, "session_id": session_id},
                    "task": {"goal": goal()},
                }
            )

        handle = runtime.handle
        yield Prepared(prepare, lambda: handle(request[0]))
        work.expect_chain(runtime, session_id, 7)

    return setup


def _forget(runtime: CRARuntime, session_id: str) -> None:
    """Give back what a turn has stored."""
    runtime.end_session(session_id)
    kernel = runtime._kernel
    gone = Removal(session_id, kernel.storage.load(session_id)[1].hash)
    live = kernel.live(work.session_of(runtime))
    batch = kernel.begin(live)
    batch.add("session.purged", {"session_id": session_id})
    if not kernel.commit(live, batch, Change(purge=(gone,))):
        raise AssertionError("nobody else writes here")
