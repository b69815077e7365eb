"""The access log: one JSON line a request, and never a secret."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cra._core.canonical import dumps

if TYPE_CHECKING:
    from cra.server.call import Call

log = logging.getLogger("cra.access")


class AccessLog:
    """Write who called what, and how it went; no header, no query and no body."""

    def write(self, call: Call, status: int, seconds: float) -> None:
        """Log one answered request."""
        identity, route = getattr(call, "identity", None), getattr(call, "route", None)
        client = call.scope.get("client")
        line = {
            "request_id": call.request_id,
            "method": call.scope["method"][:20],
            # The route, not the path: what does not exist is not repeated, whoever made it up.
            "route": None if route is None else route.path,
            "status": status,
            "microseconds": round(seconds * 1e6),
            "client": None if client is None else str(client[0]),
            "tenant": None if identity is None else identity.tenant,
            "subject": None if identity is None else identity.subject,
            "credential": None if identity is None else identity.credential,
            "session_id": call.path.get("session_id"),
        }
        log.info(dumps(line).decode())
