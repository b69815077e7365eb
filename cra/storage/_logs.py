"""Logs: what a session of the memory store consists of, and what all of its sessions share."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from msgspec import structs

from cra._core.chain import Ledger
from cra.protocol.trace import GENESIS_HASH
from cra.storage.base import Document, Head, IdempotencyRecord, ResolutionRecord, SessionRecord

if TYPE_CHECKING:
    from cra.storage.memory import MemoryStorage

_STRIPES = 64


class State:
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


class Log(Ledger):
    """One session's events and state."""

    __slots__ = ("record", "state", "stripe")

    def __init__(self, record: SessionRecord, stripe: Stripe, end: Head = _BEGINNING, actions: int = 0) -> None:
        super().__init__(*end, actions)
        self.record = record
        self.stripe = stripe
        self.state: State | None = None

    def session(self) -> SessionRecord:
        return structs.replace(self.record, action_count=self.actions) if self.actions else self.record


class Stripe:
    """What some of the sessions share: the lock for their logs, and room for `left` more events.

    PERF: a lock for each session would be 88 bytes more, and a second one for the room 50 ns.
    """

    __slots__ = ("left", "lock")

    def __init__(self) -> None:
        self.lock = Lock()
        self.left = 0


class Shared:
    """What the tenants of one store share: its bounds, its locks, and the list of them."""

    def __init__(self, max_sessions: int, max_events: int, max_resolutions: int) -> None:
        self.max_sessions = max_sessions
        self.max_events = max_events
        self.max_resolutions = max_resolutions
        self.sessions = 0
        self.creating = Lock()
        self.room = Lock()
        self.ungranted = max_events
        self.stripes = tuple([Stripe() for _ in range(_STRIPES)])
        self.joining = Lock()
        self.tenants: dict[str, MemoryStorage] = {}


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
