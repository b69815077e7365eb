"""The storage contract: what every store keeps, and how a change lands."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Struct, structs

from cra._core.chain import EventBatch
from cra.errors import ConfigInvalid, StaleHead


class Stored(Struct, frozen=True, kw_only=True, gc=False):
    """The base of what a store keeps beside events."""


class SessionRecord(Stored, frozen=True):
    """A session; times are microseconds since 1970."""

    session_id: str
    agent_id: str
    goal: str
    trace_id: str
    started_us: int
    status: Literal["active", "ended"] = "active"
    ended_us: int | None = None
    end_reason: str | None = None
    action_count: int = 0
    parent_session_id: str | None = None
    context: dict[str, Any] = {}
    metadata: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """The session_id."""
        return self.session_id

    def apart(self) -> "SessionRecord":
        """Return the same session in a record of its own: what is changed in one is not changed in the other."""
        return structs.replace(self, context=deepcopy(self.context), metadata=deepcopy(self.metadata))


class ResolutionRecord(Stored, frozen=True):
    """What a resolution offered, as long as it can be executed on."""

    resolution_id: str
    expires_us: int
    goal: str
    risk: int
    atlas_ids: tuple[str, ...]
    capabilities: tuple[str, ...]
    context: dict[str, Any]
    offered: frozenset[str]


class IdempotencyRecord(Stored, frozen=True):
    """An idempotency key: the call it stands for, and its response once there is one."""

    key: str
    call: str
    response: bytes | None = None


class ApprovalRecord(Stored, frozen=True):
    """A person's decision about one call, and everything it is bound to."""

    approval_id: str
    session_id: str
    agent_id: str
    action_id: str
    atlas_id: str
    policy_id: str | None
    resolution_id: str
    parameters_hash: str
    snapshot_digest: str
    requested_us: int
    expires_us: int
    status: Literal["pending", "granted", "rejected", "expired", "used"] = "pending"
    approver: str | None = None
    reason: str | None = None
    parameters: dict[str, Any] | None = None
    # Who made the call, as the door knows it; the agent is somebody else.
    requested_by: str | None = None

    def apart(self) -> "ApprovalRecord":
        """Return the same approval in a record of its own; see `SessionRecord.apart`."""
        return structs.replace(self, parameters=deepcopy(self.parameters)) if self.parameters else self


class Claim(NamedTuple):
    """What one call takes from one counter; claims with the same key are on the same counter.

    `amount` is calls for a rate and micro-units for a budget, as is `cost`; `window_us` 0 never resets.
    """

    key: str
    rate: bool
    amount: int
    window_us: int
    cost: int


class Document(NamedTuple):
    """A named piece of what a tenant has set: an atlas, a key, a role, a hold.

    `revision` is that of its kind (see `Storage.revision`) when it was last written.
    """

    kind: str
    name: str
    revision: int
    body: bytes


class DocumentWrite(NamedTuple):
    """Put a document in the place of the one of its kind and name; without a body, remove it."""

    kind: str
    name: str
    body: bytes | None


class Removal(NamedTuple):
    """An ended session to remove with everything it has, where its chain still ends at `head`."""

    session_id: str
    head: str


class Change(Struct, frozen=True, kw_only=True):
    """The state that lands with a batch of events, or not at all.

    `actions` is added to the session's action_count; `claims` are taken at `claims_at_us`, all or none. `purge` says
    which ended sessions are removed. `catalog` is the revision of the tenant's `atlas` documents that the batch was
    decided by; None when it was decided by none of them.
    """

    session: SessionRecord | None = None
    resolution: ResolutionRecord | None = None
    request_id: str | None = None
    idempotency: IdempotencyRecord | None = None
    approval: ApprovalRecord | None = None
    actions: int = 0
    claims: tuple[Claim, ...] = ()
    claims_at_us: int = 0
    purge: tuple[Removal, ...] = ()
    documents: tuple[DocumentWrite, ...] = ()
    catalog: int | None = None


NO_CHANGE = Change()
ONE_ACTION = Change(actions=1)

# Whose sessions they are where nobody speaks of tenants.
DEFAULT_TENANT = "default"
_LONGEST_TENANT = 63


def check_tenant(tenant: str) -> str:
    """Return a tenant's name; raises `ConfigInvalid` for one that no store keeps."""
    if not 1 <= len(tenant) <= _LONGEST_TENANT:
        raise ConfigInvalid(f"tenant is `{tenant[:64]}`, expected 1 to {_LONGEST_TENANT} characters")
    return tenant


# A counter is dropped when its window has been over for this long: a caller that read the clock before others, and
# comes after them, still finds what it has to count with.
SWEEP_MARGIN_US = 60_000_000


class Head(NamedTuple):
    """Where a chain ends: the next sequence, the last event's hash, its time in microseconds."""

    sequence: int
    hash: str
    last_us: int


def stale(session_id: str, head: str, expected: str) -> StaleHead:
    """Return what to raise for a chain that ends elsewhere than was expected."""
    return StaleHead(f"session `{session_id}`: head is {head[:12]}, expected {expected[:12]}")


class ClaimRefused(Exception):
    """A counter has no room for a claim; `wait_us` as in `Storage.peek`. Nothing was written."""

    def __init__(self, claim: Claim, wait_us: int) -> None:
        super().__init__(claim.key)
        self.claim = claim
        self.wait_us = wait_us


class CounterRecord(Stored, frozen=True):
    """What one counter has counted: the times of its last calls for a rate, what was spent for a budget."""

    key: str
    rate: bool
    amount: int
    window_us: int
    newest_us: int
    calls_us: tuple[int, ...] = ()
    spent: int = 0
    since_us: int = 0


class SessionDump(NamedTuple):
    """Everything a store has of one session; `events` are its lines in pieces, to be taken once."""

    record: SessionRecord
    events: Iterable[bytes]
    requests: tuple[str, ...]
    resolutions: tuple[ResolutionRecord, ...]
    idempotency: tuple[IdempotencyRecord, ...]
    approvals: tuple[ApprovalRecord, ...]


# Is told what an append raised, or None.
Done = Callable[[BaseException | None], None]


class Pending(Protocol):
    """An append that is queued; who waits for it gives it up after `timeout_seconds`."""

    timeout_seconds: float

    def give_up(self) -> None:
        """Have `done` called with a `StorageError`, unless it has been called; what is not begun never happens."""
        ...


class AppendSoon(Protocol):
    """Does as `append` in another thread, which calls `done` with what it raised, or None.

    `batch` may not be added to before that. `done` is called once; it must not raise, and not take long. What is wrong
    with the store itself is raised at once.
    """

    def __call__(
        self, session_id: str, expected_head: str, batch: EventBatch, change: Change, done: Done
    ) -> Pending: ...


class Storage(Protocol):
    """A tenant's part of a store; every method may be called from any thread.

    Nothing in it reads, counts or changes what another tenant has, with the exceptions of `of_tenant` and `tenants`.

    INVARIANT: `append` lands whole or not at all, and only on the expected head. When it returns, the events
    survive what `durability` promises; when it times out, the outcome is unknown and `load` tells.
    """

    @property
    def name(self) -> str:
        """`memory`, `sqlite`, `postgres`."""
        ...

    @property
    def tenant(self) -> str:
        """Whose part of the store this is."""
        ...

    def of_tenant(self, tenant: str) -> "Storage":
        """Return another tenant's part of the same store; only the store that was opened has to be closed."""
        ...

    def tenants(self) -> list[str]:
        """Return the tenants that have a session or a document, in order."""
        ...

    @property
    def durability(self) -> str:
        """`none` (lost with the process), `batched` (survives the process) or `strict` (survives power loss)."""
        ...

    @property
    def blocking(self) -> bool:
        """Whether calls wait for I/O, so that an event loop must not make them itself."""
        ...

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        """Add a batch and its change.

        Raises `StaleHead` when the head is another, also that of a session to purge, `StaleCatalog` when
        `change.catalog` is not the revision of the tenant's `atlas` documents, `DuplicateRequest` for a known
        request_id, `ClaimRefused` when a counter is full, `SessionNotFound` (also for one to purge), `SessionError`
        when one to purge is active or the session of the batch, `SessionExists`, `StorageFull`, `StorageError`.
        """
        ...

    @property
    def append_soon(self) -> AppendSoon | None:
        """`append` in a thread of the store's own; None when it has none."""
        ...

    def load(self, session_id: str) -> tuple[SessionRecord, Head]:
        """Return a session and where its chain ends; raises `SessionNotFound`."""
        ...

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None: ...

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        """Return the newest resolution that is not expired and offers the action (any, when None)."""
        ...

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None: ...

    def approval(self, approval_id: str) -> ApprovalRecord | None: ...

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
        """Return up to `limit` approvals, oldest first, those after the approval `after`.

        With `session_id`, `parameters_hash` and `status` it takes as long however many other calls they were asked for.
        Raises `SessionNotFound`, and `ApprovalNotFound` when there is no `after` among them, in whatever status.
        """
        ...

    def waiting(self, session_id: str, now_us: int) -> int:
        """Return how many approvals of a session are pending and not expired; raises `SessionNotFound`."""
        ...

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        """Return for each claim the microseconds to wait: 0 there is room, -1 it never fits. Takes nothing."""
        ...

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        """Return stored lines from sequence `first`; raises `SessionNotFound`."""
        ...

    def sessions(
        self, *, agent_id: str | None = None, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[SessionRecord]:
        """Return sessions in the order of their ids, those after the id `after`."""
        ...

    def ended(self, *, before_us: int | None = None, after: str | None = None, limit: int = 100) -> list[SessionRecord]:
        """Return the sessions that ended before a time, in the order of their ends and ids, those after `after`.

        Raises `SessionNotFound` when `after` is no ended session.
        """
        ...

    def ended_count(self) -> int:
        """Return how many ended sessions there are."""
        ...

    def document(self, kind: str, name: str) -> Document | None: ...

    def documents(self, kind: str) -> list[Document]:
        """Return the documents of a kind in the order in which they were first written."""
        ...

    def revision(self, kind: str) -> int:
        """Return how many appends have written, or removed, documents of a kind."""
        ...

    def kinds(self) -> list[str]:
        """Return the kinds that documents have been written of, in order."""
        ...

    def restore_documents(self, documents: Iterable[Document], revisions: Mapping[str, int]) -> None:
        """Add documents with the revisions they have, of kinds that were never written here; all or none.

        A kind that is at the same revision and has the same documents is left alone. Raises `StorageError` for one
        that has others.
        """
        ...

    def dump(self, session_id: str) -> SessionDump:
        """Return everything about a session, of one moment; raises `SessionNotFound`."""
        ...

    def restore(self, dump: SessionDump) -> None:
        """Add a session as it was dumped, whole or not at all.

        Raises `SessionExists`, `InvalidTrace` when its chain does not verify, `StorageFull`, `StorageError`.
        """
        ...

    def counters(self) -> Iterator[CounterRecord]:
        """Yield what the counters have counted."""
        ...

    def restore_counters(self, counters: Iterable[CounterRecord]) -> None:
        """Add counters; one that exists keeps what leaves less room."""
        ...

    def probe(self) -> None:
        """Raise `StorageError` unless the store would take events now."""
        ...

    def close(self) -> None:
        """Release what the store holds; safe to call twice."""
        ...
