"""Calls: an execute as it comes in, the permit to run it, and how it ended."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct, structs

from cra._core.calls import Call
from cra._core.canonical import dumps
from cra.atlas.snapshot import BoundAction
from cra.errors import ActionFailed, ActionTimeout, CRAError
from cra.protocol.carp import ExecuteError, ExecuteResponse, ExecuteStatus
from cra.runtime.engine import parse_canonical
from cra.runtime.executors import ExecutionContext, Executor
from cra.runtime.kernel import Live
from cra.storage.base import IdempotencyRecord


class Order(Struct, kw_only=True):
    """An execute as it came in."""

    session_id: str
    action_id: str
    parameters: dict[str, Any]
    resolution_id: str | None = None
    idempotency_key: str | None = None
    approval_id: str | None = None
    request_id: str | None = None
    risk: int = 0
    simulate: bool = False
    # Who makes the call, as the door knows it.
    actor: str | None = None


class Permit(Struct, frozen=True, kw_only=True):
    """A recorded permission to run one executor once."""

    live: Live
    bound: BoundAction
    executor: Executor
    call: Call
    resolution_id: str
    idempotency: IdempotencyRecord | None

    @property
    def action_id(self) -> str:
        return self.call.action_id

    @property
    def execution_id(self) -> str:
        return self.call.execution_id

    @property
    def timeout_seconds(self) -> int:
        """How long the executor may take."""
        return self.bound.action.timeout_seconds

    def arguments(self) -> tuple[Any, ...]:
        """Return what the executor is called with."""
        if not self.executor.wants_context:
            return (self.call.parameters,)
        record = self.live.record
        context = ExecutionContext(
            session_id=record.session_id,
            agent_id=record.agent_id,
            action_id=self.action_id,
            execution_id=self.execution_id,
            resolution_id=self.resolution_id,
            timeout_seconds=self.timeout_seconds,
        )
        return self.call.parameters, context


class Ending(Struct, frozen=True, kw_only=True):
    """How an execute ended: what `execute` returns or raises, and the wire response both come from."""

    execution_id: str
    request_id: str
    resolution_id: str | None
    trace_id: str
    timestamp: str
    status: ExecuteStatus
    result: Any = None
    error: CRAError | None = None
    simulated: bool = False

    def value(self) -> Any:
        """Return the result, or raise what stands in its place."""
        if self.error is not None:
            raise self.error
        return self.result

    def response(self) -> ExecuteResponse:
        """Return the wire form."""
        error = None
        if self.error is not None:
            error = ExecuteError(code=self.error.code, message=self.error.message, details=_details(self.error))
        return ExecuteResponse(
            carp_version="1.0",
            execution_id=self.execution_id,
            request_id=self.request_id,
            resolution_id=self.resolution_id,
            timestamp=self.timestamp,
            status=self.status,
            result=self.result,
            error=error,
            trace_id=self.trace_id,
            simulated=True if self.simulated else msgspec.UNSET,
        )


def _details(error: CRAError) -> dict[str, Any]:
    details = dict(error.details)
    policy_id = getattr(error, "policy_id", None)
    if policy_id is not None:
        details["policy_id"] = policy_id
    if error.hint is not None:
        details["hint"] = error.hint
    return details


def response_bytes(response: ExecuteResponse) -> bytes:
    """Return the canonical JSON of an execute response; the same bytes at every door."""
    fields: dict[str, Any] = msgspec.to_builtins(structs.replace(response, result=None))
    # As it was weighed and recorded: msgspec knows no subclasses of str, int and float, such as NumPy's numbers.
    fields["result"] = response.result
    return dumps(fields)


def recalled(stored: bytes, action_id: str) -> Ending:
    """Return the ending that a stored response stands for."""
    response = msgspec.json.decode(stored, type=ExecuteResponse)
    error: CRAError | None = None
    if response.error is not None:
        code = str(response.error.details.get("error_code", "executor_error"))
        kind: Callable[..., ActionFailed] = ActionTimeout if code == "timeout" else ActionFailed
        error = kind(response.error.message, action_id=action_id, execution_id=response.execution_id, error_code=code)
    return Ending(
        execution_id=response.execution_id,
        request_id=response.request_id,
        resolution_id=response.resolution_id,
        trace_id=response.trace_id,
        timestamp=response.timestamp,
        status=response.status,
        # Not the decoder's value: it would round integers that need more than 64 bits.
        result=parse_canonical(stored)["result"],
        error=error,
    )
