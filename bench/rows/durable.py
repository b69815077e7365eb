"""Durable appends: the SQLite store beside a file that is synced, on the same disk."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

from bench import data, work
from bench.effort import Effort
from bench.harness import Call, Candidate, Setup, race
from bench.machine import version_of
from bench.table import Section, timed
from cra import verify_trace
from cra._core.chain import Chain
from cra.storage.base import NO_CHANGE, Change, SessionRecord, Storage

ROOT = Path(__file__).resolve().parents[2]
ONE = "SQLite store, strict, 1 event an append"
GROUP = "SQLite store, strict, 64 events an append"
THREADS = "SQLite store, strict, 32 threads, 1 event an append"
RAW = "floor: write and fdatasync, 1 line"
RAW_GROUP = "floor: write and fdatasync, 64 lines"
BY_HAND = "by hand: sqlite3, WAL, synchronous FULL, 1 row a transaction"

_EACH = 10
_WRITERS = 32


def durable(effort: Effort) -> list[Section]:
    """Measure appends that wait for the disk, per event."""
    if version_of("apsw") is None:
        return []
    (ROOT / "build").mkdir(exist_ok=True)
    timings = race(
        [
            Candidate(ONE, _store(1)),
            Candidate(GROUP, _store(64), 64),
            Candidate(THREADS, _threads(), _WRITERS * _EACH),
            Candidate(RAW, _file(1)),
            Candidate(RAW_GROUP, _file(64), 64),
            Candidate(BY_HAND, _sqlite3()),
        ],
        rounds=effort.rounds,
        turn_seconds=effort.turn_seconds * 2,
        least=effort.least,
    )
    note = (
        f"Lines of {len(_line())} bytes, per event; the disk decides, so only the ratios to the floors say something. "
        "Wake-ups wait for the scheduler when the processors are busy."
    )
    return [timed("durable", "durable append, per event", timings.values(), ours=(ONE, GROUP, THREADS), note=note)]


def _line() -> bytes:
    batch = Chain(_uuid(0), _uuid(1)).begin(1, bytes(16))
    batch.add("action.executed", data.event())
    return batch.data


def _uuid(number: int) -> str:
    return f"01890000-0000-7000-8000-{number:012x}"


class _Session:
    """A chain that appends to a store."""

    def __init__(self, store: Storage, number: int, events: int) -> None:
        self.store, self.id, self.events = store, _uuid(number), events
        self.chain, self.random, self.event = Chain(self.id, self.id), work.entropy(), data.event()
        batch = self.chain.begin(time.time_ns() // 1000, next(self.random))
        batch.add("session.started", {"agent_id": data.AGENT})
        record = SessionRecord(
            session_id=self.id, agent_id=data.AGENT, goal="Measure", trace_id=self.id, started_us=batch.now_us
        )
        store.append(self.id, self.chain.head, batch, Change(session=record))
        self.chain.advance(batch)

    def append(self) -> None:
        batch = self.chain.begin(time.time_ns() // 1000, next(self.random))
        for _ in range(self.events):
            batch.add("action.executed", self.event)
        self.store.append(self.id, batch.previous_head, batch, NO_CHANGE)
        self.chain.advance(batch)

    def check(self) -> None:
        verdict = verify_trace(self.store.events(self.id))
        if not verdict or verdict.events != self.chain.sequence:
            raise AssertionError(str(verdict))


def _store(events: int) -> Setup:
    def setup() -> Iterator[Call]:
        from cra.storage.sqlite import SQLiteStorage

        with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
            store = SQLiteStorage(Path(folder, "bench.db"), durability="strict")
            session = _Session(store, 0, events)
            yield session.append
            session.check()
            store.close()

    return setup


def _threads() -> Setup:
    def setup() -> Iterator[Call]:
        from cra.storage.sqlite import SQLiteStorage

        with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
            store = SQLiteStorage(Path(folder, "bench.db"), durability="strict")
            sessions = [_Session(store, number, 1) for number in range(_WRITERS)]

            def run(session: _Session) -> None:
                for _ in range(_EACH):
                    session.append()

            def call() -> None:
                threads = [Thread(target=run, args=(session,)) for session in sessions]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

            yield call
            for session in sessions:
                session.check()
            store.close()

    return setup


def _file(lines: int) -> Setup:
    # NOTE: Windows and macOS have no fdatasync; what they have instead does more.
    sync = getattr(os, "fdatasync", os.fsync)

    def setup() -> Iterator[Call]:
        text = _line() * lines
        with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
            file = os.open(Path(folder, "bench.trace.jsonl"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)

            def call() -> None:
                os.write(file, text)
                sync(file)

            yield call
            if os.fstat(file).st_size % len(text):
                raise AssertionError("a line is cut")
            os.close(file)

    return setup


def _sqlite3() -> Setup:
    def setup() -> Iterator[Call]:
        import sqlite3

        text = _line()
        with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
            database = sqlite3.connect(Path(folder, "bench.db"), isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("CREATE TABLE lines (line BLOB)")
            run = database.execute
            yield lambda: run("INSERT INTO lines VALUES (?)", (text,))
            database.close()

    return setup
