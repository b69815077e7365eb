"""The parts of an asynchronous runtime: those of a synchronous one, awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, ParamSpec, Protocol, TypeVar

from cra.atlas.package import Atlas
from cra.runtime import approvals as waits
from cra.runtime.administration import RETENTION_ACTOR, Administration
from cra.runtime.approvals import Approvals, Records, Status, check_wait
from cra.runtime.kernel import Kernel
from cra.runtime.retention import Hold, RetentionPolicy
from cra.storage.base import ApprovalRecord, Document

P = ParamSpec("P")
T = TypeVar("T")


class Off(Protocol):
    """Calls a function where it may wait for the store."""

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


class AsyncApprovals:
    """`Approvals`, awaited."""

    def __init__(self, kernel: Kernel, off: Off) -> None:
        self._kernel = kernel
        self._off = off
        self._approvals = Approvals(kernel)

    async def list(
        self,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        status: Status | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Records:
        """Return approvals, oldest first; see `Approvals.list`."""
        return await self._off(
            self._approvals.list, session_id=session_id, agent_id=agent_id, status=status, after=after, limit=limit
        )

    async def get(self, approval_id: str) -> ApprovalRecord:
        """Return one approval; raises `ApprovalNotFound`."""
        return await self._off(self._approvals.get, approval_id)

    async def wait(self, approval_id: str, seconds: float) -> ApprovalRecord:
        """Return an approval as soon as it is decided; see `Approvals.wait`. No thread is held while it waits."""
        end = time.monotonic() + check_wait(seconds)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(changed.set)

        record = await self.get(approval_id)
        with self._kernel.watchers.add(record.session_id, tell):
            while True:
                changed.clear()
                record = await self.get(approval_id)
                left = end - time.monotonic()
                if left <= 0 or self._approvals.is_settled(record):
                    return record
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), min(left, waits.POLL_SECONDS))

    async def grant(self, approval_id: str, *, approver: str, reason: str | None = None) -> ApprovalRecord:
        """Record that `approver` agrees; see `Approvals.grant`."""
        return await self._off(self._approvals.grant, approval_id, approver=approver, reason=reason)

    async def reject(self, approval_id: str, *, approver: str, reason: str | None = None) -> ApprovalRecord:
        """Record that `approver` does not agree; see `Approvals.reject`."""
        return await self._off(self._approvals.reject, approval_id, approver=approver, reason=reason)

    async def expire(self) -> Records:
        """Record the expiry of every open approval whose time is over; returns those."""
        return await self._off(self._approvals.expire)


class AsyncAdministration:
    """`Administration`, awaited."""

    def __init__(self, administration: Administration, off: Off) -> None:
        self._administration = administration
        self._off = off

    @property
    def session_id(self) -> str:
        """The id of the session that records the tenant's administration."""
        return self._administration.session_id

    @property
    def baseline(self) -> frozenset[str]:
        """The ids of the atlases that every tenant of this process has, and none can change."""
        return self._administration.baseline

    async def get(self, kind: str, name: str) -> Document | None:
        """Return a document as it is stored now."""
        return await self._off(self._administration.get, kind, name)

    async def all(self, kind: str) -> list[Document]:
        """Return the documents of a kind in the order in which they were first written."""
        return await self._off(self._administration.all, kind)

    async def put(
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
        """Write or remove a document with the event that says so; see `Administration.put`."""
        await self._off(self._administration.put, kind, name, body, event_type, payload, actor=actor, check=check)

    async def atlases(self) -> tuple[Atlas, ...]:
        """Return the loaded atlases in load order: the baseline, then those that are stored now."""
        return await self._off(self._administration.atlases)

    async def load_atlas(self, atlas: Atlas, *, replace: bool = False, actor: str) -> Atlas:
        """Store an atlas; see `Administration.load_atlas`."""
        return await self._off(self._administration.load_atlas, atlas, replace=replace, actor=actor)

    async def unload_atlas(self, atlas_id: str, *, actor: str) -> None:
        """Remove a stored atlas; see `Administration.unload_atlas`."""
        await self._off(self._administration.unload_atlas, atlas_id, actor=actor)

    async def place_hold(self, session_id: str, *, actor: str, reason: str) -> Hold:
        """Keep a session from being purged; see `Administration.place_hold`."""
        return await self._off(self._administration.place_hold, session_id, actor=actor, reason=reason)

    async def release_hold(self, session_id: str, *, actor: str) -> None:
        """Let a session go when its time comes; see `Administration.release_hold`."""
        await self._off(self._administration.release_hold, session_id, actor=actor)

    async def hold(self, session_id: str) -> Hold | None:
        """Return what holds a session; raises `SessionNotFound` for a session that does not exist."""
        return await self._off(self._administration.hold, session_id)

    async def holds(self) -> list[Hold]:
        """Return the holds, oldest first."""
        return await self._off(self._administration.holds)

    async def retention(self) -> RetentionPolicy:
        """Return the policy that `purge` goes by."""
        return await self._off(self._administration.retention)

    async def set_retention(self, policy: RetentionPolicy | Mapping[str, Any], *, actor: str) -> RetentionPolicy:
        """Set how long ended sessions are kept; see `Administration.set_retention`."""
        return await self._off(self._administration.set_retention, policy, actor=actor)

    async def purge(
        self, *, actor: str = RETENTION_ACTOR, now_us: int | None = None, limit: int | None = None
    ) -> list[str]:
        """Remove the sessions that the policy lets go; see `Administration.purge`."""
        return await self._off(self._administration.purge, actor=actor, now_us=now_us, limit=limit)
