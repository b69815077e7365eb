"""Administration: what a tenant sets, each change one append to the tenant's own chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

from msgspec import structs

from cra._core.chain import Chain, EventBatch
from cra.atlas.package import Atlas
from cra.atlas.registry import Registry, check_unneeded
from cra.errors import (
    AtlasConflict,
    AtlasInvalid,
    AtlasNotFound,
    ConfigInvalid,
    InvalidRequest,
    SessionExists,
    SessionNotFound,
    StaleHead,
    StorageCorrupt,
    StorageError,
)
from cra.protocol.times import format_timestamp
from cra.protocol.trace import GENESIS_HASH
from cra.runtime import retention
from cra.runtime.catalog import ATLAS, Catalog
from cra.runtime.kernel import (
    ENTROPY_SIZE,
    MAX_ATTEMPTS,
    RESERVED_AGENT_ID,
    Kernel,
    Live,
    administration_id,
    check_text,
    json_object,
)
from cra.runtime.retention import Hold, RetentionPolicy
from cra.storage.base import Change, Document, DocumentWrite, Removal, SessionRecord

T = TypeVar("T")

HOLD = "hold"
RETENTION = "retention"
_POLICY = "policy"
# Kinds that are written by methods of their own, which check what they write.
_OWN_KINDS = (ATLAS, HOLD, RETENTION)
# Who purges when nobody says so.
RETENTION_ACTOR = "cra.retention"

# How many sessions go with one append.
_PURGED_AT_ONCE = 100
_LONGEST_REASON = 1000
_LONGEST_NAME = 255


class Administration:
    """A tenant's atlases, holds, retention and whatever else is set for it; safe to call from any thread.

    Each change is an event of the session `session_id`, and lands with what it is about or not at all. That session's
    head serialises all of them: what was read before a change is what it changes, in whichever process.
    """

    def __init__(self, kernel: Kernel, registry: Registry) -> None:
        self._kernel = kernel
        self._registry = registry
        self._opening = Lock()
        self._opened: Live | None = None

    @property
    def session_id(self) -> str:
        """The id of the session that records the tenant's administration, for `get_trace` and `verify_chain`."""
        return administration_id(self._kernel.storage.tenant)

    # The record

    def _append(self, build: Callable[[EventBatch], tuple[Change, T]]) -> T:
        """Append what `build` makes; it reads and decides anew for each head."""
        with self._opening:
            if self._opened is None:
                try:
                    self._opened = self._load()
                except SessionNotFound:
                    started = self._start(build)
                    if started is not None:
                        return started[0]
                    # Another process has started it at the same time, so that is the one.
                    self._opened = self._load()
            live = self._opened
        with live.lock:
            return self._kernel.commit_until_done(live, build)

    def _load(self) -> Live:
        record, head = self._kernel.storage.load(self.session_id)
        return Live(record, Chain(record.session_id, record.trace_id, head.sequence, head.hash, head.last_us))

    def _start(self, build: Callable[[EventBatch], tuple[Change, T]]) -> tuple[T] | None:
        """Start the session with its first change; None when there is one already."""
        kernel, session_id = self._kernel, self.session_id
        chain = Chain(session_id, session_id)
        batch = chain.begin(kernel.now_us(), kernel.entropy(ENTROPY_SIZE))
        record = SessionRecord(
            session_id=session_id,
            agent_id=RESERVED_AGENT_ID,
            goal=f"administration of tenant `{kernel.storage.tenant}`",
            trace_id=session_id,
            started_us=batch.now_us,
        )
        batch.add("session.started", {"agent_id": record.agent_id, "goal": record.goal, "atlases": []})
        change, value = build(batch)
        try:
            kernel.storage.append(session_id, GENESIS_HASH, batch, structs.replace(change, session=record))
        except SessionExists:
            return None
        chain.advance(batch)
        self._opened = Live(record, chain)
        kernel.watchers.tell(session_id)
        return (value,)

    # Documents

    def get(self, kind: str, name: str) -> Document | None:
        """Return a document as it is stored now."""
        return self._kernel.storage.document(kind, name)

    def all(self, kind: str) -> list[Document]:
        """Return the documents of a kind in the order in which they were first written."""
        return self._kernel.storage.documents(kind)

    def put(
        self,
        kind: str,
        name: str,
        body: bytes | None,
        event_type: str,
        payload: Mapping[str, Any],
        *,
        actor: str,
        check: Callable[[Document | None], object] | None = None,
    ) -> None:
        """Write a document, or remove it when there is no body, with the event that says so.

        `check` is called with the document as it is, for each head; what it raises is raised and nothing is written.
        """
        if kind in _OWN_KINDS:
            raise InvalidRequest(f"documents of kind `{kind}` are not put, they have methods of their own")
        actor = check_text("actor", actor, _LONGEST_NAME)
        told = {**json_object("payload", payload), "actor": actor}

        def build(batch: EventBatch) -> tuple[Change, None]:
            if check is not None:
                check(self.get(kind, name))
            batch.add(event_type, told)
            return Change(documents=(DocumentWrite(kind, name, body),)), None

        self._append(build)

    # Atlases

    @property
    def baseline(self) -> frozenset[str]:
        """The ids of the atlases that every tenant of this process has, and none can change."""
        return self._registry.baseline

    def atlases(self) -> tuple[Atlas, ...]:
        """Return the loaded atlases in load order: the baseline, then those that are stored now."""
        self._kernel.freshen()
        return self._kernel.snapshot.atlases

    def load_atlas(self, atlas: Atlas, *, replace: bool = False, actor: str) -> Atlas:
        """Store an atlas; every runtime on this store decides by it from its next call on.

        Raises `AtlasConflict` when one of that id is stored and `replace` is false, when it is one of the baseline, or
        when another atlas declares one of its actions; `AtlasInvalid` when a dependency would be missing.
        """
        from cra.atlas import loader

        catalog = self._catalog()
        actor = check_text("actor", actor, _LONGEST_NAME)
        if atlas.atlas_id in self._registry.baseline:
            raise AtlasConflict(
                f"atlas `{atlas.atlas_id}` is one of the baseline, which a tenant cannot replace",
                hint="give it another atlas_id",
            )
        body = loader.archive_of(atlas)
        # What every process will read has to be what is loaded here.
        if loader.load_archive(body, source=f"atlas {atlas.atlas_id}").digest != atlas.digest:
            raise AtlasInvalid(f"atlas `{atlas.atlas_id}` does not read back as it is written")

        def build(batch: EventBatch) -> tuple[Change, None]:
            documents = self.all(ATLAS)
            before = next((document for document in documents if document.name == atlas.atlas_id), None)
            if before is not None and not replace:
                raise AtlasConflict(
                    f"atlas `{atlas.atlas_id}` is stored already",
                    hint="load it with replace, or unload it first",
                )
            stored = [atlas if document is before else catalog.atlas_of(document) for document in documents]
            self._registry.check(stored if before is not None else [*stored, atlas])
            told: dict[str, Any] = {"actor": actor, **_name_of(atlas)}
            if before is not None:
                told["replaced"] = _name_of_document(catalog, before)
            batch.add("atlas.loaded", told)
            return Change(documents=(DocumentWrite(ATLAS, atlas.atlas_id, body),)), None

        self._append(build)
        self._refresh()
        return atlas

    def unload_atlas(self, atlas_id: str, *, actor: str) -> None:
        """Remove a stored atlas; no runtime on this store decides by it any more.

        Raises `AtlasNotFound`, or `AtlasConflict` when another one depends on it or it is one of the baseline.
        """
        catalog = self._catalog()
        actor = check_text("actor", actor, _LONGEST_NAME)

        def build(batch: EventBatch) -> tuple[Change, None]:
            documents = self.all(ATLAS)
            before = next((document for document in documents if document.name == atlas_id), None)
            if before is None:
                if atlas_id in self._registry.baseline:
                    raise AtlasConflict(f"atlas `{atlas_id}` is one of the baseline, which a tenant cannot unload")
                raise AtlasNotFound(f"atlas `{atlas_id}` is not loaded")
            others = []
            for document in documents:
                # One that cannot be read does not keep another one in.
                with suppress(StorageCorrupt):
                    if document is not before:
                        others.append(catalog.atlas_of(document))
            check_unneeded(atlas_id, others)
            batch.add("atlas.unloaded", {"actor": actor, **_name_of_document(catalog, before)})
            return Change(documents=(DocumentWrite(ATLAS, atlas_id, None),)), None

        self._append(build)
        self._refresh()

    def _catalog(self) -> Catalog:
        if self._kernel.catalog is None:
            raise ConfigInvalid(
                "stored_atlases is false, so no atlas that is stored would be decided by",
                pointer="/stored_atlases",
                hint="set stored_atlases, or load the atlas into the runtime itself",
            )
        return self._kernel.catalog

    def _refresh(self) -> None:
        # The change has landed; what is wrong with the store now, the next decision says.
        with suppress(StorageError):
            self._kernel.refresh()

    # Holds

    def place_hold(self, session_id: str, *, actor: str, reason: str) -> Hold:
        """Keep a session from being purged; a second time, for another reason. Raises `SessionNotFound`."""
        actor = check_text("actor", actor, _LONGEST_NAME)
        reason = check_text("reason", reason, _LONGEST_REASON)

        def build(batch: EventBatch) -> tuple[Change, Hold]:
            self._kernel.session(session_id)
            hold = Hold(session_id=session_id, actor=actor, reason=reason, placed_at=batch.timestamp)
            batch.add("hold.placed", {"actor": actor, "session_id": session_id, "reason": reason})
            return Change(documents=(DocumentWrite(HOLD, session_id, retention.body_of(hold)),)), hold

        return self._append(build)

    def release_hold(self, session_id: str, *, actor: str) -> None:
        """Let a session go when its time comes; raises `SessionNotFound` when it is not held."""
        actor = check_text("actor", actor, _LONGEST_NAME)

        def build(batch: EventBatch) -> tuple[Change, None]:
            if self.hold(session_id) is None:
                raise SessionNotFound(f"session `{session_id}` is not held")
            batch.add("hold.released", {"actor": actor, "session_id": session_id})
            return Change(documents=(DocumentWrite(HOLD, session_id, None),)), None

        self._append(build)

    def hold(self, session_id: str) -> Hold | None:
        """Return what holds a session; raises `SessionNotFound` for a session that does not exist."""
        self._kernel.session(session_id)
        found = self.get(HOLD, session_id)
        return None if found is None else retention.read_hold(found)

    def holds(self) -> list[Hold]:
        """Return the holds, oldest first."""
        return [retention.read_hold(document) for document in self.all(HOLD)]

    # Retention

    def retention(self) -> RetentionPolicy:
        """Return the policy that `purge` goes by: the tenant's own, or else the runtime's setting."""
        found = self.get(RETENTION, _POLICY)
        return (
            RetentionPolicy(keep_ended=self._kernel.config.retention) if found is None else retention.read_policy(found)
        )

    def set_retention(self, policy: RetentionPolicy | Mapping[str, Any], *, actor: str) -> RetentionPolicy:
        """Set how long ended sessions are kept; nothing is purged by that alone."""
        given = retention.policy_of(policy)
        actor = check_text("actor", actor, _LONGEST_NAME)

        def build(batch: EventBatch) -> tuple[Change, RetentionPolicy]:
            told = {"actor": actor, "policy": structs.asdict(given), "previous": structs.asdict(self.retention())}
            batch.add("retention.set", told)
            return Change(documents=(DocumentWrite(RETENTION, _POLICY, retention.body_of(given)),)), given

        return self._append(build)

    def purge(self, *, actor: str = RETENTION_ACTOR, now_us: int | None = None, limit: int | None = None) -> list[str]:
        """Remove the sessions that the policy lets go, at most `limit`, and return their ids.

        Only whole sessions that have ended and are not held, those that ended first before others. Each hundred is
        one append with an event for every session, so what is done stays done when this is interrupted.
        """
        return self._purge(self.retention, check_text("actor", actor, _LONGEST_NAME), now_us, limit)

    def retain(self) -> None:
        """Remove what the runtime's setting `retention` lets go, unless the tenant has a policy of its own."""
        keep = self._kernel.config.retention
        if keep is None or self._kernel.storage.ended_count() <= keep or self.get(RETENTION, _POLICY) is not None:
            return
        self._purge(self.retention, RETENTION_ACTOR, None, None)

    def _purge(
        self, policy_now: Callable[[], RetentionPolicy], actor: str, now_us: int | None, limit: int | None
    ) -> list[str]:
        kernel, purged = self._kernel, list[str]()
        left = 1 << 62 if limit is None else limit
        at_us = kernel.now_us() if now_us is None else now_us
        missed = 0

        def build(batch: EventBatch) -> tuple[Change, list[str]]:
            policy = policy_now()
            held = frozenset([document.name for document in self.all(HOLD)])
            due = retention.due(kernel.storage, policy, held, at_us, min(left, _PURGED_AT_ONCE))
            if not due:
                raise _Done
            gone = []
            for one in due:
                record, head = kernel.storage.load(one.record.session_id)
                gone.append(Removal(record.session_id, head.hash))
                told = {
                    "actor": actor,
                    "session_id": record.session_id,
                    "agent_id": record.agent_id,
                    "ended_at": format_timestamp(record.ended_us or 0),
                    "events": head.sequence,
                    "head_hash": head.hash,
                    "reason": one.rule,
                    "policy": structs.asdict(policy),
                }
                batch.add("session.purged", told)
            return Change(purge=tuple(gone)), [one.session_id for one in gone]

        while left > 0:
            try:
                ids = self._append(build)
            except _Done:
                break
            except SessionNotFound:
                # Another process has purged it since it was listed.
                missed += 1
                if missed == MAX_ATTEMPTS:
                    raise StaleHead(f"sessions to purge were gone {missed} times in a row") from None
                continue
            for session_id in ids:
                kernel.forget(session_id)
            purged += ids
            left -= len(ids)
        return purged


class _Done(Exception):
    """There is nothing to purge any more."""


def _name_of(atlas: Atlas) -> dict[str, Any]:
    return {"atlas_id": atlas.atlas_id, "version": atlas.version, "digest": atlas.digest}


def _name_of_document(catalog: Catalog, document: Document) -> dict[str, Any]:
    """Return what a stored atlas is called; one that cannot be read has only its id."""
    try:
        return _name_of(catalog.atlas_of(document))
    except StorageCorrupt:
        return {"atlas_id": document.name}
