"""WebSockets: uvicorn's, with bounds on what is kept of a peer that does not read or does not come to an end."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# More pieces than anybody makes of a message that has so few bytes.
_MOST_PIECES = 64


class WebSocket(WebSocketsSansIOProtocol):
    """One connection of a reader, who has nothing to say but that it is still there."""

    def handle_ping(self) -> None:
        """Answer a ping, unless the answers before are not read."""
        # NOTE: uvicorn puts every pong behind what the peer has not taken yet, however much that is. A pong may be left
        # out where a later one follows (RFC 6455, section 5.5.3).
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Any) -> None:
        """Take a piece of a message; the size of a message is bounded, but pieces may be empty."""
        if len(self.frames) < _MOST_PIECES:
            super().handle_cont(event)
        else:
            self.transport.abort()

    async def send(self, message: Any) -> None:
        """Send what the application says."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # NOTE: uvicorn takes a refusal for no answer, and writes an error to the log for each.
            self.handshake_complete = True
