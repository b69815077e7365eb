"""CRARuntime: the runtime for synchronous code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

from cra.protocol.carp import Operation, Request, Resolution
from cra.protocol.fields import RiskTier
from cra.protocol.trace import ChainVerification, Trace
from cra.runtime._base import RuntimeBase, Simulation, verify_trace
from cra.runtime.approvals import Approvals
from cra.runtime.calls import Ending, Order, Permit, response_bytes
from cra.runtime.config import RuntimeConfig
from cra.runtime.engine import Ask
from cra.runtime.executors import Late, LoopThread, WorkerThreads
from cra.runtime.kernel import LONGEST_GOAL
from cra.storage.base import SessionRecord


class CRARuntime(RuntimeBase):
    """Decide, record and execute, in this process; safe to call from any thread.

    Use it as a context manager, or call `close`, so that the store is released.
    """

    def __init__(self, config: RuntimeConfig | None = None) -> None:
        super().__init__(config)
        self.approvals = Approvals(self._kernel)
        self.administration = self._administration
        self._workers = WorkerThreads(self.config.executor_threads)
        self._loop = LoopThread()

    def __enter__(self) -> CRARuntime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the store and stop the executors' event loop; safe to call twice."""
        self._loop.close()
        self._kernel.storage.close()

    # Sessions

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
        """Start a session.

        `context` is what the host knows (environment, tenant plan, ...); in conditions it wins over whatever a
        request claims. `metadata` is only recorded.
        """
        return self._kernel.create_session(
            agent_id,
            goal,
            session_id=session_id,
            trace_id=trace_id,
            parent_session_id=parent_session_id,
            context=context,
            metadata=metadata,
        )

    def get_session(self, session_id: str) -> SessionRecord:
        """Return a session as the store has it; raises `SessionNotFound`."""
        return self._kernel.session(session_id)

    def list_sessions(
        self,
        *,
        agent_id: str | None = None,
        status: Literal["active", "ended"] | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[SessionRecord]:
        """Return up to `limit` sessions in the order of their ids, starting behind the id `after`."""
        return self._kernel.storage.sessions(agent_id=agent_id, status=status, after=after, limit=limit)

    def end_session(
        self, session_id: str, reason: Literal["completed", "timeout", "error", "cancelled"] = "completed"
    ) -> SessionRecord:
        """End a session; it takes no more calls."""
        return self._end_session(session_id, reason)

    # Deciding

    def resolve(
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
        """Answer what the session may know and do for a goal (text), or for a whole CARP request.

        The keywords go with a goal; a request carries its own.
        """
        kernel = self._kernel
        if (
            type(request) is str
            and 1 <= len(request) <= LONGEST_GOAL
            and risk_tier == "low"
            and not (context_hints or required_capabilities or atlas_ids)
            and context is None
        ):
            # PERF: nothing to check against the session, 0.4 us of 10.
            return kernel.resolve(session_id, Ask(request)).resolution
        ask = self._ask(
            kernel.live(session_id).record,
            request,
            risk_tier,
            context_hints,
            required_capabilities,
            atlas_ids,
            context,
        )
        return kernel.resolve(session_id, ask).resolution

    def execute(
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
        """Run an action if policy allows it, and return its result.

        Without `resolution_id` the session's newest unexpired resolution that offers the action counts. `actor` is who
        makes the call, if that is known; they cannot approve it. Raises
        `ActionDenied` (`InvalidParameters`, `LimitExceeded`), `ApprovalRequired`, `ActionFailed` (`ActionTimeout`),
        `ResolutionRequired`, `ResolutionExpired`, `ExecutorMissing`, `IdempotencyConflict`, `ApprovalConflict`.
        """
        order = Order(
            session_id=session_id,
            action_id=action_id,
            parameters=parameters,
            resolution_id=resolution_id,
            idempotency_key=idempotency_key,
            approval_id=approval_id,
            actor=actor,
        )
        return self._execute(order).value()

    def _execute(self, order: Order) -> Ending:
        begun = self._execution.begin(order)
        return self._run(begun) if isinstance(begun, Permit) else begun

    def _run(self, permit: Permit) -> Ending:
        executor, execution = permit.executor, self._execution
        try:
            if executor.plain:
                result = executor.function(permit.call.parameters)
            elif executor.inline and not executor.is_async:
                result = executor.function(*permit.arguments())
            else:
                result = self._wait(permit, permit.arguments())
        except Late:
            return execution.finish(permit, execution.late(permit))
        except Exception as error:
            return execution.fail(permit, "executor_error", f"{type(error).__name__}: {error}", cause=error)
        except BaseException:
            # The process is being stopped; what was begun still gets its outcome.
            execution.fail(permit, "cancelled", "the caller was interrupted")
            raise
        return execution.finish(permit, execution.returned(permit, result))

    def _wait(self, permit: Permit, arguments: tuple[Any, ...]) -> Any:
        """Run an executor elsewhere and wait for it until its deadline."""
        executor = permit.executor
        if executor.is_async:
            future = self._loop.submit(executor.function(*arguments))
        else:
            future = self._workers.submit(executor.function, *arguments)
        try:
            return future.result(permit.timeout_seconds)
        except TimeoutError:
            # An executor may raise TimeoutError itself, or end just now; only ours leaves the future unfinished.
            if future.done():
                return future.result()
            future.cancel()
            raise Late from None

    # The wire

    def handle(self, request: Request | bytes | str | Mapping[str, Any], *, actor: str | None = None) -> bytes:
        """Answer a CARP request with the canonical JSON of its response.

        A denial, a pending approval or a failed action is an answer, not an exception; what is wrong with the
        request itself, and a record that cannot be written, are raised. `actor` as in `execute`.
        """
        carp = self._request(request)
        if carp.operation is Operation.RESOLVE:
            return self._answer_here(carp).canonical
        self._check(self._kernel.live(carp.requester.session_id).record, carp)
        return response_bytes(self._execute(self._order_of(carp, actor)).response())

    def simulate(
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
        """Answer as `resolve` (with a request or goal) or `execute` (with an `action_id`) would, and do nothing.

        Nothing is consumed, executed or written. A call is judged by the session's resolutions, as execute does.
        """
        return self._simulate(
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

    def get_trace(self, session_id: str, first: int = 0, count: int | None = None) -> Trace:
        """Return the session's events from sequence `first`, as they are stored."""
        return Trace(self._kernel.events(session_id, first, count))

    def verify_chain(self, session_id: str) -> ChainVerification:
        """Verify a session's chain over the stored bytes."""
        return verify_trace(self._kernel.events(session_id))
