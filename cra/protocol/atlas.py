"""Atlas/1.0: a versioned package of actions, policies and context."""

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from cra.protocol.fields import (
    END,
    ActionId,
    AtlasId,
    Identifier,
    JsonObject,
    Name,
    Priority,
    RateLimit,
    Record,
    RiskTier,
    Text,
)

# SemVer 2.0.0, the expression its site suggests.
SEMVER_PATTERN = (
    "^(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)"
    "(?:-((?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    "(?:\\+([0-9a-zA-Z-]+(?:\\.[0-9a-zA-Z-]+)*))?" + END
)
SemVer = Annotated[str, Meta(pattern=SEMVER_PATTERN, max_length=255)]
Glob = Annotated[str, Meta(min_length=1, max_length=255)]
Clock = Annotated[str, Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]" + END, description="HH:MM")]
FilePath = Annotated[str, Meta(min_length=1, max_length=1024)]


class Weekday(StrEnum):
    """A day of a time window."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class TimeWindow(Record, frozen=True):
    """Every day from `start` to before `end`; past midnight it belongs to the day it started."""

    start: Clock
    end: Clock
    timezone: Identifier = "UTC"
    days: tuple[Weekday, ...] = tuple(Weekday)


class Conditions(Record, frozen=True):
    """What must hold for a policy or a pack to apply; all that is given must hold."""

    risk_tiers: tuple[RiskTier, ...] | UnsetType = UNSET
    agents: tuple[Glob, ...] | UnsetType = UNSET
    capabilities: tuple[Identifier, ...] | UnsetType = UNSET
    context_matches: dict[str, Glob] | UnsetType = UNSET
    time_window: TimeWindow | UnsetType = UNSET
    parameters: JsonObject | bool | UnsetType = UNSET


class Capability(Record, frozen=True):
    """A named group of actions and the context that goes with them."""

    capability_id: Identifier
    name: Name
    description: Text = ""
    actions: tuple[Glob, ...] = ()
    context_packs: tuple[Identifier, ...] = ()


class ContextPack(Record, frozen=True):
    """Documents that are injected when the conditions hold."""

    pack_id: Identifier
    name: Name
    description: Text = ""
    files: tuple[FilePath, ...] = ()
    priority: Priority = 100
    conditions: Conditions = field(default_factory=Conditions)
    max_tokens: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class PolicyType(StrEnum):
    """What a policy does; `requires_approval` is an alias of `require_approval`."""

    ALLOW = "allow"
    DENY = "deny"
    REQUIRE_APPROVAL = "require_approval"
    REQUIRES_APPROVAL = "requires_approval"
    RATE_LIMIT = "rate_limit"
    BUDGET = "budget"
    SCOPE = "scope"


class Policy(Record, frozen=True):
    """One rule; `parameters` depend on the type (see Policies in specs/PROTOCOL.md)."""

    policy_id: Identifier
    type: PolicyType
    actions: tuple[Glob, ...]
    name: Annotated[str, Meta(max_length=100)] = ""
    description: Text = ""
    priority: int = 0
    conditions: Conditions = field(default_factory=Conditions)
    reason: Text | UnsetType = UNSET
    parameters: JsonObject = field(default_factory=dict)


class Per(StrEnum):
    """Whose calls a limit counts together."""

    AGENT = "agent"
    SESSION = "session"
    TENANT = "tenant"


class RateLimitParameters(Record, frozen=True):
    """`parameters` of a rate_limit policy."""

    max_calls: Annotated[int, Meta(ge=1, le=1_000_000)]
    window_seconds: Annotated[int, Meta(ge=1, le=31_536_000)]
    per: Per = Per.AGENT
    reason: Text | UnsetType = UNSET


# In millionths it still is a 64-bit integer.
MAX_BUDGET = 9_000_000_000_000


class BudgetParameters(Record, frozen=True):
    """`parameters` of a budget policy; `cost` points into the call's parameters, absent means 1 a call."""

    limit: Annotated[int, Meta(gt=0, le=MAX_BUDGET)] | Annotated[float, Meta(gt=0, le=MAX_BUDGET)]
    unit: Identifier
    window: Annotated[int, Meta(ge=1, le=31_536_000)] | Literal["session"]
    per: Per = Per.AGENT
    cost: Annotated[str, Meta(pattern="^(/([^~/]|~[01])*)+" + END, max_length=255)] | UnsetType = UNSET
    reason: Text | UnsetType = UNSET


class ScopeParameters(Record, frozen=True):
    """`parameters` of a scope policy: the JSON Schema that a call's parameters must match."""

    schema: JsonObject | bool
    reason: Text | UnsetType = UNSET


class ReasonParameters(Record, frozen=True):
    """`parameters` of an allow, deny or require_approval policy."""

    reason: Text | UnsetType = UNSET


class Action(Record, frozen=True):
    """Something an agent may be offered; `executor` names the function that does it, the action's id if absent."""

    action_id: ActionId
    name: Name
    description: Text = ""
    parameters_schema: JsonObject = field(default_factory=dict)
    returns_schema: JsonObject = field(default_factory=dict)
    risk_tier: RiskTier = RiskTier.LOW
    idempotent: bool = False
    requires_confirmation: bool = False
    executor: Identifier | UnsetType = UNSET
    timeout_seconds: Annotated[int, Meta(ge=1, le=300)] = 30
    rate_limit: RateLimit | UnsetType = UNSET
    examples: tuple[JsonObject, ...] = ()


class Manifest(Record, frozen=True):
    """An atlas: its identity, what it offers and the rules it brings."""

    atlas_version: Literal["1.0"]
    atlas_id: AtlasId
    version: SemVer
    name: Name
    description: Text = ""
    authors: tuple[Annotated[str, Meta(max_length=255)], ...] = ()
    license: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET
    homepage: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET
    repository: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET
    domains: tuple[Annotated[str, Meta(max_length=255)], ...] = ()
    capabilities: tuple[Capability, ...] = ()
    context_packs: tuple[ContextPack, ...] = ()
    policies: tuple[Policy, ...] = ()
    actions: tuple[Action, ...] = ()
    adapters: JsonObject = field(default_factory=dict)
    dependencies: dict[AtlasId, Annotated[str, Meta(min_length=1, max_length=255)]] = field(default_factory=dict)
    metadata: JsonObject = field(default_factory=dict)
