"""Live traces: events as they are written, by server-sent events and by WebSocket."""

from cra.errors import RouteNotFound
from cra.server.call import Answer, Call


async def follow(call: Call) -> Answer:
    """Follow a session by server-sent events."""
    raise RouteNotFound("live traces are not there yet")
