"""What an append does in the SQLite store, inside the transaction of its group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cra._core.chain import EventBatch
from cra.errors import DuplicateRequest, SessionError, SessionExists, SessionNotFound, StaleCatalog
from cra.protocol.trace import GENESIS_HASH
from cra.storage._sqlite_file import check_room
from cra.storage.base import (
    SWEEP_MARGIN_US,
    ApprovalRecord,
    Change,
    Claim,
    ClaimRefused,
    DocumentWrite,
    Removal,
    SessionRecord,
    stale,
)
from cra.storage.records import approval_bytes, resolution_bytes, session_bytes

if TYPE_CHECKING:
    from apsw import Connection

# The place of a session's first line; its last possible one is below the next session's.
SHIFT = 32
# SQLite's integers have 64 bits; the windows of the memory store stop at the same number.
LARGEST = 1 << 61
# How many counters one sweep looks at.
SWEEP = 1024

# The kinds of what is kept.
REQUEST, RESOLUTION, IDEMPOTENCY = 1, 2, 3
# Resolutions beyond those to keep are removed this many at a time.
_SURPLUS = 16

# The session's last row of events.
LAST = "(SELECT max(place) FROM events WHERE place < (s.number + 1) << 32)"
_ATLASES = "SELECT revision FROM revisions WHERE tenant = ?1 AND kind = 'atlas'"
# All that an append is checked against, unless its session is new or its change is out of the ordinary.
# PERF: one statement instead of three, since each is a crossing into SQLite and a turn of the interpreter's lock.
_HEAD = f"""
SELECT s.number, e.place, e.count, e.hash, e.actions, e.resolutions,
    ({_ATLASES}),
    EXISTS (SELECT 1 FROM kept WHERE session = s.number AND kind = {REQUEST} AND key = ?3)
FROM sessions s JOIN events e ON e.place = {LAST}
WHERE s.tenant = ?1 AND s.session_id = ?2
"""  # noqa: S608 - from the lines above
_ENDED = f"""
SELECT s.number, s.status, e.hash
FROM sessions s JOIN events e ON e.place = {LAST}
WHERE s.tenant = ? AND s.session_id = ?
"""  # noqa: S608 - as above
# The newest of a session's resolutions that is no longer kept; it may be there until some are removed together.
SURPLUS = f"(SELECT e.resolutions - ? FROM events e WHERE e.place = {LAST})"  # noqa: S608 - from above
COUNTER = """
SELECT number, amount, window_us, taken, spent, since_us, newest_us,
    (SELECT at_us FROM calls WHERE counter = number AND slot = taken % amount)
FROM counters WHERE tenant = ? AND key = ?
"""
ADD_APPROVAL = (
    "INSERT INTO approvals (tenant, approval_id, session, agent_id, parameters_hash, status, expires_us, record) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
REVISION = "SELECT revision FROM revisions WHERE tenant = ? AND kind = ?"
_IDLE = "number > ?1 AND number <= ?1 + ?2 AND window_us > 0 AND newest_us + window_us <= ?3"

Row = tuple[Any, ...]
# Rows as they are; the stubs of apsw say each value may be of any SQLite type.
Execute = Callable[..., Any]
Write = tuple[str, tuple[Any, ...]]


def append(
    tenant: int, session_id: str, expected_head: str, batch: EventBatch, change: Change, keep: int
) -> Callable[[Connection], None]:
    """Return the work of an append; whatever can be made of it beforehand is made now, in the caller's thread."""
    first, count, data, now_us = batch.first_sequence, batch.count, batch.data, batch.now_us
    hash_, expected = bytes.fromhex(batch.head), bytes.fromhex(expected_head)
    session, resolution, approval, idempotency = change.session, change.resolution, change.approval, change.idempotency
    session_data = session_bytes(session) if session is not None else b""
    resolution_data = resolution_bytes(resolution) if resolution is not None else b""
    approval_data = approval_bytes(approval) if approval is not None else b""
    request_id, claims, catalog = change.request_id, change.claims, change.catalog

    def work(connection: Connection) -> None:
        execute: Execute = connection.execute
        # Checks first: what is refused has written nothing.
        head = execute(_HEAD, (tenant, session_id, request_id)).fetchall()
        actions = resolutions = 0
        number: int | None = None
        if head:
            number, place, landed, current, actions, resolutions, revision, known = head[0]
            if not first:
                raise SessionExists(f"session `{session_id}` exists already")
            if current != expected or place + landed != (number << SHIFT) + first:
                raise stale(session_id, current.hex(), expected_head)
            if known:
                raise DuplicateRequest(f"request_id `{request_id}` was used in this session", pointer="/request_id")
        elif session is None or expected_head != GENESIS_HASH:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        else:
            revision = execute(f"SELECT ({_ATLASES})", (tenant,)).get
        if catalog is not None and (revision or 0) != catalog:
            raise StaleCatalog(f"the atlases are at revision {revision or 0}, expected {catalog}")
        purged = _purgeable(execute, tenant, session_id, change.purge) if change.purge else ()
        takes = _takes(execute, tenant, claims, change.claims_at_us) if claims else ()
        if resolution is not None:
            resolutions += 1

        if number is None:
            assert session is not None  # noqa: S101 - checked above
            execute(
                "INSERT INTO sessions (tenant, session_id, agent_id, status, ended_us, record) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (tenant, session_id, session.agent_id, session.status, _ended_us(session), session_data),
            )
            number = connection.last_insert_rowid()
        elif session is not None:
            execute(
                "UPDATE sessions SET status = ?, ended_us = ?, record = ? WHERE number = ?",
                (session.status, _ended_us(session), session_data, number),
            )
        execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((number << SHIFT) + first, count, hash_, now_us, actions + change.actions, resolutions, data),
        )
        if resolution is not None:
            kept = (number, resolutions, resolution.resolution_id, resolution.expires_us, resolution_data)
            execute(*((_KEEP, kept) if request_id is None else (_KEEP_BOTH, (*kept, request_id))))
            if resolutions > keep and not resolutions % _SURPLUS:
                execute(
                    "DELETE FROM kept WHERE session = ? AND kind = ? AND key <= ?",
                    (number, RESOLUTION, resolutions - keep),
                )
        elif request_id is not None:
            execute(_KEEP_REQUEST, (number, request_id))
        if idempotency is not None:
            execute(
                "INSERT OR REPLACE INTO kept (session, kind, key, id, record) VALUES (?, ?, ?, ?, ?)",
                (number, IDEMPOTENCY, idempotency.key, idempotency.call, idempotency.response),
            )
        if approval is not None:
            execute(
                f"{ADD_APPROVAL} ON CONFLICT (tenant, approval_id) "
                "DO UPDATE SET status = excluded.status, record = excluded.record",
                approval_values(tenant, number, approval, approval_data),
            )
        for sql, values in takes:
            execute(sql, values)
        if change.documents:
            _write_documents(execute, tenant, change.documents)
        for purged_id, purged_number in purged:
            _purge(execute, tenant, purged_id, purged_number)

    return work


_KEEP_REQUEST = f"INSERT INTO kept (session, kind, key) VALUES (?, {REQUEST}, ?)"  # noqa: S608 - ours
_KEEP = f"INSERT INTO kept VALUES (?1, {RESOLUTION}, ?2, ?3, ?4, ?5)"  # noqa: S608 - ours
_KEEP_BOTH = f"{_KEEP}, (?1, {REQUEST}, ?6, NULL, NULL, NULL)"


def approval_values(tenant: int, session: int, approval: ApprovalRecord, data: bytes) -> tuple[Any, ...]:
    """Return what `ADD_APPROVAL` adds."""
    return (
        tenant,
        approval.approval_id,
        session,
        approval.agent_id,
        approval.parameters_hash,
        approval.status,
        approval.expires_us,
        data,
    )


def _ended_us(session: SessionRecord) -> int | None:
    return (session.ended_us or 0) if session.status == "ended" else None


def _write_documents(execute: Execute, tenant: int, writes: tuple[DocumentWrite, ...]) -> None:
    revisions = {}
    for kind in {write.kind for write in writes}:
        revisions[kind] = execute(
            "INSERT INTO revisions VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET revision = revision + 1 "
            "RETURNING revision",
            (tenant, kind),
        ).fetchall()[0][0]
    for kind, name, body in writes:
        if body is None:
            execute("DELETE FROM documents WHERE tenant = ? AND kind = ? AND name = ?", (tenant, kind, name))
        else:
            execute(
                "INSERT INTO documents (tenant, kind, name, revision, body) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (tenant, kind, name) DO UPDATE SET revision = excluded.revision, body = excluded.body",
                (tenant, kind, name, revisions[kind], body),
            )


def _purgeable(execute: Execute, tenant: int, session_id: str, purge: tuple[Removal, ...]) -> list[tuple[str, int]]:
    """Return the sessions to purge with their numbers; raises when one of them has to stay."""
    numbers = []
    for purged_id, head in dict.fromkeys(purge):
        found = execute(_ENDED, (tenant, purged_id)).fetchall()
        if not found:
            raise SessionNotFound(f"session `{purged_id}` does not exist")
        number, status, current = found[0]
        if status != "ended" or purged_id == session_id:
            raise SessionError(f"session `{purged_id}` is active", hint="end it first")
        if current.hex() != head:
            raise stale(purged_id, current.hex(), head)
        numbers.append((purged_id, number))
    return numbers


def _purge(execute: Execute, tenant: int, session_id: str, number: int) -> None:
    execute("DELETE FROM events WHERE place >= ? AND place < ?", (number << SHIFT, (number + 1) << SHIFT))
    execute("DELETE FROM kept WHERE session = ?", (number,))
    execute("DELETE FROM approvals WHERE session = ?", (number,))
    execute(
        "DELETE FROM counters WHERE tenant = ? AND window_us = 0 AND substr(key, -36) = ?",
        (tenant, session_id),
    )
    execute("DELETE FROM sessions WHERE number = ?", (number,))


def wait_us(claim: Claim, row: Row | None, now_us: int) -> int:
    """Return what a claim waits for on the counter in `row`: 0 there is room, -1 it never fits."""
    if claim.rate:
        if row is None or row[7] is None:
            return 0
        # The ring's next place holds the call that the new one would push out: it must have left the window.
        return max(0, int(row[7]) + int(row[2]) - max(now_us, int(row[6])))
    amount = min(claim.amount, LARGEST) if row is None else row[1]
    if claim.cost > amount:
        return -1
    if row is None or claim.cost <= amount - _spent(row, now_us):
        return 0
    return int(row[5]) + int(row[2]) - max(now_us, int(row[6])) if row[2] else -1


def _spent(row: Row, now_us: int) -> int:
    return 0 if row[2] and row[5] + row[2] <= max(now_us, row[6]) else int(row[4])


def _takes(execute: Execute, tenant: int, claims: tuple[Claim, ...], now_us: int) -> list[Write]:
    """Return the writes that take all claims, or raise `ClaimRefused`."""
    if len({claim.key for claim in claims}) != len(claims):
        raise ValueError("a change claims twice from one counter")
    writes: list[Write] = []
    for claim in claims:
        found = execute(COUNTER, (tenant, claim.key)).fetchall()
        row: Row | None = found[0] if found else None
        wait = wait_us(claim, row, now_us)
        if wait:
            raise ClaimRefused(claim, wait)
        if row is None:
            writes.append(
                (
                    "INSERT INTO counters (tenant, key, rate, amount, window_us, taken, spent, since_us, newest_us) "
                    "VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0)",
                    (tenant, claim.key, claim.rate, min(claim.amount, LARGEST), claim.window_us),
                )
            )
        at_us = now_us if row is None else max(now_us, row[6])
        if claim.rate:
            writes += [
                (
                    "INSERT OR REPLACE INTO calls SELECT number, taken % amount, ? FROM counters "
                    "WHERE tenant = ? AND key = ?",
                    (at_us, tenant, claim.key),
                ),
                (
                    "UPDATE counters SET taken = taken + 1, newest_us = ? WHERE tenant = ? AND key = ?",
                    (at_us, tenant, claim.key),
                ),
            ]
        elif claim.cost:
            spent = 0 if row is None else _spent(row, now_us)
            since_us = row[5] if row is not None and spent else at_us
            writes.append(
                (
                    "UPDATE counters SET spent = ?, since_us = ?, newest_us = ? WHERE tenant = ? AND key = ?",
                    (spent + claim.cost, since_us, at_us, tenant, claim.key),
                )
            )
    return writes


def sweep(connection: Connection, after: int, now_us: int) -> None:
    """Drop those of some counters behind `after` whose windows are over; they would count nothing."""
    values = (after, SWEEP, now_us - SWEEP_MARGIN_US)
    connection.execute(f"DELETE FROM calls WHERE counter IN (SELECT number FROM counters WHERE {_IDLE})", values)  # noqa: S608
    connection.execute(f"DELETE FROM counters WHERE {_IDLE}", values)  # noqa: S608


def probe(connection: Connection) -> None:
    """Write something of no meaning, on a disk with room."""
    # What is written may well go where the log has been before, which works on a full disk for a while.
    check_room(connection.filename)
    connection.execute("UPDATE probe SET times = times + 1")
