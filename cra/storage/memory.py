"""Memory: sessions that live and die with the process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice

from cra._core.chain import EventBatch
from cra._core.ledger import FULL, MISPLACED, Room
from cra.errors import (
    ApprovalNotFound,
    SessionError,
    SessionExists,
    SessionNotFound,
    StaleCatalog,
    StorageError,
    StorageFull,
)
from cra.protocol.trace import GENESIS_HASH
from cra.storage import _restored
from cra.storage._counters import Counters
from cra.storage._logs import Log, Order, Shared, Staged, State, ending_of, known
from cra.storage.base import (
    DEFAULT_TENANT,
    ApprovalRecord,
    Change,
    Claim,
    CounterRecord,
    Document,
    Head,
    IdempotencyRecord,
    ResolutionRecord,
    SessionDump,
    SessionRecord,
    check_tenant,
    stale,
)

# What administration may take beyond the bound, so that a store that is full can still be told what to let go.
_SPARE = 1024


class MemoryStorage:
    """The default store of the library: no I/O, bounded, gone with the process."""

    name = "memory"
    durability = "none"
    blocking = False
    append_soon = None

    def __init__(
        self, *, max_sessions: int = 1_000_000, max_events: int = 100_000_000, max_resolutions: int = 64
    ) -> None:
        """Bound the store: sessions, events in all, and resolutions kept for each session (the newest).

        The bounds are those of all tenants together.
        """
        self._join(Shared(max_sessions, max_events, max_resolutions), DEFAULT_TENANT)

    def _join(self, shared: Shared, tenant: str) -> None:
        self.tenant = tenant
        self._shared = shared
        self._logs: dict[str, Log] = {}
        self._order = Order()
        # Those of them that have ended.
        self._ended: dict[str, Log] = {}
        self._counters = Counters()
        self._approvals: dict[str, ApprovalRecord] = {}
        # Replaced as a whole when one is written, so that readers need no lock.
        self._documents: dict[str, dict[str, Document]] = {}
        self._revisions: dict[str, int] = {}
        # Sessions whose removal has landed, until they are cleared away.
        self._purged: dict[str, Log] = {}
        shared.tenants[tenant] = self

    # INVARIANT: locks are taken in this order: creating, granting, the rooms' in theirs, counters' by key.

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
        log = self._logs.get(session_id)
        if (
            log is None
            or change.session is not None
            or change.idempotency is not None
            or change.approval is not None
            or change.claims
            or change.documents
            or change.purge
        ):
            self._append(session_id, log, expected_head, batch, change)
            return
        resolution = change.resolution
        resolution_id = None if resolution is None else resolution.resolution_id
        actions, request_id = change.actions, change.request_id
        while True:
            if change.catalog is None:
                told = log.append(expected_head, batch, actions, request_id, resolution_id, resolution)
            else:
                with log.room:
                    self._check_catalog(change.catalog)
                    told = log.append(expected_head, batch, actions, request_id, resolution_id, resolution, True)
            if not told:
                return
            if told == MISPLACED:
                raise self._misplaced(log, session_id, expected_head, batch)
            if told != FULL:
                raise known(change.request_id)
            self._shared.make_room(log.room, batch.count)

    def _append(self, session_id: str, log: Log | None, expected_head: str, batch: EventBatch, change: Change) -> None:
        """Append what changes more than a session's requests and resolutions."""
        if change.documents or change.purge:
            self._administer(session_id, expected_head, batch, change)
            return
        if log is None:
            self._create(session_id, expected_head, batch, change)
            return
        # Every session can end once beyond the bound, or nothing would ever go.
        spare = self._shared.max_sessions if change.session is not None and change.session.status == "ended" else 0
        while True:
            with log.room:
                if not log.takes(expected_head, batch):
                    raise self._misplaced(log, session_id, expected_head, batch)
                if log.room.left >= batch.count:
                    self._prepare(session_id, log, change)
                    self._land(log, batch, change)
                    return
            self._shared.make_room(log.room, batch.count, spare)

    def _misplaced(
        self, log: Log, session_id: str, expected_head: str, batch: EventBatch
    ) -> StorageError | SessionError:
        if not batch.first_sequence:
            return SessionExists(f"session `{session_id}` exists already")
        return stale(session_id, log.head, expected_head)

    def _create(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        shared = self._shared
        with shared.creating:
            log = self._begun(session_id, expected_head, change)
            while True:
                with log.room:
                    if log.room.left >= batch.count:
                        self._prepare(session_id, log, change)
                        self._land(log, batch, change)
                        self._logs[session_id] = log
                        shared.sessions += 1
                        return
                shared.make_room(log.room, batch.count)

    def _begun(self, session_id: str, expected_head: str, change: Change, spare: int = 0) -> Log:
        """Return an empty log for a new session."""
        if change.session is None or expected_head != GENESIS_HASH:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        if session_id in self._logs:
            raise SessionExists(f"session `{session_id}` exists already")
        return Log(change.session, self._room(spare))

    def _room(self, spare: int = 0) -> Room:
        """Return the room of the next session; raises `StorageFull` when there may be no more."""
        held = self._shared.sessions
        if held >= self._shared.max_sessions + spare:
            raise StorageFull(f"the store holds {held} sessions, its bound is {self._shared.max_sessions}")
        return self._shared.rooms[held % len(self._shared.rooms)]

    def _administer(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        """Append what touches more than its session; meanwhile nothing else lands."""
        shared = self._shared
        with shared.creating:
            while True:
                with self._everything():
                    log, new = self._logs.get(session_id), {}
                    if log is None:
                        log = self._begun(session_id, expected_head, change, _SPARE)
                        new[session_id] = log
                    elif not log.takes(expected_head, batch):
                        raise self._misplaced(log, session_id, expected_head, batch)
                    # A purge is paid with what it frees.
                    freed = sum([self._logs[one].sequence for one, _ in change.purge if one in self._logs])
                    if log.room.left + freed >= batch.count:
                        staged = self._stage(session_id, new, change)
                        self._prepare(session_id, log, change)
                        try:
                            self._land(log, batch, change, staged)
                        finally:
                            self._clear()
                        return
                shared.make_room(log.room, batch.count, shared.max_sessions + _SPARE)

    def _everything(self) -> ExitStack:
        """Return what holds every session of the store still, of all tenants."""
        with ExitStack() as held:
            for room in self._shared.rooms:
                held.enter_context(room)
            return held.pop_all()

    def _stage(self, session_id: str, new: dict[str, Log], change: Change) -> Staged:
        purged: dict[str, Log] = {}
        for purge_id, head in change.purge:
            log = self._log(purge_id)
            if log.record.status != "ended" or purge_id == session_id:
                raise SessionError(f"session `{purge_id}` is active", hint="end it first")
            if log.head != head:
                raise stale(purge_id, log.head, head)
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
        return Staged(new, documents, revisions, purged)

    def _clear(self) -> None:
        """Clear away what was purged; done again when it was interrupted."""
        for session_id, log in self._purged.copy().items():
            self._ended.pop(session_id, None)
            self._order.forget()
            if self._logs.pop(session_id, None) is not None:
                self._shared.sessions -= 1
            # Whoever still holds this log finds no head to append to.
            log.close()
            if log.state is not None:
                for approval_id in log.state.approvals:
                    self._approvals.pop(approval_id, None)
            self._counters.drop(session_id, log.state.budgets if log.state is not None else ())
            log.room.left += log.sequence
            del self._purged[session_id]

    def _check_catalog(self, catalog: int) -> None:
        current = self._revisions.get("atlas", 0)
        if catalog != current:
            raise StaleCatalog(f"the atlases are at revision {current}, expected {catalog}")

    def _prepare(self, session_id: str, log: Log, change: Change) -> None:
        """Do everything that can still refuse a change: known ids, and claims, which are taken last."""
        claims, state = change.claims, log.state
        if log.knows(change.request_id):
            raise known(change.request_id)
        if change.catalog is not None:
            self._check_catalog(change.catalog)
        if state is None and (change.idempotency is not None or change.approval is not None or claims):
            state = log.state = State()
        if claims and state is not None:
            self._counters.take(claims, change.claims_at_us)
            for claim in claims:
                # A budget without a window lasts as long as its session, whose id ends the key.
                if not claim.window_us and claim.key.endswith(session_id):
                    state.budgets.add(claim.key)

    def _land(self, log: Log, batch: EventBatch, change: Change, staged: Staged | None = None) -> None:
        """Keep a batch and its change.

        INVARIANT: only operators, and one call of compiled code at the end: a signal handler, which may raise, runs
        only at loops and after calls, so it finds all of this done or none.
        """
        approvals, state = self._approvals, log.state
        idempotency, approval, resolution = change.idempotency, change.approval, change.resolution
        if change.session is not None:
            log.record = change.session
            if change.session.status == "ended":
                self._ended[change.session.session_id] = log
        if state is not None:
            if idempotency is not None:
                state.idempotency[idempotency.key] = idempotency
            if approval is not None:
                if approval.approval_id not in approvals:
                    state.approvals += [approval.approval_id]
                    if approval.parameters_hash not in state.approvals_of:
                        state.approvals_of[approval.parameters_hash] = []
                    state.approvals_of[approval.parameters_hash] += [approval.approval_id]
                approvals[approval.approval_id] = approval
                if approval.status == "pending":
                    state.pending[approval.approval_id] = approval.expires_us
                elif approval.approval_id in state.pending:
                    del state.pending[approval.approval_id]
        if staged is not None:
            self._documents = staged.documents
            self._revisions = staged.revisions
            self._purged |= staged.purged
            if staged.new:
                self._logs |= staged.new
                self._shared.sessions += 1
        resolution_id = None if resolution is None else resolution.resolution_id
        log.add(batch, change.actions, change.request_id, resolution_id, resolution)

    # Reading

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        return self._counters.peek(claims, now_us)

    def _log(self, session_id: str) -> Log:
        log = self._logs.get(session_id)
        if log is None:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        return log

    def load(self, session_id: str) -> tuple[SessionRecord, Head]:
        log = self._log(session_id)
        with log.room:
            return log.session(), Head(log.sequence, log.head, log.last_us)

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None:
        return self._log(session_id).resolution(resolution_id)

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        log = self._log(session_id)
        with log.room:
            record: ResolutionRecord
            for record in reversed((log.resolutions or {}).values()):
                if now_us < record.expires_us and (action_id is None or action_id in record.offered):
                    return record
        return None

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None:
        state = self._log(session_id).state
        return None if state is None else state.idempotency.get(key)

    def approval(self, approval_id: str) -> ApprovalRecord | None:
        record = self._approvals.get(approval_id)
        return None if record is None else record.apart()

    def approvals(
        self,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        parameters_hash: str | None = None,
        status: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[ApprovalRecord]:
        if session_id is None:
            ids = list(self._approvals)
        else:
            state = self._log(session_id).state or State()
            ids = list(state.approvals if parameters_hash is None else state.approvals_of.get(parameters_hash, ()))
        if after is not None:
            last = self._approvals.get(after)
            if (
                last is None
                or after not in ids
                or agent_id not in (None, last.agent_id)
                or parameters_hash not in (None, last.parameters_hash)
            ):
                raise ApprovalNotFound(f"approval `{after}` does not exist")
            ids = ids[ids.index(after) + 1 :]
        # One may be purged while they are read.
        wanted = (
            record
            for record in map(self._approvals.get, ids)
            if record is not None
            and status in (None, record.status)
            and agent_id in (None, record.agent_id)
            and parameters_hash in (None, record.parameters_hash)
        )
        return [record.apart() for record in islice(wanted, None if limit is None else max(0, limit))]

    def waiting(self, session_id: str, now_us: int) -> int:
        return (self._log(session_id).state or State()).waiting(now_us)

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        return self._log(session_id).lines(first, count)

    def sessions(
        self, *, agent_id: str | None = None, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[SessionRecord]:
        with self._shared.creating:
            order = self._order.of(self._logs)
        found: list[SessionRecord] = []
        for place in range(0 if after is None else bisect_right(order, after), len(order)):
            if len(found) >= limit:
                break
            # One may be purged while they are read.
            log = self._logs.get(order[place])
            if log is None:
                continue
            if agent_id in (None, log.record.agent_id) and status in (None, log.record.status):
                found.append(log.session())
        return found

    def ended(self, *, before_us: int | None = None, after: str | None = None, limit: int = 100) -> list[SessionRecord]:
        found = sorted(self._ended.values(), key=ending_of)
        if after is not None:
            last = self._log(after)
            if last.record.status != "ended":
                raise SessionNotFound(f"session `{after}` has not ended")
            found = found[bisect_right(found, ending_of(last), key=ending_of) :]
        if before_us is not None:
            found = [log for log in found if ending_of(log)[0] < before_us]
        return [log.session() for log in found[: max(0, limit)]]

    def ended_count(self) -> int:
        return len(self._ended)

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
        with log.room:
            state = log.state or State()
            approvals = [self._approvals.get(approval_id) for approval_id in state.approvals]
            return SessionDump(
                record=log.session(),
                events=log.whole(),
                requests=tuple(sorted(log.requests or ())),
                resolutions=tuple((log.resolutions or {}).values()),
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
            log = Log(dump.record, self._room(), restored.head, dump.record.action_count)
            for piece in restored.pieces:
                log.pieces.extend(piece)
            log.state = State()
            log.state.restore(dump)
            log.requests = set(dump.requests)
            kept = dump.resolutions[-log.room.most_resolutions :]
            log.resolutions = {record.resolution_id: record for record in kept}
            approvals = {record.approval_id: record for record in dump.approvals}
            while True:
                with log.room:
                    if log.room.left >= log.sequence:
                        log.room.left -= log.sequence
                        self._approvals |= approvals
                        self._logs[session_id] = log
                        if log.record.status == "ended":
                            self._ended[session_id] = log
                        shared.sessions += 1
                        return
                shared.make_room(log.room, log.sequence)

    def counters(self) -> Iterator[CounterRecord]:
        return self._counters.records()

    def restore_counters(self, counters: Iterable[CounterRecord]) -> None:
        self._counters.restore(counters)

    def probe(self) -> None:
        shared = self._shared
        with shared.granting:
            if shared.ungranted <= 0 and not any(room.left > 0 for room in shared.rooms):
                raise StorageFull(f"the store holds {shared.max_events} events, its bound")

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
