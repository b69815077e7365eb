"""Sessions and counters that leave the PostgreSQL store, or come to it, as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from cra.errors import SessionExists, SessionNotFound, StorageError
from cra.storage._postgres_append import LARGEST, approval_values, as_texts, session_values
from cra.storage._postgres_pool import Execute, Pool
from cra.storage._postgres_wire import Row, Statement, escaped
from cra.storage._restored import check, new_kinds, stricter
from cra.storage.base import CounterRecord, Document, IdempotencyRecord, SessionDump
from cra.storage.records import approval_of, resolution_bytes, resolution_of, session_of

_PAGE = 64
_COUNTERS_PAGE = 256


def dump(pool: Pool, sql: dict[str, Statement], tenant: str, session_id: str) -> SessionDump:
    """Return a session as one statement, and so one moment, has it; its events are read when they are taken."""
    kinds: list[list[Row]] = [[], [], [], [], []]
    for kind, *row in pool.read(sql["dump"], (tenant, session_id)):
        kinds[kind].append(tuple(row))
    if not kinds[0]:
        raise SessionNotFound(f"session `{session_id}` does not exist")
    actions, sequence, _, record = kinds[0][0]
    return SessionDump(
        record=session_of(record, actions),
        events=_lines(pool, sql["lines"], tenant, session_id, int(sequence)),
        requests=tuple([row[1] for row in kinds[1]]),
        resolutions=tuple([resolution_of(row[3]) for row in kinds[2]]),
        idempotency=tuple([IdempotencyRecord(key=row[1], call=row[2], response=row[3]) for row in kinds[3]]),
        approvals=tuple([approval_of(row[3]) for row in kinds[4]]),
    )


def _lines(pool: Pool, statement: Statement, tenant: str, session_id: str, sequence: int) -> Iterator[bytes]:
    # What was appended does not change, so the pages are of the same moment.
    after, last = -1, b""
    while rows := pool.read(statement, (tenant, session_id, after, sequence, _PAGE)):
        for first, lines in rows:
            yield lines
            after, last = first, lines
    if after + last.count(b"\n") != sequence:
        raise SessionNotFound(f"session `{session_id}` was purged while it was read")


def restore(pool: Pool, sql: dict[str, Statement], tenant: str, dumped: SessionDump, keep: int) -> None:
    """Add a session in one transaction, once its chain has been verified."""
    restored = check(dumped)
    record, head = dumped.record, restored.head
    session_id, kept = record.session_id, dumped.resolutions[-keep:]
    key = (tenant, session_id)
    with pool.transaction() as execute:
        values = (head.sequence, bytes.fromhex(head.hash), head.last_us, record.action_count, len(kept))
        if not execute(sql["add_head"], (*key, *values)):
            raise SessionExists(f"session `{session_id}` exists already")
        execute(sql["add_session"], (*key, *session_values(record)))
        for first, lines in restored.pieces:
            execute(sql["add_lines"], (*key, first, lines))
        execute(sql["add_requests"], (*key, as_texts(dict.fromkeys(dumped.requests))))
        for number, one in enumerate(kept, 1):
            execute(sql["add_resolution"], (*key, number, one.resolution_id, one.expires_us, resolution_bytes(one)))
        for known in dumped.idempotency:
            execute(sql["add_idempotency"], (*key, known.key, known.call, known.response))
        for asked in dumped.approvals:
            if not execute(sql["add_approval"], (*key, *approval_values(asked))):
                raise StorageError(f"approval `{asked.approval_id}` exists already")


def restore_documents(
    pool: Pool,
    sql: dict[str, Statement],
    tenant: str,
    documents: Iterable[Document],
    revisions: Mapping[str, int],
) -> None:
    """Add documents of kinds that were never written, in one transaction."""
    with pool.transaction() as execute:

        def known(kind: str) -> tuple[int, list[Document]]:
            # Added first: who adds the same kind at the same time waits here, and then finds it.
            if execute(sql["add_revision"], (tenant, kind, revisions[kind])):
                return 0, []
            ((revision,),) = execute(sql["revision"], (tenant, kind))
            return revision, [Document(kind, *row) for row in execute(sql["documents"], (tenant, kind))]

        for kind, those in new_kinds(tenant, documents, revisions, known).items():
            for one in those:
                execute(sql["add_document"], (tenant, kind, one.name, one.revision, one.body))


def counters(pool: Pool, statement: Statement, tenant: str) -> Iterator[CounterRecord]:
    """Yield the counters, some at a time."""
    after = -1
    while rows := pool.read(statement, (tenant, after, _COUNTERS_PAGE)):
        for row in rows:
            after = row[0]
            yield _counter(row)


def _counter(row: Row) -> CounterRecord:
    _, key, rate, amount, window_us, spent, since_us, newest_us, calls = row
    return CounterRecord(
        key=key,
        rate=rate,
        amount=amount,
        window_us=window_us,
        newest_us=newest_us,
        calls_us=tuple([int(at_us) for at_us in calls.split()]),
        spent=spent,
        since_us=since_us,
    )


def restore_counters(pool: Pool, sql: dict[str, Statement], tenant: str, records: Iterable[CounterRecord]) -> None:
    """Add counters, some in one transaction."""
    taken = iter(records)
    while some := list(islice(taken, _COUNTERS_PAGE)):
        with pool.transaction() as execute:
            # In the order in which everybody locks them.
            for record in sorted(some, key=lambda record: escaped(record.key).encode()):
                _restore_counter(execute, sql, tenant, record)


def _restore_counter(execute: Execute, sql: dict[str, Statement], tenant: str, record: CounterRecord) -> None:
    amount = min(record.amount, LARGEST)
    added = execute(sql["add_counter"], (tenant, record.key, record.rate, amount, record.window_us))
    rows = execute(sql["lock_counter"], (tenant, record.key))
    if not added:
        (row,) = execute(sql["counter"], (tenant, record.key))
        record = stricter(_counter(row), record)
    number = rows[0][0]
    # The ring begins anew: its first place is that of the oldest call.
    calls = record.calls_us[-amount:] if record.rate else ()
    execute(
        sql["set_counter"],
        (tenant, number, len(calls), min(record.spent, amount), record.since_us, record.newest_us),
    )
    execute(sql["clear_calls"], (tenant, number))
    execute(sql["add_calls"], (tenant, number, as_texts([str(at_us) for at_us in calls])))
