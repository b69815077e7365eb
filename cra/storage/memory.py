"""Memory: sessions that live and die with the process."""

from __future__ import annotations

from bisect import bisect_right
from threading import Lock
from typing import Any

from msgspec import structs

from cra._core.chain import EventBatch
from cra._core.windows import BudgetWindow, RateWindow
from cra.errors import (
    DuplicateRequest,
    SessionError,
    SessionExists,
    SessionNotFound,
    StaleHead,
    StorageError,
    StorageFull,
)
from cra.protocol.trace import GENESIS_HASH
from cra.storage.base import (
    NO_CHANGE,
    SWEEP_MARGIN_US,
    ApprovalRecord,
    Change,
    Claim,
    ClaimRefused,
    Head,
    IdempotencyRecord,
    ResolutionRecord,
    SessionRecord,
)

_STRIPES = 64
_GRANT = 1024
_FEW_COUNTERS = 1024


class _State:
    """What a session that has been worked with keeps beside its events; an idle one has none."""

    __slots__ = ("approvals", "budgets", "idempotency", "oldest", "requests", "resolutions")

    def __init__(self) -> None:
        self.requests: set[str] = set()
        self.resolutions: dict[str, ResolutionRecord] = {}
        self.idempotency: dict[str, IdempotencyRecord] = {}
        self.approvals: list[str] = []
        self.budgets: set[str] = set()
        # The resolution that has to go when the next one comes.
        self.oldest: str | None = None


class _Log:
    """One session's events and state."""

    __slots__ = ("actions", "chunks", "head", "last_us", "record", "sequence", "state", "stripe")

    def __init__(self, record: SessionRecord, stripe: _Stripe) -> None:
        self.record = record
        self.stripe = stripe
        self.actions = 0
        self.sequence = 0
        self.head = GENESIS_HASH
        self.last_us = 0
        # For each append the sequence of its first event, then its lines.
        self.chunks: list[int | bytes] = []
        self.state: _State | None = None

    def session(self) -> SessionRecord:
        return structs.replace(self.record, action_count=self.actions) if self.actions else self.record


class _Stripe:
    """What some of the sessions share: the lock for their logs, and room for `left` more events.

    PERF: a lock for each session would be 88 bytes more, and a second one for the room 50 ns.
    """

    __slots__ = ("left", "lock")

    def __init__(self) -> None:
        self.lock = Lock()
        self.left = 0


class _Counter:
    """A window and the lock under which it is taken from; one that was swept is dead, and nobody takes from it."""

    __slots__ = ("dead", "lock", "window")

    def __init__(self, claim: Claim) -> None:
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
        self._creating = Lock()
        self._sweeping = Lock()
        self._sweep_at = _FEW_COUNTERS
        self._room = Lock()
        self._ungranted = max_events
        self._stripes = tuple([_Stripe() for _ in range(_STRIPES)])

    # INVARIANT: locks are taken in this order: _creating, _room, a stripe's, counters' by key.

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        log = self._logs.get(session_id)
        if log is None:
            self._create(session_id, expected_head, batch, change)
            return
        count, stripe = batch.count, log.stripe
        while True:
            with stripe.lock:
                sequence = log.sequence
                if log.head != expected_head or sequence != batch.first_sequence:
                    raise self._misplaced(log, session_id, expected_head, batch)
                if stripe.left >= count:
                    if change is not NO_CHANGE:
                        self._prepare(session_id, log, change)
                    self._land(log, batch, change)
                    return
            self._make_room(stripe, count)

    def _misplaced(
        self, log: _Log, session_id: str, expected_head: str, batch: EventBatch
    ) -> StorageError | SessionError:
        if not batch.first_sequence:
            return SessionExists(f"session `{session_id}` exists already")
        return StaleHead(f"session `{session_id}`: head is {log.head[:12]}, expected {expected_head[:12]}")

    def _create(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        if change.session is None or expected_head != GENESIS_HASH:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        with self._creating:
            if session_id in self._logs:
                raise SessionExists(f"session `{session_id}` exists already")
            held = len(self._logs)
            if held >= self._max_sessions:
                raise StorageFull(f"the store holds {held} sessions, its bound is {self._max_sessions}")
            stripe = self._stripes[held % _STRIPES]
            while True:
                with stripe.lock:
                    if stripe.left >= batch.count:
                        log = _Log(change.session, stripe)
                        self._prepare(session_id, log, change)
                        self._land(log, batch, change)
                        self._logs[session_id] = log
                        return
                self._make_room(stripe, batch.count)

    def _prepare(self, session_id: str, log: _Log, change: Change) -> None:
        """Do everything that can still refuse a change: known ids, and claims, which are taken last."""
        request_id, resolution, claims, state = change.request_id, change.resolution, change.claims, log.state
        if state is None:
            if request_id is None and resolution is None and change.approval is None and not claims:
                if change.idempotency is None:
                    return
            state = log.state = _State()
        elif request_id is not None and request_id in state.requests:
            raise DuplicateRequest(f"request_id `{request_id}` was used in this session", pointer="/request_id")
        if resolution is not None and len(state.resolutions) >= self._max_resolutions:
            state.oldest = next(iter(state.resolutions))
        if claims:
            self._take(claims, change.claims_at_us)
            for claim in claims:
                # A budget without a window lasts as long as its session, whose id ends the key.
                if not claim.window_us and claim.key.endswith(session_id):
                    state.budgets.add(claim.key)

    def _land(self, log: _Log, batch: EventBatch, change: Change) -> None:
        """Keep a batch and its change.

        INVARIANT: no calls in here, only operators: a signal handler, which may raise, runs only at calls and loops,
        so it finds all of this done or none.
        """
        approvals = self._approvals
        if change is not NO_CHANGE:
            state = log.state
            request_id, resolution, idempotency = change.request_id, change.resolution, change.idempotency
            approval = change.approval
            if change.session is not None:
                log.record = change.session
            if state is not None:
                if request_id is not None:
                    state.requests |= {request_id}
                if resolution is not None:
                    if state.oldest is not None:
                        del state.resolutions[state.oldest]
                        state.oldest = None
                    state.resolutions[resolution.resolution_id] = resolution
                if idempotency is not None:
                    state.idempotency[idempotency.key] = idempotency
                if approval is not None:
                    if approval.approval_id not in approvals:
                        state.approvals += [approval.approval_id]
                    approvals[approval.approval_id] = approval
            log.actions += change.actions
        log.stripe.left -= batch.count
        log.chunks += (log.sequence, batch.data)
        log.sequence += batch.count
        log.head = batch.head
        log.last_us = batch.now_us

    # Room for events: a stripe is granted some at a time, and gives up what it has left when there is no more.

    def _make_room(self, stripe: _Stripe, count: int) -> None:
        """Grant a stripe room for a batch; raises `StorageFull` when all of them together have too little."""
        with self._room:
            grant = min(self._ungranted, max(count, _GRANT))
            if grant < count:
                for other in self._stripes:
                    with other.lock:
                        self._ungranted += other.left
                        other.left = 0
                grant = min(self._ungranted, count)
            if grant < count:
                held = self._max_events - self._ungranted
                raise StorageFull(f"the store holds {held} events, its bound is {self._max_events}")
            self._ungranted -= grant
            with stripe.lock:
                stripe.left += grant

    # Limits

    def _take(self, claims: tuple[Claim, ...], now_us: int) -> None:
        """Take all claims, or raise `ClaimRefused` and take none."""
        if len(self._counters) > self._sweep_at:
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

    def _counter(self, claim: Claim) -> _Counter:
        counter = self._counters.get(claim.key)
        return counter if counter is not None else self._counters.setdefault(claim.key, _Counter(claim))

    def _sweep(self, now_us: int) -> None:
        """Drop the counters that count nothing any more; asked for each time their number has doubled."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            for key, counter in list(self._counters.items()):
                with counter.lock:
                    if counter.window.window_us and not counter.window.used(max(0, now_us - SWEEP_MARGIN_US)):
                        counter.dead = True
                        self._counters.pop(key, None)
            self._sweep_at = max(_FEW_COUNTERS, 2 * len(self._counters))
        finally:
            self._sweeping.release()

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        counters = self._counters
        waits = []
        for claim in claims:
            counter = counters.get(claim.key)
            if counter is None:
                waits.append(-1 if claim.cost > claim.amount else 0)
            else:
                waits.append(counter.wait_us(claim.cost, now_us))
        return waits

    # Reading

    def _log(self, session_id: str) -> _Log:
        log = self._logs.get(session_id)
        if log is None:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        return log

    def load(self, session_id: str) -> tuple[SessionRecord, Head]:
        log = self._log(session_id)
        with log.stripe.lock:
            return log.session(), Head(log.sequence, log.head, log.last_us)

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None:
        state = self._log(session_id).state
        return None if state is None else state.resolutions.get(resolution_id)

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        log = self._log(session_id)
        if log.state is not None:
            with log.stripe.lock:
                for record in reversed(log.state.resolutions.values()):
                    if now_us < record.expires_us and (action_id is None or action_id in record.offered):
                        return record
        return None

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None:
        state = self._log(session_id).state
        return None if state is None else state.idempotency.get(key)

    def approval(self, approval_id: str) -> ApprovalRecord | None:
        return self._approvals.get(approval_id)

    def approvals(self, *, session_id: str | None = None, status: str | None = None) -> list[ApprovalRecord]:
        if session_id is None:
            ids = list(self._approvals)
        else:
            state = self._log(session_id).state
            ids = list(state.approvals) if state is not None else []
        # One may be purged while they are read.
        records = [record for record in map(self._approvals.get, ids) if record is not None]
        return [record for record in records if status is None or record.status == status]

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        log = self._log(session_id)
        with log.stripe.lock:
            chunks: list[Any] = list(log.chunks)
            total = log.sequence
        last = total if count is None else min(total, first + count)
        if first >= last:
            return b""
        firsts, lines = chunks[::2], chunks[1::2]
        start = bisect_right(firsts, first) - 1
        stop = bisect_right(firsts, last - 1)
        data = b"".join(lines[start:stop])
        skipped = first - firsts[start]
        if not skipped and last == (firsts[stop] if stop < len(firsts) else total):
            return data
        return b"".join(data.splitlines(keepends=True)[skipped : skipped + last - first])

    def sessions(
        self, *, agent_id: str | None = None, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[SessionRecord]:
        found: list[SessionRecord] = []
        for session_id in sorted(self._logs):
            if len(found) >= limit:
                break
            log = self._logs.get(session_id)
            if log is None or (after is not None and session_id <= after):
                continue
            record = log.session()
            if agent_id in (None, record.agent_id) and status in (None, record.status):
                found.append(record)
        return found

    def purge(self, session_id: str) -> None:
        log = self._log(session_id)
        with log.stripe.lock:
            if not log.head:
                raise SessionNotFound(f"session `{session_id}` does not exist")
            if log.record.status != "ended":
                raise SessionError(f"session `{session_id}` is active", hint="end it first")
            self._logs.pop(session_id, None)
            # Whoever still holds this log finds no head to append to.
            log.head = ""
            log.stripe.left += log.sequence
            if log.state is not None:
                for approval_id in log.state.approvals:
                    self._approvals.pop(approval_id, None)
                for key in log.state.budgets:
                    self._counters.pop(key, None)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
