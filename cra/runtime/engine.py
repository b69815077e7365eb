"""The engine: what is decided about a request. Pure: no I/O, no clock, no randomness."""

import json
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, UnsetType

from cra._core import calls
from cra._core.assemble import Prefix
from cra._core.calls import Answer
from cra._core.canonical import dumps
from cra._core.chain import Chain, EventBatch
from cra._core.policy import Outcome
from cra.atlas.limits import cost_of, counter_key, least_cost
from cra.atlas.snapshot import RISK_RANK, RISKS, Snapshot
from cra.protocol.carp import (
    AllowedAction,
    Constraint,
    ContextBlock,
    Decision,
    DecisionType,
    DeniedAction,
    Request,
    Resolution,
)
from cra.runtime.config import DEFAULT_CONTEXT_TOKENS, DEFAULT_TTL_SECONDS
from cra.storage.base import Claim, ResolutionRecord, SessionRecord

MICRO = 1_000_000

# What a limit policy's usage says besides microseconds to wait.
NEVER = -1
NO_COST = -2

# The context of most requests; nobody writes to it.
_NOTHING: dict[str, Any] = {}


class Ask(NamedTuple):
    """A resolve, with its defaults filled in; `risk` is 0..3. A missing id or timestamp is made by the batch."""

    goal: str
    risk: int = 0
    hints: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    atlas_ids: tuple[str, ...] = ()
    context: dict[str, Any] = _NOTHING
    request_id: str | None = None
    timestamp: str | None = None
    parent_session_id: str | None = None


class Rules(NamedTuple):
    """The settings that a decision depends on."""

    ttl_seconds: int
    max_context_tokens: int
    capture: bool


LIBRARY_RULES = Rules(DEFAULT_TTL_SECONDS, DEFAULT_CONTEXT_TOKENS, capture=False)


class Decided(Struct, frozen=True, kw_only=True):
    """A decided resolve: the answer, and what the session keeps of it."""

    resolution: Resolution
    answer: Answer
    record: ResolutionRecord

    @property
    def canonical(self) -> bytes:
        """The resolution as canonical JSON; the same bytes that were hashed into the trace."""
        return self.answer.data


def ask_of(request: Request) -> Ask:
    """Return what a CARP request asks."""
    parent = request.requester.parent_session_id
    return Ask(
        goal=request.task.goal,
        risk=RISK_RANK[request.task.risk_tier],
        hints=request.task.context_hints,
        capabilities=request.task.required_capabilities,
        atlas_ids=request.atlas_ids,
        context=request.context,
        request_id=request.request_id,
        timestamp=request.timestamp,
        parent_session_id=None if isinstance(parent, UnsetType) else parent,
    )


def decide(
    snapshot: Snapshot,
    request: Request,
    now_us: int,
    *,
    entropy: bytes = bytes(16),
    usage: dict[int, int] | None = None,
    rules: Rules = LIBRARY_RULES,
) -> Decided:
    """Decide about a request as a new session's first; the same inputs give the same bytes.

    `usage` maps a limit policy's index to the microseconds to wait, as `Storage.peek` tells them.
    """
    requester = request.requester
    chain = Chain(requester.session_id, requester.session_id)
    session = SessionRecord(
        session_id=requester.session_id,
        agent_id=requester.agent_id,
        goal=request.task.goal,
        trace_id=requester.session_id,
        started_us=now_us,
    )
    return resolve(snapshot, session, ask_of(request), chain.begin(now_us, entropy), usage, rules)


def merged_context(session: SessionRecord, context: dict[str, Any]) -> dict[str, Any]:
    """Return the context that conditions see: what the host said of the session wins over the request's."""
    return {**context, **session.context}


def resolve(
    snapshot: Snapshot,
    session: SessionRecord,
    ask: Ask,
    batch: EventBatch,
    usage: dict[int, int] | None,
    rules: Rules,
) -> Decided:
    """Decide about a resolve and add its events to `batch`; raises `AtlasNotFound` for an unknown atlas."""
    goal, risk, hints, capabilities, atlas_ids, context, request_id, timestamp, parent = ask
    seen = merged_context(session, context) if session.context else context
    windows = snapshot.open_windows(batch.now_us) if snapshot.windows else None
    considered = snapshot.considered(atlas_ids, capabilities) if atlas_ids or capabilities else None
    outcome = snapshot.table.evaluate(session.agent_id, risk, seen, windows, usage, considered)
    chosen: list[int] = []
    skipped: list[int] = []
    if snapshot.context is not None:
        packs = snapshot.open_packs(session.agent_id, risk, seen, windows, atlas_ids, capabilities)
        chosen, skipped = snapshot.context.select(goal, hints, packs, rules.max_context_tokens)
    prefix = snapshot.fragments.prefix(outcome, chosen)
    offer: Offer = prefix.note or _offer(snapshot, outcome, chosen, prefix)
    answer, request_id, resolution_id, timestamp = calls.resolve(
        batch,
        snapshot.fragments,
        outcome,
        prefix,
        session.agent_id,
        goal,
        RISKS[risk],
        hints,
        capabilities,
        atlas_ids,
        context,
        rules.capture,
        rules.ttl_seconds,
        chosen,
        skipped,
        request_id,
        timestamp,
        parent,
    )
    resolution = Resolution(
        carp_version="1.0",
        resolution_id=resolution_id,
        request_id=request_id,
        timestamp=timestamp,
        decision=offer.decision,
        context_blocks=offer.blocks,
        allowed_actions=offer.allowed,
        denied_actions=_denied(snapshot, outcome, usage) if prefix.limited else offer.denied,
        constraints=offer.constraints,
        ttl_seconds=rules.ttl_seconds,
        trace_id=session.trace_id,
    )
    record = ResolutionRecord(
        resolution_id=resolution_id,
        expires_us=batch.now_us + rules.ttl_seconds * MICRO,
        goal=goal,
        risk=risk,
        atlas_ids=atlas_ids,
        capabilities=capabilities,
        context=context,
        offered=offer.ids,
    )
    return Decided(resolution=resolution, answer=answer, record=record)


class Offer(NamedTuple):
    """What follows from the decisions alone; one object serves every resolution that decides the same.

    `denied` is not what is answered when a limit decided: its reason then says how long to wait.
    """

    decision: Decision
    allowed: tuple[AllowedAction, ...]
    ids: frozenset[str]
    blocks: tuple[ContextBlock, ...]
    constraints: tuple[Constraint, ...]
    denied: tuple[DeniedAction, ...]


def _offer(snapshot: Snapshot, outcome: Outcome, chosen: list[int], prefix: Prefix) -> Offer:
    allowed = outcome.offered(snapshot.plain, snapshot.confirming)
    offer = Offer(
        decision=Decision(
            type=DecisionType(prefix.decision_type), reason=prefix.reason, approval_id=None, expires_at=None
        ),
        allowed=allowed,
        ids=frozenset([action.action_id for action in allowed]),
        blocks=tuple([snapshot.blocks[number] for number in chosen]),
        constraints=_constraints(snapshot, outcome),
        denied=_denied(snapshot, outcome, None),
    )
    prefix.note = offer
    return offer


def _denied(snapshot: Snapshot, outcome: Outcome, usage: dict[int, int] | None) -> tuple[DeniedAction, ...]:
    return tuple(
        [
            denied_action(snapshot, action, policy, (usage or {}).get(policy, 0))
            for action, _, policy in outcome.refused()
        ]
    )


def denied_action(snapshot: Snapshot, action: int, policy: int, wait_us: int) -> DeniedAction:
    """Return the denial of an action by a policy's index, -1 for the default."""
    bound = snapshot.actions[action]
    if policy < 0:
        return DeniedAction(
            action_id=bound.action.action_id, reason=f"no allow policy of atlas `{bound.atlas_id}` matches"
        )
    decided = snapshot.policies[policy]
    reason = decided.reason
    if decided.limit is not None and wait_us > 0:
        reason = f"{reason}; retry in {seconds(wait_us)} s"
    return DeniedAction(action_id=bound.action.action_id, reason=reason, policy_id=decided.policy_id)


def seconds(wait_us: int) -> int:
    """Return whole seconds to wait, rounded up."""
    return -(-wait_us // MICRO)


def _constraints(snapshot: Snapshot, outcome: Outcome) -> tuple[Constraint, ...]:
    bindings = outcome.bindings()
    if not bindings:
        return ()
    return tuple(
        [
            Constraint(
                constraint_id=f"{bound.atlas_id}:{bound.policy_id}",
                type=bound.constraint_type,
                parameters={
                    "actions": [snapshot.actions[action].action.action_id for action in actions],
                    **(bound.constraint or {}),
                },
            )
            for bound, actions in ((snapshot.policies[policy], actions) for policy, actions in bindings)
        ]
    )


def canonical_request(request: Request) -> bytes:
    """Return the canonical JSON of a request: every default filled in, absent optionals left out."""
    return dumps(msgspec.to_builtins(request))


def canonical_resolution(resolution: Resolution) -> bytes:
    """Return the canonical JSON of a resolution; the same bytes that were hashed into the trace."""
    return dumps(msgspec.to_builtins(resolution))


# Limits


def peekable(snapshot: Snapshot, agent_id: str, session_id: str) -> tuple[list[int], list[Claim]]:
    """Return the limit policies of a snapshot and the least that a call of this session would claim of each."""
    claims = [
        Claim(counter_key(limit, agent_id, session_id), limit.rate, limit.amount, limit.window_us, least_cost(limit))
        for limit in snapshot.limits.values()
    ]
    return list(snapshot.limits), claims


def usage_of(policies: list[int], waits: list[int]) -> dict[int, int]:
    """Return what `evaluate` and `decide` want to know of limits: only those that have no room."""
    return {policy: wait_us for policy, wait_us in zip(policies, waits, strict=True) if wait_us}


def claims_of(
    snapshot: Snapshot,
    session: SessionRecord,
    action: int,
    risk: int,
    context: dict[str, Any],
    parameters: dict[str, Any],
    windows: bytes | None,
) -> tuple[list[int], tuple[Claim, ...], dict[int, int]]:
    """Return the limit policies that bind a call, its claims on them, and the usage of those it cannot satisfy."""
    policies: list[int] = []
    claims: list[Claim] = []
    usage: dict[int, int] = {}
    for policy in snapshot.table.limits(action, session.agent_id, risk, context, windows, parameters):
        limit = snapshot.limits[policy]
        cost = cost_of(limit, parameters)
        if cost is None:
            usage[policy] = NO_COST
            continue
        if cost > limit.amount:
            usage[policy] = NEVER
            continue
        policies.append(policy)
        key = counter_key(limit, session.agent_id, session.session_id)
        claims.append(Claim(key, limit.rate, limit.amount, limit.window_us, cost))
    return policies, tuple(claims), usage


class Verdict(NamedTuple):
    """What was decided about one call; `policy` is its index, -1 when none decided."""

    action: int
    decision: str
    policy: int
    wait_us: int = 0


def why(snapshot: Snapshot, verdict: Verdict) -> str:
    """Return the reason of a verdict that is not an allow."""
    if verdict.wait_us == NO_COST:
        return f"the call names no cost for the budget of policy `{snapshot.policies[verdict.policy].policy_id}`"
    return denied_action(snapshot, verdict.action, verdict.policy, verdict.wait_us).reason


def parse_canonical(data: bytes) -> Any:
    """Return the value of canonical JSON that CRA itself wrote; integers keep every digit."""
    return json.loads(data)
