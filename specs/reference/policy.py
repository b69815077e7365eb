"""Deciding: which policy speaks about which action, and what it says.

Atlases are manifests in wire form, in load order; a request is a CARP request in wire form; `now` is microseconds since
1970. What limits and budgets have counted is an input, `usage`: it maps `<atlas_id>:<policy_id>` to

    {"wait_us": n}                for a rate limit: 0 when one more call fits, else how long until it does
    {"spent": n, "left_us": n}    for a budget: micro-units spent in the open window, and how long until that ends
                                  (null: never, or no window is open)

A limit that is not in `usage` has counted nothing.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from jsonschema import Draft202012Validator
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it ships without types

from specs.reference import canonical, windows
from specs.reference.glob import any_match, glob_match

Json = dict[str, Any]

TIERS = ["low", "medium", "high", "critical"]
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
PHASES = ["deny", "scope", "require_approval", "rate_limit", "budget", "allow"]
BAD_COST = -2

# What a policy without a reason of its own says, before its id.
DECIDED = {
    "deny": "denied by",
    "scope": "the parameters are outside the scope of",
    "require_approval": "approval required by",
    "allow": "allowed by",
}


class Rule(NamedTuple):
    """A policy of a loaded atlas, or what an action's own fields amount to."""

    atlas_id: str
    policy: Json

    @property
    def policy_id(self) -> str:
        return str(self.policy["policy_id"])

    @property
    def key(self) -> str:
        """The id of its constraint, and of what it has counted."""
        return f"{self.atlas_id}:{self.policy_id}"

    @property
    def phase(self) -> str:
        return policy_type(self.policy)

    @property
    def conditions(self) -> Json:
        conditions: Json = self.policy.get("conditions", {})
        return conditions

    @property
    def parameters(self) -> Json:
        parameters: Json = self.policy.get("parameters", {})
        return parameters

    @property
    def when(self) -> Any:
        """The schema of its `parameters` condition; `NO_CONDITION` when it has none."""
        return self.conditions.get("parameters", NO_CONDITION)


class NoCondition:
    """The absence of a `parameters` condition, which `false` and `{}` are not."""


NO_CONDITION = NoCondition()


class Offer(NamedTuple):
    """An action with the atlas that declares it."""

    atlas: Json
    action: Json

    @property
    def atlas_id(self) -> str:
        return str(self.atlas["atlas_id"])

    @property
    def action_id(self) -> str:
        return str(self.action["action_id"])


# --- what there is ----------------------------------------------------------------------------------------------------


def policy_type(policy: Json) -> str:
    """Return the phase a policy belongs to; `requires_approval` is an alias."""
    kind = str(policy["type"])
    return "require_approval" if kind == "requires_approval" else kind


def implied_policies(atlas: Json) -> list[Json]:
    """Return what the actions' own fields amount to: an approval, and a rate limit per agent."""
    implied: list[Json] = []
    for action in atlas.get("actions", []):
        action_id = action["action_id"]
        if action.get("requires_confirmation", False):
            implied.append(
                {
                    "policy_id": f"{action_id}:requires_confirmation",
                    "type": "require_approval",
                    "actions": [action_id],
                    "reason": f"`{action_id}` asks for confirmation by a person",
                }
            )
        if "rate_limit" in action:
            implied.append(
                {
                    "policy_id": f"{action_id}:rate_limit",
                    "type": "rate_limit",
                    "actions": [action_id],
                    "parameters": dict(action["rate_limit"]),
                }
            )
    return implied


def rules(atlases: list[Json]) -> list[Rule]:
    """Return every policy of every loaded atlas in evaluation order.

    By phase; then explicit before implied; then priority, high first; then place in the manifest (the implied ones
    after all explicit ones); then load order.
    """
    placed = []
    for load, atlas in enumerate(atlases):
        explicit = atlas.get("policies", [])
        for place, policy in enumerate([*explicit, *implied_policies(atlas)]):
            is_implied = place >= len(explicit)
            order = (PHASES.index(policy_type(policy)), is_implied, -policy.get("priority", 0), place, load)
            placed.append((order, Rule(atlas["atlas_id"], policy)))
    return [rule for _, rule in sorted(placed, key=lambda item: item[0])]


def offers(atlases: list[Json]) -> list[Offer]:
    """Return every declared action: atlases in load order, actions in manifest order."""
    return [Offer(atlas, action) for atlas in atlases for action in atlas.get("actions", [])]


def capabilities_of(offer: Offer) -> set[str]:
    """Return the capabilities the action belongs to, as its own atlas declares them."""
    return {
        capability["capability_id"]
        for capability in offer.atlas.get("capabilities", [])
        if any_match(capability.get("actions", []), offer.action_id)
    }


def considered(atlases: list[Json], request: Json) -> list[Offer]:
    """Return the actions a request asks about; it can name atlases and capabilities to ask about fewer."""
    atlas_ids = request.get("atlas_ids", [])
    wanted = set(request["task"].get("required_capabilities", []))
    return [
        offer
        for offer in offers(atlases)
        if (not atlas_ids or offer.atlas_id in atlas_ids) and (not wanted or wanted & capabilities_of(offer))
    ]


def is_closed(atlas: Json, default_decision: str) -> bool:
    """Tell whether the atlas allows only what an allow policy matches."""
    return default_decision == "deny" or any(policy["type"] == "allow" for policy in atlas.get("policies", []))


# --- conditions -------------------------------------------------------------------------------------------------------


def risk_range(request: Json, action: Json) -> list[str]:
    """Return the tiers from the action's own up to the effective one, max(request, action)."""
    own = TIERS.index(action.get("risk_tier", "low"))
    effective = max(own, TIERS.index(request["task"].get("risk_tier", "low")))
    return TIERS[own : effective + 1]


def risk_holds(rule: Rule, tiers: list[str]) -> bool:
    """Apply the risk range rule: a restriction needs any tier of the range listed, an allow needs every one.

    So a higher tier claimed by the agent can switch restrictions on and allows off, never the other way round.
    """
    if "risk_tiers" not in rule.conditions:
        return True
    listed = [tier in rule.conditions["risk_tiers"] for tier in tiers]
    return all(listed) if rule.phase == "allow" else any(listed)


def context_of(request: Json, session_context: Json | None) -> Json:
    """Return what `context_matches` looks at: the request's context with the session's laid over it."""
    return {**request.get("context", {}), **(session_context or {})}


def context_holds(matches: dict[str, str], context: Json) -> bool:
    """Tell whether every key is there and its glob matches the value's text; arrays and objects have none."""
    return all(
        key in context and not isinstance(context[key], (list, tuple, dict)) and glob_match(glob, _text(context[key]))
        for key, glob in matches.items()
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical.dumps(value).decode()


def window_holds(window: Json, now: int) -> bool:
    """Tell whether the wall clock in the window's zone is inside: start inclusive, end exclusive.

    Equal start and end mean the whole day. Past midnight the window belongs to the day it started.
    """
    local = _local(now, window.get("timezone", "UTC"))
    days = window.get("days", DAYS)
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    clock = f"{local.hour:02d}:{local.minute:02d}"
    start, end = window["start"], window["end"]
    if start == end:
        return today in days
    if start < end:
        return start <= clock < end and today in days
    return (clock >= start and today in days) or (clock < end and yesterday in days)


def _local(now: int, zone: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now)).astimezone(ZoneInfo(zone))


def general_holds(conditions: Json, agent_id: str, context: Json, now: int) -> bool:
    """Tell whether the conditions hold that are about neither action nor parameters."""
    return (
        ("agents" not in conditions or any_match(conditions["agents"], agent_id))
        and context_holds(conditions.get("context_matches", {}), context)
        and ("time_window" not in conditions or window_holds(conditions["time_window"], now))
    )


def schema_matches(schema: Any, value: Any) -> bool:
    """Tell whether a value matches a JSON Schema (draft 2020-12); nothing is ever fetched."""
    return bool(Draft202012Validator(schema, registry=REGISTRY).is_valid(value))


# --- deciding ---------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """Everything a decision depends on, beside the action. `parameters` is `NO_CONDITION` at resolve."""

    atlases: list[Json]
    request: Json
    now: int
    usage: Json
    parameters: Any = NO_CONDITION
    approved: bool = False
    session_context: Json | None = None
    default_decision: str = "allow"

    @property
    def executing(self) -> bool:
        return not isinstance(self.parameters, NoCondition)


def speaks_about(rule: Rule, offer: Offer) -> bool:
    """Tell whether a policy is about the action: restrictions are global, permissions are local."""
    wanted = rule.conditions.get("capabilities")
    return (
        (rule.phase != "allow" or rule.atlas_id == offer.atlas_id)
        and any_match(rule.policy["actions"], offer.action_id)
        and (wanted is None or bool(set(wanted) & capabilities_of(offer)))
    )


def applies(rule: Rule, offer: Offer, asked: Asked) -> bool:
    """Tell whether a policy is about the action and all its conditions hold, `parameters` left aside."""
    return (
        speaks_about(rule, offer)
        and risk_holds(rule, risk_range(asked.request, offer.action))
        and general_holds(
            rule.conditions,
            asked.request["requester"]["agent_id"],
            context_of(asked.request, asked.session_context),
            asked.now,
        )
    )


def decides(rule: Rule, asked: Asked) -> bool:
    """Tell whether a policy that applies may decide, as far as its `parameters` condition goes.

    At resolve the parameters are not known: an allow counts as matching, everything else waits for execute.
    """
    if isinstance(rule.when, NoCondition):
        return True
    if asked.executing:
        return schema_matches(rule.when, asked.parameters)
    return rule.phase == "allow"


def decide(offer: Offer, asked: Asked) -> Json:
    """Return the verdict about one action: `result`, `policy` (that decided, or None), `reason`, `retry_after_seconds`.

    deny -> scope -> require_approval -> rate_limit -> budget -> allow -> default; in each the first that holds decides.
    A policy of another atlas that asks for approval does not make approvable what the action's own atlas keeps shut.
    """
    holding = [rule for rule in rules(asked.atlases) if applies(rule, offer, asked) and decides(rule, asked)]
    return judge(offer, holding, asked)


def judge(offer: Offer, holding: list[Rule], asked: Asked) -> Json:
    """Return the verdict about an action for which the policies `holding` hold, given in evaluation order."""
    by_phase = {phase: [rule for rule in holding if rule.phase == phase] for phase in PHASES}

    for rule in by_phase["deny"]:
        return _verdict("deny", rule)
    for rule in by_phase["scope"]:
        if asked.executing and not schema_matches(rule.parameters["schema"], asked.parameters):
            return _verdict("deny", rule)

    open_by_default = not is_closed(offer.atlas, asked.default_decision)
    permitted = bool(by_phase["allow"]) or open_by_default
    approvals = by_phase["require_approval"]
    if not permitted and not any(opens(rule, offer, asked) for rule in approvals):
        approvals = []
    if approvals and not asked.approved:
        return _verdict("requires_approval", approvals[0])

    for rule in by_phase["rate_limit"] + by_phase["budget"]:
        wait = wait_of(rule, asked)
        if wait == BAD_COST:
            reason = f"the call names no cost for the budget of policy `{rule.policy_id}`"
            return {**_verdict("deny", rule), "reason": reason}
        if wait != 0:
            return _verdict("rate_limited" if rule.phase == "rate_limit" else "budget_exceeded", rule, wait)

    if approvals:
        return _verdict("allow", approvals[0])
    for rule in by_phase["allow"]:
        return _verdict("allow", rule)
    if open_by_default:
        return {"result": "allow", "policy": None, "reason": None, "retry_after_seconds": None}
    reason = f"no allow policy of atlas `{offer.atlas_id}` matches"
    return {"result": "deny", "policy": None, "reason": reason, "retry_after_seconds": None}


def opens(rule: Rule, offer: Offer, asked: Asked) -> bool:
    """Tell whether a policy that asks for approval makes approvable what nothing allows.

    It has to be of the action's own atlas. What it opens is a permission, so every tier of the range must be listed:
    an agent that claims a higher tier can get more asked of it, never more offered to it.
    """
    tiers = risk_range(asked.request, offer.action)
    listed = rule.conditions.get("risk_tiers", tiers)
    return rule.atlas_id == offer.atlas_id and all(tier in listed for tier in tiers)


def _verdict(result: str, rule: Rule, wait: int = 0) -> Json:
    after = windows.seconds(wait) if wait > 0 else None
    return {
        "result": result,
        "policy": {"atlas_id": rule.atlas_id, "policy_id": rule.policy_id},
        "reason": reason_of(rule) + ("" if after is None else f"; retry in {after} s"),
        "retry_after_seconds": after,
    }


def given_reason(rule: Rule) -> str | None:
    """Return the policy's `reason`, or else the one in its parameters."""
    reason = rule.policy.get("reason", rule.parameters.get("reason"))
    return None if reason is None else str(reason)


def reason_of(rule: Rule) -> str:
    """Return the reason given, or one that says what happened."""
    given = given_reason(rule)
    if given:
        return given
    if rule.phase == "rate_limit":
        return (
            f"rate limit of {rule.parameters['max_calls']} calls per {rule.parameters['window_seconds']} s is used up"
        )
    if rule.phase == "budget":
        return f"budget of {_text(rule.parameters['limit'])} {rule.parameters['unit']} is used up"
    return f"{DECIDED[rule.phase]} policy `{rule.policy_id}`"


# --- limits -----------------------------------------------------------------------------------------------------------


def wait_of(rule: Rule, asked: Asked) -> int:
    """Return 0 when the call fits a limit, a wait in microseconds, NEVER, or BAD_COST."""
    counted = asked.usage.get(rule.key, {})
    if rule.phase == "rate_limit":
        return int(counted.get("wait_us", 0))
    cost = cost_of(rule, asked)
    if cost is None:
        return BAD_COST
    limit = windows.micro_limit(rule.parameters["limit"])
    if counted.get("spent", 0) + cost <= limit:
        return 0
    left = counted.get("left_us")
    return windows.NEVER if cost > limit or left is None else int(left)


def cost_of(rule: Rule, asked: Asked) -> int | None:
    """Return what a call takes from a budget in micro-units; None where the parameters do not say it properly.

    Without `cost` it is one unit a call. At resolve an unknown cost is taken as the smallest there is.
    """
    if "cost" not in rule.parameters:
        return 1_000_000
    if not asked.executing:
        return 1
    value = asked.parameters
    for token in rule.parameters["cost"].split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return windows.micro_cost(value)


def consumed(offer: Offer, asked: Asked) -> list[tuple[str, int]]:
    """Return what an allowed call takes: (limit, amount) for every limit that holds; a rate limit takes 1."""
    return [
        (rule.key, 1 if rule.phase == "rate_limit" else cost_of(rule, asked) or 0)
        for rule in rules(asked.atlases)
        if rule.phase in ("rate_limit", "budget") and applies(rule, offer, asked) and decides(rule, asked)
    ]


# --- the doors --------------------------------------------------------------------------------------------------------


def evaluate(
    atlases: list[Json],
    request: Json,
    now: int,
    usage: Json | None = None,
    parameters: Any = NO_CONDITION,
    *,
    approved: bool = False,
    session_context: Json | None = None,
    default_decision: str = "allow",
) -> list[Json]:
    """Return the verdict about every considered action, in order; as a call with `parameters` if they are given."""
    asked = Asked(atlases, request, now, usage or {}, parameters, approved, session_context, default_decision)
    return [
        {"atlas_id": offer.atlas_id, "action_id": offer.action_id, **decide(offer, asked)}
        for offer in considered(atlases, request)
    ]


def evaluate_call(
    atlases: list[Json],
    request: Json,
    now: int,
    action_id: str,
    parameters: Any,
    usage: Json | None = None,
    *,
    approved: bool = False,
    session_context: Json | None = None,
    default_decision: str = "allow",
) -> Json:
    """Return the verdict about one call, with what it takes from which limit under `consumes` if it is allowed."""
    asked = Asked(atlases, request, now, usage or {}, parameters, approved, session_context, default_decision)
    offer = next(offer for offer in offers(atlases) if offer.action_id == action_id)
    verdict = {"atlas_id": offer.atlas_id, "action_id": action_id, **decide(offer, asked)}
    return {**verdict, "consumes": dict(consumed(offer, asked)) if verdict["result"] == "allow" else {}}
