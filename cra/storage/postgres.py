"""PostgreSQL: sessions in a database, which any number of processes and machines may share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from cra._core.chain import EventBatch
from cra.errors import ApprovalNotFound, ConfigInvalid, SessionNotFound, StorageError
from cra.storage import _postgres_append as work
from cra.storage import _postgres_dump as moving
from cra.storage._postgres_pool import Pool
from cra.storage._postgres_sql import APPROVAL_COLUMNS, statements
from cra.storage._postgres_wire import Row, Value
from cra.storage.base import (
    DEFAULT_TENANT,
    SWEEP_MARGIN_US,
    ApprovalRecord,
    Change,
    Claim,
    CounterRecord,
    Document,
    Done,
    Head,
    IdempotencyRecord,
    Pending,
    ResolutionRecord,
    SessionDump,
    SessionRecord,
    check_tenant,
)
from cra.storage.records import approval_of, resolution_of, session_of

_MOST = 1 << 62
_CLAIMS_BETWEEN_SWEEPS = 1024
_SWEEP = 1024


class PostgresStorage:
    """The store of a service with several processes or machines, through psycopg.

    Each call takes a connection of a pool; an append is one statement. Calls block.
    """

    name = "postgres"
    blocking = True

    def __init__(
        self,
        url: str,
        *,
        durability: Literal["strict", "batched"] = "strict",
        schema: str = "cra",
        pool: int = 16,
        max_resolutions: int = 64,
        lock_seconds: float = 10.0,
        timeout_seconds: float = 30.0,
    ) -> None:
        """Connect, check the server and bring the schema up to date; raises `StorageError` when one of them fails.

        `strict` refuses a server that does not wait for the disk at every commit; `batched` does not have it wait,
        and can lose the last commits with the server. `pool` is how many connections there are at most,
        `lock_seconds` how long to wait for another writer, `timeout_seconds` how long for the server altogether.
        """
        if durability not in ("strict", "batched"):
            raise ConfigInvalid(f"durability is `{durability}`, expected strict or batched", pointer="/storage")
        if not 1 <= pool <= 1000:
            raise ConfigInvalid(f"pool is `{pool}`, expected 1 to 1000", pointer="/storage")
        self._pool = Pool(
            url, schema=schema, durability=durability, size=pool, lock_s=lock_seconds, timeout_s=timeout_seconds
        )
        self.durability: str = durability
        # Who opened the pool closes it; a tenant's part of the store does not.
        self._opened = True
        self.tenant = DEFAULT_TENANT
        self._max_resolutions = max_resolutions
        self._sql = statements(self._pool.place.quoted)
        self._append = work.append_statement(self._pool.place.quoted)
        self._claims = 0
        self._swept = 0

    def of_tenant(self, tenant: str) -> PostgresStorage:
        check_tenant(tenant)
        other = object.__new__(PostgresStorage)
        other.__dict__.update(self.__dict__)
        other.tenant, other._claims, other._swept, other._opened = tenant, 0, 0, False
        return other

    def tenants(self) -> list[str]:
        return [row[0] for row in self._read("tenants")]

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        values = work.append_values(self.tenant, session_id, expected_head, batch, change, self._max_resolutions)
        answer = self._pool.write(self._append, values)[0][0]
        if answer:
            raise work.refuse(answer, session_id, expected_head, change)
        if change.claims:
            self._claims += len(change.claims)
            if self._claims >= _CLAIMS_BETWEEN_SWEEPS:
                self._claims = 0
                self._sweep(change.claims_at_us)

    def append_soon(
        self, session_id: str, expected_head: str, batch: EventBatch, change: Change, done: Done
    ) -> Pending:
        return self._pool.write_soon(lambda _: self.append(session_id, expected_head, batch, change), done)

    def _sweep(self, now_us: int) -> None:
        """Drop some counters whose windows are over; they would count nothing."""
        try:
            values = (self.tenant, self._swept, _SWEEP, now_us - SWEEP_MARGIN_US)
            last = self._pool.write(self._sql["sweep"], values)[0][0]
        except StorageError:
            # The append has landed; the counters wait for the next time.
            return
        self._swept = last or 0

    def _read(self, name: str, *values: Value) -> list[Row]:
        return self._pool.read(self._sql[name], values)

    def _known(self, rows: list[Row], session_id: str) -> Row:
        """Return the only row of a statement that has one for each session there is."""
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        return rows[0]

    def load(self, session_id: str) -> tuple[SessionRecord, Head]:
        row = self._known(self._read("load", self.tenant, session_id), session_id)
        record, actions, sequence, hash_, last_us = row
        return session_of(record, actions), Head(sequence, hash_.hex(), last_us)

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None:
        row = self._known(self._read("resolution", self.tenant, session_id, resolution_id), session_id)
        return None if row[0] is None else resolution_of(row[0])

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        below = _MOST
        while True:
            row = self._known(self._read("latest", self.tenant, session_id, below, now_us), session_id)
            if row[0] is None:
                return None
            below, record = row[0], resolution_of(row[1])
            if action_id is None or action_id in record.offered:
                return record

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None:
        row = self._known(self._read("idempotency", self.tenant, session_id, key), session_id)
        return None if row[0] is None else IdempotencyRecord(key=key, call=row[0], response=row[1])

    def approval(self, approval_id: str) -> ApprovalRecord | None:
        rows = self._read("approval", self.tenant, approval_id)
        return approval_of(rows[0][0]) if rows else None

    def approvals(
        self,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        parameters_hash: str | None = None,
        status: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[ApprovalRecord]:
        if session_id is not None:
            self._known(self._read("known", self.tenant, session_id), session_id)
        whose = (session_id, agent_id, parameters_hash)
        above = -1
        if after is not None:
            rows = self._read("approval_place", self.tenant, after)
            if not rows or any(one not in (None, its) for one, its in zip(whose, rows[0][1:], strict=True)):
                raise ApprovalNotFound(f"approval `{after}` does not exist")
            above = rows[0][0]
        wanted = {
            column: value for column, value in zip(APPROVAL_COLUMNS, (*whose, status), strict=True) if value is not None
        }
        name = " ".join(("approvals", *wanted))
        rows = self._read(name, self.tenant, above, _bound(limit), *wanted.values())
        return [approval_of(row[0]) for row in rows]

    def waiting(self, session_id: str, now_us: int) -> int:
        return int(self._known(self._read("waiting", self.tenant, session_id, now_us), session_id)[0])

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        if not claims:
            return []
        found: dict[int, int] = dict(self._read("peek", self.tenant, work.claims_json(claims), now_us))
        return [found[place] for place in range(len(claims))]

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        last = _MOST if count is None else min(_MOST, first + count)
        first = min(first, _MOST)
        if first >= last:
            self._known(self._read("known", self.tenant, session_id), session_id)
            return b""
        rows = self._read("events", self.tenant, session_id, first, last)
        self._known(rows, session_id)
        data = b"".join([row[1] for row in rows])
        skipped = first - rows[0][0]
        if not skipped and count is None:
            return data
        lines = data.splitlines(keepends=True)
        return b"".join(lines[skipped : skipped + last - first])

    def sessions(
        self, *, agent_id: str | None = None, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[SessionRecord]:
        name = "sessions" + ("_of_agent" if agent_id is not None else "") + ("_in" if status is not None else "")
        values = [value for value in (agent_id, status) if value is not None]
        rows = self._read(name, self.tenant, after or "", _bound(limit), *values)
        return [session_of(row[0], row[1]) for row in rows]

    def ended(self, *, before_us: int | None = None, after: str | None = None, limit: int = 100) -> list[SessionRecord]:
        since_us, last = -1, ""
        if after is not None:
            rows = self._read("ending", self.tenant, after)
            if not rows or rows[0][0] is None:
                raise SessionNotFound(f"session `{after}` {'has not ended' if rows else 'does not exist'}")
            since_us, last = rows[0][0], after
        before_us = _MOST if before_us is None else max(-_MOST, min(_MOST, before_us))
        rows = self._read("ended", self.tenant, since_us, last, before_us, _bound(limit))
        return [session_of(row[0], row[1]) for row in rows]

    def ended_count(self) -> int:
        return int(self._read("ended_count", self.tenant)[0][0])

    def document(self, kind: str, name: str) -> Document | None:
        rows = self._read("document", self.tenant, kind, name)
        return Document(kind, name, *rows[0]) if rows else None

    def documents(self, kind: str) -> list[Document]:
        return [Document(kind, *row) for row in self._read("documents", self.tenant, kind)]

    def revision(self, kind: str) -> int:
        rows = self._read("revision", self.tenant, kind)
        return int(rows[0][0]) if rows else 0

    def dump(self, session_id: str) -> SessionDump:
        return moving.dump(self._pool, self._sql, self.tenant, session_id)

    def restore(self, dump: SessionDump) -> None:
        moving.restore(self._pool, self._sql, self.tenant, dump, self._max_resolutions)

    def counters(self) -> Iterator[CounterRecord]:
        return moving.counters(self._pool, self._sql["counters"], self.tenant)

    def restore_counters(self, counters: Iterable[CounterRecord]) -> None:
        moving.restore_counters(self._pool, self._sql, self.tenant, counters)

    def kinds(self) -> list[str]:
        return [row[0] for row in self._read("kinds", self.tenant)]

    def restore_documents(self, documents: Iterable[Document], revisions: Mapping[str, int]) -> None:
        moving.restore_documents(self._pool, self._sql, self.tenant, documents, revisions)

    def probe(self) -> None:
        self._pool.probe(self._sql["probe"])

    def close(self) -> None:
        if self._opened:
            self._pool.close()


def _bound(limit: int | None) -> int:
    return _MOST if limit is None else max(0, min(limit, _MOST))
