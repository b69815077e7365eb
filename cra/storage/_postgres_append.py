"""What an append tells the PostgreSQL store, and what it hears."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import pack

from cra._core.canonical import dumps
from cra._core.chain import EventBatch
from cra.errors import (
    CRAError,
    DuplicateRequest,
    SessionError,
    SessionExists,
    SessionNotFound,
    StaleCatalog,
    StorageError,
)
from cra.protocol.trace import GENESIS_HASH
from cra.storage._postgres_wire import Statement, Value, escaped
from cra.storage.base import NO_CHANGE, ApprovalRecord, Change, Claim, ClaimRefused, SessionRecord, stale
from cra.storage.records import approval_bytes, resolution_bytes, session_bytes

# PostgreSQL's bigint has 64 bits; the windows of the memory store stop at the same number.
LARGEST = 1 << 61
_PARAMETERS = 35
_TEXT = 25
_NOTHING: tuple[Value, ...] = (None,) * (_PARAMETERS - 10)


def append_statement(schema: str) -> Statement:
    """Return the call of the function that does it all."""
    places = ", ".join([f"${number}" for number in range(1, _PARAMETERS + 1)])
    return Statement(b"append", f"SELECT {schema}.append_1({places})".encode())


def append_values(
    tenant: str, session_id: str, expected_head: str, batch: EventBatch, change: Change, keep: int
) -> tuple[Value, ...]:
    """Return the values of an append, in the order of the function's parameters."""
    session = change.session
    if len({claim.key for claim in change.claims}) != len(change.claims):
        raise StorageError("a change claims twice from one counter", hint="this is a defect of the caller")
    values: tuple[Value, ...] = (
        tenant,
        session_id,
        session is not None and expected_head == GENESIS_HASH,
        bytes.fromhex(expected_head),
        batch.first_sequence,
        batch.count,
        bytes.fromhex(batch.head),
        batch.now_us,
        batch.data,
        change.actions,
    )
    if change is NO_CHANGE:
        return values + _NOTHING
    resolution, idempotency, approval = change.resolution, change.idempotency, change.approval
    return (
        *values,
        *(session_values(session) if session is not None else (None, None, None, None)),
        change.request_id,
        *(
            (resolution.resolution_id, resolution.expires_us, resolution_bytes(resolution), keep)
            if resolution is not None
            else (None, None, None, None)
        ),
        *((idempotency.key, idempotency.call, idempotency.response) if idempotency is not None else (None, None, None)),
        *(approval_values(approval) if approval is not None else (None,) * 6),
        *((claims_json(change.claims), change.claims_at_us) if change.claims else (None, None)),
        change.catalog,
        *_documents(change),
        *(
            (as_texts([one.session_id for one in change.purge]), as_texts([one.head for one in change.purge]))
            if change.purge
            else (None, None)
        ),
    )


def session_values(session: SessionRecord) -> tuple[Value, ...]:
    """Return a session's columns beside its id."""
    ended_us = (session.ended_us or 0) if session.status == "ended" else None
    return (session.agent_id, session.status, ended_us, session_bytes(session))


def approval_values(approval: ApprovalRecord) -> tuple[Value, ...]:
    """Return an approval's columns, beginning with its id."""
    return (
        approval.approval_id,
        approval.agent_id,
        approval.parameters_hash,
        approval.status,
        approval.expires_us,
        approval_bytes(approval),
    )


def claims_json(claims: Sequence[Claim]) -> bytes:
    """Return claims as the server reads them."""
    return as_jsonb(
        [
            {
                "place": place,
                "key": escaped(claim.key),
                "rate": claim.rate,
                "amount": min(claim.amount, LARGEST),
                "window_us": claim.window_us,
                "cost": min(claim.cost, LARGEST + 1),
            }
            for place, claim in enumerate(claims)
        ]
    )


def _documents(change: Change) -> tuple[Value, Value]:
    if not change.documents:
        return None, None
    bodies: list[bytes] = []
    start = 0
    told = []
    for place, (kind, name, body) in enumerate(change.documents):
        size = None if body is None else len(body)
        told.append({"place": place, "kind": escaped(kind), "name": escaped(name), "start": start, "size": size})
        if body:
            bodies.append(body)
            start += len(body)
    return as_jsonb(told), b"".join(bodies)


def as_jsonb(value: object) -> bytes:
    """Return a value as PostgreSQL's binary jsonb: JSON behind a version."""
    return b"\x01" + dumps(value)


def as_texts(texts: Iterable[str]) -> bytes:
    """Return texts as PostgreSQL's binary text[]: dimensions, no nulls, the type; then lengths and bytes."""
    encoded = [escaped(text).encode() for text in texts]
    if not encoded:
        return pack("!iii", 0, 0, _TEXT)
    parts = [pack("!iiiii", 1, 0, _TEXT, len(encoded), 1)]
    for text in encoded:
        parts += (pack("!i", len(text)), text)
    return b"".join(parts)


def refuse(answer: str, session_id: str, expected_head: str, change: Change) -> CRAError | ClaimRefused:
    """Return the error for the function's answer."""
    word, _, more = answer.partition(" ")
    if word == "stale":
        return stale(session_id, more, expected_head)
    if word == "moved":
        head, _, purged_id = more.partition(" ")
        return stale(purged_id, head, dict(change.purge)[purged_id])
    if word == "full":
        place, wait_us = more.split(" ")
        return ClaimRefused(change.claims[int(place)], int(wait_us))
    if word == "exists":
        return SessionExists(f"session `{session_id}` exists already")
    if word == "missing":
        return SessionNotFound(f"session `{session_id}` does not exist")
    if word == "duplicate":
        return DuplicateRequest(f"request_id `{change.request_id}` was used in this session", pointer="/request_id")
    if word == "catalog":
        return StaleCatalog(f"the atlases are at revision {more}, expected {change.catalog}")
    if word == "gone":
        return SessionNotFound(f"session `{more}` does not exist")
    if word == "active":
        return SessionError(f"session `{more}` is active", hint="end it first")
    return StorageError(f"the server answered `{word}` to an append", hint="the schema is not this release's")
