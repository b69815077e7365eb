"""Clocks and ids that a test decides about, for `RuntimeConfig(clock=..., ids=...)`."""

import random
from threading import Lock

_MICRO = 1_000_000
_START_US = 1_767_225_600 * _MICRO


class FixedClock:
    """A clock that stands still until it is told; it begins at 2026-01-01T00:00:00Z unless told otherwise."""

    def __init__(self, now_us: int = _START_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        """Return the microseconds since 1970."""
        return self.now_us

    def advance(self, seconds: float = 0, *, us: int = 0) -> None:
        """Go on by some time; a negative one sets the clock back."""
        self.now_us += round(seconds * _MICRO) + us


class SeededIds:
    """Bytes that look random and are the same in every run with one seed; safe to share between threads."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._lock = Lock()

    def __call__(self, size: int) -> bytes:
        """Return `size` bytes."""
        with self._lock:
            return self._random.randbytes(size)
