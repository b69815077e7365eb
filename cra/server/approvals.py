"""Approvals: what waits for a person, and what the person says."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from cra.errors import ApprovalNotFound
from cra.protocol.fields import Uuid
from cra.protocol.times import format_timestamp
from cra.server.call import Answer, Call, json_response
from cra.server.sessions import After, Limit
from cra.storage.base import ApprovalRecord


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which approvals."""

    session_id: Uuid | None = None
    status: Literal["pending", "granted", "rejected", "expired", "used"] | None = None
    after: After | None = None
    limit: Limit = 100


class WaitQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for a decision."""

    wait_seconds: Annotated[int, Meta(ge=0, le=60)] = 0


class Judgement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person says beside yes or no."""

    reason: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None


def approval_value(record: ApprovalRecord) -> dict[str, Any]:
    """Return an approval as the service shows it."""
    return {
        "approval_id": record.approval_id,
        "session_id": record.session_id,
        "agent_id": record.agent_id,
        "action_id": record.action_id,
        "atlas_id": record.atlas_id,
        "policy_id": record.policy_id,
        "resolution_id": record.resolution_id,
        "snapshot_digest": record.snapshot_digest,
        "requested_by": record.requested_by,
        "parameters": record.parameters,
        "parameters_hash": record.parameters_hash,
        "status": record.status,
        "approver": record.approver,
        "reason": record.reason,
        "requested_at": format_timestamp(record.requested_us),
        "expires_at": format_timestamp(record.expires_us),
    }


async def page(call: Call) -> Answer:
    """List approvals, oldest first."""
    query = call.parameters(PageQuery)
    records = await call.tenant.runtime.approvals.list(session_id=query.session_id, status=query.status)
    mine = [record for record in records if call.identity.is_for(record.agent_id)]
    return json_response({"approvals": [approval_value(record) for record in mine[: query.limit]]})


async def get(call: Call) -> Answer:
    """Show an approval."""
    call.parameters(WaitQuery)
    return json_response(approval_value(await _visible(call)))


async def grant(call: Call) -> Answer:
    """Agree to exactly this call, once."""
    return await _judge(call, "grant")


async def reject(call: Call) -> Answer:
    """Refuse the call."""
    return await _judge(call, "reject")


async def _judge(call: Call, verb: Literal["grant", "reject"]) -> Answer:
    judgement = await call.json(Judgement) if await call.body() else Judgement()
    record = await _visible(call)
    approvals = call.tenant.runtime.approvals
    decide = approvals.grant if verb == "grant" else approvals.reject
    done = await decide(record.approval_id, approver=call.identity.subject, reason=judgement.reason)
    return json_response(approval_value(done))


async def _visible(call: Call) -> ApprovalRecord:
    approval_id = call.path["approval_id"]
    record = await call.tenant.runtime.approvals.get(approval_id)
    if not call.identity.is_for(record.agent_id):
        raise ApprovalNotFound(f"approval `{approval_id}` does not exist")
    return record
