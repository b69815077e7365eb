"""Memory: sessions that live and die with the process."""

from __future__ import annotations

from bisect import bisect_right
from threading import Lock

from msgspec import structs

from cra._core.chain import EventBatch
from cra._core.windows import BudgetWindow, RateWindow
from cra.errors import DuplicateRequest, SessionError, SessionExists, SessionNotFound, StaleHead, StorageFull
from cra.storage.base import (
    ApprovalRecord,
    Change,
    Claim,
    ClaimRefused,
    Head,
    IdempotencyRecord,
    ResolutionRecord,
    SessionRecord,
)

_GENESIS = "0" * 64


class _Log:
    """One session's events and state."""

    __slots__ = (
        "actions",
        "approvals",
        "chunks",
        "firsts",
        "head",
        "idempotency",
        "last_us",
        "lock",
        "record",
        "requests",
        "resolutions",
        "sequence",
    )

    def __init__(self, record: SessionRecord) -> None:
        self.lock = Lock()
        self.record = record
        self.actions = 0
        self.sequence = 0
        self.head = _GENESIS
        self.last_us = 0
        self.chunks: list[bytes] = []
        self.firsts: list[int] = []
        self.requests: set[str] | None = None
        self.resolutions: dict[str, ResolutionRecord] | None = None
        self.idempotency: dict[str, IdempotencyRecord] | None = None
        self.approvals: list[str] | None = None

    def session(self) -> SessionRecord:
        return structs.replace(self.record, action_count=self.actions) if self.actions else self.record


class _Counter:
    """A window and the lock under which it is asked and taken from."""

    __slots__ = ("lock", "window")

    def __init__(self, claim: Claim) -> None:
        self.lock = Lock()
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


class MemoryStorage:
    """The default store of the library: no I/O, bounded, gone with the process."""

    name = "memory"
    durability = "none"
    blocking = False

    def __init__(
        self, *, max_sessions: int = 1_000_000, max_events: int = 100_000_000, max_resolutions: int = 64
    ) -> None:
        """Bound the store: sessions, events in all, and resolutions kept for each session (the newest)."""
        self._logs: dict[str, _Log] = {}
        self._counters: dict[str, _Counter] = {}
        self._approvals: dict[str, ApprovalRecord] = {}
        self._max_sessions = max_sessions
        self._max_events = max_events
        self._max_resolutions = max_resolutions
        self._events = 0

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        log = self._logs.get(session_id)
        if log is None:
            log = self._open(session_id, expected_head, change)
        if self._events + batch.count > self._max_events:
            raise StorageFull(f"the store holds {self._events} events, its bound is {self._max_events}")
        with log.lock:
            if log.sequence and not batch.first_sequence:
                raise SessionExists(f"session `{session_id}` exists already")
            if log.head != expected_head or log.sequence != batch.first_sequence:
                raise StaleHead(f"session `{session_id}`: head is {log.head[:12]}, expected {expected_head[:12]}")
            request_id = change.request_id
            if request_id is not None and log.requests is not None and request_id in log.requests:
                raise DuplicateRequest(f"request_id `{request_id}` was used in this session", pointer="/request_id")
            if change.claims:
                self._take(change.claims, change.claims_at_us)
            # Nothing below can fail half-way: only assignments to structures that exist.
            log.chunks.append(batch.data)
            log.firsts.append(log.sequence)
            log.sequence += batch.count
            log.head = batch.head
            log.last_us = batch.now_us
            self._events += batch.count
            self._apply(log, change)

    def _open(self, session_id: str, expected_head: str, change: Change) -> _Log:
        if change.session is None or expected_head != _GENESIS:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        if len(self._logs) >= self._max_sessions:
            raise StorageFull(f"the store holds {len(self._logs)} sessions, its bound is {self._max_sessions}")
        # Two creators race for one place; the loser then finds a head that is not the first.
        return self._logs.setdefault(session_id, _Log(change.session))

    def _apply(self, log: _Log, change: Change) -> None:
        log.actions += change.actions
        if change.request_id is not None:
            if log.requests is None:
                log.requests = set()
            log.requests.add(change.request_id)
        if change.resolution is not None:
            resolutions = log.resolutions
            if resolutions is None:
                resolutions = log.resolutions = {}
            elif len(resolutions) >= self._max_resolutions:
                del resolutions[next(iter(resolutions))]
            resolutions[change.resolution.resolution_id] = change.resolution
        if change.session is not None:
            log.record = change.session
        if change.idempotency is not None:
            if log.idempotency is None:
                log.idempotency = {}
            log.idempotency[change.idempotency.key] = change.idempotency
        if change.approval is not None:
            approval_id = change.approval.approval_id
            if approval_id not in self._approvals:
                if log.approvals is None:
                    log.approvals = []
                log.approvals.append(approval_id)
            self._approvals[approval_id] = change.approval

    def _take(self, claims: tuple[Claim, ...], now_us: int) -> None:
        """Take all claims, or raise `ClaimRefused` and take none."""
        # Locked in the order of their keys, so that two calls never wait for each other.
        ordered = sorted(claims)
        counters = [self._counter(claim) for claim in ordered]
        held: list[Lock] = []
        try:
            for counter in counters:
                counter.lock.acquire()
                held.append(counter.lock)
            for claim, counter in zip(ordered, counters, strict=True):
                wait_us = counter.wait_us(claim.cost, now_us)
                if wait_us:
                    raise ClaimRefused(claim, wait_us)
            for claim, counter in zip(ordered, counters, strict=True):
                counter.take(claim.cost, now_us)
        finally:
            for lock in held:
                lock.release()

    def _counter(self, claim: Claim) -> _Counter:
        counter = self._counters.get(claim.key)
        return counter if counter is not None else self._counters.setdefault(claim.key, _Counter(claim))

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        return [self._wait_us(claim, now_us) for claim in claims]

    def _wait_us(self, claim: Claim, now_us: int) -> int:
        counter = self._counters.get(claim.key)
        if counter is None:
            return -1 if claim.cost > claim.amount else 0
        with counter.lock:
            return counter.wait_us(claim.cost, now_us)

    def load(self, session_id: str) -> tuple[SessionRecord, Head]:
        log = self._log(session_id)
        with log.lock:
            return log.session(), Head(log.sequence, log.head, log.last_us)

    def _log(self, session_id: str) -> _Log:
        log = self._logs.get(session_id)
        if log is None or not log.sequence:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        return log

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None:
        resolutions = self._log(session_id).resolutions
        return None if resolutions is None else resolutions.get(resolution_id)

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        log = self._log(session_id)
        if log.resolutions is not None:
            with log.lock:
                for record in reversed(log.resolutions.values()):
                    if now_us < record.expires_us and (action_id is None or action_id in record.offered):
                        return record
        return None

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None:
        records = self._log(session_id).idempotency
        return None if records is None else records.get(key)

    def approval(self, approval_id: str) -> ApprovalRecord | None:
        return self._approvals.get(approval_id)

    def approvals(self, *, session_id: str | None = None, status: str | None = None) -> list[ApprovalRecord]:
        ids = list(self._approvals) if session_id is None else list(self._log(session_id).approvals or ())
        records = [self._approvals[approval_id] for approval_id in ids]
        return [record for record in records if status is None or record.status == status]

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        log = self._log(session_id)
        with log.lock:
            chunks, firsts, total = list(log.chunks), list(log.firsts), log.sequence
        last = total if count is None else min(total, first + count)
        if first >= last:
            return b""
        start = bisect_right(firsts, first) - 1
        stop = bisect_right(firsts, last - 1)
        data = b"".join(chunks[start:stop])
        if first == firsts[start] and last == (firsts[stop] if stop < len(firsts) else total):
            return data
        lines = data.splitlines(keepends=True)
        return b"".join(lines[first - firsts[start] : last - firsts[start]])

    def sessions(
        self, *, agent_id: str | None = None, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[SessionRecord]:
        found: list[SessionRecord] = []
        for session_id in sorted(self._logs):
            if len(found) == limit:
                break
            log = self._logs.get(session_id)
            if log is None or not log.sequence or (after is not None and session_id <= after):
                continue
            record = log.session()
            if agent_id in (None, record.agent_id) and status in (None, record.status):
                found.append(record)
        return found

    def purge(self, session_id: str) -> None:
        log = self._log(session_id)
        with log.lock:
            if log.record.status != "ended":
                raise SessionError(f"session `{session_id}` is active", hint="end it first")
            self._logs.pop(session_id, None)
            # Whoever still holds this log finds no head to append to.
            log.head = ""
            self._events -= log.sequence
            for approval_id in log.approvals or ():
                self._approvals.pop(approval_id, None)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
