"""TRACE/1.0: the record of what was asked, decided and done."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, overload

import msgspec
from msgspec import Meta

from cra.protocol.fields import END, Digest, JsonObject, Record, Timestamp, Uuid

GENESIS_HASH = "0" * 64

EVENT_TYPE_PATTERN = "^[a-z][a-z_]*(\\.[a-z][a-z_]*)+" + END


class Event(Record, frozen=True):
    """One link of the chain; fields in the order they are written."""

    trace_version: Literal["1.0"]
    event_id: Uuid
    trace_id: Uuid
    span_id: Uuid
    parent_span_id: Uuid | None
    session_id: Uuid
    sequence: Annotated[int, Meta(ge=0)]
    timestamp: Timestamp
    event_type: Annotated[str, Meta(pattern=EVENT_TYPE_PATTERN, max_length=64)]
    payload: JsonObject
    event_hash: Digest
    previous_event_hash: Digest


_decoder = msgspec.json.Decoder(Event)


class Trace(Sequence[Event]):
    """A session's events, over the exact bytes that were hashed.

    `data` is JSON Lines as stored; events are decoded when they are looked at. Reading does not verify:
    ask `verify` for that.
    """

    __slots__ = ("_lines", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._lines: list[bytes] | None = None

    @property
    def lines(self) -> list[bytes]:
        """Each event's bytes without the line feed."""
        if self._lines is None:
            self._lines = self.data.splitlines()
        return self._lines

    def __len__(self) -> int:
        return self.data.count(b"\n")

    def __iter__(self) -> Iterator[Event]:
        return map(_decoder.decode, self.lines)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        if isinstance(index, slice):
            return [_decoder.decode(line) for line in self.lines[index]]
        return _decoder.decode(self.lines[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} events>"

    def of_type(self, *event_types: str) -> list[Event]:
        """Return the events of these types, in order."""
        return [event for event in self if event.event_type in event_types]


class ChainVerification(msgspec.Struct, frozen=True, kw_only=True):
    """What verifying found: all good, or the first bad event and why."""

    ok: bool
    events: int
    index: int | None = None
    reason: Literal["hash", "link", "sequence", "grammar", "time", "session"] | None = None
    message: str | None = None
    offset: int | None = None
    head: str = GENESIS_HASH

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = msgspec.to_builtins(self)
        return result
