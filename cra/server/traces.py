"""Traces: read, verify, replay, compare."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from cra.errors import AtlasNotFound
from cra.protocol.fields import AtlasId, Uuid
from cra.protocol.trace import Trace
from cra.server.call import JSON, Answer, Call, Response, json_response
from cra.server.sessions import check_visible


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events."""

    first: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    limit: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    event_type: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=32)] = ()


class ReplayWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which atlases to decide again with."""

    atlas_ids: Annotated[tuple[AtlasId, ...], Meta(max_length=100)] = ()


class Pair(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The two sessions to compare."""

    left: Uuid
    right: Uuid


async def page(call: Call) -> Answer:
    """Read events: a page of JSON, or the stored lines."""
    query = call.parameters(PageQuery)
    session_id = call.path["session_id"]
    await check_visible(call, session_id)
    limit = query.limit or 1000
    lines = (await call.tenant.runtime.get_trace(session_id, query.first, limit)).data
    if call.media != JSON:
        return Response(lines, media=call.media)
    return Response(b'{"events":[%b]}' % b",".join(lines.splitlines()))


async def verify(call: Call) -> Answer:
    """Verify the chain over the stored bytes."""
    session_id = call.path["session_id"]
    await check_visible(call, session_id)
    return json_response(await call.tenant.runtime.verify_chain(session_id))


async def replay(call: Call) -> Answer:
    """Decide a session again."""
    wish = await call.json(ReplayWish) if await call.body() else ReplayWish()
    trace = await _trace(call, call.path["session_id"])
    atlases = None
    if wish.atlas_ids:
        loaded = {atlas.atlas_id: atlas for atlas in call.tenant.runtime.list_atlases()}
        for atlas_id in wish.atlas_ids:
            if atlas_id not in loaded:
                raise AtlasNotFound(f"atlas `{atlas_id}` is not loaded")
        atlases = [loaded[atlas_id] for atlas_id in wish.atlas_ids]
    result: Any = await call.service.aside(call.tenant.runtime.replay, trace, atlases)
    return json_response(msgspec.to_builtins(result))


async def diff(call: Call) -> Answer:
    """Compare two sessions for what they did."""
    from cra.audit.diff import diff as compare

    pair = await call.json(Pair)
    left, right = await _trace(call, pair.left), await _trace(call, pair.right)
    return json_response(await call.service.aside(compare, left, right))


async def _trace(call: Call, session_id: str) -> Trace:
    await check_visible(call, session_id)
    return await call.tenant.runtime.get_trace(session_id)
