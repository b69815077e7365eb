"""Retention: how long ended sessions are kept, which ones are held, and the purge of the others."""

from typing import Annotated

from msgspec import Meta, Struct

from cra.errors import SessionNotFound
from cra.runtime.retention import RetentionPolicy
from cra.server.call import Answer, Call, Response, json_response
from cra.server.sessions import visible

# One request removes no more; whoever wants more gone asks again.
_MOST_PURGED = 1000


class HoldWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a session is held."""

    reason: Annotated[str, Meta(min_length=1, max_length=1000)]


async def get(call: Call) -> Answer:
    """Show the policy and the holds."""
    administration = call.tenant.runtime.administration
    return json_response(
        {"policy": (await administration.retention()).as_dict(), "holds": await administration.holds()}
    )


async def put(call: Call) -> Answer:
    """Set the policy."""
    policy = await call.json(RetentionPolicy)
    done = await call.tenant.runtime.administration.set_retention(policy, actor=call.identity.subject)
    return json_response(done.as_dict())


async def purge(call: Call) -> Answer:
    """Remove what the policy lets go."""
    administration = call.tenant.runtime.administration
    gone = await administration.purge(actor=call.identity.subject, limit=_MOST_PURGED)
    return json_response({"purged": gone, "more": len(gone) == _MOST_PURGED})


async def hold(call: Call) -> Answer:
    """Keep a session from being purged."""
    wish = await call.json(HoldWish)
    record = await visible(call, call.path["session_id"])
    administration = call.tenant.runtime.administration
    return json_response(
        await administration.place_hold(record.session_id, actor=call.identity.subject, reason=wish.reason)
    )


async def held(call: Call) -> Answer:
    """Show what holds a session."""
    record = await visible(call, call.path["session_id"])
    found = await call.tenant.runtime.administration.hold(record.session_id)
    if found is None:
        raise SessionNotFound(f"session `{record.session_id}` is not held")
    return json_response(found)


async def release(call: Call) -> Answer:
    """Let a session go when its time comes."""
    record = await visible(call, call.path["session_id"])
    await call.tenant.runtime.administration.release_hold(record.session_id, actor=call.identity.subject)
    return Response(status=204)
