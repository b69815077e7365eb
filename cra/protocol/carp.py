"""CARP/1.0: what an agent asks and what it is answered."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from cra.protocol.fields import (
    ActionId,
    AtlasId,
    Identifier,
    JsonObject,
    Priority,
    RateLimit,
    Record,
    RiskTier,
    Timestamp,
    Uuid,
)

MAX_TTL_SECONDS = 86_400

AgentId = Annotated[str, Meta(min_length=1, max_length=255)]
Goal = Annotated[str, Meta(min_length=1, max_length=10_000)]
Hint = Annotated[str, Meta(min_length=1, max_length=1_000)]
TtlSeconds = Annotated[int, Meta(ge=0, le=MAX_TTL_SECONDS)]


class Operation(StrEnum):
    """What a request wants: a resolution, an execution, or a verdict without one."""

    RESOLVE = "resolve"
    EXECUTE = "execute"
    VALIDATE = "validate"


class Requester(Record, frozen=True):
    """Who asks, in which session."""

    agent_id: AgentId
    session_id: Uuid
    parent_session_id: Uuid | UnsetType = UNSET


class Task(Record, frozen=True):
    """What the agent wants to do; everything here can only narrow what it gets."""

    goal: Goal
    risk_tier: RiskTier = RiskTier.LOW
    context_hints: Annotated[tuple[Hint, ...], Meta(max_length=100)] = ()
    required_capabilities: Annotated[tuple[Identifier, ...], Meta(max_length=100)] = ()


class Execution(Record, frozen=True):
    """The call an execute or validate request asks for."""

    action_id: ActionId
    parameters: JsonObject
    resolution_id: Uuid | UnsetType = UNSET
    idempotency_key: Identifier | UnsetType = UNSET
    approval_id: Uuid | UnsetType = UNSET


class Request(Record, frozen=True):
    """A CARP request; `execution` is required for execute and validate, and refused for resolve."""

    carp_version: Literal["1.0"]
    request_id: Uuid
    timestamp: Timestamp
    operation: Operation
    requester: Requester
    task: Task
    execution: Execution | UnsetType = UNSET
    atlas_ids: Annotated[tuple[AtlasId, ...], Meta(max_length=100)] = ()
    context: JsonObject = field(default_factory=dict)


class DecisionType(StrEnum):
    """Allow: all offered are allowed; deny: none; requires_approval: nothing outright; partial: between."""

    ALLOW = "allow"
    DENY = "deny"
    PARTIAL = "partial"
    REQUIRES_APPROVAL = "requires_approval"


class ContentType(StrEnum):
    """What a context block holds."""

    MARKDOWN = "text/markdown"
    PLAIN = "text/plain"
    JSON = "application/json"


class ConstraintType(StrEnum):
    """What kind of limit a constraint tells the agent about."""

    RATE_LIMIT = "rate_limit"
    BUDGET = "budget"
    TIME_WINDOW = "time_window"
    REQUIRE_APPROVAL = "require_approval"
    SCOPE = "scope"


class Decision(Record, frozen=True):
    """The verdict over the whole resolution."""

    type: DecisionType
    reason: str | None
    approval_id: Uuid | None
    expires_at: Timestamp | None


class ContextBlock(Record, frozen=True):
    """A document the agent may read; `token_estimate` counts four code points as one token."""

    block_id: str
    source: AtlasId
    content_type: ContentType
    content: str
    priority: Priority
    token_estimate: Annotated[int, Meta(ge=0)]
    metadata: JsonObject | UnsetType = UNSET


class AllowedAction(Record, frozen=True):
    """An action the agent may call; with `requires_confirmation` it waits for a person first."""

    action_id: ActionId
    name: str
    description: str
    parameters_schema: JsonObject
    returns_schema: JsonObject
    risk_tier: RiskTier
    requires_confirmation: bool
    idempotent: bool
    rate_limit: RateLimit | UnsetType = UNSET


class DeniedAction(Record, frozen=True):
    """An action the agent may not call, with a reason it can act on."""

    action_id: ActionId
    reason: str
    policy_id: str | UnsetType = UNSET


class Constraint(Record, frozen=True):
    """A limit that binds the offered actions named in `parameters.actions`."""

    constraint_id: str
    type: ConstraintType
    parameters: JsonObject


class Resolution(Record, frozen=True):
    """What the agent may know and do until `timestamp` plus `ttl_seconds`."""

    carp_version: Literal["1.0"]
    resolution_id: Uuid
    request_id: Uuid
    timestamp: Timestamp
    decision: Decision
    context_blocks: tuple[ContextBlock, ...]
    allowed_actions: tuple[AllowedAction, ...]
    denied_actions: tuple[DeniedAction, ...]
    constraints: tuple[Constraint, ...]
    ttl_seconds: TtlSeconds
    trace_id: Uuid


class ExecuteStatus(StrEnum):
    """How an execute ended."""

    SUCCESS = "success"
    ERROR = "error"
    DENIED = "denied"
    PENDING_APPROVAL = "pending_approval"


class ExecuteError(Record, frozen=True):
    """Why an execute did not succeed; `code` is one of the stable error codes."""

    code: str
    message: str
    details: JsonObject


class ExecuteResponse(Record, frozen=True):
    """The answer to an execute; `simulated` is present, and true, when nothing was executed or consumed."""

    carp_version: Literal["1.0"]
    execution_id: Uuid
    request_id: Uuid
    resolution_id: Uuid | None
    timestamp: Timestamp
    status: ExecuteStatus
    result: Any
    error: ExecuteError | None
    trace_id: Uuid
    simulated: bool | UnsetType = UNSET
