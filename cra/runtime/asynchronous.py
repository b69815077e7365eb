"""AsyncCRARuntime: the runtime for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from cra.protocol.carp import Operation, Request, Resolution
from cra.protocol.fields import RiskTier
from cra.protocol.trace import ChainVerification, Trace
from cra.runtime import engine
from cra.runtime._base import RuntimeBase, Simulation, verify_trace
from cra.runtime.awaited import AsyncAdministration, AsyncApprovals
from cra.runtime.calls import Ending, Order, Permit, response_bytes
from cra.runtime.config import RuntimeConfig
from cra.runtime.engine import Decided
from cra.runtime.executors import WorkerThreads
from cra.storage.base import SessionRecord

_STORE_THREADS = 64

P = ParamSpec("P")
T = TypeVar("T")


class AsyncCRARuntime(RuntimeBase):
    """Decide, record and execute, in this process; the methods of `CRARuntime`, awaited.

    With a store that does not block, decisions are made on the loop, where they take microseconds; with one that
    does, in threads.
    """

    def __init__(self, config: RuntimeConfig | None = None) -> None:
        super().__init__(config)
        self._workers = WorkerThreads(self.config.executor_threads)
        self._threads: ThreadPoolExecutor | None = None
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
        await self._off(self._kernel.storage.close)
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def _off(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a kernel method where it may wait."""
        if not self._kernel.storage.blocking:
            return function(*args, **kwargs)
        step = self._start(function, *args, **kwargs)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            # Cancelling the caller does not undo what the store has been told, so the step always finishes first.
            await _settled(step)
            raise

    def _start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        # PERF: threads of its own, many: all that wait at once are written at once, and the loop's default has six
        # on a small machine.
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="cra-storage")
        call = partial(copy_context().run, partial(function, *args, **kwargs))
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

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
        decided = await self._off(
            self._resolve, session_id, request, risk_tier, context_hints, required_capabilities, atlas_ids, context
        )
        return decided.resolution

    def _resolve(self, session_id: str, request: Request | Mapping[str, Any] | str, *more: Any) -> Decided:
        live = self._kernel.live(session_id)
        return self._kernel.resolve(session_id, self._ask(live.record, request, *more))

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
        return await self._go(self._execution.begin, order)

    async def _go(self, begin: Callable[P, Permit | Ending], *args: P.args, **kwargs: P.kwargs) -> Ending:
        """Begin a call and see it to its end."""
        blocking = self._kernel.storage.blocking
        begun = await self._begin(begin, *args, **kwargs) if blocking else begin(*args, **kwargs)
        return await self._run(begun) if isinstance(begun, Permit) else begun

    async def _begin(self, begin: Callable[P, Permit | Ending], *args: P.args, **kwargs: P.kwargs) -> Permit | Ending:
        step = self._start(begin, *args, **kwargs)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            # The intent may have landed meanwhile; it gets its outcome, which is that nothing was run.
            await _settled(step)
            if step.exception() is None and isinstance(permit := step.result(), Permit):
                await self._off(self._execution.fail, permit, "cancelled", "the caller was interrupted before it ran")
            raise

    async def _run(self, permit: Permit) -> Ending:
        execution = self._execution
        try:
            # The deadline's own TimeoutError is told from one that the executor raises.
            async with asyncio.timeout(permit.timeout_seconds) as deadline:
                result = await self._call(permit)
        except TimeoutError as error:
            if not deadline.expired():
                return await self._off(
                    execution.fail, permit, "executor_error", f"{type(error).__name__}: {error}", cause=error
                )
            return await self._off(
                execution.fail,
                permit,
                "timeout",
                f"no answer within {permit.timeout_seconds} s; whether it took effect is unknown",
            )
        except Exception as error:
            return await self._off(
                execution.fail, permit, "executor_error", f"{type(error).__name__}: {error}", cause=error
            )
        except BaseException:
            # The task is being cancelled; what was begun still gets its outcome.
            await self._off(execution.fail, permit, "cancelled", "the caller was interrupted")
            raise
        return await self._off(execution.succeed, permit, result)

    async def _call(self, permit: Permit) -> Any:
        executor = permit.executor
        arguments = permit.arguments()
        if executor.is_async:
            return await executor.function(*arguments)
        if executor.inline:
            return executor.function(*arguments)
        return await asyncio.wrap_future(self._workers.submit(executor.function, *arguments))

    # The wire

    async def handle(self, request: Request | bytes | str | Mapping[str, Any], *, actor: str | None = None) -> bytes:
        """Answer a CARP request with the canonical JSON of its response; see `CRARuntime.handle`."""
        carp = self._request(request)
        # PERF: all that may wait for the store is one step, because a step in a thread costs 100 us of two processors.
        if carp.operation is Operation.RESOLVE:
            return (await self._off(self._answer, carp)).canonical
        return response_bytes((await self._go(self._permit, carp, actor)).response())

    def _answer(self, request: Request) -> Decided:
        live = self._kernel.live(request.requester.session_id)
        self._check(live.record, request)
        return self._kernel.resolve(live.record.session_id, engine.ask_of(request))

    def _permit(self, request: Request, actor: str | None) -> Permit | Ending:
        self._check(self._kernel.live(request.requester.session_id).record, request)
        return self._execution.begin(self._order_of(request, actor))

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


async def _settled(step: asyncio.Future[Any]) -> None:
    """Wait until a step is over, however often the caller is cancelled."""
    while not step.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({step})
