"""Faults: a store that fails when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, Literal

from cra._core.chain import EventBatch
from cra.errors import StorageError
from cra.storage.base import (
    ApprovalRecord,
    Change,
    Claim,
    Head,
    IdempotencyRecord,
    ResolutionRecord,
    SessionRecord,
    Storage,
)

When = Literal["before", "after"]


class FaultyStorage:
    """A store around another one; `fail` makes a write to come raise.

    Failing `before` is a full disk or a lost connection: nothing was written. Failing `after` is a lost answer: the
    write has landed and nobody knows.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.writes = 0
        self.failures = 0
        self._lock = Lock()
        self._plan: dict[int, tuple[When, Exception]] = {}
        self._always: tuple[When, Exception] | None = None

    def fail(self, when: When, *, nth: int = 1, error: Exception | None = None) -> None:
        """Make the `nth` write from now fail, once."""
        with self._lock:
            self._plan[self.writes + nth] = (when, error or StorageError("the fault that the test asked for"))

    def fail_always(self, when: When, *, error: Exception | None = None) -> None:
        """Make every write fail until `heal`."""
        self._always = (when, error or StorageError("the fault that the test asked for"))

    def heal(self) -> None:
        """Forget every fault that has not happened yet."""
        with self._lock:
            self._always = None
            self._plan.clear()

    def _write(self, write: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            self.writes += 1
            fault = self._plan.pop(self.writes, self._always)
            self.failures += fault is not None
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
    def durability(self) -> str:
        """The durability of the store inside."""
        return self.inner.durability

    @property
    def blocking(self) -> bool:
        """Whether the store inside waits for I/O."""
        return self.inner.blocking

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        self._write(self.inner.append, session_id, expected_head, batch, change)

    def purge(self, session_id: str) -> None:
        self._write(self.inner.purge, session_id)

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

    def approvals(self, *, session_id: str | None = None, status: str | None = None) -> list[ApprovalRecord]:
        return self.inner.approvals(session_id=session_id, status=status)

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        return self.inner.peek(claims, now_us)

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        return self.inner.events(session_id, first, count)

    def sessions(
        self, *, agent_id: str | None = None, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[SessionRecord]:
        return self.inner.sessions(agent_id=agent_id, status=status, after=after, limit=limit)

    def close(self) -> None:
        self.inner.close()
