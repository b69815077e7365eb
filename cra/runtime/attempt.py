"""One try to decide about a call on one chain head: its verdict, its events and the state that lands with them."""

from typing import Any, NoReturn

from msgspec import Struct, structs

from cra._core import calls
from cra._core.calls import Call
from cra._core.chain import EventBatch
from cra.atlas.snapshot import BoundAction, Snapshot
from cra.errors import (
    ActionDenied,
    ApprovalConflict,
    ApprovalNotFound,
    ApprovalRequired,
    CRAError,
    ExecutorMissing,
    IdempotencyConflict,
    InvalidParameters,
    LimitExceeded,
    ResolutionExpired,
    ResolutionRequired,
)
from cra.protocol.carp import ExecuteStatus
from cra.protocol.times import format_timestamp
from cra.runtime import engine
from cra.runtime.calls import Ending, Order, Permit, recalled
from cra.runtime.engine import MICRO, Verdict
from cra.runtime.executors import ExecutorTable
from cra.runtime.kernel import Kernel, Live, same_person
from cra.storage.base import NO_CHANGE, ApprovalRecord, Change, Claim, IdempotencyRecord, ResolutionRecord

_VIOLATION = {"rate_limited": "rate_limit", "budget_exceeded": "budget", "deny": "denied_action"}


class Refusal(Exception):
    """Carries a refused call's error to where it is recorded and answered."""

    def __init__(self, error: CRAError, *, violation: str | None = None, verdict: Verdict | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.violation = violation
        self.verdict = verdict


class Attempt(Struct, gc=False):
    """One try to decide about a call on one chain head; `begin_attempt` makes it."""

    _kernel: Kernel
    _executors: ExecutorTable
    _live: Live
    _order: Order
    _call: Call
    _refused: dict[str, int] | None
    _snapshot: Snapshot
    batch: EventBatch
    change: Change = NO_CHANGE

    def decide(self) -> Permit | Ending:
        """Return the permit to run the call, or how it ended without running; the events are in `batch`."""
        order = self._order
        if order.idempotency_key is not None:
            known = self._kernel.storage.idempotency(order.session_id, order.idempotency_key)
            if known is not None:
                return self._repeat(known)
        resolution = self._live.latest
        try:
            if (
                resolution is None
                or order.resolution_id is not None
                or order.simulate
                or self.batch.now_us >= resolution.expires_us
                or order.action_id not in resolution.offered
            ):
                resolution = None
                resolution = self._resolution()
            return self._judge(resolution)
        except Refusal as refusal:
            return self._refuse(refusal, resolution)

    def _repeat(self, known: IdempotencyRecord) -> Ending:
        """Answer a call whose idempotency key is known."""
        key = known.key
        if known.call != self._stands_for():
            problem = IdempotencyConflict(
                f"idempotency_key `{key}` was used for another call", hint="use a new key for a new call"
            )
        elif known.response is None:
            problem = IdempotencyConflict(
                f"the call of idempotency_key `{key}` has no recorded outcome",
                hint="it is still running, or its process ended; whether it took effect is unknown",
            )
        else:
            ending = structs.replace(recalled(known.response, self._order.action_id), simulated=self._order.simulate)
            self._requested(ending.resolution_id, replay_of=ending.execution_id)
            self._land()
            return ending
        return self._error(problem, None)

    def _resolution(self) -> ResolutionRecord:
        """Return the resolution that this call goes by."""
        order, storage, now_us = self._order, self._kernel.storage, self.batch.now_us
        latest = self._live.latest
        if order.resolution_id is not None:
            record = latest
            if record is None or record.resolution_id != order.resolution_id:
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
        executor, call = self._executors.find(bound.executor), self._call
        risk = order.risk if order.risk > resolution.risk else resolution.risk
        context = resolution.context
        if session.context:
            context = engine.merged_context(session, context)
        windows = snapshot.open_windows(self.batch.now_us) if snapshot.windows else None
        claims: tuple[Claim, ...] = ()
        usage: dict[int, int] | None = None
        limits_us = 0
        if snapshot.limits:
            parameters = call.parameters
            policies, claims, usage = engine.claims_of(snapshot, session, index, risk, context, parameters, windows)
            limits_us = kernel.limits_now_us()
            waits = kernel.storage.peek(list(claims), limits_us)
            if self._refused:
                waits = [self._refused.get(claim.key) or wait for claim, wait in zip(claims, waits, strict=True)]
            usage.update(engine.usage_of(policies, waits))
        facts = (
            self.batch,
            snapshot.table,
            snapshot.fragments,
            call,
            index,
            session.agent_id,
            risk,
            resolution.resolution_id,
            resolution.offered,
            bound.parameters.matches,
            executor is not None or order.simulate,
            context,
            windows,
            usage,
        )
        told = calls.judge(*facts)
        used: ApprovalRecord | None = None
        if told == calls.WAITING:
            granted = self._approval()
            if granted is None:
                told = calls.judge(*facts, calls.ABSENT)
            else:
                used = structs.replace(granted, status="used", parameters=None)
                told = calls.judge(*facts, calls.GRANTED, used.approval_id, used.approver)
        if told:
            verdict = Verdict(index, call.decision, call.policy, usage.get(call.policy, 0) if usage else 0)
            return self._not_permitted(told, resolution, bound, verdict)
        if order.simulate:
            return self._ending(ExecuteStatus.SUCCESS, resolution.resolution_id, None)
        if executor is None:
            raise Refusal(
                ExecutorMissing(
                    f"action `{order.action_id}` is allowed, but no executor `{bound.executor}` is registered",
                    hint="register one: `@runtime.executor` in a program, `--executors` of `cra serve` and `execute`",
                )
            )
        idempotency = None
        if order.idempotency_key is not None:
            idempotency = IdempotencyRecord(key=order.idempotency_key, call=self._stands_for())
        self.change = Change(
            request_id=call.request_id,
            approval=used,
            idempotency=idempotency,
            claims=claims,
            claims_at_us=limits_us,
            catalog=snapshot.catalog,
        )
        return Permit(
            live=self._live,
            bound=bound,
            executor=executor,
            call=call,
            resolution_id=resolution.resolution_id,
            idempotency=idempotency,
        )

    def _not_permitted(
        self, told: int, resolution: ResolutionRecord, bound: BoundAction, verdict: Verdict
    ) -> Permit | Ending:
        """Say why a call may not run: what `calls.judge` told beside `PERMITTED`."""
        if told == calls.UNOFFERED:
            self._refuse_offer(resolution)
        if told == calls.INVALID:
            self._refuse_parameters(bound, verdict)
        if told == calls.WAITING:
            return self._ask_for_approval(resolution, bound, verdict)
        raise Refusal(self._denial(verdict), violation=_VIOLATION[verdict.decision], verdict=verdict)

    def _refuse_offer(self, resolution: ResolutionRecord) -> NoReturn:
        action_id = self._order.action_id
        raise Refusal(
            ActionDenied(
                f"resolution `{resolution.resolution_id}` does not offer action `{action_id}`",
                action_id=action_id,
                hint="resolve again with a goal, atlas_ids and required_capabilities that include it",
            ),
            violation="unauthorized",
        )

    def _refuse_parameters(self, bound: BoundAction, verdict: Verdict) -> NoReturn:
        pointer, words = bound.parameters.first_error(self._call.parameters) or ("", "do not match the schema")
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
        action_id = self._order.action_id
        message = f"action `{action_id}` is denied: {engine.why(self._snapshot, verdict)}"
        policy_id = self._snapshot.policies[verdict.policy].policy_id if verdict.policy >= 0 else None
        if policy_id is not None and verdict.decision in ("rate_limited", "budget_exceeded"):
            wait = engine.seconds(verdict.wait_us) if verdict.wait_us > 0 else None
            return LimitExceeded(message, action_id=action_id, policy_id=policy_id, retry_after_s=wait)
        return ActionDenied(message, action_id=action_id, policy_id=policy_id)

    # Approvals

    def _approval(self) -> ApprovalRecord | None:
        """Return the granted approval that covers this call, or None when a person still has to decide."""
        order, storage = self._order, self._kernel.storage
        if order.approval_id is None:
            covering = [record for record in self._approvals_of_call("granted") if self._covers(record)]
            own = [record for record in covering if self._is_approver(record)]
            if own and len(own) == len(covering):
                self._refuse_approval(own[0])
            return next((record for record in covering if record not in own), None)
        found = storage.approval(order.approval_id)
        if found is None or found.session_id != order.session_id:
            raise Refusal(
                ApprovalNotFound(f"approval `{order.approval_id}` is not one of this session"),
                violation="unauthorized",
            )
        if found.status == "pending" and self._binds(found) and self.batch.now_us < found.expires_us:
            return None
        if not self._covers(found) or self._is_approver(found):
            self._refuse_approval(found)
        return found

    def _approvals_of_call(self, status: str) -> list[ApprovalRecord]:
        """Return the session's approvals that were asked for with these parameters, and no others' parameters."""
        return self._kernel.storage.approvals(
            session_id=self._order.session_id, parameters_hash=self._call.parameters_hash, status=status
        )

    def _refuse_approval(self, record: ApprovalRecord) -> NoReturn:
        raise Refusal(
            ApprovalConflict(
                f"approval `{record.approval_id}` does not cover this call: {self._mismatch(record)}",
                hint="call execute without approval_id to ask for a new one",
            ),
            violation="unauthorized",
        )

    def _binds(self, record: ApprovalRecord) -> bool:
        # INVARIANT: an approval holds for one requester, one action, one set of parameters and one snapshot.
        return (
            record.action_id == self._order.action_id
            and record.parameters_hash == self._call.parameters_hash
            and record.agent_id == self._live.record.agent_id
            and record.snapshot_digest == self._snapshot.digest
        )

    def _covers(self, record: ApprovalRecord) -> bool:
        return record.status == "granted" and self._binds(record) and self.batch.now_us < record.expires_us

    def _is_approver(self, record: ApprovalRecord) -> bool:
        # INVARIANT: nobody makes a call by their own consent, whoever asked for it.
        actor, approver = self._order.actor, record.approver
        return actor is not None and approver is not None and same_person(actor, approver)

    def _mismatch(self, record: ApprovalRecord) -> str:
        if record.status != "granted":
            return f"it is {record.status}"
        if record.action_id != self._order.action_id:
            return f"it is for action `{record.action_id}`"
        if record.parameters_hash != self._call.parameters_hash:
            return "it is for other parameters"
        if record.snapshot_digest != self._snapshot.digest:
            return "the atlases have changed since it was asked for"
        if self.batch.now_us >= record.expires_us:
            return f"it expired at {format_timestamp(record.expires_us)}"
        if self._is_approver(record):
            return "who granted it makes the call"
        return "it is for another requester"

    def _ask_for_approval(self, resolution: ResolutionRecord, bound: BoundAction, verdict: Verdict) -> Ending:
        order, kernel, now_us = self._order, self._kernel, self.batch.now_us
        policy = self._snapshot.policies[verdict.policy]
        record = next(
            (
                pending
                for pending in self._approvals_of_call("pending")
                if self._binds(pending) and now_us < pending.expires_us
            ),
            None,
        )
        if record is None and kernel.storage.waiting(order.session_id, now_us) >= kernel.config.max_pending_approvals:
            # NOTE: the number is not told: a replay decides again without the setting.
            raise Refusal(
                LimitExceeded(
                    f"action `{order.action_id}` needs approval, and the session has as many pending as it may have",
                    action_id=order.action_id,
                    policy_id=policy.policy_id,
                    retry_after_s=None,
                    hint="have some of them granted or rejected; `max_pending_approvals` is the bound",
                ),
                violation="rate_limit",
                verdict=verdict,
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
                parameters_hash=self._call.parameters_hash,
                snapshot_digest=self._snapshot.digest,
                requested_us=now_us,
                expires_us=now_us + kernel.config.approval_ttl_seconds * MICRO,
                # The approver has to see what is asked; the record keeps it only as long as the approval.
                parameters=self._call.parameters,
                requested_by=order.actor,
            )
            asked = {
                "approval_id": record.approval_id,
                "action_id": order.action_id,
                "parameters_hash": self._call.parameters_hash,
                "policy_id": policy.policy_id,
                "expires_at": format_timestamp(record.expires_us),
            }
            if order.actor is not None:
                asked["requested_by"] = order.actor
            self.batch.add("approval.requested", asked)
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

    def _stands_for(self) -> str:
        """Return what an idempotency key stands for."""
        return f"{self._order.action_id}:{self._call.parameters_hash}"

    def _refuse(self, refusal: Refusal, resolution: ResolutionRecord | None) -> Ending:
        error, verdict = refusal.error, refusal.verdict
        if refusal.violation is None:
            return self._error(error, resolution)
        resolution_id = resolution.resolution_id if resolution is not None else None
        self._requested(resolution_id)
        denied: dict[str, Any] = {"action_id": self._order.action_id, "reason": error.message}
        if isinstance(error, ApprovalConflict) and self._order.actor is not None:
            # Whether an approval covers a call depends on who makes it.
            denied["requested_by"] = self._order.actor
        violated: dict[str, Any] = {
            "action_id": self._order.action_id,
            "violation_type": refusal.violation,
            "details": error.message,
        }
        if verdict is not None and verdict.policy >= 0:
            self._evaluated(verdict)
            if verdict.decision not in ("allow", "requires_approval"):
                policy_id = self._snapshot.policies[verdict.policy].policy_id
                denied["policy_id"] = violated["policy_id"] = policy_id
        self.batch.add("action.denied", denied)
        self.batch.add("policy.violated", violated)
        self._land()
        return self._ending(ExecuteStatus.DENIED, resolution_id, error)

    def _error(self, error: CRAError, resolution: ResolutionRecord | None) -> Ending:
        """Record a call that never came to a decision."""
        payload = {
            "error_code": error.code,
            "error_message": error.message,
            "action_id": self._order.action_id,
            "parameters_hash": self._call.parameters_hash,
            "request_id": self._call.request_id,
        }
        named = resolution.resolution_id if resolution is not None else self._order.resolution_id
        if named is not None:
            payload["resolution_id"] = named
        self.batch.add("error.occurred", payload)
        self._land()
        return self._ending(ExecuteStatus.ERROR, resolution.resolution_id if resolution else None, error)

    def _requested(self, resolution_id: str | None, *, replay_of: str | None = None) -> None:
        calls.requested(self.batch, self._snapshot.fragments, self._call, resolution_id, replay_of)

    def _evaluated(self, verdict: Verdict) -> None:
        calls.evaluated(
            self.batch,
            self._snapshot.fragments,
            verdict.action,
            verdict.policy,
            verdict.decision,
            max(0, verdict.wait_us),
        )

    def _land(self, *, approval: ApprovalRecord | None = None) -> None:
        self.change = Change(request_id=self._call.request_id, approval=approval, catalog=self._snapshot.catalog)

    def _ending(self, status: ExecuteStatus, resolution_id: str | None, error: CRAError | None) -> Ending:
        return Ending(
            execution_id=self._call.execution_id,
            request_id=self._call.request_id,
            resolution_id=resolution_id,
            trace_id=self._live.record.trace_id,
            timestamp=self.batch.timestamp,
            status=status,
            error=error,
            simulated=self._order.simulate,
        )


def begin_attempt(
    kernel: Kernel,
    executors: ExecutorTable,
    live: Live,
    order: Order,
    call: Call,
    refused: dict[str, int] | None,
) -> Attempt:
    """Begin a try on the session's head; `refused` are waits of counters that had room when they were peeked at."""
    batch = kernel.begin(live)
    call.begin(batch, order.request_id)
    # PERF: a struct and this function take half the time of a class with an `__init__`.
    return Attempt(kernel, executors, live, order, call, refused, kernel.snapshot, batch)
