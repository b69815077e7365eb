"""Approvals: what waits for a person, and what the person says."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from cra.errors import ApprovalNotFound, StaleHead
from cra.protocol.fields import Uuid
from cra.protocol.times import format_timestamp
from cra.server.call import Answer, Call, json_response
from cra.server.lists import page_of
from cra.server.sessions import After, Limit, check_visible
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
    approvals, identity = call.tenant.runtime.approvals, call.identity
    # What is another agent's is as if it were not there, also where it is only referred to.
    if query.session_id is not None:
        await check_visible(call, query.session_id)
    if query.after is not None and identity.agent_id is not None:
        await _visible(call, query.after)

    async def ask(after: str | None, limit: int) -> Sequence[ApprovalRecord]:
        try:
            return await approvals.list(
                session_id=query.session_id, agent_id=identity.agent_id, status=query.status, after=after, limit=limit
            )
        except ApprovalNotFound:
            if after == query.after:
                raise
            # Its session was purged meanwhile; whose it was is not for everybody.
            raise StaleHead("approvals were removed while they were listed", hint="try again") from None

    def show(record: ApprovalRecord) -> dict[str, Any] | None:
        return approval_value(record) if identity.is_for(record.agent_id) else None

    return await page_of(
        "approvals", ask, show, lambda record: record.approval_id, after=query.after, limit=query.limit
    )


async def get(call: Call) -> Answer:
    """Show an approval, with `wait_seconds` as soon as it is decided."""
    seconds = call.parameters(WaitQuery).wait_seconds
    record = await _visible(call, call.path["approval_id"])
    if seconds:
        call.service.streams.claim(call.identity)
        record = await _wait(call, record.approval_id, seconds)
    return json_response(approval_value(record))


async def _wait(call: Call, approval_id: str, seconds: int) -> ApprovalRecord:
    """Wait for a decision, but not for a caller that has gone or a service that closes."""
    service, loop = call.service, asyncio.get_running_loop()
    closing = asyncio.Event()
    service.wakers.add(closing)
    waiting = loop.create_task(call.tenant.runtime.approvals.wait(approval_id, seconds))
    others = [loop.create_task(_gone(call)), loop.create_task(closing.wait())]
    try:
        await asyncio.wait({waiting, *others}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            return await call.tenant.runtime.approvals.get(approval_id)
        return waiting.result()
    finally:
        service.wakers.discard(closing)
        for task in (waiting, *others):
            task.cancel()
        await asyncio.gather(waiting, *others, return_exceptions=True)


async def _gone(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass


async def grant(call: Call) -> Answer:
    """Agree to exactly this call, once."""
    return await _judge(call, "grant")


async def reject(call: Call) -> Answer:
    """Refuse the call."""
    return await _judge(call, "reject")


async def _judge(call: Call, verb: Literal["grant", "reject"]) -> Answer:
    judgement = await call.json(Judgement) if call.content else Judgement()
    record = await _visible(call, call.path["approval_id"])
    approvals = call.tenant.runtime.approvals
    decide = approvals.grant if verb == "grant" else approvals.reject
    done = await decide(record.approval_id, approver=call.identity.subject, reason=judgement.reason)
    return json_response(approval_value(done))


async def _visible(call: Call, approval_id: str) -> ApprovalRecord:
    record = await call.tenant.runtime.approvals.get(approval_id)
    if not call.identity.is_for(record.agent_id):
        raise ApprovalNotFound(f"approval `{approval_id}` does not exist")
    return record
