"""What is measured over HTTP: saturated, at half load, overloaded, and for a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from bench import data
from bench.http.fleet import Service
from bench.http.process import Generator, Process
from bench.http.requests import LAP, Door, carp, request

EVENTS_OF_RESOLVE = 7
EVENTS_OF_EXECUTE = 4

Scripts = list[list[str]]
Check = Callable[[dict[str, Any]], None]


class Plan(NamedTuple):
    """How long and how often."""

    rounds: int
    seconds: float
    warm_seconds: float
    connections: int
    overload_seconds: float
    overload_connections: int
    endurance_seconds: float


FULL = Plan(7, 1.0, 0.2, 32, 3.0, 960, 120.0)
QUICK = Plan(1, 0.3, 0.1, 32, 1.0, 960, 2.0)
TINY = Plan(1, 0.05, 0.0, 2, 0.1, 8, 0.1)

# Nobody is measured who cannot be kept busy: this much of a processor is the generator's most.
MOST_BUSY = 0.9
# So often a turn is taken until it counts.
_TRIES = 3


class Subject(NamedTuple):
    """Something that answers; `prepare` makes the requests of one turn, and what checks the work after it."""

    name: str
    process: Process
    prepare: Callable[[int], tuple[Scripts, Check]]
    ours: bool = False


class Turn(NamedTuple):
    """One subject's turn in one round."""

    per_second: float
    processor_us: float
    p50_us: float
    p99_us: float
    p999_us: float
    busy: float


# Subjects


def _now_us() -> int:
    return time.time_ns() // 1000


def _no_check(found: dict[str, Any]) -> None:
    return


def target(name: str, process: Process, path: str = "/v1/resolve") -> Subject:
    """Return an echo of the request that a service gets to resolve, with all its headers."""

    def prepare(connections: int) -> tuple[Scripts, Check]:
        key = "cra_default_" + "0" * 16 + "_" + "0" * 43
        session_id = "01890000-0000-7000-8000-000000000000"
        return [[request("POST", path, key, carp("resolve", session_id, _now_us()))]], _no_check

    return Subject(name, process, prepare)


def resolving(service: Service, name: str) -> Subject:
    """Return CARP resolve requests, each connection in a session of its own."""
    door = service.door

    def prepare(connections: int) -> tuple[Scripts, Check]:
        sessions = [door.session() for _ in range(connections)]
        now_us = _now_us()
        scripts = [[request("POST", "/v1/resolve", door.key, carp("resolve", one, now_us))] for one in sessions]
        return scripts, _counted(door, sessions, 1, EVENTS_OF_RESOLVE)

    return Subject(name, service.process, prepare, ours=True)


def executing(service: Service, name: str) -> Subject:
    """Return CARP execute requests of an action whose executor does nothing."""
    door = service.door

    def prepare(connections: int) -> tuple[Scripts, Check]:
        sessions = [door.session() for _ in range(connections)]
        now_us = _now_us()
        scripts = []
        for one in sessions:
            asked = door.ask("POST", f"/v1/sessions/{one}/resolve", {"goal": "Measure"})
            call = {"resolution_id": asked["resolution_id"], "action_id": "test.get", "parameters": data.CALL}
            scripts.append([request("POST", "/v1/execute", door.key, carp("execute", one, now_us, execution=call))])
        return scripts, _counted(door, sessions, 1 + EVENTS_OF_RESOLVE, EVENTS_OF_EXECUTE)

    return Subject(name, service.process, prepare, ours=True)


def living(service: Service, name: str, resolves: int = 8) -> Subject:
    """Return whole lives of sessions: started, resolved in, ended, the next."""
    door = service.door

    def prepare(connections: int) -> tuple[Scripts, Check]:
        now_us = _now_us()
        start = {"agent_id": data.AGENT, "goal": "Measure", "session_id": LAP}
        ask = carp("resolve", LAP, now_us)
        script = [
            request("POST", "/v1/sessions", door.key, start),
            *[request("POST", "/v1/resolve", door.key, ask)] * resolves,
            request("DELETE", f"/v1/sessions/{LAP}", door.key),
        ]
        return [script], _no_check

    return Subject(name, service.process, prepare, ours=True)


def _counted(door: Door, sessions: Sequence[str], before: int, each: int) -> Check:
    """Return a check that what was answered is what was recorded, in every fourth session."""

    def check(found: dict[str, Any]) -> None:
        for session_id, answered in list(zip(sessions, found["answered"], strict=True))[::4]:
            door.expect_events(session_id, before + each * answered)

    return check


# Turns


def take_turn(generator: Generator, subject: Subject, plan: Plan, rate: float | None = None) -> Turn:
    """Load a subject for a turn: as fast as it answers, or at `rate` requests a second.

    A turn in which the whole machine stood still is taken again, and said: nothing was answered, or some of it only
    after ten seconds.
    """
    for _ in range(_TRIES):
        scripts, check = subject.prepare(plan.connections)
        subject.process.expect_alive()
        before_s, begun = subject.process.processor_s(), time.monotonic()
        found = generator.run(
            subject.process.port,
            scripts,
            connections=plan.connections,
            seconds=plan.seconds,
            warm_seconds=plan.warm_seconds,
            rate=rate,
        )
        if found["answers"] and not found["late"]:
            break
        words = f"{subject.name}: {found['answers']} answers in time, {found['late']} too late: {found['statuses']}"
        print(words, file=sys.stderr, flush=True)
    else:
        raise AssertionError(words)
    took_s = time.monotonic() - begun
    processor_s = subject.process.processor_s() - before_s
    if found["good"] != found["answers"] or set(found["statuses"]) - {"200", "201"} or found["lost"]:
        raise AssertionError(f"{subject.name}: {found['statuses']}, {found['lost']} lost: {found['samples']}")
    check(found)
    answers = max(1, sum(found["answered"]))
    return Turn(
        per_second=found["good"] / found["seconds"],
        processor_us=processor_s / answers * 1e6 if took_s else 0.0,
        p50_us=found["p50_us"] or 0.0,
        p99_us=found["p99_us"] or 0.0,
        p999_us=found["p999_us"] or 0.0,
        busy=found["busy"],
    )


def race(
    generator: Generator, subjects: Sequence[Subject], plan: Plan, rates: dict[str, float] | None = None
) -> dict[str, list[Turn]]:
    """Give every subject a turn in every round, in an order that rotates; returns the turns of each."""
    turns: dict[str, list[Turn]] = {subject.name: [] for subject in subjects}
    for number in range(plan.rounds):
        shift = number % len(subjects)
        for subject in (*subjects[shift:], *subjects[:shift]):
            rate = None if rates is None else rates[subject.name]
            turns[subject.name].append(take_turn(generator, subject, plan, rate))
    return turns


def ratio(mine: Sequence[Turn], theirs: Sequence[Turn]) -> float:
    """Return how many times as long as theirs a request of mine takes: the median of the ratios within each round."""
    return median(their.per_second / my.per_second for my, their in zip(mine, theirs, strict=True))


# Overload


class Overload(NamedTuple):
    """What became of three times as many requests as can be answered."""

    peak: float
    offered: float
    good: float
    refused: float
    other: float
    given_up: float
    p99_us: float
    lost: int


def overload(generator: Generator, subject: Subject, plan: Plan, peak: float, *, times: float) -> Overload:
    """Offer `times` the peak over a bounded number of connections; callers who find none free give up at once."""
    most = plan.overload_connections
    scripts, _ = subject.prepare(most)
    found = generator.run(
        subject.process.port,
        scripts,
        connections=most,
        seconds=plan.overload_seconds,
        warm_seconds=plan.overload_seconds / 4,
        rate=peak * times,
        queue=0,
    )
    seconds = found["seconds"]
    refused = found["statuses"].get("503", 0)
    others = sum(found["statuses"].values()) - found["good"] - refused
    return Overload(
        peak=peak,
        offered=found["arrived"] / seconds,
        good=found["good"] / seconds,
        refused=refused / seconds,
        other=others / seconds,
        given_up=found["given_up"] / seconds,
        p99_us=found["p99_us"] or 0.0,
        lost=found["lost"],
    )


# Endurance


class Endurance(NamedTuple):
    """Memory of a service under load: where it stood when warm and at the end, and how it grew."""

    requests: int
    seconds: float
    begin_bytes: int
    end_bytes: int
    growth_bytes: float


def endure(generator: Generator, subject: Subject, plan: Plan) -> Endurance:
    """Load a subject for long; the first half of it warms up. Growth is for 100,000 requests, by least squares.

    NOTE: the allocator takes memory a megabyte at a time, the last of it after about 180,000 requests.
    """
    pieces = max(3, round(plan.endurance_seconds / 2))
    seconds = plan.endurance_seconds / pieces
    done = 0
    points: list[tuple[int, int]] = []
    begun = time.monotonic()
    for _ in range(pieces):
        scripts, _ = subject.prepare(plan.connections)
        found = generator.run(
            subject.process.port, scripts, connections=plan.connections, seconds=seconds, warm_seconds=0.0
        )
        if found["good"] != found["answers"] or found["lost"]:
            raise AssertionError(f"{subject.name}: {found['statuses']}, {found['lost']} lost")
        done += sum(found["answered"])
        points.append((done, subject.process.memory_bytes()))
    kept = points[pieces // 2 :]
    return Endurance(
        requests=done,
        seconds=time.monotonic() - begun,
        begin_bytes=kept[0][1],
        end_bytes=kept[-1][1],
        growth_bytes=slope(kept) * 100_000,
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line that fits best."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
