"""Execution: one call from request to recorded outcome."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from cra._core.canonical import dumps
from cra._core.chain import EventBatch
from cra._core.sha256 import hexdigest
from cra.atlas.snapshot import RISKS, BoundAction, Snapshot
from cra.errors import (
    ActionDenied,
    ActionFailed,
    ActionTimeout,
    ApprovalConflict,
    ApprovalNotFound,
    ApprovalRequired,
    CRAError,
    ExecutorMissing,
    IdempotencyConflict,
    InvalidParameters,
    InvalidRequest,
    LimitExceeded,
    NotCanonical,
    ResolutionExpired,
    ResolutionRequired,
    StorageError,
)
from cra.protocol.carp import ExecuteError, ExecuteResponse, ExecuteStatus
from cra.protocol.fields import ACTION_ID_PATTERN
from cra.protocol.times import format_timestamp
from cra.runtime import engine
from cra.runtime.engine import MICRO, Call, Verdict
from cra.runtime.executors import ExecutionContext, Executor, ExecutorTable
from cra.runtime.kernel import Kernel, Live, check_active, check_uuid
from cra.runtime.wire import response_bytes
from cra.storage.base import (
    ApprovalRecord,
    Change,
    Claim,
    ClaimRefused,
    IdempotencyRecord,
    ResolutionRecord,
)

_ACTION_ID = re.compile(ACTION_ID_PATTERN)
_VIOLATION = {"rate_limited": "rate_limit", "budget_exceeded": "budget", "deny": "denied_action"}
_SCALARS = frozenset((str, int, float, bool, type(None)))
_MAX_ATTEMPTS = 100


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


class Permit(Struct, frozen=True, kw_only=True):
    """A recorded permission to run one executor once."""

    live: Live
    bound: BoundAction
    executor: Executor
    parameters: dict[str, Any]
    context: ExecutionContext
    request_id: str
    idempotency_key: str | None
    call_digest: str
    started_us: int


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


class Refusal(Exception):
    """Carries a refused call's error to where it is recorded and answered."""

    def __init__(self, error: CRAError, *, violation: str | None = None, verdict: Verdict | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.violation = violation
        self.verdict = verdict


class Execution:
    """Begin and finish calls; what runs between the two is the driver's."""

    def __init__(self, kernel: Kernel, executors: ExecutorTable) -> None:
        self._kernel = kernel
        self._executors = executors

    # Before the executor

    def begin(self, order: Order) -> Permit | Ending:
        """Decide about a call and record it.

        A `Permit` means that its intent is durable and its limits are taken; an `Ending` that nothing will run.
        Raises what is wrong with the request itself, or `StorageError`, when nothing could be recorded.
        """
        kernel = self._kernel
        parameters, digest = self._taken(order)
        live = kernel.live(order.session_id)
        with live.lock:
            refused: dict[str, int] = {}
            for _ in range(_MAX_ATTEMPTS):
                check_active(live.record)
                attempt = _Attempt(kernel, self._executors, live, order, parameters, digest, refused)
                ending = attempt.decide()
                if order.simulate:
                    # A validate request on the wire: the answer, and nothing else.
                    return ending
                try:
                    if kernel.commit(live, attempt.batch, attempt.change):
                        return ending
                except ClaimRefused as claim:
                    # Somebody took the last room after it was peeked at: decide again, knowing that.
                    refused[claim.claim.key] = claim.wait_us
        raise StorageError(f"session `{order.session_id}`: no stable head in {_MAX_ATTEMPTS} attempts")

    def preview(self, order: Order) -> tuple[Ending, bytes]:
        """Decide about a call and write nothing; also return the events it would have written."""
        kernel = self._kernel
        parameters, digest = self._taken(order)
        live = kernel.live(order.session_id)
        with live.lock:
            check_active(live.record)
            attempt = _Attempt(kernel, self._executors, live, order, parameters, digest, {})
            ending = attempt.decide()
            assert isinstance(ending, Ending)
            return ending, attempt.batch.data

    def _taken(self, order: Order) -> tuple[dict[str, Any], str]:
        """Return a call's own copy of its parameters and their digest; raises what is wrong with the request."""
        _check_order(order)
        try:
            data, digest = engine.parameters_digest(order.parameters)
        except NotCanonical as error:
            raise InvalidRequest(
                f"parameters{error.pointer or ''}: {error.message}",
                pointer=f"/execution/parameters{error.pointer or ''}",
            ) from error
        limit = self._kernel.config.max_parameter_bytes
        if len(data) > limit:
            raise InvalidRequest(
                f"parameters have {len(data)} bytes, expected at most {limit}", pointer="/execution/parameters"
            )
        return _own_copy(order.parameters, data), digest

    # After the executor

    def succeed(self, permit: Permit, result: Any) -> Ending:
        """Record that the executor returned `result`; a result that breaks its contract is recorded as a failure."""
        try:
            data = dumps(result)
        except NotCanonical as error:
            return self.fail(permit, "invalid_result", f"the executor returned no JSON: {error.message}")
        limit = self._kernel.config.max_result_bytes
        if len(data) > limit:
            return self.fail(permit, "invalid_result", f"the result has {len(data)} bytes, expected at most {limit}")
        if permit.bound.returns is not None and not permit.bound.returns.matches(result):
            pointer, words = permit.bound.returns.first_error(result) or ("", "")
            return self.fail(permit, "invalid_result", f"the result breaks returns_schema at `{pointer}`: {words}")
        return self._finish(permit, hexdigest(data), None, result)

    def fail(self, permit: Permit, code: str, message: str, *, cause: BaseException | None = None) -> Ending:
        """Record that the executor did not succeed; `code` is executor_error, timeout, cancelled or invalid_result."""
        kind = ActionTimeout if code == "timeout" else ActionFailed
        error = kind(
            f"action `{permit.bound.action.action_id}` failed: {message}",
            action_id=permit.bound.action.action_id,
            execution_id=permit.context.execution_id,
            error_code=code,
        )
        error.__cause__ = cause
        return self._finish(permit, None, error, None)

    def _finish(self, permit: Permit, result_hash: str | None, error: ActionFailed | None, result: Any) -> Ending:
        kernel, live = self._kernel, permit.live
        with live.lock:

            def build(batch: EventBatch) -> tuple[Change, Ending]:
                ending = Ending(
                    execution_id=permit.context.execution_id,
                    request_id=permit.request_id,
                    resolution_id=permit.context.resolution_id,
                    trace_id=live.record.trace_id,
                    timestamp=batch.timestamp,
                    status=ExecuteStatus.SUCCESS if error is None else ExecuteStatus.ERROR,
                    result=result,
                    error=error,
                )
                duration_ms = max(0, batch.now_us - permit.started_us) // 1000
                if error is None:
                    batch.add(
                        "action.executed",
                        {
                            "action_id": permit.context.action_id,
                            "execution_id": permit.context.execution_id,
                            "resolution_id": permit.context.resolution_id,
                            "duration_ms": duration_ms,
                            "result_hash": result_hash,
                        },
                    )
                else:
                    # What an exception says may hold a secret, so the record keeps its words only when asked to.
                    full = kernel.rules.capture or error.error_code != "executor_error"
                    batch.add(
                        "action.failed",
                        {
                            "action_id": permit.context.action_id,
                            "execution_id": permit.context.execution_id,
                            "error_code": error.error_code,
                            "error_message": error.message[:1000] if full else _kind_of(error),
                            "duration_ms": duration_ms,
                        },
                    )
                if permit.idempotency_key is None:
                    return Change(actions=1 if error is None else 0), ending
                stored = IdempotencyRecord(
                    key=permit.idempotency_key, call=permit.call_digest, response=_stored(ending)
                )
                return Change(actions=1 if error is None else 0, idempotency=stored), ending

            try:
                return kernel.commit_until_done(live, build)
            except StorageError as failure:
                failure.hint = "the executor has run and its intent is recorded; its outcome is not"
                raise


def _stored(ending: Ending) -> bytes:
    return response_bytes(ending.response())


def _kind_of(error: ActionFailed) -> str:
    return type(error.__cause__).__name__ if error.__cause__ is not None else error.error_code


def _own_copy(parameters: dict[str, Any], data: bytes) -> dict[str, Any]:
    # What is decided about is what the executor gets, whoever else holds the caller's object.
    if all(type(value) in _SCALARS for value in parameters.values()):
        return dict(parameters)
    copied: dict[str, Any] = engine.parse_canonical(data)
    return copied


def _check_order(order: Order) -> None:
    if not isinstance(order.action_id, str) or len(order.action_id) > 255 or not _ACTION_ID.match(order.action_id):
        raise InvalidRequest(
            f"action_id is `{str(order.action_id)[:60]}`, expected lower-case words joined by dots",
            pointer="/execution/action_id",
            hint="such as `ticket.get`",
        )
    if not isinstance(order.parameters, dict):
        raise InvalidRequest(
            f"parameters are `{type(order.parameters).__name__}`, expected an object", pointer="/execution/parameters"
        )
    if order.resolution_id is not None:
        check_uuid("resolution_id", order.resolution_id)
    if order.approval_id is not None:
        check_uuid("approval_id", order.approval_id)
    key = order.idempotency_key
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= 255):
        raise InvalidRequest(
            "idempotency_key is not a string of 1 to 255 characters", pointer="/execution/idempotency_key"
        )


class _Attempt:
    """One try to decide about a call on one chain head."""

    def __init__(
        self,
        kernel: Kernel,
        executors: ExecutorTable,
        live: Live,
        order: Order,
        parameters: dict[str, Any],
        parameters_hash: str,
        refused: dict[str, int],
    ) -> None:
        self._kernel = kernel
        self._executors = executors
        self._live = live
        self._order = order
        self._parameters = parameters
        self._hash = parameters_hash
        self._refused = refused
        self._snapshot: Snapshot = kernel.snapshot
        self.batch = kernel.begin(live)
        self.change = Change()
        self._request_id = order.request_id or self.batch.new_id()
        self._execution_id = self.batch.new_id()
        self._call_digest = f"{order.action_id}:{parameters_hash}"

    def decide(self) -> Permit | Ending:
        order, storage = self._order, self._kernel.storage
        if order.idempotency_key is not None:
            known = storage.idempotency(order.session_id, order.idempotency_key)
            if known is not None:
                return self._repeat(known)
        resolution: ResolutionRecord | None = None
        try:
            resolution = self._resolution()
            return self._judge(resolution)
        except Refusal as refusal:
            return self._refuse(refusal, resolution)

    def _repeat(self, known: IdempotencyRecord) -> Ending:
        """Answer a call whose idempotency key is known."""
        key = known.key
        if known.call != self._call_digest:
            problem = IdempotencyConflict(
                f"idempotency_key `{key}` was used for another call", hint="use a new key for a new call"
            )
        elif known.response is None:
            problem = IdempotencyConflict(
                f"the call of idempotency_key `{key}` has no recorded outcome",
                hint="it is still running, or its process ended; whether it took effect is unknown",
            )
        else:
            response = msgspec.json.decode(known.response, type=ExecuteResponse)
            self._requested(response.resolution_id, {"replay_of": response.execution_id})
            self._land()
            return _ending_of(engine.parse_canonical(known.response), response, self._order.action_id)
        return self._error(problem, None)

    def _resolution(self) -> ResolutionRecord:
        """Return the resolution that this call goes by."""
        order, storage, now_us = self._order, self._kernel.storage, self.batch.now_us
        if order.resolution_id is not None:
            record = storage.resolution(order.session_id, order.resolution_id)
            if record is None:
                raise Refusal(
                    ResolutionRequired(
                        f"resolution `{order.resolution_id}` is not one of this session", hint="call resolve first"
                    )
                )
            if now_us >= record.expires_us:
                raise Refusal(
                    ResolutionExpired(
                        f"resolution `{order.resolution_id}` expired at {format_timestamp(record.expires_us)}",
                        hint="call resolve again",
                    )
                )
            return record
        # The newest that offers the action; else the newest there is, to say why the action is denied.
        record = storage.latest_resolution(order.session_id, order.action_id, now_us)
        if record is None:
            record = storage.latest_resolution(order.session_id, None, now_us)
        if record is None:
            raise Refusal(
                ResolutionRequired(
                    f"action `{order.action_id}`: the session has no unexpired resolution", hint="call resolve first"
                )
            )
        return record

    def _judge(self, resolution: ResolutionRecord) -> Permit | Ending:
        order, kernel, snapshot = self._order, self._kernel, self._snapshot
        session = self._live.record
        index = snapshot.index.get(order.action_id)
        if index is None:
            raise Refusal(
                ActionDenied(
                    f"action `{order.action_id}` is not declared by any loaded atlas",
                    action_id=order.action_id,
                    hint="call one of the resolution's allowed actions",
                ),
                violation="unauthorized",
            )
        bound = snapshot.actions[index]
        call = Call(
            action=index,
            action_id=order.action_id,
            risk=max(order.risk, resolution.risk),
            context=engine.merged_context(session, resolution.context),
            parameters=self._parameters,
            parameters_hash=self._hash,
        )
        windows = snapshot.open_windows(self.batch.now_us)
        claims: list[Claim] = []
        usage: dict[int, int] | None = None
        limits_us = 0
        if snapshot.limits:
            policies, claims, usage = engine.claims_of(snapshot, session, call, windows)
            limits_us = kernel.limits_now_us()
            waits = [
                self._refused.get(claim.key) or wait
                for claim, wait in zip(claims, kernel.storage.peek(claims, limits_us), strict=True)
            ]
            usage.update(engine.usage_of(policies, waits))
        verdict = engine.judge(snapshot, session, call, windows, usage, approved=False)
        if verdict.decision in ("allow", "requires_approval"):
            self._check_offer(resolution, bound)
        approval: ApprovalRecord | None = None
        if verdict.decision == "requires_approval":
            approval = self._approval(resolution)
            if approval is not None:
                verdict = engine.judge(snapshot, session, call, windows, usage, approved=True)
        if verdict.decision not in ("allow", "requires_approval"):
            raise Refusal(self._denial(verdict), violation=_VIOLATION[verdict.decision], verdict=verdict)
        self._check_parameters(bound, verdict)
        if verdict.decision == "requires_approval":
            return self._ask_for_approval(resolution, bound, verdict)
        executor = self._executors.find(bound.executor)
        if executor is None and not order.simulate:
            raise Refusal(
                ExecutorMissing(
                    f"action `{order.action_id}` is allowed, but no executor `{bound.executor}` is registered",
                    hint="register one with @runtime.executor",
                )
            )
        return self._permit(resolution, bound, executor, verdict, approval, claims, limits_us)

    def _check_offer(self, resolution: ResolutionRecord, bound: BoundAction) -> None:
        action_id = bound.action.action_id
        if action_id in resolution.offered:
            return
        raise Refusal(
            ActionDenied(
                f"resolution `{resolution.resolution_id}` does not offer action `{action_id}`",
                action_id=action_id,
                hint="resolve again with a goal, atlas_ids and required_capabilities that include it",
            ),
            violation="unauthorized",
        )

    def _check_parameters(self, bound: BoundAction, verdict: Verdict) -> None:
        if bound.parameters.matches(self._parameters):
            return
        pointer, words = bound.parameters.first_error(self._parameters) or ("", "do not match the schema")
        raise Refusal(
            InvalidParameters(
                f"parameters of `{bound.action.action_id}`{pointer and f' at `{pointer}`'}: {words}",
                action_id=bound.action.action_id,
                pointer=pointer,
                hint="see the action's parameters_schema",
            ),
            violation="invalid_parameters",
            verdict=verdict,
        )

    def _denial(self, verdict: Verdict) -> ActionDenied:
        action_id, policy = self._order.action_id, verdict.policy
        message = f"action `{action_id}` is denied: {verdict.reason}"
        if policy is not None and verdict.decision in ("rate_limited", "budget_exceeded"):
            wait = engine.seconds(verdict.wait_us) if verdict.wait_us > 0 else None
            return LimitExceeded(message, action_id=action_id, policy_id=policy.policy_id, retry_after_s=wait)
        return ActionDenied(message, action_id=action_id, policy_id=policy.policy_id if policy else None)

    # Approvals

    def _approval(self, resolution: ResolutionRecord) -> ApprovalRecord | None:
        """Return the granted approval that covers this call, or None when a person still has to decide."""
        order, storage = self._order, self._kernel.storage
        if order.approval_id is None:
            for record in storage.approvals(session_id=order.session_id, status="granted"):
                if self._covers(record):
                    return record
            return None
        found = storage.approval(order.approval_id)
        if found is None or found.session_id != order.session_id:
            raise Refusal(
                ApprovalNotFound(f"approval `{order.approval_id}` is not one of this session"),
                violation="unauthorized",
            )
        if found.status == "pending" and self._binds(found) and self.batch.now_us < found.expires_us:
            return None
        if not self._covers(found):
            raise Refusal(
                ApprovalConflict(
                    f"approval `{order.approval_id}` does not cover this call: {self._mismatch(found)}",
                    hint="call execute without approval_id to ask for a new one",
                ),
                violation="unauthorized",
            )
        return found

    def _binds(self, record: ApprovalRecord) -> bool:
        # INVARIANT: an approval holds for one requester, one action, one set of parameters and one snapshot.
        return (
            record.action_id == self._order.action_id
            and record.parameters_hash == self._hash
            and record.agent_id == self._live.record.agent_id
            and record.snapshot_digest == self._snapshot.digest
        )

    def _covers(self, record: ApprovalRecord) -> bool:
        return record.status == "granted" and self._binds(record) and self.batch.now_us < record.expires_us

    def _mismatch(self, record: ApprovalRecord) -> str:
        if record.status != "granted":
            return f"it is {record.status}"
        if record.action_id != self._order.action_id:
            return f"it is for action `{record.action_id}`"
        if record.parameters_hash != self._hash:
            return "it is for other parameters"
        if record.snapshot_digest != self._snapshot.digest:
            return "the atlases have changed since it was asked for"
        if self.batch.now_us >= record.expires_us:
            return f"it expired at {format_timestamp(record.expires_us)}"
        return "it is for another requester"

    def _ask_for_approval(self, resolution: ResolutionRecord, bound: BoundAction, verdict: Verdict) -> Ending:
        order, kernel, now_us = self._order, self._kernel, self.batch.now_us
        policy = verdict.policy
        assert policy is not None
        record = next(
            (
                pending
                for pending in kernel.storage.approvals(session_id=order.session_id, status="pending")
                if self._binds(pending) and now_us < pending.expires_us
            ),
            None,
        )
        self._requested(resolution.resolution_id)
        self._evaluated(verdict)
        if record is None:
            record = ApprovalRecord(
                approval_id=self.batch.new_id(),
                session_id=order.session_id,
                agent_id=self._live.record.agent_id,
                action_id=order.action_id,
                atlas_id=bound.atlas_id,
                policy_id=policy.policy_id,
                resolution_id=resolution.resolution_id,
                parameters_hash=self._hash,
                snapshot_digest=self._snapshot.digest,
                requested_us=now_us,
                expires_us=now_us + kernel.config.approval_ttl_seconds * MICRO,
                # The approver has to see what is asked; the record keeps it only as long as the approval.
                parameters=self._parameters,
            )
            self.batch.add(
                "approval.requested",
                {
                    "approval_id": record.approval_id,
                    "action_id": order.action_id,
                    "parameters_hash": self._hash,
                    "policy_id": policy.policy_id,
                    "expires_at": format_timestamp(record.expires_us),
                },
            )
            self._land(approval=record)
        else:
            self._land()
        error = ApprovalRequired(
            f"action `{order.action_id}` waits for approval: {policy.reason}",
            action_id=order.action_id,
            approval_id=record.approval_id,
            policy_id=policy.policy_id,
            expires_at=format_timestamp(record.expires_us),
        )
        return self._ending(ExecuteStatus.PENDING_APPROVAL, resolution.resolution_id, error)

    # What is recorded

    def _permit(
        self,
        resolution: ResolutionRecord,
        bound: BoundAction,
        executor: Executor | None,
        verdict: Verdict,
        approval: ApprovalRecord | None,
        claims: list[Claim],
        limits_us: int,
    ) -> Permit | Ending:
        order = self._order
        self._requested(resolution.resolution_id)
        self._evaluated(verdict)
        approved = {"action_id": order.action_id, "resolution_id": resolution.resolution_id}
        used: ApprovalRecord | None = None
        if approval is not None:
            approved["approval_id"] = approval.approval_id
            approved["approver"] = approval.approver or ""
            used = msgspec.structs.replace(approval, status="used", parameters=None)
        self.batch.add("action.approved", approved)
        if executor is None or order.simulate:
            return self._ending(ExecuteStatus.SUCCESS, resolution.resolution_id, None)
        idempotency = None
        if order.idempotency_key is not None:
            idempotency = IdempotencyRecord(key=order.idempotency_key, call=self._call_digest)
        self.change = Change(
            request_id=self._request_id,
            approval=used,
            idempotency=idempotency,
            claims=tuple(claims),
            claims_at_us=limits_us,
        )
        return Permit(
            live=self._live,
            bound=bound,
            executor=executor,
            parameters=self._parameters,
            context=ExecutionContext(
                session_id=order.session_id,
                agent_id=self._live.record.agent_id,
                action_id=order.action_id,
                execution_id=self._execution_id,
                resolution_id=resolution.resolution_id,
                timeout_seconds=bound.action.timeout_seconds,
            ),
            request_id=self._request_id,
            idempotency_key=order.idempotency_key,
            call_digest=self._call_digest,
            started_us=self.batch.now_us,
        )

    def _refuse(self, refusal: Refusal, resolution: ResolutionRecord | None) -> Ending:
        error, verdict = refusal.error, refusal.verdict
        if refusal.violation is None:
            return self._error(error, resolution)
        assert resolution is not None
        policy = verdict.policy if verdict is not None else None
        decided = policy is not None and verdict is not None and verdict.decision != "allow"
        self._requested(resolution.resolution_id)
        if verdict is not None:
            self._evaluated(verdict)
        denied: dict[str, Any] = {"action_id": self._order.action_id, "reason": error.message}
        violated: dict[str, Any] = {
            "action_id": self._order.action_id,
            "violation_type": refusal.violation,
            "details": error.message,
        }
        if decided and policy is not None:
            denied["policy_id"] = violated["policy_id"] = policy.policy_id
        self.batch.add("action.denied", denied)
        self.batch.add("policy.violated", violated)
        self._land()
        return self._ending(ExecuteStatus.DENIED, resolution.resolution_id, error)

    def _error(self, error: CRAError, resolution: ResolutionRecord | None) -> Ending:
        """Record a call that never came to a decision."""
        self.batch.add(
            "error.occurred",
            {
                "error_code": error.code,
                "error_message": error.message,
                "action_id": self._order.action_id,
                "parameters_hash": self._hash,
                "request_id": self._request_id,
            },
        )
        self._land()
        return self._ending(ExecuteStatus.ERROR, resolution.resolution_id if resolution else None, error)

    def _requested(self, resolution_id: str | None, more: dict[str, Any] | None = None) -> None:
        payload: dict[str, Any] = {
            "action_id": self._order.action_id,
            "parameters_hash": self._hash,
            "request_id": self._request_id,
            "resolution_id": resolution_id,
        }
        if self._kernel.rules.capture:
            payload["parameters"] = self._parameters
        if self._order.risk:
            payload["risk_tier"] = RISKS[self._order.risk]
        if more:
            payload.update(more)
        self.batch.add("action.requested", payload)

    def _evaluated(self, verdict: Verdict) -> None:
        if verdict.policy is not None:
            self.batch.add("policy.evaluated", engine.evaluated_payload(self._order.action_id, verdict, verdict.policy))

    def _land(self, *, approval: ApprovalRecord | None = None) -> None:
        self.change = Change(request_id=self._request_id, approval=approval)

    def _ending(self, status: ExecuteStatus, resolution_id: str | None, error: CRAError | None) -> Ending:
        return Ending(
            execution_id=self._execution_id,
            request_id=self._request_id,
            resolution_id=resolution_id,
            trace_id=self._live.record.trace_id,
            timestamp=self.batch.timestamp,
            status=status,
            error=error,
            simulated=self._order.simulate,
        )


def _ending_of(stored: dict[str, Any], response: ExecuteResponse, action_id: str) -> Ending:
    """Return the ending that a stored response stands for."""
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
        result=stored["result"],
        error=error,
    )
