"""Memory: sessions that live and die with the process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from threading import Lock
from typing import Any

from msgspec import structs

from cra._core.chain import EventBatch, Ledger
from cra._core.windows import BudgetWindow, RateWindow
from cra.errors import (
    ApprovalNotFound,
    DuplicateRequest,
    SessionError,
    SessionExists,
    SessionNotFound,
    StaleCatalog,
    StaleHead,
    StorageError,
    StorageFull,
)
from cra.protocol.trace import GENESIS_HASH
from cra.storage import _restored
from cra.storage.base import (
    DEFAULT_TENANT,
    NO_CHANGE,
    ONE_ACTION,
    SWEEP_MARGIN_US,
    ApprovalRecord,
    Change,
    Claim,
    ClaimRefused,
    CounterRecord,
    Document,
    Head,
    IdempotencyRecord,
    ResolutionRecord,
    SessionDump,
    SessionRecord,
    check_tenant,
)

_STRIPES = 64
_GRANT = 1024
_FEW_COUNTERS = 1024
_ID_LENGTH = 36


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


_BEGINNING = Head(0, GENESIS_HASH, 0)


class _Log(Ledger):
    """One session's events and state."""

    __slots__ = ("record", "state", "stripe")

    def __init__(self, record: SessionRecord, stripe: _Stripe, end: Head = _BEGINNING, actions: int = 0) -> None:
        super().__init__(*end, actions)
        self.record = record
        self.stripe = stripe
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
    def of(cls, record: CounterRecord) -> _Counter:
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


class _Shared:
    """What the tenants of one store share: its bounds, its locks, and the list of them."""

    def __init__(self, max_sessions: int, max_events: int, max_resolutions: int) -> None:
        self.max_sessions = max_sessions
        self.max_events = max_events
        self.max_resolutions = max_resolutions
        self.sessions = 0
        self.creating = Lock()
        self.room = Lock()
        self.ungranted = max_events
        self.stripes = tuple([_Stripe() for _ in range(_STRIPES)])
        self.joining = Lock()
        self.tenants: dict[str, MemoryStorage] = {}


class _Staged:
    """What an append does outside of its session, made before so that landing it is one step."""

    __slots__ = ("documents", "new", "purged", "revisions")

    def __init__(
        self,
        new: dict[str, _Log],
        documents: dict[str, dict[str, Document]],
        revisions: dict[str, int],
        purged: dict[str, _Log],
    ) -> None:
        self.new = new
        self.documents = documents
        self.revisions = revisions
        self.purged = purged


class MemoryStorage:
    """The default store of the library: no I/O, bounded, gone with the process."""

    name = "memory"
    durability = "none"
    blocking = False

    def __init__(
        self, *, max_sessions: int = 1_000_000, max_events: int = 100_000_000, max_resolutions: int = 64
    ) -> None:
        """Bound the store: sessions, events in all, and resolutions kept for each session (the newest).

        The bounds are those of all tenants together.
        """
        self._join(_Shared(max_sessions, max_events, max_resolutions), DEFAULT_TENANT)

    def _join(self, shared: _Shared, tenant: str) -> None:
        self.tenant = tenant
        self._shared = shared
        self._logs: dict[str, _Log] = {}
        self._counters: dict[str, _Counter] = {}
        self._approvals: dict[str, ApprovalRecord] = {}
        # Replaced as a whole when one is written, so that readers need no lock.
        self._documents: dict[str, dict[str, Document]] = {}
        self._revisions: dict[str, int] = {}
        # Sessions whose removal has landed, until they are cleared away.
        self._purged: dict[str, _Log] = {}
        # Counters without a window that came from a dump, by the end of their keys.
        self._restored: dict[str, set[str]] = {}
        self._max_resolutions = shared.max_resolutions
        self._sweeping = Lock()
        self._sweep_at = _FEW_COUNTERS
        shared.tenants[tenant] = self

    # INVARIANT: locks are taken in this order: creating, room, the stripes' in theirs, counters' by key.

    def of_tenant(self, tenant: str) -> MemoryStorage:
        shared = self._shared
        found = shared.tenants.get(tenant)
        if found is None:
            check_tenant(tenant)
            with shared.joining:
                found = shared.tenants.get(tenant)
                if found is None:
                    found = MemoryStorage.__new__(MemoryStorage)
                    found._join(shared, tenant)
        return found

    def tenants(self) -> list[str]:
        with self._shared.joining:
            stores = list(self._shared.tenants.values())
        return sorted(store.tenant for store in stores if store._logs or any(store._documents.values()))

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        if change.documents or change.purge:
            self._administer(session_id, expected_head, batch, change)
            return
        log = self._logs.get(session_id)
        if log is None:
            self._create(session_id, expected_head, batch, change)
            return
        count, stripe = batch.count, log.stripe
        while True:
            with stripe.lock:
                if not log.takes(expected_head, batch):
                    raise self._misplaced(log, session_id, expected_head, batch)
                if stripe.left >= count:
                    if change is not ONE_ACTION and change is not NO_CHANGE:
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
        shared = self._shared
        with shared.creating:
            log = self._begun(session_id, expected_head, change)
            stripe = log.stripe
            while True:
                with stripe.lock:
                    if stripe.left >= batch.count:
                        self._prepare(session_id, log, change)
                        self._land(log, batch, change)
                        self._logs[session_id] = log
                        shared.sessions += 1
                        return
                self._make_room(stripe, batch.count)

    def _begun(self, session_id: str, expected_head: str, change: Change) -> _Log:
        """Return an empty log for a new session."""
        if change.session is None or expected_head != GENESIS_HASH:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        if session_id in self._logs:
            raise SessionExists(f"session `{session_id}` exists already")
        return _Log(change.session, self._stripe())

    def _stripe(self) -> _Stripe:
        """Return the stripe of the next session; raises `StorageFull` when there may be no more."""
        held = self._shared.sessions
        if held >= self._shared.max_sessions:
            raise StorageFull(f"the store holds {held} sessions, its bound is {self._shared.max_sessions}")
        return self._shared.stripes[held % _STRIPES]

    def _administer(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        """Append what touches more than its session; meanwhile nothing else lands."""
        shared = self._shared
        with shared.creating:
            while True:
                with self._everything():
                    log, new = self._logs.get(session_id), {}
                    if log is None:
                        log = self._begun(session_id, expected_head, change)
                        new[session_id] = log
                    elif not log.takes(expected_head, batch):
                        raise self._misplaced(log, session_id, expected_head, batch)
                    if log.stripe.left >= batch.count:
                        staged = self._stage(session_id, new, change)
                        self._prepare(session_id, log, change)
                        try:
                            self._land(log, batch, change, staged)
                        finally:
                            self._clear()
                        return
                self._make_room(log.stripe, batch.count)

    def _everything(self) -> ExitStack:
        """Return what holds every session of the store still, of all tenants."""
        with ExitStack() as held:
            for stripe in self._shared.stripes:
                held.enter_context(stripe.lock)
            return held.pop_all()

    def _stage(self, session_id: str, new: dict[str, _Log], change: Change) -> _Staged:
        purged: dict[str, _Log] = {}
        for purge_id in change.purge:
            log = self._log(purge_id)
            if log.record.status != "ended" or purge_id == session_id:
                raise SessionError(f"session `{purge_id}` is active", hint="end it first")
            purged[purge_id] = log
        documents, revisions = self._documents.copy(), self._revisions.copy()
        for kind in {write.kind for write in change.documents}:
            documents[kind] = documents.get(kind, {}).copy()
            revisions[kind] = revisions.get(kind, 0) + 1
        for kind, name, body in change.documents:
            if body is None:
                documents[kind].pop(name, None)
            else:
                documents[kind][name] = Document(kind, name, revisions[kind], body)
        return _Staged(new, documents, revisions, purged)

    def _clear(self) -> None:
        """Clear away what was purged; done again when it was interrupted."""
        for session_id, log in self._purged.copy().items():
            if self._logs.pop(session_id, None) is not None:
                self._shared.sessions -= 1
            # Whoever still holds this log finds no head to append to.
            log.close()
            if log.state is not None:
                for approval_id in log.state.approvals:
                    self._approvals.pop(approval_id, None)
                for key in log.state.budgets:
                    self._counters.pop(key, None)
            for key in self._restored.pop(session_id, ()):
                self._counters.pop(key, None)
            log.stripe.left += log.sequence
            del self._purged[session_id]

    def _prepare(self, session_id: str, log: _Log, change: Change) -> None:
        """Do everything that can still refuse a change: known ids, and claims, which are taken last."""
        request_id, resolution, claims, state = change.request_id, change.resolution, change.claims, log.state
        if state is not None and request_id is not None and request_id in state.requests:
            raise DuplicateRequest(f"request_id `{request_id}` was used in this session", pointer="/request_id")
        if change.catalog is not None and change.catalog != self._revisions.get("atlas", 0):
            raise StaleCatalog(
                f"the atlases are at revision {self._revisions.get('atlas', 0)}, expected {change.catalog}"
            )
        if state is None:
            if request_id is None and resolution is None and change.approval is None and not claims:
                if change.idempotency is None:
                    return
            state = log.state = _State()
        if resolution is not None and len(state.resolutions) >= self._max_resolutions:
            state.oldest = next(iter(state.resolutions))
        if claims:
            self._take(claims, change.claims_at_us)
            for claim in claims:
                # A budget without a window lasts as long as its session, whose id ends the key.
                if not claim.window_us and claim.key.endswith(session_id):
                    state.budgets.add(claim.key)

    def _land(self, log: _Log, batch: EventBatch, change: Change, staged: _Staged | None = None) -> None:
        """Keep a batch and its change.

        INVARIANT: only operators, and one call of compiled code at the end: a signal handler, which may raise, runs
        only at loops and after calls, so it finds all of this done or none.
        """
        approvals = self._approvals
        if change is not ONE_ACTION and change is not NO_CHANGE:
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
        log.stripe.left -= batch.count
        if staged is not None:
            self._documents = staged.documents
            self._revisions = staged.revisions
            self._purged |= staged.purged
            if staged.new:
                self._logs |= staged.new
                self._shared.sessions += 1
        log.add(batch, change.actions)

    # Room for events: a stripe is granted some at a time, and gives up what it has left when there is no more.

    def _make_room(self, stripe: _Stripe, count: int) -> None:
        """Grant a stripe room for a batch; raises `StorageFull` when all of them together have too little."""
        shared = self._shared
        with shared.room:
            grant = min(shared.ungranted, max(count, _GRANT))
            if grant < count:
                for other in shared.stripes:
                    with other.lock:
                        shared.ungranted += other.left
                        other.left = 0
                grant = min(shared.ungranted, count)
            if grant < count:
                held = shared.max_events - shared.ungranted
                raise StorageFull(f"the store holds {held} events, its bound is {shared.max_events}")
            shared.ungranted -= grant
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

    def approvals(
        self,
        *,
        session_id: str | None = None,
        status: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[ApprovalRecord]:
        if session_id is None:
            ids = list(self._approvals)
        else:
            state = self._log(session_id).state
            ids = list(state.approvals) if state is not None else []
        if after is not None:
            if after not in ids:
                raise ApprovalNotFound(f"approval `{after}` does not exist")
            ids = ids[ids.index(after) + 1 :]
        found: list[ApprovalRecord] = []
        for approval_id in ids:
            if limit is not None and len(found) >= limit:
                break
            # One may be purged while they are read.
            record = self._approvals.get(approval_id)
            if record is not None and status in (None, record.status):
                found.append(record)
        return found

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        log = self._log(session_id)
        with log.stripe.lock:
            chunks: list[Any] = list(log.pieces)
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

    def ended(self, *, before_us: int | None = None, after: str | None = None, limit: int = 100) -> list[SessionRecord]:
        records = [log.session() for log in list(self._logs.values()) if log.record.status == "ended"]
        found = sorted(records, key=_ending)
        if after is not None:
            last = self._log(after).record
            if last.status != "ended":
                raise SessionNotFound(f"session `{after}` has not ended")
            found = found[bisect_right(found, _ending(last), key=_ending) :]
        if before_us is not None:
            found = [record for record in found if _ending(record)[0] < before_us]
        return found[: max(0, limit)]

    def ended_count(self) -> int:
        return sum(log.record.status == "ended" for log in list(self._logs.values()))

    # Documents

    def document(self, kind: str, name: str) -> Document | None:
        return self._documents.get(kind, {}).get(name)

    def documents(self, kind: str) -> list[Document]:
        return list(self._documents.get(kind, {}).values())

    def revision(self, kind: str) -> int:
        return self._revisions.get(kind, 0)

    def kinds(self) -> list[str]:
        return sorted(self._revisions)

    # Moving to another store

    def restore_documents(self, documents: Iterable[Document], revisions: Mapping[str, int]) -> None:
        with self._shared.creating, self._everything():
            added = _restored.new_kinds(
                self.tenant, documents, revisions, lambda kind: (self.revision(kind), self.documents(kind))
            )
            self._documents = self._documents | {
                kind: {one.name: one for one in those} for kind, those in added.items()
            }
            self._revisions = self._revisions | {kind: revisions[kind] for kind in added}

    def dump(self, session_id: str) -> SessionDump:
        log = self._log(session_id)
        with log.stripe.lock:
            state = log.state or _State()
            lines: list[Any] = log.pieces[1::2]
            approvals = [self._approvals.get(approval_id) for approval_id in state.approvals]
            return SessionDump(
                record=log.session(),
                events=lines,
                requests=tuple(sorted(state.requests)),
                resolutions=tuple(state.resolutions.values()),
                idempotency=tuple(state.idempotency.values()),
                approvals=tuple([record for record in approvals if record is not None]),
            )

    def restore(self, dump: SessionDump) -> None:
        restored, session_id, shared = _restored.check(dump), dump.record.session_id, self._shared
        with shared.creating:
            if session_id in self._logs:
                raise SessionExists(f"session `{session_id}` exists already")
            for record in dump.approvals:
                if record.approval_id in self._approvals:
                    raise StorageError(f"approval `{record.approval_id}` exists already")
            log = _Log(dump.record, self._stripe(), restored.head, dump.record.action_count)
            for piece in restored.pieces:
                log.pieces.extend(piece)
            state = log.state = _State()
            state.requests = set(dump.requests)
            kept = dump.resolutions[-self._max_resolutions :]
            state.resolutions = {record.resolution_id: record for record in kept}
            state.idempotency = {record.key: record for record in dump.idempotency}
            state.approvals = [record.approval_id for record in dump.approvals]
            approvals = {record.approval_id: record for record in dump.approvals}
            while True:
                with log.stripe.lock:
                    if log.stripe.left >= log.sequence:
                        log.stripe.left -= log.sequence
                        self._approvals |= approvals
                        self._logs[session_id] = log
                        shared.sessions += 1
                        return
                self._make_room(log.stripe, log.sequence)

    def counters(self) -> Iterator[CounterRecord]:
        for key, counter in list(self._counters.items()):
            with counter.lock:
                record = counter.record(key)
            yield record

    def restore_counters(self, counters: Iterable[CounterRecord]) -> None:
        for record in counters:
            if not record.window_us:
                self._restored.setdefault(record.key[-_ID_LENGTH:], set()).add(record.key)
            while True:
                known = self._counters.get(record.key)
                if known is None:
                    if self._counters.setdefault(record.key, made := _Counter.of(record)) is made:
                        break
                    continue
                with known.lock:
                    if not known.dead:
                        known.window = _Counter.of(_restored.stricter(known.record(record.key), record)).window
                        break

    def probe(self) -> None:
        shared = self._shared
        with shared.room:
            if not shared.ungranted and not any(stripe.left for stripe in shared.stripes):
                raise StorageFull(f"the store holds {shared.max_events} events, its bound")

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def _ending(record: SessionRecord) -> tuple[int, str]:
    return record.ended_us or 0, record.session_id
