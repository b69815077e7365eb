"""What an append does in the SQLite store, inside the transaction of its group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cra._core.chain import EventBatch
from cra.errors import DuplicateRequest, SessionError, SessionExists, SessionNotFound, StaleHead
from cra.protocol.trace import GENESIS_HASH
from cra.storage.base import SWEEP_MARGIN_US, Change, Claim, ClaimRefused
from cra.storage.records import approval_bytes, resolution_bytes, session_bytes

if TYPE_CHECKING:
    from apsw import Connection

# The place of a session's first line; its last possible one is below the next session's.
SHIFT = 32
# SQLite's integers have 64 bits; the windows of the memory store stop at the same number.
_LARGEST = 1 << 61
# How many counters one sweep looks at.
SWEEP = 1024

HEAD = """
SELECT h.session, h.sequence, h.hash, h.resolutions FROM sessions s JOIN heads h ON h.session = s.number
WHERE s.session_id = ?
"""
COUNTER = """
SELECT number, amount, window_us, taken, spent, since_us, newest_us,
    (SELECT at_us FROM calls WHERE counter = number AND slot = taken % amount)
FROM counters WHERE key = ?
"""
_IDLE = "number > ?1 AND number <= ?1 + ?2 AND window_us > 0 AND newest_us + window_us <= ?3"

Row = tuple[Any, ...]
# Rows as they are; the stubs of apsw say each value may be of any SQLite type.
Execute = Callable[..., Any]
Write = tuple[str, tuple[Any, ...]]


def append(
    session_id: str, expected_head: str, batch: EventBatch, change: Change, keep: int
) -> Callable[[Connection], None]:
    """Return the work of an append; whatever can be made of it beforehand is made now, in the caller's thread."""
    first, count, data, now_us = batch.first_sequence, batch.count, batch.data, batch.now_us
    hash_, expected = bytes.fromhex(batch.head), bytes.fromhex(expected_head)
    session, resolution, approval, idempotency = change.session, change.resolution, change.approval, change.idempotency
    session_data = session_bytes(session) if session is not None else b""
    resolution_data = resolution_bytes(resolution) if resolution is not None else b""
    approval_data = approval_bytes(approval) if approval is not None else b""
    request_id, claims = change.request_id, change.claims

    def work(connection: Connection) -> None:
        execute: Execute = connection.execute
        # Checks first: what is refused has written nothing.
        head = execute(HEAD, (session_id,)).fetchall()
        resolutions = 0
        number: int | None = None
        if head:
            number, sequence, current, resolutions = head[0]
            if sequence and not first:
                raise SessionExists(f"session `{session_id}` exists already")
            if current != expected or sequence != first:
                raise StaleHead(f"session `{session_id}`: head is {current.hex()[:12]}, expected {expected_head[:12]}")
            if (
                request_id is not None
                and execute("SELECT 1 FROM requests WHERE session = ? AND request_id = ?", (number, request_id)).get
            ):
                raise DuplicateRequest(f"request_id `{request_id}` was used in this session", pointer="/request_id")
        elif session is None or expected_head != GENESIS_HASH:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        takes = _takes(execute, claims, change.claims_at_us) if claims else ()
        if resolution is not None:
            resolutions += 1

        if number is None:
            assert session is not None  # noqa: S101 - checked above
            execute(
                "INSERT INTO sessions (session_id, agent_id, status, record) VALUES (?, ?, ?, ?)",
                (session_id, session.agent_id, session.status, session_data),
            )
            number = connection.last_insert_rowid()
            execute(
                "INSERT INTO heads VALUES (?, ?, ?, ?, ?, ?)",
                (number, count, hash_, now_us, change.actions, resolutions),
            )
        else:
            if session is not None:
                execute(
                    "UPDATE sessions SET status = ?, record = ? WHERE number = ?",
                    (session.status, session_data, number),
                )
            execute(
                "UPDATE heads SET sequence = ?, hash = ?, last_us = ?, actions = actions + ?, resolutions = ? "
                "WHERE session = ?",
                (first + count, hash_, now_us, change.actions, resolutions, number),
            )
        execute("INSERT INTO events VALUES (?, ?)", ((number << SHIFT) + first, data))
        if request_id is not None:
            execute("INSERT INTO requests VALUES (?, ?)", (number, request_id))
        if resolution is not None:
            execute(
                "INSERT INTO resolutions VALUES (?, ?, ?, ?, ?)",
                (number, resolutions, resolution.resolution_id, resolution.expires_us, resolution_data),
            )
            if resolutions > keep:
                execute("DELETE FROM resolutions WHERE session = ? AND number <= ?", (number, resolutions - keep))
        if idempotency is not None:
            execute(
                "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?)",
                (number, idempotency.key, idempotency.call, idempotency.response),
            )
        if approval is not None:
            execute(
                "INSERT INTO approvals (approval_id, session, status, record) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (approval_id) DO UPDATE SET status = excluded.status, record = excluded.record",
                (approval.approval_id, number, approval.status, approval_data),
            )
        for sql, values in takes:
            execute(sql, values)

    return work


def wait_us(claim: Claim, row: Row | None, now_us: int) -> int:
    """Return what a claim waits for on the counter in `row`: 0 there is room, -1 it never fits."""
    if claim.rate:
        if row is None or row[7] is None:
            return 0
        # The ring's next place holds the call that the new one would push out: it must have left the window.
        return max(0, int(row[7]) + int(row[2]) - max(now_us, int(row[6])))
    amount = min(claim.amount, _LARGEST) if row is None else row[1]
    if claim.cost > amount:
        return -1
    if row is None or claim.cost <= amount - _spent(row, now_us):
        return 0
    return int(row[5]) + int(row[2]) - max(now_us, int(row[6])) if row[2] else -1


def _spent(row: Row, now_us: int) -> int:
    return 0 if row[2] and row[5] + row[2] <= max(now_us, row[6]) else int(row[4])


def _takes(execute: Execute, claims: tuple[Claim, ...], now_us: int) -> list[Write]:
    """Return the writes that take all claims, or raise `ClaimRefused`."""
    if len({claim.key for claim in claims}) != len(claims):
        raise ValueError("a change claims twice from one counter")
    writes: list[Write] = []
    for claim in claims:
        found = execute(COUNTER, (claim.key,)).fetchall()
        row: Row | None = found[0] if found else None
        wait = wait_us(claim, row, now_us)
        if wait:
            raise ClaimRefused(claim, wait)
        if row is None:
            writes.append(
                (
                    "INSERT INTO counters (key, amount, window_us, taken, spent, since_us, newest_us) "
                    "VALUES (?, ?, ?, 0, 0, 0, 0)",
                    (claim.key, min(claim.amount, _LARGEST), claim.window_us),
                )
            )
        at_us = now_us if row is None else max(now_us, row[6])
        if claim.rate:
            writes += [
                (
                    "INSERT OR REPLACE INTO calls SELECT number, taken % amount, ? FROM counters WHERE key = ?",
                    (at_us, claim.key),
                ),
                ("UPDATE counters SET taken = taken + 1, newest_us = ? WHERE key = ?", (at_us, claim.key)),
            ]
        elif claim.cost:
            spent = 0 if row is None else _spent(row, now_us)
            since_us = row[5] if row is not None and spent else at_us
            writes.append(
                (
                    "UPDATE counters SET spent = ?, since_us = ?, newest_us = ? WHERE key = ?",
                    (spent + claim.cost, since_us, at_us, claim.key),
                )
            )
    return writes


def sweep(after: int, now_us: int) -> Callable[[Connection], None]:
    """Return the work that drops some counters whose windows are over; they would count nothing."""

    def work(connection: Connection) -> None:
        values = (after, SWEEP, now_us - SWEEP_MARGIN_US)
        connection.execute(f"DELETE FROM calls WHERE counter IN (SELECT number FROM counters WHERE {_IDLE})", values)  # noqa: S608
        connection.execute(f"DELETE FROM counters WHERE {_IDLE}", values)  # noqa: S608

    return work


def purge(session_id: str) -> Callable[[Connection], None]:
    """Return the work that removes an ended session."""

    def work(connection: Connection) -> None:
        execute: Execute = connection.execute
        found = execute("SELECT number, status FROM sessions WHERE session_id = ?", (session_id,)).fetchall()
        if not found:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        number, status = found[0]
        if status != "ended":
            raise SessionError(f"session `{session_id}` is active", hint="end it first")
        execute("DELETE FROM events WHERE place >= ? AND place < ?", (number << SHIFT, (number + 1) << SHIFT))
        for table in ("requests", "resolutions", "idempotency", "approvals", "heads"):
            execute(f"DELETE FROM {table} WHERE session = ?", (number,))  # noqa: S608 - from the line above
        execute("DELETE FROM counters WHERE window_us = 0 AND substr(key, -36) = ?", (session_id,))
        execute("DELETE FROM sessions WHERE number = ?", (number,))

    return work
