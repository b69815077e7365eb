"""Slopes: what must not cost more when there is more of it."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle

from bench import data, work
from bench.effort import Effort
from bench.harness import Call, Candidate, Timing, always, race
from bench.table import Section, timed
from cra import CRARuntime


def slopes(effort: Effort) -> list[Section]:
    """Measure a resolve of five actions as sessions, unselected atlases and history grow."""
    return [*_sessions(effort), *_atlases(effort), *_history(effort)]


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


def _race(effort: Effort, calls: dict[str, Call]) -> dict[str, Timing]:
    with _settled():
        return race(
            [Candidate(name, always(call)) for name, call in calls.items()],
            rounds=effort.rounds,
            turn_seconds=effort.turn_seconds / 2,
            least=effort.least,
        )


def _sessions(effort: Effort) -> list[Section]:
    one: dict[str, Call] = {}
    any_of: dict[str, Call] = {}
    checks: list[Callable[[], None]] = []
    for count in effort.many_sessions:
        runtime = work.runtime_of(data.five_actions())
        ids = [work.session_of(runtime) for _ in range(count)]
        for session_id in ids:
            runtime.resolve(session_id, work.GOALS[0])
        random.Random(data.SEED).shuffle(ids)
        one[f"{count:,} sessions, always the same one"] = work.resolving(runtime, ids[0])
        any_of[f"{count:,} sessions, each in turn"] = _in_turn(runtime, ids)
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
    for count in effort.many_atlases:
        runtime = CRARuntime()
        for number in range(count):
            runtime.load_atlas_from_json(data.five_actions(f"com.test.bench{number}", f"test{number}"))
        session_id = work.session_of(runtime)
        chosen = (f"com.test.bench{count // 2}",)
        if len(runtime.resolve(session_id, "Do", atlas_ids=chosen).allowed_actions) != 4:
            raise AssertionError("another atlas answers too")
        calls[f"{count} loaded, one selected"] = _selecting(runtime, session_id, chosen)
    note = "Each atlas has five actions and two policies of its own; the request names one."
    return _section("slope-atlases", "resolve, as atlases that are not selected grow", _race(effort, calls), note)


def _selecting(runtime: CRARuntime, session_id: str, chosen: tuple[str, ...]) -> Call:
    resolve, goal = runtime.resolve, cycle(work.GOALS).__next__
    return lambda: resolve(session_id, goal(), atlas_ids=chosen)


def _history(effort: Effort) -> list[Section]:
    resolves: dict[str, Call] = {}
    executes: dict[str, Call] = {}
    checks: list[Callable[[], None]] = []
    for count in effort.long_histories:
        runtime = work.runtime_of(data.five_actions())
        session_id = work.session_of(runtime)
        grow = work.resolving(runtime, session_id)
        for _ in range(max(1, count // 7)):
            grow()
        resolves[f"{count:,} events before"] = grow
        executes[f"{count:,} events before "] = _calling(runtime, session_id)
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
