"""Payloads: which kinds of values the fields of recorded events have."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from cra.errors import InvalidTrace
from cra.protocol.carp import MAX_TTL_SECONDS
from cra.protocol.explain import explain
from cra.protocol.fields import Timestamp, Uuid

# Far above what any rule allows, and low enough to be reckoned with.
_Number = Annotated[int, Meta(ge=0, le=1 << 40)]
_Object = dict[str, msgspec.Raw]

_KINDS: dict[str, Any] = {
    "atlas_ids": tuple[str, ...],
    "atlases": tuple[_Object, ...],
    "context": _Object,
    "context_hints": tuple[str, ...],
    "expires_at": Timestamp,
    "metadata": _Object,
    "parameters": _Object,
    "required_capabilities": tuple[str, ...],
    "resolution_id": Uuid | None,
    "ttl_seconds": Annotated[int, Meta(ge=0, le=MAX_TTL_SECONDS)],
    **dict.fromkeys(("approval_id", "execution_id", "replay_of", "request_id"), Uuid),
    **dict.fromkeys(("allowed_count", "denied_count", "context_block_count"), _Number),
    **dict.fromkeys(("action_count", "duration_ms", "max_context_tokens", "retry_after_seconds"), _Number),
}
_APPROVAL = "approval_id action_id parameters_hash approver reason"
# The fields that are read, by event type; what is not of a kind of its own is text. Those with a mark have to be there.
_FIELDS = {
    "session.started": "agent_id goal atlases parent_session_id metadata context context_hash max_context_tokens",
    "session.ended": "reason duration_ms action_count",
    "carp.request.received": "request_id operation goal atlas_ids request_hash risk_tier context_hints "
    "required_capabilities context context_hash",
    "policy.evaluated": "policy_id atlas_id result! action_id retry_after_seconds",
    "context.injected": "block_id source content_hash",
    "context.redacted": "block_id source",
    "carp.resolution.completed": "resolution_id request_id decision_type allowed_count denied_count "
    "context_block_count ttl_seconds resolution_hash snapshot_digest",
    "action.requested": "action_id resolution_id parameters_hash request_id snapshot_digest parameters risk_tier "
    "approval_id replay_of",
    "action.approved": "action_id resolution_id execution_id approval_id approver",
    "action.denied": "action_id reason policy_id requested_by",
    "action.executed": "action_id execution_id resolution_id duration_ms result_hash",
    "action.failed": "action_id execution_id error_code error_message duration_ms",
    "policy.violated": "policy_id violation_type details action_id",
    "approval.requested": "approval_id! action_id parameters_hash policy_id expires_at! requested_by",
    "approval.granted": _APPROVAL,
    "approval.rejected": _APPROVAL,
    "approval.expired": _APPROVAL,
    "error.occurred": "error_code error_message action_id parameters_hash request_id resolution_id",
}

# What is decided, or follows from it, and so is never an input; an error may be about what only the host knew.
DECIDED = frozenset(_FIELDS) - {"error.occurred"}


def _decoder(event_type: str) -> msgspec.json.Decoder[Any]:
    fields: list[Any] = []
    for word in _FIELDS[event_type].split():
        name = word.rstrip("!")
        kind = _KINDS.get(name, str)
        fields.append((name, kind) if word.endswith("!") else (name, kind | UnsetType, UNSET))
    return msgspec.json.Decoder(msgspec.defstruct("Payload", fields, kw_only=True))


_decoders: dict[str, msgspec.json.Decoder[Any]] = {}


def check_payload(index: int, event_type: str, raw: bytes) -> None:
    """Raise `InvalidTrace` when a field that is read is of another kind than the protocol says.

    A chain can be good and have any payloads: who writes it may be another program, or mean harm.
    """
    if event_type not in _FIELDS:
        return
    if event_type not in _decoders:
        _decoders[event_type] = _decoder(event_type)
    decoder = _decoders[event_type]
    try:
        decoder.decode(raw)
    except msgspec.ValidationError as error:
        words, pointer = explain(error, decoder.type)
        place = pointer and f" at `{pointer}`"
        raise InvalidTrace(
            f"event {index}: the payload of `{event_type}`{place}: {words}",
            details={"index": index, "reason": "payload"},
        ) from None
