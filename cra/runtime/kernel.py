"""The kernel: sessions and their chains, between the pure engine and a store."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, TypeVar

from msgspec import structs

from cra._core.canonical import digest, dumps
from cra._core.chain import Chain, EventBatch
from cra._core.sha256 import hexdigest
from cra.atlas.registry import UNREAD
from cra.atlas.snapshot import Snapshot
from cra.errors import (
    AtlasNotFound,
    CRAError,
    InvalidRequest,
    SessionEnded,
    SessionError,
    SessionNotFound,
    StaleCatalog,
    StaleHead,
)
from cra.protocol.jsontext import MAX_INTEGER_DIGITS
from cra.protocol.trace import GENESIS_HASH
from cra.runtime import engine
from cra.runtime.catalog import Catalog
from cra.runtime.config import DEFAULT_CONTEXT_TOKENS, RuntimeConfig, system_clock
from cra.runtime.engine import Ask, Decided, Rules
from cra.runtime.watch import Watchers
from cra.storage.base import Change, ResolutionRecord, SessionRecord, Storage

T = TypeVar("T")

# A stale head means somebody else made progress; this many times in a row it means something is wrong.
MAX_ATTEMPTS = 100
TRIES = range(MAX_ATTEMPTS)
# What is not wrong with a call, only with what was read before it.
STALE = (StaleHead, StaleCatalog)
ENTROPY_SIZE = 16
LONGEST_GOAL = 10_000
# Whose sessions are a tenant's own records; nobody starts one for it.
RESERVED_AGENT_ID = "cra.administration"
_END_REASONS = ("completed", "timeout", "error", "cancelled")


class Live:
    """A session this process works with: its record, its chain's head, and the lock that orders its events."""

    __slots__ = ("chain", "latest", "lock", "record")

    def __init__(self, record: SessionRecord, chain: Chain) -> None:
        self.record = record
        self.chain = chain
        self.lock = Lock()
        # The newest resolution, while this process wrote it. PERF: spares a call 0.4 us. Another writer's newer one
        # has moved the head, so what was decided by this one is not appended, and the reload forgets it.
        self.latest: ResolutionRecord | None = None


# Random bytes in pieces of 16, drawn from the system a few hundred at a time.
_pieces: deque[bytes] = deque()
# A forked child must not hand out the ids that its parent will.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pieces.clear)


# PERF: cut by slices that are there, half as long as by a generator.
_CUTS = tuple([slice(at, at + ENTROPY_SIZE) for at in range(0, 256 * ENTROPY_SIZE, ENTROPY_SIZE)])


def _entropy(size: int) -> bytes:
    while True:
        try:
            return _pieces.popleft()
        except IndexError:
            _pieces.extend(map(os.urandom(256 * size).__getitem__, _CUTS))


class _LimitClock:
    """Microseconds that only go forward, whatever happens to the system's clock."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def __call__(self) -> int:
        return (time.monotonic_ns() + self._offset_ns) // 1000


class Kernel:
    """Everything two drivers share; its methods block as long as the store does."""

    def __init__(self, config: RuntimeConfig, storage: Storage, snapshot: Snapshot) -> None:
        self.config = config
        self.storage = storage
        # Replaced as a whole when an atlas is loaded or unloaded; a call reads it once.
        self.snapshot = snapshot
        self.now_us = config.clock
        self.limits_now_us = _LimitClock() if config.clock is system_clock else config.clock
        self.entropy: Callable[[int], bytes] = _entropy if config.ids is os.urandom else config.ids
        # PERF: the pieces themselves, a call less; with ids of somebody's own there never are any.
        self._pieces = _pieces if config.ids is os.urandom else deque[bytes]()
        self.rules = Rules(config.default_ttl_seconds, config.max_context_tokens, config.capture_parameters == "full")
        self._live: dict[str, Live] = {}
        self.watchers = Watchers()
        # PERF: the dictionary itself, so that a commit nobody watches asks one truth.
        self._watched = self.watchers.by_session
        # What the tenant's store has of atlases; None when this runtime decides only by those it loads itself.
        self.catalog: Catalog | None = None
        self._swapping = Lock()

    # Atlases

    def swap(self, change: Callable[[], Snapshot]) -> None:
        """Decide by the snapshot that `change` makes; one change is made after the other."""
        with self._swapping:
            self.snapshot = change()

    def refresh(self) -> None:
        """Decide by the atlases that the store has now; raises `StorageCorrupt` when they cannot be read."""
        if self.catalog is not None:
            self.swap(self.catalog.refresh)

    def freshen(self) -> bool:
        """Do as `refresh`, for what is not committed and so not refused when it is stale; False if nothing was new."""
        if self.catalog is None or self.catalog.is_current():
            return False
        self.refresh()
        return True

    # Sessions

    def live(self, session_id: str) -> Live:
        """Return the session, loaded if need be; raises `SessionNotFound`."""
        try:
            found = self._live.get(session_id)
        except TypeError:  # not even hashable
            found = None
        if found is None:
            check_session_id(session_id)
            record, head = self.storage.load(session_id)
            if record.agent_id == RESERVED_AGENT_ID:
                raise SessionError(
                    f"session `{session_id}` is the record of a tenant's administration, nothing is decided in it",
                    hint="read its trace, or create a session",
                )
            if self.snapshot.catalog == UNREAD:
                self.refresh()
            found = self._keep(Live(record, Chain(session_id, record.trace_id, head.sequence, head.hash, head.last_us)))
        return found

    def session(self, session_id: str) -> SessionRecord:
        """Return a session as the store has it; raises `SessionNotFound`."""
        check_session_id(session_id)
        return self.storage.load(session_id)[0]

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        """Return the lines of a session from sequence `first`; raises `SessionNotFound`."""
        check_session_id(session_id)
        for name, value in (("first", first), ("count", count)):
            if value is not None and value < 0:
                raise InvalidRequest(f"{name} is `{value}`, expected 0 or more", pointer=f"/{name}")
        return self.storage.events(session_id, first, count)

    def _keep(self, live: Live) -> Live:
        while len(self._live) >= self.config.max_cached_sessions:
            # Who still holds an evicted session finds a stale head, reloads and goes on.
            self._live.pop(next(iter(self._live)), None)
        return self._live.setdefault(live.record.session_id, live)

    def forget(self, session_id: str) -> None:
        """Drop what is cached of a session."""
        self._live.pop(session_id, None)

    def reload(self, live: Live) -> None:
        """Read record and head again after another writer has extended the chain."""
        record, head = self.storage.load(live.record.session_id)
        live.record = record
        live.latest = None
        live.chain = Chain(record.session_id, record.trace_id, head.sequence, head.hash, head.last_us)

    def begin(self, live: Live) -> EventBatch:
        """Start a batch on the session's head."""
        try:
            entropy = self._pieces.popleft()
        except IndexError:
            entropy = self.entropy(ENTROPY_SIZE)
        return live.chain.begin(self.now_us(), entropy)

    def commit(self, live: Live, batch: EventBatch, change: Change) -> bool:
        """Append a batch; False when the head or the atlases were stale and have been read again."""
        chain = live.chain
        try:
            self.storage.append(chain.session_id, chain.head, batch, change)
        except STALE as stale:
            self.renew(live, stale)
            return False
        self.landed(live, batch, change)
        return True

    def landed(self, live: Live, batch: EventBatch, change: Change) -> None:
        """Go on from what the store has taken."""
        chain = live.chain
        chain.advance(batch)
        if change.resolution is not None:
            live.latest = change.resolution
        if self._watched:
            self.watchers.tell(chain.session_id)

    def renew(self, live: Live, stale: CRAError) -> None:
        """Read again what a refusal says is stale; raises it when there is nothing new."""
        if isinstance(stale, StaleHead):
            self.reload(live)
        elif isinstance(stale, StaleCatalog):
            self.refresh()
        elif not self.freshen():
            raise stale

    def commit_until_done(self, live: Live, build: Callable[[EventBatch], tuple[Change, T]]) -> T:
        """Build and append until the head holds still; `build` sees the reloaded session each time."""
        for _ in TRIES:
            batch = self.begin(live)
            change, value = build(batch)
            if self.commit(live, batch, change):
                return value
        raise StaleHead(f"session `{live.record.session_id}`: the head moved {MAX_ATTEMPTS} times in a row")

    def create_session(
        self,
        agent_id: str,
        goal: str,
        *,
        session_id: str | None = None,
        trace_id: str | None = None,
        parent_session_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SessionRecord:
        """Start a session and record it."""
        agent_id = check_text("agent_id", agent_id, 255)
        if same_person(agent_id, RESERVED_AGENT_ID):
            raise InvalidRequest(f"agent_id `{RESERVED_AGENT_ID}` is reserved for the record", pointer="/agent_id")
        goal = check_text("goal", goal, LONGEST_GOAL)
        if parent_session_id is not None:
            self.live(parent_session_id)
        if self.snapshot.catalog == UNREAD:
            self.refresh()
        now_us, entropy = self.now_us(), self.entropy(ENTROPY_SIZE)
        if session_id is None or trace_id is None:
            # A chain of its own gives the ids; its batch is thrown away.
            maker = Chain(_NIL_UUID, _NIL_UUID).begin(now_us, entropy)
            session_id = maker.new_id() if session_id is None else session_id
            trace_id = maker.new_id() if trace_id is None else trace_id
            entropy = self.entropy(ENTROPY_SIZE)
        check_uuid("session_id", session_id)
        check_uuid("trace_id", trace_id)
        # Of version 8 are few, so few have to be compared.
        if session_id[14] == "8" and session_id == administration_id(self.storage.tenant):
            raise InvalidRequest(f"session_id `{session_id}` is reserved for the record", pointer="/session_id")
        record = SessionRecord(
            session_id=session_id,
            agent_id=agent_id,
            goal=goal,
            trace_id=trace_id,
            started_us=now_us,
            parent_session_id=parent_session_id,
            context=json_object("context", context),
            metadata=json_object("metadata", metadata),
        )
        for _ in TRIES:
            snapshot = self.snapshot
            chain = Chain(session_id, trace_id)
            batch = chain.begin(now_us, entropy)
            batch.add("session.started", self._started(record, snapshot))
            try:
                self.storage.append(session_id, GENESIS_HASH, batch, Change(session=record, catalog=snapshot.catalog))
            except StaleCatalog:
                self.refresh()
                continue
            chain.advance(batch)
            self._keep(Live(record, chain))
            # Decisions go by the record that is kept, which nobody else holds.
            return record.apart()
        raise StaleCatalog(f"the stored atlases changed {MAX_ATTEMPTS} times in a row")

    def _started(self, record: SessionRecord, snapshot: Snapshot) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "agent_id": record.agent_id,
            "goal": record.goal,
            "atlases": [
                {"atlas_id": atlas.atlas_id, "version": atlas.version, "digest": atlas.digest}
                for atlas in snapshot.atlases
            ],
        }
        if record.parent_session_id is not None:
            payload["parent_session_id"] = record.parent_session_id
        if record.metadata:
            payload["metadata"] = record.metadata
        if record.context:
            kept = record.context if self.rules.capture else digest(record.context)
            payload["context" if self.rules.capture else "context_hash"] = kept
        if self.rules.max_context_tokens != DEFAULT_CONTEXT_TOKENS:
            # Of all settings the one that decisions depend on and no other event tells.
            payload["max_context_tokens"] = self.rules.max_context_tokens
        return payload

    def end_session(self, session_id: str, reason: str) -> SessionRecord:
        """End a session; raises `SessionEnded` when it has ended."""
        if reason not in _END_REASONS:
            raise InvalidRequest(f"reason is `{reason}`, expected one of {', '.join(_END_REASONS)}", pointer="/reason")
        live = self.live(session_id)
        with live.lock:

            def build(batch: EventBatch) -> tuple[Change, SessionRecord]:
                # The count that the store keeps is the one that every writer added to.
                record, _ = self.storage.load(session_id)
                check_active(record)
                ended = _ended(record, batch.now_us, reason)
                payload = {
                    "reason": reason,
                    "duration_ms": (batch.now_us - record.started_us) // 1000,
                    "action_count": record.action_count,
                }
                batch.add("session.ended", payload)
                return Change(session=ended), ended

            ended = self.commit_until_done(live, build)
            live.record = ended
        self.forget(session_id)
        return ended.apart()

    # Resolving

    def usage(self, snapshot: Snapshot, session: SessionRecord) -> dict[int, int] | None:
        """Return which of the snapshot's limits have no room for this session, without taking from any."""
        if not snapshot.limits:
            return None
        policies, claims = engine.peekable(snapshot, session.agent_id, session.session_id)
        return engine.usage_of(policies, self.storage.peek(claims, self.limits_now_us()))

    def resolve(self, session_id: str, ask: Ask, stale: CRAError | None = None) -> Decided:
        """Decide, record, answer; `stale` is what an attempt made before was refused for."""
        live = self.live(session_id)
        with live.lock:
            if stale is not None:
                self.renew(live, stale)
            for _ in TRIES:
                try:
                    decided, batch, change = self.decide(live, ask)
                except AtlasNotFound as missing:
                    # It may have been loaded elsewhere.
                    self.renew(live, missing)
                    continue
                if self.commit(live, batch, change):
                    return decided
        raise StaleHead(f"session `{session_id}`: the head moved {MAX_ATTEMPTS} times in a row")

    def decide(self, live: Live, ask: Ask) -> tuple[Decided, EventBatch, Change]:
        """Decide on a session's head, whose lock is held, and return what has to land before it is answered."""
        record = live.record
        check_active(record)
        snapshot = self.snapshot
        usage = self.usage(snapshot, record) if snapshot.limits else None
        batch = self.begin(live)
        decided = engine.resolve(snapshot, record, ask, batch, usage, self.rules)
        change = Change(resolution=decided.record, request_id=decided.resolution.request_id, catalog=snapshot.catalog)
        return decided, batch, change

    def preview(self, session_id: str, ask: Ask) -> tuple[Decided, bytes]:
        """Decide as `resolve` does, and write nothing; also return the events it would have written."""
        live = self.live(session_id)
        with live.lock:
            self.reload(live)
            check_active(live.record)
            self.freshen()
            snapshot = self.snapshot
            batch = self.begin(live)
            decided = engine.resolve(snapshot, live.record, ask, batch, self.usage(snapshot, live.record), self.rules)
            return decided, batch.data


def administration_id(tenant: str) -> str:
    """Return the id of the session that records a tenant's administration: the same in every process."""
    text = hexdigest(f"{RESERVED_AGENT_ID}:{tenant}".encode())
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:32]}"


_NIL_UUID = "00000000-0000-0000-0000-000000000000"
_HEX = frozenset("0123456789abcdef")


def check_uuid(name: str, value: object) -> None:
    """Raise `InvalidRequest` unless `value` is a UUID as CRA writes it."""
    if (
        not isinstance(value, str)
        or len(value) != 36
        or any((c != "-") if at in (8, 13, 18, 23) else (c not in _HEX) for at, c in enumerate(value))
    ):
        raise InvalidRequest(
            f"{name} is `{str(value)[:60]}`, expected a UUID of 36 lower-case characters", pointer=f"/{name}"
        )


def same_person(one: str, other: str) -> bool:
    """Say whether two names would be read as the same."""
    return one.strip().casefold() == other.strip().casefold()


def check_text(name: str, value: object, longest: int) -> str:
    """Return a bounded string as exactly that type, or raise `InvalidRequest`."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is `{type(value).__name__}`, expected a string", pointer=f"/{name}")
    if not 1 <= len(value) <= longest:
        raise InvalidRequest(f"{name} has {len(value)} characters, expected 1 to {longest}", pointer=f"/{name}")
    return value if type(value) is str else str(value)


def check_active(record: SessionRecord) -> None:
    """Raise `SessionEnded` when the session takes no more calls."""
    if record.status != "active":
        raise SessionEnded(f"session `{record.session_id}` has ended: {record.end_reason}", hint="create a new session")


def check_session_id(session_id: object) -> None:
    """Raise `SessionNotFound` for what cannot be the id of a session."""
    if not isinstance(session_id, str):
        raise SessionNotFound(f"session_id is `{type(session_id).__name__}`, expected a string")
    if not session_id.isascii():
        raise SessionNotFound(f"session `{session_id}` does not exist")


def json_object(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an own copy of a JSON object, or raise `InvalidRequest` or `NotCanonical`."""
    if value is None:
        return {}
    given: object = value
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{name} is `{type(given).__name__}`, expected an object", pointer=f"/{name}")
    # A copy through the canonical form: what is recorded is what decisions see, whoever holds the original.
    data = dumps(dict(given))
    check_integers(name, given, len(data))
    copied: dict[str, Any] = engine.parse_canonical(data)
    return copied


# Above this many digits readers of JSON, ours and Python's too, refuse an integer.
_MAX_INTEGER = 10**MAX_INTEGER_DIGITS


def check_integers(name: str, value: object, size: int) -> None:
    """Raise `InvalidRequest` for an integer in JSON data of `size` bytes that could not be read back."""
    if size <= MAX_INTEGER_DIGITS:
        return
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, int):
            if not -_MAX_INTEGER < item < _MAX_INTEGER:
                raise InvalidRequest(
                    f"{name}: an integer has more than {MAX_INTEGER_DIGITS} digits", pointer=f"/{name}"
                )
        elif isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)


def _ended(record: SessionRecord, now_us: int, reason: str) -> SessionRecord:
    return structs.replace(record, status="ended", ended_us=now_us, end_reason=reason)
