"""A trace as it is written: server-sent events to events, and where to go on after a break."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from cra.client._answers import nothing
from cra.client._calls import EVENTS, Call, query
from cra.client._exchange import Again, Exchange
from cra.client._plans import session_path
from cra.client._settings import Settings
from cra.errors import InvalidTrace
from cra.protocol.trace import Event, Trace

# Longer than a service is silent: it sends a comment when there is nothing to say.
SILENCE_S = 60.0
_MAX_EVENT_BYTES = 64 << 20
_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_ID = re.compile(r"[0-9]{1,18}\Z")


class Messages:
    """Server-sent events, put together from pieces as they arrive."""

    def __init__(self) -> None:
        self._rest = b""
        self._id: str | None = None
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[tuple[str | None, bytes]]:
        """Yield the id and the data of each message that is whole now; raises `InvalidTrace` for one too long."""
        text = self._rest + piece
        start = 0
        for end in _END.finditer(text):
            line, start = text[start : end.start()], end.end()
            if line:
                self._take(line)
            elif self._data:
                yield self._id, b"\n".join(self._data)
                self._data, self._size = [], 0
        self._rest = text[start:]
        if len(self._rest) + self._size > _MAX_EVENT_BYTES:
            raise InvalidTrace(f"a live event has more than {_MAX_EVENT_BYTES} bytes")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"id":
            self._id = value.decode("utf-8", "replace")


class Follower:
    """A session that is followed: which event comes next, and whether to try again after a break."""

    def __init__(
        self, session_id: str, first: int, settings: Settings, clock: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self.session_id = session_id
        self.next = first
        self._ended = False
        self._path = session_path(session_id, "/trace/live")
        self._messages = Messages()
        self._fresh: Callable[[], Exchange[None]] = lambda: Exchange(self.call(), settings, clock, chance)
        self._exchange = self._fresh()

    def has_ended(self) -> bool:
        """Say whether the session's last event has been seen."""
        return self._ended

    def call(self) -> Call[None]:
        """Return the call that goes on where the last one broke."""
        return Call("GET", self._path, nothing, query=query(first=self.next), accept=EVENTS, repeatable=True)

    def begin(self) -> dict[str, float]:
        """Begin a connection; returns how long its parts may take."""
        self._messages = Messages()
        return {**self._exchange.begin(), "read": SILENCE_S}

    def take(self, piece: bytes) -> Iterator[Event]:
        """Yield the events of a piece; raises `InvalidTrace` when one is missing."""
        for name, line in self._messages.feed(piece):
            if name is None or not _ID.match(name):
                continue
            event = Trace(line + b"\n")[0]
            if event.sequence < self.next:
                continue
            if event.sequence != self.next:
                raise InvalidTrace(
                    f"the live trace goes on with event {event.sequence}, expected {self.next}",
                    details={"index": self.next},
                )
            self.next += 1
            # What arrives shows that the service is well: a later break is a new one.
            self._exchange = self._fresh()
            self._ended = event.event_type == "session.ended"
            yield event
            if self._ended:
                return

    def broke(self, error: Exception | None, *, sent: bool) -> Again:
        """Return the wait before going on; raises `ServiceUnreachable` when too many attempts gave no event."""
        return self._exchange.lost(error or EOFError("the stream ended before the session"), sent=sent)

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> Again:
        """Return the wait that an answer other than a stream asks for, or raise what it says."""
        return self._exchange.answered(status, headers, body) or self.broke(None, sent=True)
