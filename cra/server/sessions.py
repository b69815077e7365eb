"""Sessions: start, list, look at, end."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from cra.errors import Forbidden, SessionNotFound
from cra.protocol.carp import AgentId, Goal
from cra.protocol.fields import JsonObject, Uuid
from cra.protocol.times import format_timestamp
from cra.server.call import Answer, Call, json_response
from cra.server.lists import page_of
from cra.storage.base import SessionRecord

After = Annotated[str, Meta(max_length=64)]
Limit = Annotated[int, Meta(ge=1, le=1000)]


class NewSession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a session starts with."""

    agent_id: AgentId
    goal: Goal
    session_id: Uuid | UnsetType = UNSET
    trace_id: Uuid | UnsetType = UNSET
    parent_session_id: Uuid | UnsetType = UNSET
    context: JsonObject = field(default_factory=dict)
    metadata: JsonObject = field(default_factory=dict)


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which sessions."""

    agent_id: Annotated[str, Meta(max_length=255)] | None = None
    status: Literal["active", "ended"] | None = None
    after: After | None = None
    limit: Limit = 100


class EndQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a session ends."""

    reason: Literal["completed", "timeout", "error", "cancelled"] = "completed"


def session_value(record: SessionRecord) -> dict[str, Any]:
    """Return a session as the service shows it."""
    value: dict[str, Any] = {
        "session_id": record.session_id,
        "agent_id": record.agent_id,
        "goal": record.goal,
        "trace_id": record.trace_id,
        "status": record.status,
        "started_at": format_timestamp(record.started_us),
        "action_count": record.action_count,
        "parent_session_id": record.parent_session_id,
        "context": record.context,
        "metadata": record.metadata,
    }
    if record.ended_us is not None:
        value["ended_at"] = format_timestamp(record.ended_us)
        value["end_reason"] = record.end_reason
    return value


async def visible(call: Call, session_id: str) -> SessionRecord:
    """Return a session that the caller may see; every other one does not exist."""
    record = await call.tenant.runtime.get_session(session_id)
    if not call.identity.is_for(record.agent_id):
        raise absent(session_id)
    return record


async def check_visible(call: Call, session_id: str) -> None:
    """Raise `SessionNotFound` unless the caller may see a session; asks the store only when it matters."""
    if call.identity.agent_id is not None:
        await visible(call, session_id)


def absent(session_id: str) -> SessionNotFound:
    """Return the error for a session that is not there, or not there for this caller."""
    return SessionNotFound(f"session `{session_id}` does not exist")


async def create(call: Call) -> Answer:
    """Start a session."""
    new = await call.json(NewSession)
    if not call.identity.is_for(new.agent_id):
        raise Forbidden("the credential acts as another agent", details={"permission": "sessions.create"})
    if new.parent_session_id is not UNSET:
        await check_visible(call, str(new.parent_session_id))
    record = await call.tenant.runtime.create_session(
        new.agent_id,
        new.goal,
        session_id=_given(new.session_id),
        trace_id=_given(new.trace_id),
        parent_session_id=_given(new.parent_session_id),
        context=new.context,
        metadata=new.metadata,
    )
    location = f"/v1/sessions/{record.session_id}".encode()
    return json_response(session_value(record), 201, headers=[(b"location", location)])


async def page(call: Call) -> Answer:
    """List sessions."""
    query = call.parameters(PageQuery)
    own = call.identity.agent_id
    if own is not None and query.agent_id not in (None, own):
        return json_response({"sessions": []})
    runtime = call.tenant.runtime

    async def ask(after: str | None, limit: int) -> Sequence[SessionRecord]:
        return await runtime.list_sessions(
            agent_id=own or query.agent_id, status=query.status, after=after, limit=limit
        )

    return await page_of(
        "sessions", ask, session_value, lambda record: record.session_id, after=query.after, limit=query.limit
    )


async def get(call: Call) -> Answer:
    """Show a session."""
    return json_response(session_value(await visible(call, call.path["session_id"])))


async def end(call: Call) -> Answer:
    """End a session."""
    query = call.parameters(EndQuery)
    session_id = call.path["session_id"]
    await check_visible(call, session_id)
    return json_response(session_value(await call.tenant.runtime.end_session(session_id, query.reason)))


def _given(value: str | UnsetType) -> str | None:
    return None if isinstance(value, UnsetType) else value
