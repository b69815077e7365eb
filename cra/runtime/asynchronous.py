"""AsyncCRARuntime: the runtime for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

from cra.protocol.carp import Operation, Request, Resolution
from cra.protocol.fields import RiskTier
from cra.protocol.trace import ChainVerification, Trace
from cra.runtime import engine
from cra.runtime._base import RuntimeBase, Simulation, verify_trace
from cra.runtime.awaited import AsyncAdministration, AsyncApprovals
from cra.runtime.calls import Ending, Order, Permit, response_bytes
from cra.runtime.config import RuntimeConfig
from cra.runtime.executors import Late, WorkerThreads
from cra.runtime.lane import Lane
from cra.storage.base import SessionRecord

# How long an executor that is cancelled may take to clear up.
_LEAVE_SECONDS = 1.0


class AsyncCRARuntime(RuntimeBase):
    """Decide, record and execute, in this process; the methods of `CRARuntime`, awaited.

    Decisions are made on the loop, where they take microseconds. What a store that waits for a disk has to read or
    write for them is done in threads.
    """

    def __init__(self, config: RuntimeConfig | None = None) -> None:
        super().__init__(config)
        self._workers = WorkerThreads(self.config.executor_threads)
        self._lane = Lane(self._kernel, self._execution)
        self._off = self._lane.off
        self.approvals = AsyncApprovals(self._kernel, self._off)
        self.administration = AsyncAdministration(self._administration, self._off)

    async def __aenter__(self) -> AsyncCRARuntime:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Release the store; safe to call twice."""
        self._lane.hand_over()
        await self._off(self._kernel.storage.close)
        self._lane.close()

    # Sessions

    async def create_session(
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
        """Start a session; see `CRARuntime.create_session`."""
        return await self._off(
            self._kernel.create_session,
            agent_id,
            goal,
            session_id=session_id,
            trace_id=trace_id,
            parent_session_id=parent_session_id,
            context=context,
            metadata=metadata,
        )

    async def get_session(self, session_id: str) -> SessionRecord:
        """Return a session as the store has it; raises `SessionNotFound`."""
        return await self._off(self._kernel.session, session_id)

    async def list_sessions(
        self,
        *,
        agent_id: str | None = None,
        status: Literal["active", "ended"] | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[SessionRecord]:
        """Return up to `limit` sessions in the order of their ids, starting behind the id `after`."""
        return await self._off(
            self._kernel.storage.sessions, agent_id=agent_id, status=status, after=after, limit=limit
        )

    async def end_session(
        self, session_id: str, reason: Literal["completed", "timeout", "error", "cancelled"] = "completed"
    ) -> SessionRecord:
        """End a session; it takes no more calls."""
        return await self._off(self._end_session, session_id, reason)

    # Deciding

    async def resolve(
        self,
        session_id: str,
        request: Request | Mapping[str, Any] | str,
        *,
        risk_tier: RiskTier | str = "low",
        context_hints: Iterable[str] = (),
        required_capabilities: Iterable[str] = (),
        atlas_ids: Iterable[str] = (),
        context: Mapping[str, Any] | None = None,
    ) -> Resolution:
        """Answer what the session may know and do; see `CRARuntime.resolve`."""
        live = await self._lane.live(session_id)
        ask = self._ask(live.record, request, risk_tier, context_hints, required_capabilities, atlas_ids, context)
        return (await self._lane.resolve(live, ask)).resolution

    async def execute(
        self,
        session_id: str,
        action_id: str,
        parameters: dict[str, Any],
        resolution_id: str | None = None,
        *,
        idempotency_key: str | None = None,
        approval_id: str | None = None,
        actor: str | None = None,
    ) -> Any:
        """Run an action if policy allows it, and return its result; see `CRARuntime.execute`."""
        order = Order(
            session_id=session_id,
            action_id=action_id,
            parameters=parameters,
            resolution_id=resolution_id,
            idempotency_key=idempotency_key,
            approval_id=approval_id,
            actor=actor,
        )
        return (await self._execute(order)).value()

    async def _execute(self, order: Order) -> Ending:
        begun = await self._lane.begin(order)
        return await self._run(begun) if isinstance(begun, Permit) else begun

    async def _run(self, permit: Permit) -> Ending:
        execution = self._execution
        try:
            result = await self._call(permit)
        except Late:
            outcome = execution.late(permit)
        except Exception as error:
            outcome = execution.failed(permit, "executor_error", f"{type(error).__name__}: {error}", cause=error)
        except BaseException:
            # The task is being cancelled; what was begun still gets its outcome.
            await self._lane.finish(permit, execution.failed(permit, "cancelled", "the caller was interrupted"))
            raise
        else:
            outcome = execution.returned(permit, result)
        return await self._lane.finish(permit, outcome)

    async def _call(self, permit: Permit) -> Any:
        executor = permit.executor
        arguments = permit.arguments()
        if executor.is_async:
            step = asyncio.ensure_future(executor.function(*arguments))
        elif executor.inline:
            return executor.function(*arguments)
        else:
            step = asyncio.wrap_future(self._workers.submit(executor.function, *arguments))
        try:
            await asyncio.wait({step}, timeout=permit.timeout_seconds)
            if step.done():
                return step.result()
        finally:
            if not step.done():
                await _leave(step)
        raise Late

    # The wire

    async def handle(self, request: Request | bytes | str | Mapping[str, Any], *, actor: str | None = None) -> bytes:
        """Answer a CARP request with the canonical JSON of its response; see `CRARuntime.handle`."""
        carp = self._request(request)
        live = await self._lane.live(carp.requester.session_id)
        self._check(live.record, carp)
        if carp.operation is Operation.RESOLVE:
            return (await self._lane.resolve(live, engine.ask_of(carp))).canonical
        return response_bytes((await self._execute(self._order_of(carp, actor))).response())

    async def simulate(
        self,
        session_id: str,
        request: Request | Mapping[str, Any] | str | None = None,
        *,
        action_id: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        risk_tier: RiskTier | str = "low",
        context_hints: Iterable[str] = (),
        required_capabilities: Iterable[str] = (),
        atlas_ids: Iterable[str] = (),
        context: Mapping[str, Any] | None = None,
    ) -> Simulation:
        """Answer as `resolve` or `execute` would, and do nothing; see `CRARuntime.simulate`."""
        return await self._off(
            self._simulate,
            session_id,
            request,
            action_id,
            parameters,
            risk_tier,
            context_hints,
            required_capabilities,
            atlas_ids,
            context,
        )

    # The record

    async def get_trace(self, session_id: str, first: int = 0, count: int | None = None) -> Trace:
        """Return the session's events from sequence `first`, as they are stored."""
        return Trace(await self._off(self._kernel.events, session_id, first, count))

    async def verify_chain(self, session_id: str) -> ChainVerification:
        """Verify a session's chain over the stored bytes."""
        return verify_trace(await self._off(self._kernel.events, session_id))


# Executors that did not let themselves be cancelled, so that they are not collected while they run.
_left: set[asyncio.Future[Any]] = set()


async def _leave(step: asyncio.Future[Any]) -> None:
    """Cancel an executor, give it a moment to clear up, and leave behind one that goes on."""
    step.cancel()
    _left.add(step)
    step.add_done_callback(_forget)
    await asyncio.wait({step}, timeout=_LEAVE_SECONDS)


def _forget(step: asyncio.Future[Any]) -> None:
    _left.discard(step)
    if not step.cancelled():
        # Nobody asks for it any more, which asyncio would complain about.
        step.exception()
