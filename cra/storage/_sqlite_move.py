"""Moving sessions and counters out of the SQLite store and into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cra.errors import SessionExists, SessionNotFound, StorageError
from cra.storage import _restored
from cra.storage import _sqlite_append as work
from cra.storage._sqlite_pool import Pool
from cra.storage.base import CounterRecord, Document, IdempotencyRecord, SessionDump
from cra.storage.records import (
    approval_bytes,
    approval_of,
    resolution_bytes,
    resolution_of,
    session_bytes,
    session_of,
)

if TYPE_CHECKING:
    from apsw import Connection

# How many rows are read at once.
_PAGE = 64
_COUNTER = "SELECT number, key, rate, amount, window_us, newest_us, taken, spent, since_us FROM counters"

Rows = list[tuple[Any, ...]]


def dump(pool: Pool, tenant: int, session_id: str, keep: int) -> SessionDump:
    """Return everything about a session; its lines are read when they are taken."""
    which = "(SELECT number FROM sessions WHERE tenant = ?1 AND session_id = ?2)"
    kept = f"SELECT key, id, expires_us, record FROM kept WHERE session = {which} AND kind = ?3 ORDER BY key"  # noqa: S608
    who = (tenant, session_id)
    sessions, requests, resolutions, keys, approvals = pool.read_all(
        (
            f"SELECT s.number, s.record, e.actions, e.place + e.count FROM sessions s JOIN events e "  # noqa: S608
            f"ON e.place = {work.LAST} WHERE s.tenant = ? AND s.session_id = ?",
            who,
        ),
        (kept, (*who, work.REQUEST)),
        (kept, (*who, work.RESOLUTION)),
        (kept, (*who, work.IDEMPOTENCY)),
        (f"SELECT record FROM approvals WHERE session = {which} ORDER BY number", who),  # noqa: S608
    )
    if not sessions:
        raise SessionNotFound(f"session `{session_id}` does not exist")
    number, record, actions, end = sessions[0]
    return SessionDump(
        record=session_of(record, actions),
        events=_lines(pool, session_id, number << work.SHIFT, end),
        requests=tuple([row[0] for row in requests]),
        resolutions=tuple([resolution_of(row[3]) for row in resolutions[-keep:]]),
        idempotency=tuple([IdempotencyRecord(key=row[0], call=row[1], response=row[3]) for row in keys]),
        approvals=tuple([approval_of(row[0]) for row in approvals]),
    )


def _lines(pool: Pool, session_id: str, place: int, end: int) -> Iterator[bytes]:
    """Yield the lines from a place to another; what is stored does not change, it can only be purged."""
    while place < end:
        rows = pool.read(
            "SELECT lines, place + count FROM events WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
            (place, end, _PAGE),
        )
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        for row in rows:
            yield row[0]
        place = rows[-1][1]


def restore(tenant: int, dump: SessionDump, keep: int) -> Callable[[Connection], None]:
    """Return the work that adds a session as it was dumped."""
    restored = _restored.check(dump)
    record, head = dump.record, restored.head
    resolutions = [(kept, resolution_bytes(kept)) for kept in dump.resolutions[-keep:]]
    approvals = [(kept, approval_bytes(kept)) for kept in dump.approvals]
    session_data, hash_ = session_bytes(record), bytes.fromhex(head.hash)

    def job(connection: Connection) -> None:
        execute: work.Execute = connection.execute
        found = "SELECT 1 FROM sessions WHERE tenant = ? AND session_id = ?"
        if execute(found, (tenant, record.session_id)).fetchall():
            raise SessionExists(f"session `{record.session_id}` exists already")
        for approval, _ in approvals:
            known = "SELECT 1 FROM approvals WHERE tenant = ? AND approval_id = ?"
            if execute(known, (tenant, approval.approval_id)).fetchall():
                raise StorageError(f"approval `{approval.approval_id}` exists already")
        ended_us = (record.ended_us or 0) if record.status == "ended" else None
        execute(
            "INSERT INTO sessions (tenant, session_id, agent_id, status, ended_us, record) VALUES (?, ?, ?, ?, ?, ?)",
            (tenant, record.session_id, record.agent_id, record.status, ended_us, session_data),
        )
        number = connection.last_insert_rowid()
        for first, lines in restored.pieces:
            # Only the last row's head is ever read.
            values = (lines.count(b"\n"), hash_, head.last_us, record.action_count, len(resolutions), lines)
            execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", ((number << work.SHIFT) + first, *values))
        for request_id in dict.fromkeys(dump.requests):
            execute("INSERT INTO kept (session, kind, key) VALUES (?, ?, ?)", (number, work.REQUEST, request_id))
        for count, (kept, data) in enumerate(resolutions, 1):
            execute(
                "INSERT INTO kept VALUES (?, ?, ?, ?, ?, ?)",
                (number, work.RESOLUTION, count, kept.resolution_id, kept.expires_us, data),
            )
        for key in dump.idempotency:
            execute(
                "INSERT INTO kept (session, kind, key, id, record) VALUES (?, ?, ?, ?, ?)",
                (number, work.IDEMPOTENCY, key.key, key.call, key.response),
            )
        for approval, data in approvals:
            execute(work.ADD_APPROVAL, work.approval_values(tenant, number, approval, data))

    return job


def counters(pool: Pool, tenant: int) -> Iterator[CounterRecord]:
    """Yield a tenant's counters."""
    after = 0
    while rows := pool.read(
        f"{_COUNTER} WHERE tenant = ? AND number > ? ORDER BY number LIMIT ?", (tenant, after, _PAGE)
    ):
        for row in rows:
            calls = pool.read("SELECT at_us FROM calls WHERE counter = ? ORDER BY at_us", (row[0],)) if row[2] else []
            yield _record(row, calls)
        after = rows[-1][0]


def _record(row: tuple[Any, ...], calls: Rows) -> CounterRecord:
    _, key, rate, amount, window_us, newest_us, _, spent, since_us = row
    return CounterRecord(
        key=key,
        rate=bool(rate),
        amount=amount,
        window_us=window_us,
        newest_us=newest_us,
        calls_us=tuple([call[0] for call in calls]),
        spent=spent,
        since_us=since_us,
    )


def restore_documents(
    tenant: int, name: str, documents: list[Document], revisions: Mapping[str, int]
) -> Callable[[Connection], None]:
    """Return the work that adds documents of kinds that were never written."""

    def job(connection: Connection) -> None:
        execute: work.Execute = connection.execute

        def known(kind: str) -> tuple[int, list[Document]]:
            found = execute(work.REVISION, (tenant, kind)).fetchall()
            those = "SELECT kind, name, revision, body FROM documents WHERE tenant = ? AND kind = ? ORDER BY number"
            return (found[0][0] if found else 0), [Document(*row) for row in execute(those, (tenant, kind)).fetchall()]

        for kind, those in _restored.new_kinds(name, documents, revisions, known).items():
            execute("INSERT INTO revisions VALUES (?, ?, ?)", (tenant, kind, revisions[kind]))
            for one in those:
                execute(
                    "INSERT INTO documents (tenant, kind, name, revision, body) VALUES (?, ?, ?, ?, ?)",
                    (tenant, kind, one.name, one.revision, one.body),
                )

    return job


def restore_counters(tenant: int, records: Iterable[CounterRecord]) -> Callable[[Connection], None]:
    """Return the work that adds counters."""
    given = list(records)

    def job(connection: Connection) -> None:
        execute: work.Execute = connection.execute
        for record in given:
            rows = execute(f"{_COUNTER} WHERE tenant = ? AND key = ?", (tenant, record.key)).fetchall()
            if rows:
                number = rows[0][0]
                calls = execute("SELECT at_us FROM calls WHERE counter = ? ORDER BY at_us", (number,)).fetchall()
                _put(execute, tenant, number, _restored.stricter(_record(rows[0], calls), record))
            else:
                _put(execute, tenant, None, record)

    return job


def _put(execute: work.Execute, tenant: int, number: int | None, record: CounterRecord) -> None:
    calls = record.calls_us[-record.amount :]
    execute("DELETE FROM calls WHERE counter = ?", (number,))
    number = execute(
        "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
        (
            number,
            tenant,
            record.key,
            record.rate,
            min(record.amount, work.LARGEST),
            record.window_us,
            len(calls),
            record.spent,
            record.since_us,
            record.newest_us,
        ),
    ).fetchall()[0][0]
    for slot, at_us in enumerate(calls):
        execute("INSERT INTO calls VALUES (?, ?, ?)", (number, slot, at_us))
