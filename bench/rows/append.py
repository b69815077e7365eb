"""Append and verify: one event at a time, beside hand-written chains in their strongest form."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench import data, work
from bench.effort import Effort
from bench.harness import Call, Candidate, Setup, always, race
from bench.machine import version_of
from bench.peers import ledgers
from bench.table import Section, timed
from cra import Trace, verify_trace
from cra._core.chain import Chain, verify
from cra.storage.base import NO_CHANGE, Change, SessionRecord
from cra.storage.memory import MemoryStorage

CHAIN = "append, kept in a list"
STORE = "append to the memory store"
SMALL = "append, line of 597 bytes in all"
FLOOR = "floor: SHA-256 of the same bytes"
VERIFY = "verify"
VERIFY_FLOOR = "floor: SHA-256 of each message"

_IDS = ("01890000-0000-7000-8000-000000000000", "01890000-0000-7000-8000-000000000001")
_TYPE = "action.executed"
_RECORD_BYTES = 597


def append(effort: Effort) -> list[Section]:
    """Measure one event with id, time and hash, of 421 bytes."""
    event = data.event()
    batch = Chain(*_IDS).begin(1, bytes(16))
    batch.add(_TYPE, event)
    message = work.preimages(Trace(batch.data))[0]
    candidates = [
        Candidate(CHAIN, _chain(event)),
        Candidate(STORE, _store(event)),
        Candidate(SMALL, _chain(_small())),
        Candidate(FLOOR, always(work.bulk_hash([message]))),
        Candidate("floor: hashlib.sha256 of the same bytes", always(lambda: hashlib.sha256(message).hexdigest())),
        *(Candidate(_label(kind), _ledger(kind, event)) for kind in ledgers.installed()),
    ]
    timings = race(candidates, rounds=effort.rounds, turn_seconds=effort.turn_seconds, least=effort.least)
    note = (
        f"A payload of 421 bytes. By hand it becomes a record of {_record_size(event)} bytes with a fresh uuid4 and "
        f"isoformat; in a TRACE line, which names trace, span and session too, {len(batch.data)} bytes, of which "
        f"{len(message)} are hashed. CRA's canonical form is that of RFC 8785."
    )
    return [
        timed("append", "append of one event", timings.values(), ours=(CHAIN, STORE, SMALL), note=note),
    ]


def _label(kind: ledgers.Kind) -> str:
    return f"{kind.name}{f' {version_of(kind.package)}' if kind.package else ''}, hashlib, uuid4, isoformat"


def _record_size(event: dict[str, Any]) -> int:
    made = ledgers.ledger(lambda record: json.dumps(record, separators=(",", ":")).encode())
    made.append(event)
    return len(made.records[0])


def _small() -> dict[str, Any]:
    """Return a payload with which a whole line has 597 bytes."""
    batch = Chain(*_IDS).begin(1, bytes(16))
    batch.add(_TYPE, {"reason": ""})
    return {"reason": "x" * (_RECORD_BYTES - len(batch.data) + 1)}


def _chain(event: dict[str, Any]) -> Setup:
    def setup() -> Iterator[Call]:
        chain, lines = Chain(*_IDS), list[bytes]()
        keep, random, clock = lines.append, work.entropy().__next__, time.time_ns

        def call() -> None:
            batch = chain.begin(clock() // 1000, random())
            batch.add(_TYPE, event)
            chain.advance(batch)
            keep(batch.data)

        yield call
        verdict = verify(b"".join(lines))
        if not verdict.ok or verdict.events != len(lines):
            raise AssertionError(str(verdict))

    return setup


def _store(event: dict[str, Any]) -> Setup:
    def setup() -> Iterator[Call]:
        store, chain = MemoryStorage(), Chain(*_IDS)
        random, clock = work.entropy().__next__, time.time_ns
        batch = chain.begin(clock() // 1000, random())
        batch.add("session.started", {"agent_id": data.AGENT})
        record = SessionRecord(
            session_id=_IDS[0], agent_id=data.AGENT, goal="Measure", trace_id=_IDS[1], started_us=batch.now_us
        )
        store.append(_IDS[0], chain.head, batch, Change(session=record))
        chain.advance(batch)

        def call() -> None:
            batch = chain.begin(clock() // 1000, random())
            batch.add(_TYPE, event)
            store.append(_IDS[0], batch.previous_head, batch, NO_CHANGE)
            chain.advance(batch)

        yield call
        verdict = verify_trace(store.events(_IDS[0]))
        if not verdict or verdict.events < 2:
            raise AssertionError(str(verdict))

    return setup


def _ledger(kind: ledgers.Kind, event: dict[str, Any]) -> Setup:
    def setup() -> Iterator[Call]:
        made = ledgers.ledger(kind.encoder())
        append = made.append
        yield lambda: append(event)
        ledgers.check(made)

    return setup


def verify_and_replay(effort: Effort) -> list[Section]:
    """Measure verifying and replaying a session of resolves and calls, per event."""
    runtime = work.runtime_of(data.five_actions(), capture_parameters="full")
    session_id = work.session_of(runtime)
    for goal in work.GOALS[:100]:
        runtime.resolve(session_id, goal)
        for _ in range(7):
            runtime.execute(session_id, "test.get", data.CALL)
    trace = runtime.get_trace(session_id)
    events, text = len(trace), trace.data
    if events != 1 + 100 * (7 + 7 * 4):
        raise AssertionError(f"{events} events")
    messages = work.preimages(trace)

    def verified() -> None:
        if verify(text).events != events:
            raise AssertionError("the trace does not verify")

    candidates = [
        Candidate(VERIFY, always(verified), events),
        Candidate(VERIFY_FLOOR, always(work.each_hash(messages)), events),
        Candidate(
            "by hand: orjson.loads, orjson.dumps, hashlib, the link only", always(_by_hand(text, events)), events
        ),
        Candidate("reading: get_trace, every event decoded", always(lambda: list(Trace(text))), events),
    ]
    replayed = _replaying(runtime, trace)
    if replayed is not None:
        candidates.append(Candidate("replay: verify, decide again, compare every payload", always(replayed), events))
    timings = race(
        [candidate for candidate in candidates if candidate.name[:7] != "by hand" or version_of("orjson")],
        rounds=effort.rounds,
        turn_seconds=effort.turn_seconds,
        least=effort.least,
    )
    ours = (VERIFY, candidates[3].name, candidates[-1].name)
    note = (
        f"A session of {events:,} events, {len(text):,} bytes: 100 resolves and 700 calls. CRA reads the "
        "stored bytes and holds every field to its grammar and the payload to its canonical form; by hand, only hash "
        "and link are compared."
    )
    return [timed("verify", "verify and replay, per event", timings.values(), ours=ours, note=note)]


def _by_hand(text: bytes, events: int) -> Call:
    def check() -> None:
        import orjson

        loads, dumps, sha256, option = orjson.loads, orjson.dumps, hashlib.sha256, orjson.OPT_SORT_KEYS
        previous, count = "0" * 64, 0
        for line in text.splitlines():
            e = loads(line)
            if e["previous_event_hash"] != previous:
                raise AssertionError("link")
            head = (
                f"{e['trace_version']}{e['event_id']}{e['trace_id']}{e['span_id']}{e['parent_span_id'] or ''}"
                f"{e['session_id']}{e['sequence']}{e['timestamp']}{e['event_type']}"
            )
            previous = sha256(head.encode() + dumps(e["payload"], option=option) + previous.encode()).hexdigest()
            if previous != e["event_hash"]:
                raise AssertionError("hash")
            count += 1
        if count != events:
            raise AssertionError("count")

    return check


def _replaying(runtime: Any, trace: Trace) -> Callable[[], object] | None:
    from cra.runtime.replay import replay

    atlases = runtime.list_atlases()

    def replayed() -> None:
        result = replay(trace, atlases)
        if not result.ok or not result.complete:
            raise AssertionError(f"the replay differs: {result.counts()}")

    return replayed
