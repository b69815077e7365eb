"""Snapshot: a loaded set of atlases, compiled once into what every decision reads."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType, structs

from cra._core.assemble import Fragments
from cra._core.canonical import digest, dumps
from cra._core.context import ContextIndex
from cra._core.glob import matching
from cra._core.policy import PolicyTable
from cra._core.sha256 import hexdigest
from cra.atlas.limits import Limit, budget_limit, rate_limit
from cra.atlas.package import Atlas
from cra.atlas.reasons import given_reason, reason_of
from cra.atlas.schema_check import ParameterSchema
from cra.atlas.windows import OpenHours
from cra.errors import AtlasConflict, AtlasNotFound
from cra.protocol.atlas import (
    Action,
    Conditions,
    ContextPack,
    Per,
    Policy,
    PolicyType,
    RateLimitParameters,
    TimeWindow,
)
from cra.protocol.carp import AllowedAction, ConstraintType, ContentType, ContextBlock
from cra.protocol.fields import RiskTier

# By rank; plain strings, as the core wants them.
RISKS: tuple[str, ...] = tuple(tier.value for tier in RiskTier)
RISK_RANK = {tier: rank for rank, tier in enumerate(RISKS)}
ANY_RISK = 0b1111

_PHASE = {
    PolicyType.DENY: 0,
    PolicyType.SCOPE: 1,
    PolicyType.REQUIRE_APPROVAL: 2,
    PolicyType.REQUIRES_APPROVAL: 2,
    PolicyType.RATE_LIMIT: 3,
    PolicyType.BUDGET: 4,
    PolicyType.ALLOW: 5,
}
_CONSTRAINT = {
    PolicyType.DENY: ConstraintType.SCOPE,
    PolicyType.SCOPE: ConstraintType.SCOPE,
    PolicyType.REQUIRE_APPROVAL: ConstraintType.REQUIRE_APPROVAL,
    PolicyType.REQUIRES_APPROVAL: ConstraintType.REQUIRE_APPROVAL,
    PolicyType.RATE_LIMIT: ConstraintType.RATE_LIMIT,
    PolicyType.BUDGET: ConstraintType.BUDGET,
}
# What policy.evaluated says when the policy decided.
_RESULT = {
    PolicyType.DENY: "deny",
    PolicyType.SCOPE: "deny",
    PolicyType.REQUIRE_APPROVAL: "requires_approval",
    PolicyType.REQUIRES_APPROVAL: "requires_approval",
    PolicyType.RATE_LIMIT: "rate_limited",
    PolicyType.BUDGET: "budget_exceeded",
    PolicyType.ALLOW: "allow",
}


class BoundAction(NamedTuple):
    """One action of the snapshot, with everything execute needs."""

    atlas_id: str
    action: Action
    parameters: ParameterSchema
    returns: ParameterSchema | None
    capabilities: frozenset[str]
    executor: str


class BoundPolicy(NamedTuple):
    """One policy of the snapshot, in evaluation order."""

    atlas_id: str
    policy_id: str
    type: PolicyType
    reason: str
    limit: Limit | None
    constraint: dict[str, Any] | None
    constraint_type: ConstraintType


class _Pack(NamedTuple):
    """What decides about a pack beside the conditions that its row in the pack table holds."""

    atlas: int
    risks: int
    capabilities: frozenset[str] | None
    named_by: frozenset[str]


class Snapshot:
    """Everything that can be worked out before a request comes; immutable.

    Reloading an atlas makes a new snapshot; sessions see it at their next call. `catalog` is the revision of the
    tenant's stored atlases that it was made of; None when atlases are not stored. It is no part of the digest.
    """

    __slots__ = (
        "_considered",
        "_pack_members",
        "_pack_table",
        "_windows_at",
        "actions",
        "atlas_index",
        "atlases",
        "blocks",
        "capabilities",
        "catalog",
        "confirming",
        "context",
        "default_decision",
        "digest",
        "fragments",
        "index",
        "limits",
        "plain",
        "policies",
        "table",
        "uses_context",
        "windows",
    )

    def __init__(self, atlases: Sequence[Atlas], default_decision: str = "allow", catalog: int | None = None) -> None:
        self.atlases = tuple(atlases)
        self.catalog = catalog
        self.default_decision = default_decision
        self.atlas_index = {atlas.atlas_id: number for number, atlas in enumerate(self.atlases)}
        self.digest = digest(
            {
                "atlases": [{"atlas_id": a.atlas_id, "digest": a.digest, "version": a.version} for a in self.atlases],
                "default_decision": default_decision,
            }
        )
        self.windows: list[OpenHours] = []
        self._windows_at: tuple[int, bytes | None] = (-1, None)
        self._considered: dict[tuple[tuple[str, ...], tuple[str, ...]], bytes | None] = {}
        self._bind_actions()
        rows, pack_rows = self._bind_policies(), self._bind_context()
        # Both tables read the same windows, so both are made when all of them are known.
        self.table = PolicyTable(
            [
                (RISK_RANK[bound.action.risk_tier], self.atlas_index[bound.atlas_id], self.is_closed(bound.atlas_id))
                for bound in self.actions
            ],
            rows,
            len(self.windows),
        )
        # A pack is open when the one policy that speaks for it allows it: the same evaluation as for actions.
        self._pack_table = PolicyTable([(0, 0, True)] * len(self._pack_members), pack_rows, len(self.windows))
        self.uses_context = any(
            conditions.context_matches is not UNSET and bool(conditions.context_matches)
            for atlas in self.atlases
            for conditions in (
                *(policy.conditions for policy in atlas.manifest.policies),
                *(pack.conditions for pack in atlas.manifest.context_packs),
            )
        )
        # INVARIANT: what resolutions hand out is a copy: changing it changes nothing that the next snapshot is made of.
        self.plain = [deepcopy(_allowed(bound.action)) for bound in self.actions]
        self.confirming = [structs.replace(action, requires_confirmation=True) for action in self.plain]
        self.fragments = self._fragments()

    def considered(self, atlas_ids: tuple[str, ...], capabilities: tuple[str, ...]) -> bytes | None:
        """Return one byte for each action, 1 where the request asks about it; None for all.

        Raises `AtlasNotFound` for an atlas that is not loaded.
        """
        if not atlas_ids and not capabilities:
            return None
        key = (atlas_ids, capabilities)
        if key not in self._considered:
            if len(self._considered) >= 256:
                self._considered.clear()
            self._considered[key] = self._consider(atlas_ids, frozenset(capabilities))
        return self._considered[key]

    def _consider(self, atlas_ids: tuple[str, ...], capabilities: frozenset[str]) -> bytes:
        for atlas_id in atlas_ids:
            if atlas_id not in self.atlas_index:
                raise AtlasNotFound(
                    f"atlas_ids: `{atlas_id}` is not loaded",
                    hint="name a loaded atlas, or none for all of them",
                ) from None
        return bytes(
            (not atlas_ids or bound.atlas_id in atlas_ids)
            and (not capabilities or not capabilities.isdisjoint(bound.capabilities))
            for bound in self.actions
        )

    def open_windows(self, now_us: int) -> bytes | None:
        """Return one byte for each distinct time window, 1 where it is open; None when there are none."""
        if not self.windows:
            return None
        # PERF: windows open and close on whole seconds, so one answer serves the second. Not the minute: the offsets
        # of old time zones have seconds of their own.
        second = now_us // 1_000_000
        at, flags = self._windows_at
        if at != second:
            flags = bytes(window.is_open(now_us) for window in self.windows)
            self._windows_at = (second, flags)
        return flags

    def open_packs(
        self,
        agent_id: str,
        risk: int,
        context: dict[str, Any] | None,
        windows: bytes | None,
        atlas_ids: tuple[str, ...],
        capabilities: tuple[str, ...],
    ) -> bytes:
        """Return one byte for each context pack, 1 where its conditions hold for this request."""
        outcome = self._pack_table.evaluate(agent_id, risk, context, windows)
        wanted = {self.atlas_index[atlas_id] for atlas_id in atlas_ids}
        asked = frozenset(capabilities)
        return bytes(
            outcome.decision(number) == ("allow", number)
            and bool(pack.risks >> risk & 1)
            and (not wanted or pack.atlas in wanted)
            and (pack.capabilities is None or not asked.isdisjoint(pack.capabilities))
            and (not asked or not pack.named_by or not asked.isdisjoint(pack.named_by))
            for number, pack in enumerate(self._pack_members)
        )

    def _bind_actions(self) -> None:
        self.actions: list[BoundAction] = []
        self.index: dict[str, int] = {}
        self.capabilities: dict[str, list[str]] = {}
        for atlas in self.atlases:
            groups: dict[str, set[str]] = {}
            names = [action.action_id for action in atlas.manifest.actions]
            for capability in atlas.manifest.capabilities:
                for number in matching(capability.actions, names):
                    groups.setdefault(names[number], set()).add(capability.capability_id)
                    self.capabilities.setdefault(capability.capability_id, []).append(names[number])
            for action in atlas.manifest.actions:
                other = self.index.get(action.action_id)
                if other is not None:
                    raise AtlasConflict(
                        f"action `{action.action_id}` of `{atlas.atlas_id}` is declared by "
                        f"`{self.actions[other].atlas_id}` too",
                        hint="unload one of the atlases, or rename the action",
                    )
                self.index[action.action_id] = len(self.actions)
                self.actions.append(
                    BoundAction(
                        atlas_id=atlas.atlas_id,
                        action=action,
                        parameters=ParameterSchema(action.parameters_schema),
                        returns=ParameterSchema(action.returns_schema) if action.returns_schema else None,
                        capabilities=frozenset(groups.get(action.action_id, ())),
                        executor=action.action_id if isinstance(action.executor, UnsetType) else action.executor,
                    )
                )

    def is_closed(self, atlas_id: str) -> bool:
        """Tell whether the default denies the actions of an atlas."""
        manifest = self.atlases[self.atlas_index[atlas_id]].manifest
        return self.default_decision == "deny" or any(p.type is PolicyType.ALLOW for p in manifest.policies)

    def _bind_policies(self) -> list[tuple[Any, ...]]:
        found: list[tuple[tuple[int, float, int, int], Atlas, Policy]] = []
        for load, atlas in enumerate(self.atlases):
            for place, policy in enumerate(_all_policies(atlas)):
                explicit = place < len(atlas.manifest.policies)
                # Higher first; what an action says of itself comes after every explicit policy of its phase.
                priority = -policy.priority if explicit else float("inf")
                found.append(((_PHASE[policy.type], priority, place, load), atlas, policy))
        found.sort(key=lambda item: item[0])
        self.policies = [_bind_policy(atlas, policy) for _, atlas, policy in found]
        self.limits = {number: bound.limit for number, bound in enumerate(self.policies) if bound.limit is not None}
        names = [action.action.action_id for action in self.actions]
        return [self._row(atlas, policy, names) for _, atlas, policy in found]

    def _row(self, atlas: Atlas, policy: Policy, names: list[str]) -> tuple[Any, ...]:
        conditions = policy.conditions
        wanted = None if isinstance(conditions.capabilities, UnsetType) else frozenset(conditions.capabilities)
        bound = [
            number
            for number in matching(policy.actions, names)
            if (policy.type is not PolicyType.ALLOW or self.actions[number].atlas_id == atlas.atlas_id)
            and (wanted is None or not wanted.isdisjoint(self.actions[number].capabilities))
        ]
        schema = conditions.parameters
        scope = policy.parameters.get("schema") if policy.type is PolicyType.SCOPE else None
        return (
            _PHASE[policy.type],
            *self._general(conditions),
            None if isinstance(schema, UnsetType) else ParameterSchema(schema).matches,
            None if scope is None else ParameterSchema(scope).matches,
            self.atlas_index[atlas.atlas_id],
            bound,
        )

    def _general(self, conditions: Conditions) -> tuple[int, Sequence[str] | None, Sequence[Any] | None, int]:
        """Return (risk mask, agent globs, context matches, time window) of conditions."""
        risks, agents = conditions.risk_tiers, conditions.agents
        matches, window = conditions.context_matches, conditions.time_window
        return (
            ANY_RISK if isinstance(risks, UnsetType) else sum({1 << RISK_RANK[tier] for tier in risks}),
            None if isinstance(agents, UnsetType) else agents,
            None if isinstance(matches, UnsetType) or not matches else tuple(matches.items()),
            -1 if isinstance(window, UnsetType) else self._window(window),
        )

    def _window(self, window: TimeWindow) -> int:
        for number, known in enumerate(self.windows):
            if known.window == window:
                return number
        self.windows.append(OpenHours(window))
        return len(self.windows) - 1

    def _bind_context(self) -> list[tuple[Any, ...]]:
        self.blocks: list[ContextBlock] = []
        self._pack_members: list[_Pack] = []
        rows: list[tuple[Any, ...]] = []
        indexed: list[tuple[int, int, int, int, str, str]] = []
        limits: list[int] = []
        for number, atlas in enumerate(self.atlases):
            for pack in atlas.manifest.context_packs:
                place = len(self._pack_members)
                wanted = pack.conditions.capabilities
                capabilities = None if isinstance(wanted, UnsetType) else frozenset(wanted)
                named_by = frozenset(
                    capability.capability_id
                    for capability in atlas.manifest.capabilities
                    if pack.pack_id in capability.context_packs
                )
                risks, *general = self._general(pack.conditions)
                rows.append((_PHASE[PolicyType.ALLOW], ANY_RISK, *general, None, None, 0, [place]))
                self._pack_members.append(_Pack(number, risks, capabilities, named_by))
                limits.append(-1 if isinstance(pack.max_tokens, UnsetType) else pack.max_tokens)
                for file in pack.files:
                    content = atlas.files[file]
                    block = _block(atlas.atlas_id, pack, file, content.decode("utf-8"))
                    self.blocks.append(block)
                    indexed.append(
                        (number, place, pack.priority, block.token_estimate, hexdigest(content), block.content)
                    )
        self.context = ContextIndex(indexed, limits) if indexed else None
        return rows

    def _fragments(self) -> Fragments:
        return Fragments(
            actions=[_action_parts(bound.action) for bound in self.actions],
            atlases=[dumps(bound.atlas_id) for bound in self.actions],
            policies=[
                (
                    dumps(bound.atlas_id),
                    dumps(bound.policy_id),
                    dumps(_RESULT[bound.type]),
                    dumps(bound.reason),
                    _constraint_parts(bound),
                )
                for bound in self.policies
            ],
            blocks=[_block_parts(block) for block in self.blocks],
            snapshot_digest=self.digest,
        )


def _all_policies(atlas: Atlas) -> Iterable[Policy]:
    """Yield the manifest's policies, then those that its actions imply."""
    yield from atlas.manifest.policies
    for action in atlas.manifest.actions:
        if action.requires_confirmation:
            yield Policy(
                policy_id=f"{action.action_id}:requires_confirmation",
                type=PolicyType.REQUIRE_APPROVAL,
                actions=(action.action_id,),
                reason=f"`{action.action_id}` asks for confirmation by a person",
            )
        if not isinstance(action.rate_limit, UnsetType):
            yield Policy(
                policy_id=f"{action.action_id}:rate_limit",
                type=PolicyType.RATE_LIMIT,
                actions=(action.action_id,),
                parameters=msgspec.to_builtins(action.rate_limit),
            )


def _bind_policy(atlas: Atlas, policy: Policy) -> BoundPolicy:
    uid = f"{atlas.atlas_id}:{policy.policy_id}"
    limit: Limit | None = None
    if policy.type is PolicyType.RATE_LIMIT:
        limit = rate_limit(uid, msgspec.convert(policy.parameters, RateLimitParameters))
    elif policy.type is PolicyType.BUDGET:
        limit = budget_limit(uid, policy.parameters)
    return BoundPolicy(
        atlas_id=atlas.atlas_id,
        policy_id=policy.policy_id,
        type=policy.type,
        reason=reason_of(policy),
        limit=limit,
        constraint=deepcopy(_constraint(policy, given_reason(policy))),
        constraint_type=_constraint_type(policy),
    )


def _constraint_type(policy: Policy) -> ConstraintType:
    if policy.type is PolicyType.ALLOW:
        parametric = not isinstance(policy.conditions.parameters, UnsetType)
        return ConstraintType.SCOPE if parametric else ConstraintType.TIME_WINDOW
    return _CONSTRAINT[policy.type]


def _constraint(policy: Policy, reason: str | None) -> dict[str, Any]:
    """Return the constraint's parameters, `actions` aside."""
    conditions, given = policy.conditions, {} if reason is None else {"reason": reason}
    when = {} if isinstance(conditions.parameters, UnsetType) else {"when": conditions.parameters}
    if policy.type is PolicyType.RATE_LIMIT:
        return {"per": Per.AGENT, **policy.parameters, **given, **when}
    if policy.type is PolicyType.BUDGET:
        return {"per": Per.AGENT, **policy.parameters, **given, **when}
    if policy.type is PolicyType.SCOPE:
        return {**policy.parameters, **given, **when}
    if policy.type in (PolicyType.REQUIRE_APPROVAL, PolicyType.REQUIRES_APPROVAL):
        return {**given, **when}
    if when:
        return {"effect": policy.type.value, **given, **when}
    if not isinstance(conditions.time_window, UnsetType):
        window: dict[str, Any] = msgspec.to_builtins(conditions.time_window)
        return window
    return given


def _allowed(action: Action) -> AllowedAction:
    return AllowedAction(
        action_id=action.action_id,
        name=action.name,
        description=action.description,
        parameters_schema=action.parameters_schema,
        returns_schema=action.returns_schema,
        risk_tier=action.risk_tier,
        requires_confirmation=False,
        idempotent=action.idempotent,
        rate_limit=action.rate_limit,
    )


def _action_parts(action: Action) -> tuple[bytes, bytes, bytes]:
    """Return the id and an allowed action's canonical JSON on both sides of `requires_confirmation`."""
    whole: dict[str, Any] = msgspec.to_builtins(_allowed(action))
    before = {key: value for key, value in whole.items() if key < "requires_confirmation"}
    after = {key: value for key, value in whole.items() if key > "requires_confirmation"}
    return dumps(action.action_id), dumps(before)[:-1] + b',"requires_confirmation":', b"," + dumps(after)[1:]


def _constraint_parts(policy: BoundPolicy) -> tuple[bytes, bytes]:
    """Return a constraint's canonical JSON on both sides of the list of actions, which is the first parameter."""
    identity = dumps(f"{policy.atlas_id}:{policy.policy_id}")
    rest = dumps(policy.constraint)[1:-1]
    head = b'{"constraint_id":' + identity + b',"parameters":{"actions":['
    tail = b"]" + (b"," + rest if rest else b"") + b'},"type":' + dumps(policy.constraint_type) + b"}"
    return head, tail


_CONTENT_TYPES = {".md": ContentType.MARKDOWN, ".markdown": ContentType.MARKDOWN, ".json": ContentType.JSON}


def _block(atlas_id: str, pack: ContextPack, file: str, content: str) -> ContextBlock:
    suffix = file[file.rfind(".") :].lower() if "." in file else ""
    return ContextBlock(
        block_id=f"{pack.pack_id}/{file}",
        source=atlas_id,
        content_type=_CONTENT_TYPES.get(suffix, ContentType.PLAIN),
        content=content,
        priority=pack.priority,
        token_estimate=-(-len(content) // 4),
    )


def _block_parts(block: ContextBlock) -> tuple[bytes, bytes, bytes]:
    """Return a block's canonical JSON and the payloads of its injected and redacted events."""
    injected = {
        "block_id": block.block_id,
        "source": block.source,
        "content_type": block.content_type,
        "token_count": block.token_estimate,
        "priority": block.priority,
        "content_hash": hexdigest(block.content.encode()),
    }
    redacted = {"block_id": block.block_id, "redaction_reason": "token_budget", "source": block.source}
    return dumps(msgspec.to_builtins(block)), dumps(injected), dumps(redacted)
