"""Interleaved timing: every candidate takes a turn in every round, so that a slow minute is slow for all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from statistics import median
from typing import NamedTuple

Call = Callable[[], object]

# A block is this long or one call; below `SHORT_US` a single call is too short for the clock.
_BLOCK_US = 100.0
_ENOUGH = 50
SHORT_US = 0.3


class Prepared(NamedTuple):
    """A call that needs `prepare` before each time, which is not measured; it has no blocks."""

    prepare: Call
    call: Call


# Entered once a round: yields what to call, and checks the work when the turn is over.
Setup = Callable[[], Iterator[Call | Prepared]]


class Candidate(NamedTuple):
    """Something to time; `operations` is how many of what the row counts one call does."""

    name: str
    setup: Setup
    operations: int = 1


class Timing(NamedTuple):
    """Microseconds for one operation: medians over the rounds, and `quiet`, the lowest median of any round.

    `block` is the mean of calls made without reading the clock between them; there is a `p99` where every round had
    enough calls for one.
    """

    name: str
    p50: float
    p99: float | None
    quiet: float
    block: float | None
    calls: int
    rounds: tuple[float, ...]

    @property
    def us(self) -> float:
        """The figure to quote: of single calls, or of blocks where one call is too short for the clock."""
        return median(self.rounds)

    def times(self, other: Timing) -> float:
        """Return how many times as long as `other` this takes: the median of the ratios within each round."""
        return median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True))


def always(call: Call, check: Call | None = None) -> Setup:
    """Return a set-up that is the same in every round."""

    def setup() -> Iterator[Call]:
        yield call
        if check is not None:
            check()

    return setup


def race(
    candidates: Sequence[Candidate], *, rounds: int = 9, turn_seconds: float = 0.06, least: int = 3
) -> dict[str, Timing]:
    """Time the candidates against each other: `rounds` times a turn each, in an order that rotates.

    A turn lasts about `turn_seconds`, half of it for single calls and half for blocks, and makes at least `least`
    single calls however long they take.
    """
    seen: dict[str, list[_Turn]] = {candidate.name: [] for candidate in candidates}
    if len(seen) != len(candidates):
        raise ValueError("two candidates have one name")
    for number in range(rounds):
        shift = number % len(candidates)
        for candidate in (*candidates[shift:], *candidates[:shift]):
            if turn_seconds:
                # Nobody's garbage is collected in another one's turn; within a turn the collector runs as always.
                gc.collect()
            seen[candidate.name].append(_take_turn(candidate, turn_seconds, least))
    return {name: _summary(name, turns) for name, turns in seen.items()}


class _Turn(NamedTuple):
    p50: float
    p99: float
    block: float | None
    calls: int


def _take_turn(candidate: Candidate, seconds: float, least: int) -> _Turn:
    setup = candidate.setup()
    given = next(setup)
    prepare, call = given if isinstance(given, Prepared) else (None, given)
    clock_ns = clock_cost_ns()
    times = _singles(prepare, call, seconds / 2, least)
    times.sort()
    each = 1000.0 * candidate.operations
    p50 = max(0.0, times[len(times) // 2] - clock_ns) / each
    p99 = max(0.0, times[len(times) * 99 // 100] - clock_ns) / each
    block = None
    if prepare is None:
        block = _blocks(call, max(p50 * candidate.operations, 0.02), seconds / 2) / candidate.operations
    if next(setup, None) is not None:
        raise ValueError(f"{candidate.name}: a set-up yields once")
    return _Turn(p50, p99, block, len(times))


def _singles(prepare: Call | None, call: Call, seconds: float, least: int) -> list[int]:
    clock = time.perf_counter_ns
    for _ in range(min(least, 3)):
        if prepare is not None:
            prepare()
        call()
    times: list[int] = []
    end = clock() + int(seconds * 1e9)
    while len(times) < least or clock() < end:
        if prepare is not None:
            prepare()
        start = clock()
        call()
        times.append(clock() - start)
    return times


def _blocks(call: Call, call_us: float, seconds: float) -> float:
    clock = time.perf_counter_ns
    size = max(1, int(_BLOCK_US / call_us))
    means: list[float] = []
    end = clock() + int(seconds * 1e9)
    while not means or clock() < end:
        start = clock()
        for _ in repeat(None, size):
            call()
        means.append((clock() - start) / size / 1000)
    return median(means)


def clock_cost_ns() -> int:
    """Return what two reads of the clock with nothing between them cost now: the median of many."""
    clock = time.perf_counter_ns
    costs: list[int] = []
    for _ in range(301):
        start = clock()
        costs.append(clock() - start)
    return int(median(costs))


def _summary(name: str, turns: list[_Turn]) -> Timing:
    blocks = [turn.block for turn in turns if turn.block is not None]
    block = median(blocks) if blocks else None
    p50 = median(turn.p50 for turn in turns)
    rounds = tuple(blocks) if blocks and p50 < SHORT_US else tuple(turn.p50 for turn in turns)
    return Timing(
        name=name,
        p50=p50,
        p99=median(turn.p99 for turn in turns) if min(turn.calls for turn in turns) >= _ENOUGH else None,
        quiet=min(rounds),
        block=block,
        calls=sum(turn.calls for turn in turns),
        rounds=rounds,
    )
