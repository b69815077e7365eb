"""The past: a recorded session read back as steps, and a world in which each can be decided again."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, cast

import msgspec
from msgspec import Struct, structs

from cra._core.calls import Call
from cra._core.chain import Chain, verify
from cra._core.sha256 import hexdigest
from cra._core.windows import BudgetWindow, RateWindow
from cra.atlas.limits import counter_key
from cra.atlas.snapshot import RISK_RANK, RISKS, Snapshot
from cra.errors import InvalidTrace
from cra.protocol.carp import ExecuteResponse, ExecuteStatus
from cra.protocol.times import format_timestamp, parse_timestamp
from cra.protocol.trace import Trace
from cra.runtime import engine
from cra.runtime.attempt import begin_attempt
from cra.runtime.calls import Ending, Order, Permit, response_bytes
from cra.runtime.config import DEFAULT_CONTEXT_TOKENS, RuntimeConfig
from cra.runtime.engine import MICRO, Ask, Rules
from cra.runtime.executors import ExecutorTable
from cra.runtime.kernel import Kernel, Live
from cra.runtime.payloads import check_payload
from cra.runtime.unknown import context_watchers
from cra.storage.base import ApprovalRecord, Change, Claim, IdempotencyRecord, ResolutionRecord, SessionRecord, Storage

Payload = dict[str, Any]
Told = list[tuple[str, Payload]]  # (event type, payload) of the events of one step

RECEIVED = "carp.request.received"
EVALUATED = "policy.evaluated"
COMPLETED = "carp.resolution.completed"
REQUESTED = "action.requested"
APPROVED = "action.approved"
ERROR = "error.occurred"

_NEVER = -1
_FILLER = "00000000-0000-7000-8000-000000000000"


class Recorded(Struct, frozen=True):
    """One event as it was recorded; `raw` is its payload's canonical bytes."""

    index: int
    event_type: str
    payload: Payload
    raw: bytes


class Step(NamedTuple):
    """The events of one span: one request, one outcome, one decision of a person."""

    now_us: int
    span_id: str
    events: tuple[Recorded, ...]

    @property
    def first(self) -> Recorded:
        return self.events[0]

    def find(self, event_type: str) -> Recorded | None:
        """Return the first event of a type."""
        return next((event for event in self.events if event.event_type == event_type), None)

    def told(self) -> Told:
        """Return what the events say."""
        return [(event.event_type, event.payload) for event in self.events]

    def need(self, name: str) -> Any:
        """Return a field of the first event; raises `InvalidTrace` when it is not there."""
        try:
            return self.first.payload[name]
        except KeyError:
            raise InvalidTrace(
                f"event {self.first.index}: `{self.first.event_type}` has no `{name}`",
                details={"index": self.first.index, "reason": "payload"},
            ) from None


class Session(NamedTuple):
    """A whole recorded session whose chain was verified."""

    session_id: str
    trace_id: str
    steps: tuple[Step, ...]


class _Line(Struct):
    """What is read of a stored line; its grammar was verified."""

    trace_id: str
    span_id: str
    session_id: str
    timestamp: str
    event_type: str
    payload: msgspec.Raw


_decoder = msgspec.json.Decoder(_Line)


def read_session(trace: Trace | bytes) -> Session:
    """Return a verified trace as steps; raises `InvalidTrace` naming the first event that is bad or cannot be read."""
    if not isinstance(trace, Trace | bytes | bytearray | memoryview):
        raise InvalidTrace(f"trace is `{type(trace).__name__}`, expected a Trace or the bytes of one")
    data = trace.data if isinstance(trace, Trace) else bytes(trace)
    verdict = verify(data)
    if not verdict.ok:
        raise InvalidTrace(
            str(verdict.message),
            hint="what is not the record cannot be replayed; `cra trace verify` shows the place",
            details={"index": verdict.index, "reason": verdict.reason, "offset": verdict.offset},
        )
    lines = [_decoder.decode(line) for line in data.split(b"\n")[:-1]]
    if not lines or lines[0].event_type != "session.started":
        found = f"`{lines[0].event_type}`" if lines else "nothing"
        raise InvalidTrace(
            f"the trace begins with {found}, expected `session.started`", details={"index": 0, "reason": "payload"}
        )
    return Session(lines[0].session_id, lines[0].trace_id, tuple(_steps(lines)))


def _steps(lines: list[_Line]) -> Iterator[Step]:
    begin = 0
    for end in range(1, len(lines) + 1):
        if end < len(lines) and lines[end].span_id == lines[begin].span_id:
            continue
        events = tuple(_recorded(index, lines[index]) for index in range(begin, end))
        yield Step(parse_timestamp(lines[begin].timestamp), lines[begin].span_id, events)
        begin = end


def _recorded(index: int, line: _Line) -> Recorded:
    raw = bytes(line.payload)
    check_payload(index, line.event_type, raw)
    return Recorded(index, line.event_type, engine.parse_canonical(raw), raw)


def ask_of_step(step: Step) -> Ask:
    """Return what a recorded resolve asked; a context that was not kept is empty."""
    payload = step.first.payload
    return Ask(
        goal=step.need("goal"),
        risk=RISK_RANK.get(payload.get("risk_tier", "low"), 0),
        hints=tuple(payload.get("context_hints", ())),
        capabilities=tuple(payload.get("required_capabilities", ())),
        atlas_ids=tuple(payload.get("atlas_ids", ())),
        context=payload.get("context", {}),
        request_id=step.need("request_id"),
    )


def decided_approval(record: ApprovalRecord, step: Step) -> ApprovalRecord:
    """Return an approval as a recorded event leaves it."""
    status: Literal["granted", "rejected", "expired"]
    match step.first.event_type:
        case "approval.granted":
            status = "granted"
        case "approval.rejected":
            status = "rejected"
        case _:
            status = "expired"
    return structs.replace(record, status=status, approver=step.first.payload.get("approver"))


# The world


class _State:
    """What a store would tell an attempt: resolutions, approvals, outcomes, and who has room.

    `waits` are limits that were recorded as exhausted, by counter; `counting` also counts what is taken. `full`
    is whether no more approvals might be pending; the record does not say how many.
    """

    def __init__(self, *, counting: bool) -> None:
        self.counting = counting
        self.waits: dict[str, int] = {}
        self.full = False
        self.resolutions: dict[str, ResolutionRecord] = {}
        self.found_approvals: dict[str, ApprovalRecord] = {}
        self.outcomes: dict[str, IdempotencyRecord] = {}
        self._rates: dict[str, RateWindow] = {}
        self._budgets: dict[str, BudgetWindow] = {}

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None:
        return self.resolutions.get(resolution_id)

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        for record in reversed(self.resolutions.values()):
            if now_us < record.expires_us and (action_id is None or action_id in record.offered):
                return record
        return None

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None:
        return self.outcomes.get(key)

    def approval(self, approval_id: str) -> ApprovalRecord | None:
        return self.found_approvals.get(approval_id)

    def approvals(self, *, session_id: str, parameters_hash: str, status: str) -> list[ApprovalRecord]:
        return [
            record
            for record in self.found_approvals.values()
            if record.parameters_hash == parameters_hash and record.status == status
        ]

    def waiting(self, session_id: str, now_us: int) -> int:
        # More than any runtime's bound.
        return 1 << 62 if self.full else 0

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        return [self.waits.get(claim.key) or (self._wait(claim, now_us) if self.counting else 0) for claim in claims]

    def _wait(self, claim: Claim, now_us: int) -> int:
        if claim.rate:
            rate = self._rates.get(claim.key)
            return 0 if rate is None else rate.peek(now_us)
        if claim.cost > claim.amount:
            return _NEVER
        budget = self._budgets.get(claim.key)
        return 0 if budget is None else budget.peek(claim.cost, now_us)

    def land(self, change: Change, now_us: int) -> None:
        """Keep what a decided step changes."""
        if change.approval is not None:
            self.found_approvals[change.approval.approval_id] = change.approval
        if not self.counting:
            return
        for claim in change.claims:
            if claim.rate:
                self._rates.setdefault(claim.key, RateWindow(claim.amount, claim.window_us)).take(now_us)
            else:
                budget = self._budgets.setdefault(claim.key, BudgetWindow(claim.amount, claim.window_us))
                budget.take(claim.cost, now_us)


class Permitted(NamedTuple):
    """A call that was permitted and has perhaps not ended."""

    started_us: int
    call: str
    resolution_id: str | None


class World(Kernel):
    """A session as its past steps left it; each step is decided again by the engine and the attempts of the runtime.

    A `counting` world counts limits by itself, from the session's own calls.
    """

    def __init__(self, session: Session, snapshot: Snapshot, *, counting: bool = False) -> None:
        self.state = _State(counting=counting)
        super().__init__(RuntimeConfig(), cast(Storage, self.state), snapshot)
        step = session.steps[0]
        payload = step.first.payload
        self.record = SessionRecord(
            session_id=session.session_id,
            agent_id=step.need("agent_id"),
            goal=step.need("goal"),
            trace_id=session.trace_id,
            started_us=step.now_us,
            parent_session_id=payload.get("parent_session_id"),
            context=payload.get("context", {}),
            metadata=payload.get("metadata", {}),
        )
        self.context_kept = "context_hash" not in payload
        self.max_context_tokens: int = payload.get("max_context_tokens", DEFAULT_CONTEXT_TOKENS)
        # Contexts that were kept as digests only, by resolution.
        self.blind: set[str] = set()
        self.permits: dict[str, Permitted] = {}
        self._executors = ExecutorTable()
        self._executors.register("*", lambda parameters: None, inline=True)

    # Resolving

    def ask(self, step: Step, ask: Ask, *, ttl_seconds: int, resolution_id: str | None) -> Told:
        """Decide about a recorded resolve; raises `AtlasNotFound`."""
        rules = Rules(ttl_seconds, self.max_context_tokens, "context_hash" not in step.first.payload)
        # Any id that nobody has used; it is replaced by the recorded one.
        entropy = bytes.fromhex(hexdigest(step.span_id.encode()))[:16]
        batch = Chain(self.record.session_id, self.record.trace_id).begin(step.now_us, entropy)
        decided = engine.resolve(self.snapshot, self.record, ask, batch, self._usage(step), rules)
        told = _told(batch.data)
        own = decided.resolution.resolution_id
        if resolution_id is not None:
            answer = decided.canonical.replace(own.encode(), resolution_id.encode())
            told[-1][1].update(resolution_id=resolution_id, resolution_hash=hexdigest(answer))
            own = resolution_id
        offered = decided.record.offered
        if not self.context_kept or "context_hash" in step.first.payload:
            self.blind.add(own)
            offered = self._offered(step, ask, offered)
        self.state.resolutions[own] = structs.replace(decided.record, resolution_id=own, offered=offered)
        return told

    def _offered(self, step: Step, ask: Ask, offered: frozenset[str]) -> frozenset[str]:
        """Return what a resolve offered whose context was not kept, where policies look at that.

        The record says it of its own atlases. Under others it is what a call may find: they are asked again there.
        """
        snapshot, completed = self.snapshot, step.find(COMPLETED)
        watched, _ = context_watchers(snapshot)
        own = completed is not None and completed.payload.get("snapshot_digest") == snapshot.digest
        results = {
            event.payload.get("action_id"): event.payload["result"]
            for event in step.events
            if event.event_type == EVALUATED
        }
        considered = snapshot.considered(ask.atlas_ids, ask.capabilities)
        found = set(offered - watched)
        for number, bound in enumerate(snapshot.actions):
            action_id = bound.action.action_id
            if action_id in watched and (considered is None or considered[number]):
                default = "deny" if snapshot.is_closed(bound.atlas_id) else "allow"
                if not own or results.get(action_id, default) in ("allow", "requires_approval"):
                    found.add(action_id)
        return frozenset(found)

    def _usage(self, step: Step) -> dict[int, int] | None:
        if not self.snapshot.limits:
            return None
        policies, claims = engine.peekable(self.snapshot, self.record.agent_id, self.record.session_id)
        return engine.usage_of(policies, self.state.peek(claims, step.now_us))

    # Calling

    def call(
        self,
        step: Step,
        snapshot: Snapshot,
        parameters: Payload,
        parameters_hash: str,
        *,
        resolution_id: str | None,
    ) -> tuple[Told, Change, Permit | Ending]:
        """Decide about a recorded call with a snapshot; nothing changes until the change lands."""
        payload = step.first.payload
        order = Order(
            session_id=self.record.session_id,
            action_id=step.need("action_id"),
            parameters=parameters,
            resolution_id=resolution_id,
            idempotency_key=payload.get("replay_of"),
            approval_id=payload.get("approval_id"),
            request_id=step.need("request_id"),
            risk=RISK_RANK.get(payload.get("risk_tier", "low"), 0),
            actor=_actor(step),
        )
        asked = step.find("approval.requested")
        if asked is not None:
            seconds = (parse_timestamp(asked.payload["expires_at"]) - step.now_us) // MICRO
            self.config = structs.replace(self.config, approval_ttl_seconds=max(1, min(seconds, 30 * 86_400)))
        self.now_us = self.limits_now_us = lambda: step.now_us
        self.rules = self.rules._replace(capture="parameters" in payload)
        before, self.snapshot = self.snapshot, snapshot
        try:
            live = Live(self.record, Chain(self.record.session_id, self.record.trace_id))
            call = Call(
                order.action_id,
                parameters,
                parameters_hash,
                RISKS[order.risk] if order.risk else None,
                order.approval_id,
                self.rules.capture,
            )
            attempt = begin_attempt(self, self._executors, live, order, call, {})
            ending = attempt.decide()
        finally:
            self.snapshot = before
        return *_with_recorded_ids(step, _told(attempt.batch.data), attempt.change, snapshot), ending

    def permit(self, step: Step, parameters_hash: str) -> None:
        """Keep that a call was permitted, for its outcome."""
        approved = step.find(APPROVED)
        if approved is not None:
            call = f"{step.need('action_id')}:{parameters_hash}"
            # Somebody else's record may not name the execution: then the oldest of that action is taken.
            key = approved.payload.get("execution_id", f"#{step.first.index}")
            self.permits[key] = Permitted(step.now_us, call, approved.payload.get("resolution_id"))

    def outcome(self, step: Step) -> Permitted | None:
        """Keep that a permitted call has ended, so that a repeat of it finds its answer; None if none permitted it."""
        execution_id = step.need("execution_id")
        permitted = self.permits.pop(execution_id, None) or self._unnamed(step)
        if permitted is None:
            return None
        response = ExecuteResponse(
            carp_version="1.0",
            execution_id=execution_id,
            request_id=_FILLER,
            resolution_id=permitted.resolution_id,
            timestamp=format_timestamp(step.now_us),
            status=ExecuteStatus.SUCCESS,
            result=None,
            error=None,
            trace_id=self.record.trace_id,
        )
        kept = IdempotencyRecord(key=execution_id, call=permitted.call, response=response_bytes(response))
        self.state.outcomes[execution_id] = kept
        return permitted

    def _unnamed(self, step: Step) -> Permitted | None:
        start = f"{step.need('action_id')}:"
        keys = [key for key, one in self.permits.items() if key.startswith("#") and one.call.startswith(start)]
        return self.permits.pop(keys[0]) if keys else None

    # Limits

    def observe(self, step: Step, snapshot: Snapshot) -> None:
        """Take from a step which limits it found exhausted, for whoever decides about it with this snapshot."""
        self.state.waits = {}
        violated = step.find("policy.violated")
        # What no policy limits is how many approvals are pending.
        self.state.full = violated is not None and (
            violated.payload.get("violation_type") == "rate_limit" and "policy_id" not in violated.payload
        )
        exhausted = {
            (event.payload.get("atlas_id"), event.payload.get("policy_id")): event.payload.get("retry_after_seconds")
            for event in step.events
            if event.event_type == EVALUATED and event.payload.get("result") in ("rate_limited", "budget_exceeded")
        }
        if not exhausted:
            return
        for number, limit in snapshot.limits.items():
            policy = snapshot.policies[number]
            name = (policy.atlas_id, policy.policy_id)
            if name in exhausted:
                after = exhausted[name]
                key = counter_key(limit, self.record.agent_id, self.record.session_id)
                self.state.waits[key] = _NEVER if after is None else after * MICRO


def _actor(step: Step) -> str | None:
    """Return who made a call, where the record says so: where it mattered."""
    for event_type in ("approval.requested", "action.denied"):
        event = step.find(event_type)
        if event is not None and isinstance(actor := event.payload.get("requested_by"), str):
            return actor
    return None


def _told(data: bytes) -> Told:
    lines = [_decoder.decode(line) for line in data.split(b"\n")[:-1]]
    return [(line.event_type, engine.parse_canonical(bytes(line.payload))) for line in lines]


def _with_recorded_ids(step: Step, told: Told, change: Change, snapshot: Snapshot) -> tuple[Told, Change]:
    """Put the recorded ids in the place of those that were made."""
    approved, asked = step.find(APPROVED), step.find("approval.requested")
    for event_type, payload in told:
        if "snapshot_digest" in payload:
            # A snapshot of a case stands for the one that it was made of.
            payload["snapshot_digest"] = snapshot.digest
        if event_type == APPROVED and approved is not None:
            _take(payload, approved.payload, "execution_id")
        if event_type == "approval.requested" and asked is not None and change.approval is not None:
            _take(payload, asked.payload, "approval_id")
            record = structs.replace(change.approval, approval_id=payload["approval_id"])
            change = structs.replace(change, approval=record)
    return told, change


def _take(payload: Payload, recorded: Payload, name: str) -> None:
    """Take over an id, or its absence in a record of somebody who does not name it."""
    if name in recorded:
        payload[name] = recorded[name]
    else:
        payload.pop(name, None)
