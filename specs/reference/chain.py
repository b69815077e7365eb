"""The TRACE chain: an event's line, its preimage, its hash, and what verifying a file of lines means."""

import hashlib
import re
from datetime import datetime
from typing import Any

from specs.reference import canonical

FIELDS = (
    "trace_version",
    "event_id",
    "trace_id",
    "span_id",
    "parent_span_id",
    "session_id",
    "sequence",
    "timestamp",
    "event_type",
    "payload",
    "event_hash",
    "previous_event_hash",
)
FIRST_HEAD = "0" * 64
MAX_EVENT_TYPE = 64

_UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_TIME = rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
_LINE = re.compile(
    rb'\{"trace_version":"1\.0"'
    rb',"event_id":"(?P<event_id>' + _UUID + rb')"'
    rb',"trace_id":"(?P<trace_id>' + _UUID + rb')"'
    rb',"span_id":"(?P<span_id>' + _UUID + rb')"'
    rb',"parent_span_id":(?:null|"(?P<parent_span_id>' + _UUID + rb')")'
    rb',"session_id":"(?P<session_id>' + _UUID + rb')"'
    rb',"sequence":(?P<sequence>0|[1-9][0-9]{0,18})'
    rb',"timestamp":"(?P<timestamp>' + _TIME + rb')"'
    rb',"event_type":"(?P<event_type>[a-z][a-z_]*(?:\.[a-z][a-z_]*)+)"'
    rb',"payload":(?P<payload>\{.*\})'
    rb',"event_hash":"(?P<event_hash>[0-9a-f]{64})"'
    rb',"previous_event_hash":"(?P<previous_event_hash>[0-9a-f]{64})"\}',
    re.DOTALL,
)


def preimage(event: dict[str, Any]) -> bytes:
    """Return the bytes an event's hash is taken over: its fields joined without separators.

    Unambiguous because every field before the payload ends where its grammar says it ends, the payload is one balanced
    JSON object, and the last field has 64 characters. The argument is in PROTOCOL.md, under "The hash rule".
    """
    head: str = (
        event["trace_version"]
        + event["event_id"]
        + event["trace_id"]
        + event["span_id"]
        + (event["parent_span_id"] or "")
        + event["session_id"]
        + canonical.decimal(event["sequence"])
        + event["timestamp"]
        + event["event_type"]
    )
    return head.encode("utf-8") + canonical.dumps(event["payload"]) + str(event["previous_event_hash"]).encode("utf-8")


def event_hash(event: dict[str, Any]) -> str:
    """Return the SHA-256 of the preimage, in lower-case hexadecimal."""
    return hashlib.sha256(preimage(event)).hexdigest()


def line(event: dict[str, Any]) -> bytes:
    """Return the stored line of an event: the twelve fields in order, no spaces, a canonical payload, LF."""
    values = ",".join(f'"{name}":{canonical.dumps(event[name]).decode()}' for name in FIELDS)
    return ("{" + values + "}\n").encode("utf-8")


def link(event: dict[str, Any], previous: str) -> dict[str, Any]:
    """Return the event with both hashes set, following `previous`."""
    linked = {**event, "trace_version": "1.0", "previous_event_hash": previous}
    return {**linked, "event_hash": event_hash(linked)}


def link_all(events: list[dict[str, Any]], previous: str = FIRST_HEAD) -> list[dict[str, Any]]:
    """Return the events chained one after the other."""
    linked = []
    for event in events:
        linked.append(link(event, previous))
        previous = linked[-1]["event_hash"]
    return linked


def parse(text: bytes) -> dict[str, Any] | None:
    """Read one line without its LF; None where it breaks the grammar in any way."""
    match = _LINE.fullmatch(text)
    if match is None or not canonical.is_canonical(match["payload"]):
        return None
    event: dict[str, Any] = {name: _text(match[name]) for name in FIELDS if name != "trace_version"}
    event["trace_version"] = "1.0"
    event["sequence"] = int(match["sequence"])
    event["payload"] = canonical.loads(match["payload"])
    if len(event["event_type"]) > MAX_EVENT_TYPE or not is_timestamp(event["timestamp"]):
        return None
    return event


def _text(value: bytes | None) -> str | None:
    """Decode a field; what is not UTF-8 was refused with the payload and never gets here."""
    return None if value is None else value.decode("utf-8")


def is_timestamp(text: str) -> bool:
    """Tell whether a 27-character text is a date and time that exist: years 0001 to 9999, no leap seconds."""
    if not re.fullmatch(_TIME.decode(), text, re.ASCII):
        return False
    try:
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")
    except ValueError:
        return False
    return text[17:19] < "60"


def verify(data: bytes, first_sequence: int = 0, first_head: str = FIRST_HEAD) -> dict[str, Any]:
    """Say whether stored lines are one unbroken chain and, if not, which event is the first bad one and why.

    For each event the questions are asked in this order, and the first "no" is the reason:

    grammar   the line is exactly what `line` writes for some event, and ends with LF
    session   session_id is that of the first event
    sequence  sequence is one more than before
    link      previous_event_hash is the event_hash before it
    time      timestamp is not before its predecessor's
    hash      event_hash is the hash of the event as it stands

    No data at all is a good chain of no events.
    """
    good: list[dict[str, Any]] = []
    offset = 0
    for text in _lines(data):
        event, reason = _check(text, good, first_sequence, first_head)
        if event is None:
            return _verdict(good, first_head, reason, offset)
        good.append(event)
        offset += len(text)
    return _verdict(good, first_head, None, None)


def _lines(data: bytes) -> list[bytes]:
    """Split after every LF, keeping it; a canonical payload has no LF of its own."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def _check(
    text: bytes, good: list[dict[str, Any]], first_sequence: int, first_head: str
) -> tuple[dict[str, Any] | None, str | None]:
    event = parse(text[:-1]) if text.endswith(b"\n") else None
    if event is None:
        return None, "grammar"
    previous = good[-1] if good else None
    checks = {
        "session": previous is None or event["session_id"] == previous["session_id"],
        "sequence": event["sequence"] == first_sequence + len(good),
        "link": event["previous_event_hash"] == (previous["event_hash"] if previous else first_head),
        "time": previous is None or event["timestamp"] >= previous["timestamp"],
        "hash": event["event_hash"] == event_hash(event),
    }
    for reason, holds in checks.items():
        if not holds:
            return None, reason
    return event, None


def _verdict(good: list[dict[str, Any]], first_head: str, reason: str | None, offset: int | None) -> dict[str, Any]:
    return {
        "ok": reason is None,
        "events": len(good),
        "index": None if reason is None else len(good),
        "reason": reason,
        "offset": offset,
        "head": good[-1]["event_hash"] if good else first_head,
        "session_id": good[0]["session_id"] if good else None,
        "trace_id": good[0]["trace_id"] if good else None,
    }
