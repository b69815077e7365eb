"""Answers: the bytes that come back, as the values that the runtime returns."""

from typing import Any, Literal, TypeVar, cast

import msgspec
from msgspec import Struct

from cra._core.canonical import dumps
from cra.atlas import loader
from cra.atlas.package import Atlas
from cra.protocol.carp import ExecuteResponse, Resolution
from cra.protocol.jsontext import decode
from cra.protocol.times import parse_timestamp
from cra.protocol.trace import ChainVerification, Trace
from cra.runtime._base import Simulation
from cra.storage.base import ApprovalRecord, SessionRecord

T = TypeVar("T")

# A result may have 8 MiB and stand in an answer with everything else twice.
_MAX_BYTES = 64 << 20


class AtlasSummary(Struct, frozen=True, kw_only=True):
    """An atlas that the service has loaded, by its names and its digest."""

    atlas_id: str
    version: str
    name: str
    digest: str


def value_of(body: bytes) -> Any:
    """Return the JSON of an answer, strictly read; integers keep every digit."""
    return decode(body, max_bytes=_MAX_BYTES)


def value_or_none(body: bytes) -> Any:
    """Return the JSON of an answer, None when it has nothing to say."""
    return value_of(body) if body else None


def nothing(body: bytes) -> None:
    """Read an answer that has nothing to say."""


def carp(body: bytes) -> bytes:
    """Return the bytes of a CARP response, once they have been seen to be one."""
    if value_of(body)["carp_version"] != "1.0":
        raise ValueError("expected a CARP response")
    return body


def lines(body: bytes) -> bytes:
    """Return the lines of a trace; whether they verify is for who asked to find out."""
    if body and not (body.endswith(b"}\n") and all(line.startswith(_EVENT) for line in body.splitlines())):
        raise ValueError("expected a trace")
    return body


_EVENT = b'{"trace_version":'


def resolution(body: bytes) -> Resolution:
    return msgspec.convert(value_of(body), Resolution, strict=True)


def execution(body: bytes) -> ExecuteResponse:
    return msgspec.convert(value_of(body), ExecuteResponse, strict=True)


def is_unfinished(response: ExecuteResponse) -> bool:
    """Say whether a call's idempotency key has no outcome yet."""
    return response.error is not None and response.error.code == "idempotency_conflict"


def session(body: bytes) -> SessionRecord:
    return _session(value_of(body))


def session_page(body: bytes) -> tuple[list[SessionRecord], str | None]:
    """Return a page and what the next one is asked for with, None on the last."""
    value = value_of(body)
    page = [_session(one) for one in _listed(value["sessions"])]
    return page, _next(value, page[-1].session_id if page else None)


def _session(value: dict[str, Any]) -> SessionRecord:
    ended = value.get("ended_at")
    return SessionRecord(
        session_id=_text(value["session_id"]),
        agent_id=_text(value["agent_id"]),
        goal=_text(value["goal"]),
        trace_id=_text(value["trace_id"]),
        started_us=parse_timestamp(value["started_at"]),
        status=cast(Literal["active", "ended"], _word(value["status"], "active", "ended")),
        ended_us=None if ended is None else parse_timestamp(ended),
        end_reason=value.get("end_reason"),
        action_count=value["action_count"],
        parent_session_id=value.get("parent_session_id"),
        context=value.get("context") or {},
        metadata=value.get("metadata") or {},
    )


def approval(body: bytes) -> ApprovalRecord:
    return _approval(value_of(body))


def approval_page(body: bytes) -> tuple[list[ApprovalRecord], str | None]:
    """Return a page and what the next one is asked for with, None on the last."""
    value = value_of(body)
    page = [_approval(one) for one in _listed(value["approvals"])]
    return page, _next(value, page[-1].approval_id if page else None)


def _next(value: dict[str, Any], last: str | None) -> str | None:
    """Return what the next page is asked for with: the last of this one, or a list would never come to its end."""
    after = value.get("next")
    if after is not None and after != last:
        raise ValueError("next is not what the page ends with")
    return last if after is not None else None


def _approval(value: dict[str, Any]) -> ApprovalRecord:
    fields = {field.name for field in msgspec.structs.fields(ApprovalRecord)}
    known = {name: member for name, member in value.items() if name in fields}
    known["requested_us"] = parse_timestamp(value["requested_at"])
    known["expires_us"] = parse_timestamp(value["expires_at"])
    return msgspec.convert(known, ApprovalRecord, strict=True)


def _listed(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _word(value: object, *words: str) -> str:
    if value not in words:
        raise ValueError("expected another word")
    return _text(value)


def simulated_resolve(body: bytes) -> Simulation:
    return _simulation(body, Resolution)


def simulated_call(body: bytes) -> Simulation:
    return _simulation(body, ExecuteResponse)


def _simulation(body: bytes, kind: type[Resolution] | type[ExecuteResponse]) -> Simulation:
    value = value_of(body)
    return Simulation(
        answer=msgspec.convert(value["answer"], kind, strict=True),
        canonical=dumps(value["answer"]),
        events=Trace(b"".join(_line(event) for event in value["events"])),
    )


# As they stand in a stored line, the payload canonical.
_FIELDS = (
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


def _line(event: dict[str, Any]) -> bytes:
    """Return an event as it is written in a trace."""
    members = (b'"' + name.encode() + b'":' + dumps(event[name]) for name in _FIELDS)
    return b"{" + b",".join(members) + b"}\n"


def verification(body: bytes) -> ChainVerification:
    return msgspec.convert(value_of(body), ChainVerification, strict=True)


def atlas_summary(body: bytes) -> AtlasSummary:
    return msgspec.convert(value_of(body), AtlasSummary, strict=True)


def atlas(body: bytes) -> Atlas:
    return loader.load_archive(body, source="the service")


def atlas_summaries(body: bytes) -> list[AtlasSummary]:
    return msgspec.convert(value_of(body)["atlases"], list[AtlasSummary], strict=True)
