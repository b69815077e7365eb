"""Execution: one call from request to recorded outcome."""

import re
from typing import Any

from msgspec import structs

from cra._core import calls
from cra._core.calls import Call
from cra._core.chain import EventBatch
from cra.atlas.snapshot import RISKS
from cra.errors import (
    ActionFailed,
    ActionTimeout,
    CRAError,
    InvalidInput,
    InvalidRequest,
    NotCanonical,
    SessionNotFound,
    StorageError,
)
from cra.protocol.carp import ExecuteStatus
from cra.protocol.fields import ACTION_ID_PATTERN
from cra.protocol.jsontext import MAX_INTEGER_DIGITS
from cra.runtime.attempt import Attempt, begin_attempt
from cra.runtime.calls import Ending, Order, Permit, response_bytes
from cra.runtime.executors import ExecutorTable
from cra.runtime.kernel import MAX_ATTEMPTS, TRIES, Kernel, check_active, check_integers, check_text, check_uuid
from cra.storage.base import NO_CHANGE, ONE_ACTION, Change, ClaimRefused

# What became of a call: the digest of its result, or why it failed; and the result.
Outcome = tuple[str, ActionFailed | None, Any]

# What keeps an outcome from being recorded.
UNRECORDED = (StorageError, SessionNotFound)

_ACTION_ID = re.compile(ACTION_ID_PATTERN)


class Execution:
    """Begin and finish calls; what runs between the two is the driver's."""

    def __init__(self, kernel: Kernel, executors: ExecutorTable) -> None:
        self._kernel = kernel
        self.executors = executors

    # Before the executor

    def begin(self, order: Order, begun: Attempt | None = None, stale: CRAError | None = None) -> Permit | Ending:
        """Decide about a call and record it.

        A `Permit` means that its intent is durable and its limits are taken; an `Ending` that nothing will run.
        Raises what is wrong with the request itself, or `StorageError`, when nothing could be recorded.
        `begun` is an attempt that had to wait for the store, `stale` what one was refused for.
        """
        kernel = self._kernel
        call = self.take(order)
        live = kernel.live(order.session_id)
        with live.lock:
            if stale is not None:
                kernel.renew(live, stale)
            if order.simulate:
                # Nothing is appended that would be refused because somebody else has written.
                kernel.reload(live)
            refused: dict[str, int] | None = None
            for _ in TRIES:
                check_active(live.record)
                if begun is None:
                    begun = begin_attempt(kernel, self.executors, live, order, call, refused)
                ending = begun.decide()
                if order.simulate:
                    # A validate request on the wire: the answer, and nothing else.
                    if not kernel.freshen():
                        return ending
                else:
                    try:
                        if kernel.commit(live, begun.batch, begun.change):
                            return ending
                    except ClaimRefused as claim:
                        # Somebody took the last room after it was peeked at: decide again, knowing that.
                        refused = {**(refused or {}), claim.claim.key: claim.wait_us}
                begun = None
        raise StorageError(f"session `{order.session_id}`: no stable head in {MAX_ATTEMPTS} attempts")

    def preview(self, order: Order) -> tuple[Ending, bytes]:
        """Decide about a call and write nothing; also return the events it would have written."""
        kernel = self._kernel
        call = self.take(order)
        live = kernel.live(order.session_id)
        kernel.freshen()
        with live.lock:
            kernel.reload(live)
            check_active(live.record)
            begun = begin_attempt(kernel, self.executors, live, order, call, None)
            ending = begun.decide()
            if isinstance(ending, Permit):
                raise CRAError("a simulated call was given a permit")
            return ending, begun.batch.data

    def take(self, order: Order) -> Call:
        """Return a call with its own copy of the parameters; raises what is wrong with the request."""
        kernel = self._kernel
        action_id = order.action_id
        if (
            order.resolution_id is not None
            or order.approval_id is not None
            or order.idempotency_key is not None
            or order.actor is not None
            or type(order.parameters) is not dict
            or type(action_id) is not str
            or action_id not in kernel.snapshot.index
        ):
            # PERF: in a plain call of a known action there is nothing to check.
            _check_order(order)
        try:
            # What is decided about is what the executor gets, whoever else holds the caller's object.
            call = calls.take(
                action_id,
                order.parameters if type(order.parameters) is dict else dict(order.parameters),
                RISKS[order.risk] if order.risk else None,
                order.approval_id,
                kernel.rules.capture,
            )
        except NotCanonical as error:
            raise InvalidRequest(
                f"parameters{error.pointer or ''}: {error.message}",
                pointer=f"/execution/parameters{error.pointer or ''}",
            ) from error
        size, limit = call.size, kernel.config.max_parameter_bytes
        if size > limit:
            raise InvalidRequest(
                f"parameters have {size} bytes, expected at most {limit}", pointer="/execution/parameters"
            )
        if size > MAX_INTEGER_DIGITS:
            check_integers("execution/parameters", call.parameters, size)
        return call

    # After the executor

    def fail(self, permit: Permit, code: str, message: str, *, cause: BaseException | None = None) -> Ending:
        """Record that the executor did not succeed; see `failed`."""
        return self.finish(permit, self.failed(permit, code, message, cause=cause))

    def returned(self, permit: Permit, result: Any) -> Outcome:
        """Return what becomes of a call whose executor returned `result`: a failure when that breaks its contract."""
        try:
            result_hash, size = calls.weigh(result)
        except NotCanonical as error:
            return self.failed(permit, "invalid_result", f"the executor returned no JSON: {error.message}")
        if size > MAX_INTEGER_DIGITS:
            try:
                check_integers("result", result, size)
            except InvalidRequest as error:
                return self.failed(permit, "invalid_result", error.message)
        limit = self._kernel.config.max_result_bytes
        if size > limit:
            return self.failed(permit, "invalid_result", f"the result has {size} bytes, expected at most {limit}")
        returns = permit.bound.returns
        if returns is not None:
            try:
                if not returns.matches(result):
                    pointer, words = returns.first_error(result) or ("", "")
                    where = pointer and f" at `{pointer}`"
                    return self.failed(permit, "invalid_result", f"the result breaks returns_schema{where}: {words}")
            except InvalidInput as error:
                message = f"the result could not be held against returns_schema: {error.message}"
                return self.failed(permit, "invalid_result", message)
        return result_hash, None, result

    def failed(self, permit: Permit, code: str, message: str, *, cause: BaseException | None = None) -> Outcome:
        """Return what becomes of a call that failed; `code` is executor_error, timeout, cancelled or invalid_result."""
        kind = ActionTimeout if code == "timeout" else ActionFailed
        error = kind(
            f"action `{permit.action_id}` failed: {message}",
            action_id=permit.action_id,
            execution_id=permit.execution_id,
            error_code=code,
        )
        error.__cause__ = cause
        return "", error, None

    def late(self, permit: Permit) -> Outcome:
        """Return what becomes of a call whose executor has not ended before its deadline."""
        message = f"no answer within {permit.timeout_seconds} s; whether it took effect is unknown"
        return self.failed(permit, "timeout", message)

    def finish(self, permit: Permit, outcome: Outcome, stale: CRAError | None = None) -> Ending:
        """Record an outcome; `stale` is what an attempt made before was refused for."""
        kernel, live = self._kernel, permit.live
        with live.lock:
            try:
                if stale is not None:
                    kernel.renew(live, stale)
                for _ in TRIES:
                    ending, batch, change = self.conclude(permit, outcome)
                    if kernel.commit(live, batch, change):
                        return ending
                raise StorageError(f"session `{permit.live.record.session_id}`: no stable head")
            except UNRECORDED as failure:
                unrecorded(failure)
                raise

    def conclude(self, permit: Permit, outcome: Outcome) -> tuple[Ending, EventBatch, Change]:
        """Return how a call ended, and what has to land before it is answered; its session's lock is held."""
        result_hash, error, result = outcome
        call, live = permit.call, permit.live
        batch = self._kernel.begin(live)
        if error is None:
            calls.executed(batch, call, permit.resolution_id, result_hash)
            status, change = ExecuteStatus.SUCCESS, ONE_ACTION
        else:
            # What an exception says may hold a secret, so the record keeps its words only when asked to.
            full = self._kernel.rules.capture or error.error_code != "executor_error"
            batch.add(
                "action.failed",
                {
                    "action_id": call.action_id,
                    "execution_id": call.execution_id,
                    "error_code": error.error_code,
                    "error_message": error.message[:1000] if full else _kind_of(error),
                    "duration_ms": max(0, batch.now_us - call.started_us) // 1000,
                },
            )
            status, change = ExecuteStatus.ERROR, NO_CHANGE
        ending = Ending(
            execution_id=call.execution_id,
            request_id=call.request_id,
            resolution_id=permit.resolution_id,
            trace_id=live.record.trace_id,
            timestamp=batch.timestamp,
            status=status,
            result=result,
            error=error,
        )
        if permit.idempotency is not None:
            stored = structs.replace(permit.idempotency, response=response_bytes(ending.response()))
            change = Change(actions=change.actions, idempotency=stored)
        return ending, batch, change


def unrecorded(failure: CRAError) -> None:
    """Say in an error of the store that an outcome is not recorded."""
    failure.hint = "the executor has run and its intent is recorded; its outcome is not"


def _kind_of(error: ActionFailed) -> str:
    return type(error.__cause__).__name__ if error.__cause__ is not None else error.error_code


def _check_order(order: Order) -> None:
    # What a caller without a type checker may hand in.
    if order.actor is not None:
        check_text("actor", order.actor, 255)
    action_id: object = order.action_id
    parameters: object = order.parameters
    key: object = order.idempotency_key
    if not isinstance(action_id, str) or len(action_id) > 255 or not _ACTION_ID.match(action_id):
        raise InvalidRequest(
            f"action_id is `{str(action_id)[:60]}`, expected lower-case words joined by dots",
            pointer="/execution/action_id",
            hint="such as `ticket.get`",
        )
    if not isinstance(parameters, dict):
        raise InvalidRequest(
            f"parameters are `{type(parameters).__name__}`, expected an object", pointer="/execution/parameters"
        )
    if order.resolution_id is not None:
        check_uuid("resolution_id", order.resolution_id)
    if order.approval_id is not None:
        check_uuid("approval_id", order.approval_id)
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= 255):
        raise InvalidRequest(
            "idempotency_key is not a string of 1 to 255 characters", pointer="/execution/idempotency_key"
        )
    if isinstance(key, str) and any("\ud800" <= c <= "\udfff" for c in key):
        raise InvalidRequest("idempotency_key has a lone surrogate", pointer="/execution/idempotency_key")
