"""Counters: what a tenant of the memory store has counted, and who may take from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock

from cra._core.windows import BudgetWindow, RateWindow
from cra.storage._restored import stricter
from cra.storage.base import SWEEP_MARGIN_US, Claim, ClaimRefused, CounterRecord

_FEW_COUNTERS = 1024
_ID_LENGTH = 36


class Counter:
    """A window and the lock under which it is taken from; one that was swept is dead, and nobody takes from it."""

    __slots__ = ("dead", "lock", "window")

    def __init__(self, claim: Claim | CounterRecord) -> None:
        self.lock = Lock()
        self.dead = False
        self.window: RateWindow | BudgetWindow = (
            RateWindow(claim.amount, claim.window_us) if claim.rate else BudgetWindow(claim.amount, claim.window_us)
        )

    def wait_us(self, cost: int, now_us: int) -> int:
        window = self.window
        return window.peek(now_us) if isinstance(window, RateWindow) else window.peek(cost, now_us)

    def take(self, cost: int, now_us: int) -> None:
        window = self.window
        if isinstance(window, RateWindow):
            window.take(now_us)
        else:
            window.take(cost, now_us)

    def record(self, key: str) -> CounterRecord:
        window = self.window
        if isinstance(window, RateWindow):
            calls = window.calls()
            return CounterRecord(
                key=key,
                rate=True,
                amount=window.max_calls,
                window_us=window.window_us,
                newest_us=calls[-1] if calls else 0,
                calls_us=calls,
            )
        spent, since_us, newest_us = window.state()
        return CounterRecord(
            key=key,
            rate=False,
            amount=window.limit,
            window_us=window.window_us,
            newest_us=newest_us,
            spent=spent,
            since_us=since_us,
        )

    @classmethod
    def of(cls, record: CounterRecord) -> Counter:
        """Return a counter that has counted what a record says."""
        counter = cls(record)
        for at_us in record.calls_us:
            counter.take(1, at_us)
        if record.spent and not record.rate:
            later = record.spent > 1 and record.newest_us > record.since_us
            counter.take(record.spent - later, record.since_us)
            if later:
                counter.take(1, record.newest_us)
        return counter


class Counters:
    """The counters of a tenant by their keys."""

    def __init__(self) -> None:
        self.by_key: dict[str, Counter] = {}
        # Those without a window that came from a dump, by the end of their keys.
        self._restored: dict[str, set[str]] = {}
        self._sweeping = Lock()
        self._sweep_at = _FEW_COUNTERS

    def take(self, claims: tuple[Claim, ...], now_us: int) -> None:
        """Take all claims, or raise `ClaimRefused` and take none."""
        if len(self.by_key) > self._sweep_at:
            self._sweep(now_us)
        if len(claims) == 1 and self._take_one(claims[0], now_us):
            return
        while True:
            # Locked in the order of their keys, so that two calls never wait for each other.
            ordered = sorted(claims)
            counters = [self._counter(claim) for claim in ordered]
            if len(set(counters)) != len(counters):
                raise ValueError("a change claims twice from one counter")
            held: list[Lock] = []
            try:
                for counter in counters:
                    counter.lock.acquire()
                    held.append(counter.lock)
                if any(counter.dead for counter in counters):
                    # Swept since it was looked up: a new one has taken, or takes, its place.
                    continue
                for claim, counter in zip(ordered, counters, strict=True):
                    wait_us = counter.wait_us(claim.cost, now_us)
                    if wait_us:
                        raise ClaimRefused(claim, wait_us)
                for claim, counter in zip(ordered, counters, strict=True):
                    counter.take(claim.cost, now_us)
                return
            finally:
                for lock in held:
                    lock.release()

    def _take_one(self, claim: Claim, now_us: int) -> bool:
        """Take a claim; False when its counter was swept meanwhile."""
        counter = self._counter(claim)
        with counter.lock:
            if counter.dead:
                return False
            wait_us = counter.wait_us(claim.cost, now_us)
            if wait_us:
                raise ClaimRefused(claim, wait_us)
            counter.take(claim.cost, now_us)
            return True

    def _counter(self, claim: Claim) -> Counter:
        counter = self.by_key.get(claim.key)
        return counter if counter is not None else self.by_key.setdefault(claim.key, Counter(claim))

    def _sweep(self, now_us: int) -> None:
        """Drop the counters that count nothing any more; asked for each time their number has doubled."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            for key, counter in list(self.by_key.items()):
                with counter.lock:
                    if counter.window.window_us and not counter.window.used(max(0, now_us - SWEEP_MARGIN_US)):
                        counter.dead = True
                        self.by_key.pop(key, None)
            self._sweep_at = max(_FEW_COUNTERS, 2 * len(self.by_key))
        finally:
            self._sweeping.release()

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        """Return what each claim waits for, as `Storage.peek`."""
        counters = self.by_key
        waits = []
        for claim in claims:
            counter = counters.get(claim.key)
            if counter is None:
                waits.append(-1 if claim.cost > claim.amount else 0)
            else:
                waits.append(counter.wait_us(claim.cost, now_us))
        return waits

    def records(self) -> Iterator[CounterRecord]:
        """Yield what they have counted."""
        for key, counter in list(self.by_key.items()):
            with counter.lock:
                record = counter.record(key)
            yield record

    def restore(self, counters: Iterable[CounterRecord]) -> None:
        """Add counters; one that exists keeps what leaves less room."""
        for record in counters:
            if not record.window_us:
                self._restored.setdefault(record.key[-_ID_LENGTH:], set()).add(record.key)
            while True:
                known = self.by_key.get(record.key)
                if known is None:
                    if self.by_key.setdefault(record.key, made := Counter.of(record)) is made:
                        break
                    continue
                with known.lock:
                    if not known.dead:
                        known.window = Counter.of(stricter(known.record(record.key), record)).window
                        break

    def drop(self, session_id: str, keys: Iterable[str]) -> None:
        """Drop a session's counters: those of the keys, and those that came with it from a dump."""
        for key in (*keys, *self._restored.pop(session_id, ())):
            self.by_key.pop(key, None)
