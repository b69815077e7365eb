"""Story: whether what a trace tells can have happened, beyond that nobody changed it."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from cra._core.canonical import digest
from cra.protocol.times import parse_timestamp
from cra.protocol.trace import Trace
from cra.runtime.past import (
    APPROVED,
    COMPLETED,
    ERROR,
    EVALUATED,
    RECEIVED,
    REQUESTED,
    Recorded,
    Session,
    Step,
    read_session,
)

MICRO = 1_000_000


class Finding(Struct, frozen=True, kw_only=True):
    """Something that cannot have happened as it is told; `index` is the event's."""

    index: int
    code: str
    message: str


class _Asked(Struct):
    """An approval as its events leave it."""

    action_id: str
    parameters_hash: str
    expires_us: int
    status: str = "pending"


def check_story(trace: Trace | bytes) -> list[Finding]:
    """Return everything in a trace that contradicts itself; raises `InvalidTrace` when its chain is broken.

    No call runs without its approval, none ends twice, no approval is used twice or given by who asked for it, every
    call goes by a resolution that was made and had not expired, ids are used once, counts are right. Nothing is decided
    again: that is replay.
    """
    return _Story(read_session(trace)).run()


class _Story:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._agent_id = session.steps[0].first.payload.get("agent_id")
        self._findings: list[Finding] = []
        self._requests: set[str] = set()
        self._resolutions: dict[str, int] = {}  # id -> when it expires
        self._permits: dict[str, Recorded] = {}
        self._over: set[str] = set()
        self._approvals: dict[str, _Asked] = {}
        self._executed = 0
        self._ended: Recorded | None = None

    def run(self) -> list[Finding]:
        handlers: dict[str, Callable[[Step], None]] = {
            RECEIVED: self._resolve,
            REQUESTED: self._call,
            ERROR: self._request_once,
            "action.executed": self._outcome,
            "action.failed": self._outcome,
            "approval.granted": self._approval,
            "approval.rejected": self._approval,
            "approval.expired": self._approval,
            "session.ended": self._end,
        }
        for number, step in enumerate(self._session.steps):
            # A call that was running when its session ended still gets its outcome.
            if self._ended is not None and step.first.event_type not in ("action.executed", "action.failed"):
                self._found(step.first, "after_end", f"`{step.first.event_type}` after the session ended")
            if step.first.event_type == "session.started" and number:
                self._found(step.first, "started_twice", "the session starts a second time")
            for event in step.events[1:]:
                if event.event_type in ("action.executed", "action.failed", "session.started", "session.ended"):
                    self._found(event, "misplaced", f"`{event.event_type}` inside the span of another request")
            handlers.get(step.first.event_type, self._other)(step)
        return self._findings

    def _found(self, event: Recorded, code: str, message: str) -> None:
        self._findings.append(Finding(index=event.index, code=code, message=message))

    def _other(self, step: Step) -> None:
        if step.first.event_type in (EVALUATED, APPROVED, "action.denied", COMPLETED, "context.injected"):
            self._found(step.first, "misplaced", f"`{step.first.event_type}` without the request that it answers")

    def _request_once(self, step: Step) -> None:
        request_id = step.first.payload.get("request_id")
        if request_id is None:
            return
        if request_id in self._requests:
            self._found(step.first, "request_twice", f"request_id `{request_id}` was used before")
        self._requests.add(request_id)

    def _resolve(self, step: Step) -> None:
        self._request_once(step)
        completed = step.events[-1]
        if completed.event_type != COMPLETED:
            self._found(step.first, "no_answer", "the request has no resolution")
            return
        payload = completed.payload
        if payload.get("request_id") != step.first.payload.get("request_id"):
            self._found(completed, "other_request", "the resolution answers another request")
        resolution_id = str(payload.get("resolution_id"))
        if resolution_id in self._resolutions:
            self._found(completed, "resolution_twice", f"resolution_id `{resolution_id}` was used before")
        self._resolutions[resolution_id] = step.now_us + int(payload.get("ttl_seconds", 0)) * MICRO
        blocks = sum(event.event_type == "context.injected" for event in step.events)
        if payload.get("context_block_count") != blocks:
            self._found(
                completed,
                "block_count",
                f"context_block_count is {payload.get('context_block_count')}, told are {blocks}",
            )
        offered = _count(step, ("allow", "requires_approval"))
        refused = _count(step, ("deny", "rate_limited", "budget_exceeded"))
        for name, least in (("allowed_count", offered), ("denied_count", refused)):
            if int(payload.get(name, 0)) < least:
                self._found(completed, "action_count", f"{name} is {payload.get(name)}, policies decided {least}")

    def _call(self, step: Step) -> None:
        self._request_once(step)
        payload = step.first.payload
        if "parameters" in payload and digest(payload["parameters"]) != payload.get("parameters_hash"):
            self._found(step.first, "parameters_hash", "parameters_hash is not the digest of the parameters")
        expires_us = self._resolutions.get(str(payload.get("resolution_id")))
        if expires_us is None:
            self._found(step.first, "no_resolution", f"resolution `{payload.get('resolution_id')}` was never made")
        elif step.now_us >= expires_us and "replay_of" not in payload:
            self._found(step.first, "expired_resolution", f"resolution `{payload.get('resolution_id')}` had expired")
        if "replay_of" in payload and payload["replay_of"] not in self._over:
            self._found(step.first, "no_outcome", f"execution `{payload['replay_of']}` has no outcome to repeat")
        for event in step.events[1:]:
            if event.payload.get("action_id") != payload.get("action_id"):
                self._found(event, "other_action", "the event is about another action than its call")
        asked = step.find("approval.requested")
        if asked is not None:
            self._approvals[str(asked.payload.get("approval_id"))] = _Asked(
                action_id=str(payload.get("action_id")),
                parameters_hash=str(payload.get("parameters_hash")),
                expires_us=parse_timestamp(str(asked.payload.get("expires_at"))),
            )
        approved = step.find(APPROVED)
        if approved is not None:
            self._approved(step, approved)

    def _approved(self, step: Step, approved: Recorded) -> None:
        evaluated, denied = step.find(EVALUATED), step.find("action.denied")
        word = None if evaluated is None else evaluated.payload.get("result")
        if denied is not None or word in ("deny", "rate_limited", "budget_exceeded"):
            self._found(approved, "approved_and_denied", "the call is approved and denied")
        if approved.payload.get("resolution_id") != step.first.payload.get("resolution_id"):
            self._found(approved, "other_resolution", "the approval goes by another resolution than the call")
        approval_id = approved.payload.get("approval_id")
        if approval_id is None:
            if word == "requires_approval":
                self._found(approved, "not_granted", "the policy asks for approval, and nobody gave it")
        else:
            self._use(approved, step, str(approval_id))
        execution_id = str(approved.payload.get("execution_id", f"#{approved.index}"))
        if execution_id in self._permits or execution_id in self._over:
            self._found(approved, "execution_twice", f"execution_id `{execution_id}` was used before")
        self._permits[execution_id] = approved

    def _use(self, approved: Recorded, step: Step, approval_id: str) -> None:
        asked = self._approvals.get(approval_id)
        if asked is None or asked.status != "granted":
            found = "never asked for" if asked is None else asked.status
            self._found(approved, "not_granted", f"approval `{approval_id}` is {found}, expected granted")
            return
        payload = step.first.payload
        if (asked.action_id, asked.parameters_hash) != (payload.get("action_id"), payload.get("parameters_hash")):
            self._found(approved, "other_call", f"approval `{approval_id}` was given for another call")
        if step.now_us >= asked.expires_us:
            self._found(approved, "expired_approval", f"approval `{approval_id}` had expired")
        asked.status = "used"

    def _approval(self, step: Step) -> None:
        payload = step.first.payload
        approval_id = str(payload.get("approval_id"))
        asked = self._approvals.get(approval_id)
        status = step.first.event_type.removeprefix("approval.")
        if asked is None:
            self._found(step.first, "no_request", f"approval `{approval_id}` was never asked for")
            return
        if asked.status != "pending" and not (status == "expired" and asked.status == "granted"):
            self._found(step.first, "decided_twice", f"approval `{approval_id}` was {asked.status} already")
        if (asked.action_id, asked.parameters_hash) != (payload.get("action_id"), payload.get("parameters_hash")):
            self._found(step.first, "other_call", f"approval `{approval_id}` was asked for another call")
        if status != "expired" and _person(payload.get("approver")) == _person(self._agent_id):
            self._found(step.first, "own_approver", f"`{payload.get('approver')}` decided about an own request")
        if (status == "expired") != (step.now_us >= asked.expires_us):
            late = "before" if status == "expired" else "after"
            self._found(step.first, "approval_time", f"approval `{approval_id}` is {status} {late} its expiry")
        asked.status = status

    def _outcome(self, step: Step) -> None:
        payload = step.first.payload
        execution_id = str(payload.get("execution_id"))
        permit = self._permits.pop(execution_id, None) or self._unnamed(payload)
        if permit is None:
            code, words = (
                ("outcome_twice", "has ended before")
                if execution_id in self._over
                else ("no_permit", "was not approved")
            )
            self._found(step.first, code, f"execution `{execution_id}` {words}")
        elif permit.payload.get("action_id") != payload.get("action_id"):
            self._found(step.first, "other_action", "the outcome is of another action than its approval")
        self._over.add(execution_id)
        self._executed += step.first.event_type == "action.executed"

    def _unnamed(self, payload: dict[str, Any]) -> Recorded | None:
        """Return the oldest permit of the action in a record that does not name executions at approval."""
        keys = [
            key
            for key, event in self._permits.items()
            if key.startswith("#") and event.payload.get("action_id") == payload.get("action_id")
        ]
        return self._permits.pop(keys[0]) if keys else None

    def _end(self, step: Step) -> None:
        self._ended = step.first
        told = step.first.payload.get("action_count")
        if told != self._executed:
            self._found(step.first, "action_count", f"action_count is {told}, executed were {self._executed}")


def _count(step: Step, results: tuple[str, ...]) -> int:
    return sum(event.event_type == EVALUATED and event.payload.get("result") in results for event in step.events)


def _person(name: object) -> str:
    return str(name).strip().casefold()
