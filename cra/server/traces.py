"""Traces: read, verify, replay, compare."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from cra._core.chain import Verifier
from cra.errors import AtlasNotFound, PayloadTooLarge
from cra.protocol.fields import AtlasId, Uuid
from cra.protocol.trace import Trace
from cra.runtime._base import verification_of
from cra.server.call import JSON, Answer, Call, Response, Stream, json_response
from cra.server.pages import event_type, pages
from cra.server.sessions import visible

# A page of JSON ends here, whatever its limit.
_PAGE_BYTES = 4 << 20
_PAGE_EVENTS = 1000
# How far one request looks for events of the types it asks for.
_MOST_SCANNED = 20_000
# What is decided again or compared is in memory as a whole.
_WHOLE_BYTES = 64 << 20


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
    """Read events: a page of JSON, or the stored lines as they are."""
    query = call.parameters(PageQuery)
    session_id = call.path["session_id"]
    await visible(call, session_id)
    if call.media != JSON:
        return Stream(_lines(call, session_id, query), media=call.media)
    wanted = frozenset(query.event_type)
    found: list[bytes] = []
    limit = query.limit or _PAGE_EVENTS
    size, sequence, scanned = 0, query.first, 0
    after: int | None = None
    async for some in pages(call.tenant.runtime, session_id, query.first, _MOST_SCANNED if wanted else limit + 1):
        for line in some.lines:
            if len(found) == limit or (found and size + len(line) > _PAGE_BYTES):
                after = sequence
                break
            if not wanted or event_type(line) in wanted:
                found.append(line)
                size += len(line)
            sequence += 1
            scanned += 1
        if after is not None:
            break
    if after is None and wanted and scanned == _MOST_SCANNED:
        after = sequence
    end = b"" if after is None else b',"next":%d' % after
    return Response(b'{"events":[%b]%b}' % (b",".join(found), end))


async def _lines(call: Call, session_id: str, query: PageQuery) -> AsyncGenerator[bytes, None]:
    wanted = frozenset(query.event_type)
    left = 1 << 62 if query.limit is None else query.limit
    most = None if wanted else query.limit
    async for some in pages(call.tenant.runtime, session_id, query.first, most):
        lines = [line for line in some.lines if event_type(line) in wanted][:left] if wanted else some.lines
        left -= len(lines)
        if lines:
            yield b"\n".join(lines) + b"\n"
        if left <= 0:
            return


async def verify(call: Call) -> Answer:
    """Verify the chain over the stored bytes."""
    session_id = call.path["session_id"]
    await visible(call, session_id)
    verifier = Verifier(session_id=session_id)
    async for some in pages(call.tenant.runtime, session_id):
        data = b"\n".join(some.lines) + b"\n"
        if not await call.service.aside(verifier.feed, data):
            break
    return json_response(verification_of(verifier.finish()))


async def replay(call: Call) -> Answer:
    """Decide a session again."""
    wish = await call.json(ReplayWish) if call.content else ReplayWish()
    runtime = call.tenant.runtime
    trace = await _whole(call, call.path["session_id"])
    loaded = await runtime.administration.atlases()
    chosen = loaded
    if wish.atlas_ids:
        by_id = {atlas.atlas_id: atlas for atlas in loaded}
        for atlas_id in wish.atlas_ids:
            if atlas_id not in by_id:
                raise AtlasNotFound(f"atlas `{atlas_id}` is not loaded")
        chosen = tuple(by_id[atlas_id] for atlas_id in wish.atlas_ids)
    result = await call.service.aside(runtime.replay, trace, chosen)
    value: dict[str, Any] = msgspec.to_builtins(result)
    return json_response({**value, "ok": result.ok, "complete": result.complete})


async def diff(call: Call) -> Answer:
    """Compare two sessions for what they did."""
    from cra.audit.diff import diff as compare

    pair = await call.json(Pair)
    left, right = await _whole(call, pair.left), await _whole(call, pair.right)
    return json_response(await call.service.aside(compare, left, right))


async def _whole(call: Call, session_id: str) -> Trace:
    await visible(call, session_id)
    pieces: list[bytes] = []
    size = 0
    async for some in pages(call.tenant.runtime, session_id):
        pieces += some.lines
        size += sum(map(len, some.lines))
        if size > _WHOLE_BYTES:
            raise PayloadTooLarge(
                f"the trace has more than {_WHOLE_BYTES} bytes, too many for one request",
                hint="export it, and use `cra replay` or `cra trace diff` on the files",
            )
    return Trace(b"".join([line + b"\n" for line in pieces]))
