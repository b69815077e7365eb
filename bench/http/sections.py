"""The sections of the service's table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from statistics import median

from bench.http import measure
from bench.http.fleet import Fleet, fleet
from bench.http.measure import Plan, Subject, Turn
from bench.http.process import Generator
from bench.machine import version_of
from bench.table import Row, Section

NEEDED = ("starlette", "uvicorn", "uvloop", "httptools", "apsw")
SATURATED = ("us", "req/s", "best us", "CPU us", "ratio")
HALF = ("p99 ms", "p50 ms", "best ms", "p99.9 ms", "ratio")
OVERLOADED = ("good/s", "503/s", "offered/s", "p99 ms", "of peak")
ENDURED = ("KB/100k", "MB warm", "", "MB end", "ratio")

ECHO = "echo: Starlette Route, request.json(), JSONResponse"
FAST = "echo: Starlette Route, msgspec"
BARE = "echo: bare ASGI, msgspec"
FIXED = "floor: uvloop, the same bytes to whatever comes"


def http(plan: Plan) -> list[Section]:
    """Measure the service beside an echo on the same stack; nothing where a package for it or Linux is missing."""
    if sys.platform != "linux" or any(version_of(name) is None for name in NEEDED):
        return []
    with fleet() as ships, Generator() as generator:
        return measured(ships, generator, plan)


def measured(ships: Fleet, generator: Generator, plan: Plan, *, only: str | None = None) -> list[Section]:
    """Measure a fleet, of the stores `only` the one in memory if it says so."""
    found = _Fleet(ships, only == "memory")
    ships.wait()
    turns = measure.race(generator, found.subjects, plan)
    rates = {name: median(turn.per_second for turn in of) / 2 for name, of in turns.items()}
    rates.pop(FIXED, None)
    halves = measure.race(generator, [one for one in found.subjects if one.name in rates], plan, rates)
    return [
        _saturated(found.subjects, turns, plan),
        _half(found.subjects, halves, plan),
        _overloaded(generator, found.overloaded, plan),
        _endured(generator, found.living, plan),
    ]


class _Fleet:
    """The subjects that this machine has what it takes for."""

    def __init__(self, ships: Fleet, memory_only: bool) -> None:
        echo, memory = ships.target("echo"), ships.service("memory")
        self.overloaded = [measure.resolving(memory, "resolve, in memory")]
        self.subjects = [
            measure.target(ECHO, echo),
            measure.target(FAST, echo, "/fast"),
            measure.target(BARE, ships.target("bare")),
            measure.target(FIXED, ships.target("fixed")),
            *self.overloaded,
            measure.executing(memory, "execute, in memory"),
        ]
        if memory_only:
            self.living = measure.living(memory, "in memory, sessions that end")
            return
        sqlite = ships.service(ships.sqlite("one"))
        self.overloaded.append(measure.resolving(sqlite, "resolve, SQLite strict"))
        self.subjects += [self.overloaded[1], measure.executing(sqlite, "execute, SQLite strict")]
        urls = [ships.postgres(), ships.postgres()]
        if urls[0] is not None:
            postgres = ships.service(urls[0])
            self.subjects += [
                measure.resolving(postgres, "resolve, PostgreSQL"),
                measure.executing(postgres, "execute, PostgreSQL"),
            ]
        self.subjects += [
            measure.target(f"{ECHO}, 2 workers", ships.target("echo", 2)),
            measure.resolving(ships.service(ships.sqlite("two"), 2), "resolve, SQLite strict, 2 workers"),
        ]
        if urls[1] is not None:
            self.subjects.append(measure.resolving(ships.service(urls[1], 2), "resolve, PostgreSQL, 2 workers"))
        self.living = measure.living(ships.service(ships.sqlite("lives")), "SQLite strict, sessions that end")


def _saturated(subjects: Sequence[Subject], turns: Mapping[str, list[Turn]], plan: Plan) -> Section:
    rows = []
    for subject in subjects:
        mine = turns[subject.name]
        rows.append(
            Row(
                subject.name,
                value=median(1e6 / turn.per_second for turn in mine),
                p99=median(turn.per_second for turn in mine),
                quiet=min(1e6 / turn.per_second for turn in mine),
                block=median(turn.processor_us for turn in mine),
                ratio=measure.ratio(mine, turns[ECHO]),
                ours=subject.ours,
            )
        )
    busiest = max(turn.busy for name, of in turns.items() if name != FIXED for turn in of)
    note = (
        f"{plan.connections} connections that each send as soon as they are answered. `us` is the time from one answer "
        "of the service to the next, `CPU us` what its processes use for one; the generator has a process of its own "
        f"and was busy {busiest:.0%} of the time at most, beside the floor's {max(t.busy for t in turns[FIXED]):.0%}."
    )
    return Section("http", "HTTP, saturated", rows, "a request", note, SATURATED)


def _half(subjects: Sequence[Subject], turns: Mapping[str, list[Turn]], plan: Plan) -> Section:
    rows = []
    for subject in subjects:
        if subject.name not in turns:
            continue
        mine = turns[subject.name]
        rows.append(
            Row(
                subject.name,
                value=median(turn.p99_us for turn in mine) / 1000,
                p99=median(turn.p50_us for turn in mine) / 1000,
                quiet=min(turn.p99_us for turn in mine) / 1000,
                block=median(turn.p999_us for turn in mine) / 1000,
                ratio=median(one.p99_us / two.p99_us for one, two in zip(mine, turns[ECHO], strict=True)),
                ours=subject.ours,
            )
        )
    note = (
        "Each at half of its own requests per second above, which arrive as a Poisson process whether or not the ones "
        "before are answered; the time runs from when a request was due (no coordinated omission)."
    )
    return Section("http-half", "HTTP, at half load: latency", rows, "", note, HALF)


def _overloaded(generator: Generator, subjects: Sequence[Subject], plan: Plan) -> Section:
    rows = []
    for subject in subjects:
        # The peak is measured again before each, because the machine is another one a minute later.
        seen = []
        for _ in range(max(1, plan.rounds // 2)):
            peak = measure.take_turn(generator, subject, plan).per_second
            seen.append(measure.overload(generator, subject, plan, peak, times=3.0))
        rows.append(
            Row(
                subject.name,
                value=median(one.good for one in seen),
                p99=median(one.refused for one in seen),
                quiet=median(one.offered for one in seen),
                block=median(one.p99_us for one in seen) / 1000,
                ratio=median(one.good / one.peak for one in seen),
                ours=True,
            )
        )
    note = (
        f"Three times the requests per second that were answered just before, over {plan.overload_connections} "
        "connections; who finds none free gives up. `good/s` were answered, and within `p99 ms`; `503/s` were told to "
        "come back."
    )
    return Section("http-overload", "HTTP, three times overloaded", rows, "", note, OVERLOADED)


def _endured(generator: Generator, subject: Subject, plan: Plan) -> Section:
    seen = measure.endure(generator, subject, plan)
    row = Row(
        subject.name,
        value=seen.growth_bytes / 1000,
        p99=seen.begin_bytes / 1e6,
        block=seen.end_bytes / 1e6,
        ratio=seen.end_bytes / seen.begin_bytes,
        ours=True,
    )
    note = (
        f"Whole lives of sessions (start, 8 resolves, end), {seen.requests:,} requests in {seen.seconds:.0f} s. Memory "
        "is what the process has beside files; its growth for 100,000 requests is the line that fits best behind the "
        "first half."
    )
    return Section("http-endurance", "HTTP, memory under load", [row], "", note, ENDURED)
