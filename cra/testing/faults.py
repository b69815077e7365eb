"""Faults: a store that fails when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import Any, Literal

from cra._core.chain import EventBatch
from cra.errors import StorageError
from cra.storage.base import (
    AppendSoon,
    ApprovalRecord,
    Change,
    Claim,
    CounterRecord,
    Document,
    Done,
    Head,
    IdempotencyRecord,
    Pending,
    ResolutionRecord,
    SessionDump,
    SessionRecord,
    Storage,
)

When = Literal["before", "after"]


class _Plan:
    """What fails, in every tenant's part of the store."""

    def __init__(self) -> None:
        self.writes = 0
        self.failures = 0
        self.lock = Lock()
        self.nth: dict[int, tuple[When, Exception]] = {}
        self.always: tuple[When, Exception] | None = None


class _Failed:
    """An append that has failed already."""

    timeout_seconds = 0.0

    def give_up(self) -> None:
        return


class FaultyStorage:
    """A store around another one; `fail` makes a write to come raise.

    Failing `before` is a full disk or a lost connection: nothing was written. Failing `after` is a lost answer: the
    write has landed and nobody knows. Writes are counted and fail in all tenants' parts of the store together.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self._plan = _Plan()

    @property
    def writes(self) -> int:
        """How many writes there have been."""
        return self._plan.writes

    @property
    def failures(self) -> int:
        """How many of them failed."""
        return self._plan.failures

    def fail(self, when: When, *, nth: int = 1, error: Exception | None = None) -> None:
        """Make the `nth` write from now fail, once."""
        plan = self._plan
        with plan.lock:
            plan.nth[plan.writes + nth] = (when, error or StorageError("the fault that the test asked for"))

    def fail_always(self, when: When, *, error: Exception | None = None) -> None:
        """Make every write fail until `heal`."""
        self._plan.always = (when, error or StorageError("the fault that the test asked for"))

    def heal(self) -> None:
        """Forget every fault that has not happened yet."""
        plan = self._plan
        with plan.lock:
            plan.always = None
            plan.nth.clear()

    def _next(self) -> tuple[When, Exception] | None:
        """Count a write, and return how it fails."""
        plan = self._plan
        with plan.lock:
            plan.writes += 1
            fault = plan.nth.pop(plan.writes, plan.always)
            plan.failures += fault is not None
        return fault

    def _write(self, write: Callable[..., None], *arguments: Any) -> None:
        fault = self._next()
        if fault is None:
            write(*arguments)
            return
        when, error = fault
        if when == "after":
            write(*arguments)
        raise error

    @property
    def name(self) -> str:
        """The name of the store inside."""
        return self.inner.name

    @property
    def tenant(self) -> str:
        """The tenant of the store inside."""
        return self.inner.tenant

    def of_tenant(self, tenant: str) -> FaultyStorage:
        """Return another tenant's part, which fails with this one."""
        made = FaultyStorage(self.inner.of_tenant(tenant))
        made._plan = self._plan
        return made

    def tenants(self) -> list[str]:
        return self.inner.tenants()

    @property
    def durability(self) -> str:
        """The durability of the store inside."""
        return self.inner.durability

    @property
    def blocking(self) -> bool:
        """Whether the store inside waits for I/O."""
        return self.inner.blocking

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        self._write(self.inner.append, session_id, expected_head, batch, change)

    @property
    def append_soon(self) -> AppendSoon | None:
        """That of the store inside, which fails as its `append` does."""
        return None if self.inner.append_soon is None else self._append_soon

    def _append_soon(
        self, session_id: str, expected_head: str, batch: EventBatch, change: Change, done: Done
    ) -> Pending:
        queue = self.inner.append_soon
        assert queue is not None
        fault = self._next()
        if fault is None:
            return queue(session_id, expected_head, batch, change, done)
        when, failure = fault
        if when == "after":
            return queue(session_id, expected_head, batch, change, lambda error: done(error or failure))
        done(failure)
        return _Failed()

    def restore(self, dump: SessionDump) -> None:
        self._write(self.inner.restore, dump)

    def kinds(self) -> list[str]:
        return self.inner.kinds()

    def restore_documents(self, documents: Iterable[Document], revisions: Mapping[str, int]) -> None:
        self._write(self.inner.restore_documents, documents, revisions)

    def restore_counters(self, counters: Iterable[CounterRecord]) -> None:
        self._write(self.inner.restore_counters, counters)

    def probe(self) -> None:
        self._write(self.inner.probe)

    def load(self, session_id: str) -> tuple[SessionRecord, Head]:
        return self.inner.load(session_id)

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None:
        return self.inner.resolution(session_id, resolution_id)

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        return self.inner.latest_resolution(session_id, action_id, now_us)

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None:
        return self.inner.idempotency(session_id, key)

    def approval(self, approval_id: str) -> ApprovalRecord | None:
        return self.inner.approval(approval_id)

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
        return self.inner.approvals(
            session_id=session_id,
            agent_id=agent_id,
            parameters_hash=parameters_hash,
            status=status,
            after=after,
            limit=limit,
        )

    def waiting(self, session_id: str, now_us: int) -> int:
        return self.inner.waiting(session_id, now_us)

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        return self.inner.peek(claims, now_us)

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        return self.inner.events(session_id, first, count)

    def sessions(
        self, *, agent_id: str | None = None, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[SessionRecord]:
        return self.inner.sessions(agent_id=agent_id, status=status, after=after, limit=limit)

    def ended(self, *, before_us: int | None = None, after: str | None = None, limit: int = 100) -> list[SessionRecord]:
        return self.inner.ended(before_us=before_us, after=after, limit=limit)

    def ended_count(self) -> int:
        return self.inner.ended_count()

    def document(self, kind: str, name: str) -> Document | None:
        return self.inner.document(kind, name)

    def documents(self, kind: str) -> list[Document]:
        return self.inner.documents(kind)

    def revision(self, kind: str) -> int:
        return self.inner.revision(kind)

    def dump(self, session_id: str) -> SessionDump:
        return self.inner.dump(session_id)

    def counters(self) -> Iterator[CounterRecord]:
        return self.inner.counters()

    def close(self) -> None:
        self.inner.close()
