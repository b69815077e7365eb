"""Slopes: what must not cost more when there is more of it."""

from __future__ import annotations

import gc
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count, cycle
from pathlib import Path

from bench import data, work
from bench.effort import Effort
from bench.harness import Call, Candidate, Timing, always, race
from bench.machine import version_of
from bench.table import Section, timed
from cra import CRARuntime
from cra.storage.base import SessionRecord

# Sessions are started by so many threads at once, which share commits.
_WRITERS = 8


def slopes(effort: Effort) -> list[Section]:
    """Measure a resolve of five actions as sessions, unselected atlases and history grow."""
    return [*_sessions(effort), *_atlases(effort), *_history(effort)]


def stores(effort: Effort) -> list[Section]:
    """Measure the same in the stores that outlive a process: SQLite, and PostgreSQL where there is one."""
    found = _sqlite(effort) if version_of("apsw") is not None else []
    return [*found, *_postgres(effort)]


@contextmanager
def _settled() -> Iterator[None]:
    """Take what was built out of the collector's sight, so that collections cost every size the same."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.collect()


def _section(key: str, title: str, timings: dict[str, Timing], note: str) -> list[Section]:
    return [timed(key, title, timings.values(), ours=tuple(timings), note=note)]


def _race(effort: Effort, calls: dict[str, Call], turns: float = 0.5) -> dict[str, Timing]:
    with _settled():
        return race(
            [Candidate(name, always(call)) for name, call in calls.items()],
            rounds=effort.rounds,
            turn_seconds=effort.turn_seconds * turns,
            least=effort.least,
        )


def _sessions(effort: Effort) -> list[Section]:
    one: dict[str, Call] = {}
    any_of: dict[str, Call] = {}
    checks: list[Callable[[], None]] = []
    for size in effort.many_sessions:
        runtime = work.runtime_of(data.five_actions())
        ids = [work.session_of(runtime) for _ in range(size)]
        for session_id in ids:
            runtime.resolve(session_id, work.GOALS[0])
        random.Random(data.SEED).shuffle(ids)
        one[f"{size:,} sessions, always the same one"] = work.resolving(runtime, ids[0])
        any_of[f"{size:,} sessions, each in turn"] = _in_turn(runtime, ids)
        checks.append(partial(work.expect_chain, runtime, ids[0], 7))
    same, turns = _race(effort, one), _race(effort, any_of)
    for check in checks:
        check()
    return [
        *_section("slope-sessions", "resolve, as sessions grow", same, "Every session has resolved before."),
        *_section(
            "slope-sessions-cold",
            "resolve, as sessions grow, another one each time",
            turns,
            "In random order: a session that was not used for a while is no longer in the processor's caches, "
            "and each has a lock, a record and lists of its own to fetch.",
        ),
    ]


def _in_turn(runtime: CRARuntime, ids: list[str]) -> Call:
    resolve, session, goal = runtime.resolve, cycle(ids).__next__, cycle(work.GOALS).__next__
    return lambda: resolve(session(), goal())


def _atlases(effort: Effort) -> list[Section]:
    calls: dict[str, Call] = {}
    for size in effort.many_atlases:
        runtime = CRARuntime()
        for number in range(size):
            runtime.load_atlas_from_json(data.five_actions(f"com.test.bench{number}", f"test{number}"))
        session_id = work.session_of(runtime)
        chosen = (f"com.test.bench{size // 2}",)
        if len(runtime.resolve(session_id, "Do", atlas_ids=chosen).allowed_actions) != 4:
            raise AssertionError("another atlas answers too")
        calls[f"{size} loaded, one selected"] = _selecting(runtime, session_id, chosen)
    note = "Each atlas has five actions and two policies of its own; the request names one."
    return _section("slope-atlases", "resolve, as atlases that are not selected grow", _race(effort, calls), note)


def _selecting(runtime: CRARuntime, session_id: str, chosen: tuple[str, ...]) -> Call:
    resolve, goal = runtime.resolve, cycle(work.GOALS).__next__
    return lambda: resolve(session_id, goal(), atlas_ids=chosen)


def _history(effort: Effort) -> list[Section]:
    resolves: dict[str, Call] = {}
    executes: dict[str, Call] = {}
    checks: list[Callable[[], None]] = []
    for size in effort.long_histories:
        runtime = work.runtime_of(data.five_actions())
        session_id = work.session_of(runtime)
        grow = work.resolving(runtime, session_id)
        for _ in range(max(1, size // 7)):
            grow()
        resolves[f"{size:,} events before"] = grow
        executes[f"{size:,} events before "] = _calling(runtime, session_id)
        checks.append(partial(_tail_holds, runtime, session_id))
    of_resolve, of_execute = _race(effort, resolves), _race(effort, executes)
    for check in checks:
        check()
    note = "One session; its whole history is kept in memory."
    return [
        *_section("slope-history", "resolve, as the session's history grows", of_resolve, note),
        *_section("slope-history-execute", "execute, as the session's history grows", of_execute, note),
    ]


def _calling(runtime: CRARuntime, session_id: str) -> Call:
    execute, parameters = runtime.execute, data.CALL
    return lambda: execute(session_id, "test.get", parameters)


def _tail_holds(runtime: CRARuntime, session_id: str) -> None:
    verdict = runtime.verify_chain(session_id)
    if not verdict:
        raise AssertionError(str(verdict))


# Stores on a disk

# Beyond this many, PostgreSQL would take minutes to fill.
_MOST_IN_POSTGRES = 100_000
ROOT = Path(__file__).resolve().parents[2]


def _sqlite(effort: Effort) -> list[Section]:
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        names = (f"sqlite:///{folder}/{number}.db" for number in count())
        return _in_store(effort, "sqlite", "SQLite strict", names, effort.long_histories)


def _postgres(effort: Effort) -> list[Section]:
    if version_of("psycopg") is None or version_of("psycopg-pool") is None:
        return []
    from cra.testing.postgres import Server, programs

    if programs() is None:
        return []
    server = Server()
    try:
        sizes = tuple(size for size in effort.long_histories if size <= _MOST_IN_POSTGRES)
        if effort.long_histories[-1] > _MOST_IN_POSTGRES:
            sizes += (_MOST_IN_POSTGRES,)
        names = (server.database() for _ in count())
        return _in_store(effort, "postgres", "PostgreSQL", names, sizes)
    finally:
        server.close()


def _in_store(
    effort: Effort, key: str, words: str, names: Iterator[str], long_histories: tuple[int, ...]
) -> list[Section]:
    """Measure one kind of store: resolve in one of many sessions, in another of them each time, after many events."""
    with ExitStack() as stack:
        same: dict[str, Call] = {}
        turns: dict[str, Call] = {}
        history: dict[str, Call] = {}
        checks: list[Callable[[], None]] = []
        for size in effort.many_sessions:
            storage = next(names)
            runtime = _opened(stack, storage, partial(_start_sessions, size))
            ids = [record.session_id for record in _all_sessions(runtime)]
            if len(ids) != size:
                raise AssertionError(f"{len(ids)} sessions, expected {size}")
            random.Random(data.SEED).shuffle(ids)
            same[f"{size:,} sessions, always the same one"] = work.resolving(runtime, ids[0])
            if size > 1:
                # It remembers no session but the last, so each is read from the store.
                forgetful = work.runtime_of(data.five_actions(), storage=storage, max_cached_sessions=1)
                turns[f"{size:,} sessions, each in turn"] = _in_turn(stack.enter_context(forgetful), ids)
            checks.append(partial(work.expect_chain, runtime, ids[0], 7))
        for size in long_histories:
            runtime = _opened(stack, next(names), partial(_grow, size))
            session_id = next(iter(_all_sessions(runtime))).session_id
            history[f"{size:,} events before"] = work.resolving(runtime, session_id)
            checks.append(partial(_tail_holds, runtime, session_id))
        timings = [_race(effort, calls, 2.0) for calls in (same, turns, history)]
        for check in checks:
            check()
    opened = "The store was filled by one process and opened by the next."
    return [
        *_section(f"slope-{key}-sessions", f"{words}: resolve, as sessions grow", timings[0], opened),
        *_section(
            f"slope-{key}-sessions-cold",
            f"{words}: resolve, as sessions grow, another one each time",
            timings[1],
            f"{opened} In random order; each session is read from the store, because the runtime remembers only one.",
        ),
        *_section(f"slope-{key}-history", f"{words}: resolve, as the session's history grows", timings[2], opened),
    ]


def _opened(stack: ExitStack, storage: str, fill: Callable[[CRARuntime], None]) -> CRARuntime:
    """Fill a store without waiting for the disk, and open it again as it is used."""
    fast = f"{storage}{'&' if '?' in storage else '?'}durability=batched"
    with work.runtime_of(data.five_actions(), storage=fast) as runtime:
        fill(runtime)
    return stack.enter_context(work.runtime_of(data.five_actions(), storage=storage))


def _start_sessions(size: int, runtime: CRARuntime) -> None:
    with ThreadPoolExecutor(_WRITERS) as writers:
        for _ in writers.map(lambda _: work.session_of(runtime), range(size)):
            pass


def _grow(size: int, runtime: CRARuntime) -> None:
    grow = work.resolving(runtime, work.session_of(runtime))
    for _ in range(max(1, size // 7)):
        grow()


def _all_sessions(runtime: CRARuntime) -> Iterator[SessionRecord]:
    after: str | None = None
    while records := runtime.list_sessions(after=after, limit=1000):
        yield from records
        after = records[-1].session_id
