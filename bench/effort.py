"""Effort: how long to measure."""

from typing import NamedTuple


class Effort(NamedTuple):
    """Rounds and turns of the races, and the sizes of what is built to be measured."""

    rounds: int
    turn_seconds: float
    least: int
    many_sessions: tuple[int, ...]
    many_atlases: tuple[int, ...]
    long_histories: tuple[int, ...]
    idle_sessions: int
    processes: int


FULL = Effort(11, 0.08, 3, (1, 1_000, 100_000), (1, 10, 50), (10, 10_000, 1_000_000), 20_000, 15)
QUICK = Effort(3, 0.02, 1, (1, 100, 1_000), (1, 3), (10, 1_000), 2_000, 3)
TINY = Effort(1, 0.0, 1, (1, 10), (1, 2), (10, 100), 100, 1)
