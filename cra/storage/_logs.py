"""Logs: what a session of the memory store consists of, and what all of its sessions share."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

from msgspec import structs

from cra._core.chain import lines_of
from cra._core.ledger import Ledger, Room
from cra.errors import DuplicateRequest, StorageFull
from cra.protocol.trace import GENESIS_HASH
from cra.storage.base import Document, Head, IdempotencyRecord, ResolutionRecord, SessionDump, SessionRecord

if TYPE_CHECKING:
    from cra.storage.memory import MemoryStorage

_ROOMS = 64
_GRANT = 1024


class State:
    """What few sessions keep beside events, requests and resolutions; most have none."""

    __slots__ = ("approvals", "approvals_of", "budgets", "idempotency", "pending")

    def __init__(self) -> None:
        self.idempotency: dict[str, IdempotencyRecord] = {}
        self.approvals: list[str] = []
        # The same, by the digest of what was asked for.
        self.approvals_of: dict[str, list[str]] = {}
        # When those expire that nobody has decided about.
        self.pending: dict[str, int] = {}
        self.budgets: set[str] = set()

    def restore(self, dump: SessionDump) -> None:
        self.idempotency = {record.key: record for record in dump.idempotency}
        self.approvals = [record.approval_id for record in dump.approvals]
        for record in dump.approvals:
            self.approvals_of.setdefault(record.parameters_hash, []).append(record.approval_id)
            if record.status == "pending":
                self.pending[record.approval_id] = record.expires_us

    def waiting(self, now_us: int) -> int:
        return sum([now_us < expires_us for expires_us in list(self.pending.values())])


_BEGINNING = Head(0, GENESIS_HASH, 0)


class Log(Ledger):
    """One session's events and state."""

    __slots__ = ("record", "state")

    def __init__(self, record: SessionRecord, room: Room, end: Head = _BEGINNING, actions: int = 0) -> None:
        super().__init__(room, *end, actions)
        self.record = record
        self.state: State | None = None

    def session(self) -> SessionRecord:
        record = structs.replace(self.record, action_count=self.actions) if self.actions else self.record
        return record.apart()

    def resolution(self, resolution_id: str) -> ResolutionRecord | None:
        return None if self.resolutions is None else self.resolutions.get(resolution_id)

    def lines(self, first: int, count: int | None) -> bytes:
        """Return the lines of up to `count` events from sequence `first`."""
        pieces: list[Any] = self.pieces

        def first_of(batch: int) -> int:
            begins: int = pieces[2 * batch]
            return begins

        with self.room:
            last = self.sequence if count is None else min(self.sequence, first + count)
            if first >= last:
                return b""
            batches = range(len(pieces) // 2)
            start = bisect_right(batches, first, key=first_of) - 1
            stop = bisect_right(batches, last - 1, key=first_of)
            held = pieces[2 * start : 2 * stop]
            end = first_of(stop) if stop < len(batches) else self.sequence
        data = b"".join(self._written(held))
        skipped = first - held[0]
        if not skipped and last == end:
            return data
        return b"".join(data.splitlines(keepends=True)[skipped : skipped + last - first])

    def whole(self) -> Iterator[bytes]:
        """Return all lines in pieces, of one moment; to be called with the room held."""
        return self._written(self.pieces[:])

    def _written(self, pieces: list[Any]) -> Iterator[bytes]:
        session_id, trace_id = self.record.session_id, self.record.trace_id
        return (lines_of(kept, session_id, trace_id) for kept in pieces[1::2])


class Order:
    """The ids of a store's sessions in order, for reading them in pages.

    PERF: worked out for who reads, again only when there are others since, never for who begins one. A page of
    a million takes 0.1 ms, or 30 when one was begun, and not 20 to 330 by its place.
    """

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: list[str] = []

    def of(self, logs: dict[str, Log]) -> list[str]:
        """Return the ids of `logs`, to which none may be added meanwhile; the list is not changed any more."""
        added = len(logs) - len(self._ids)
        if added:
            # A dict is in the order of insertion, and ids mostly rise: the sort finds two runs.
            self._ids = sorted([*self._ids, *islice(reversed(logs), added)])
        return self._ids

    def forget(self) -> None:
        """Begin anew; to be called before a session is removed."""
        self._ids = []


def ending_of(log: Log) -> tuple[int, str]:
    """Return what ended sessions are ordered by."""
    return log.record.ended_us or 0, log.record.session_id


def known(request_id: str | None) -> DuplicateRequest:
    """Return what to raise for a request id that was used."""
    return DuplicateRequest(f"request_id `{request_id}` was used in this session", pointer="/request_id")


class Shared:
    """What the tenants of one store share: its bounds, its locks, and the list of them."""

    def __init__(self, max_sessions: int, max_events: int, max_resolutions: int) -> None:
        self.max_sessions = max_sessions
        self.max_events = max_events
        self.sessions = 0
        self.creating = Lock()
        self.granting = Lock()
        self.ungranted = max_events
        # PERF: of some sessions each; a lock for each session would be 88 bytes more.
        self.rooms = tuple([Room(0, max_resolutions) for _ in range(_ROOMS)])
        self.joining = Lock()
        self.tenants: dict[str, MemoryStorage] = {}

    def make_room(self, room: Room, count: int, spare: int = 0) -> None:
        """Grant a room the events of a batch; raises `StorageFull` when all of them together have too little.

        It is granted some at a time, and gives up what it has left when there is no more. `spare` is how far
        beyond the bound this one may go.
        """
        with self.granting:
            grant = min(self.ungranted, max(count, _GRANT))
            if grant < count:
                for other in self.rooms:
                    with other:
                        self.ungranted += other.left
                        other.left = 0
                grant = min(self.ungranted + spare, count)
            if grant < count:
                held = self.max_events - self.ungranted
                raise StorageFull(f"the store holds {held} events, its bound is {self.max_events}")
            self.ungranted -= grant
            with room:
                room.left += grant


class Staged:
    """What an append does outside of its session, made before so that landing it is one step."""

    __slots__ = ("documents", "new", "purged", "revisions")

    def __init__(
        self,
        new: dict[str, Log],
        documents: dict[str, dict[str, Document]],
        revisions: dict[str, int],
        purged: dict[str, Log],
    ) -> None:
        self.new = new
        self.documents = documents
        self.revisions = revisions
        self.purged = purged
