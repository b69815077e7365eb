"""SQLite: sessions in one file, which several processes may share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from cra._core.chain import EventBatch
from cra.errors import ApprovalNotFound, ConfigInvalid, SessionNotFound, StorageCorrupt
from cra.storage import _sqlite_append as work
from cra.storage import _sqlite_move as move
from cra.storage._queue import Work
from cra.storage._sqlite_pool import Pool
from cra.storage.base import (
    DEFAULT_TENANT,
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

_ALL = 1 << 32
_MOST_ROWS = 1 << 62
_CLAIMS_BETWEEN_SWEEPS = 1024

_SESSION = (
    "SELECT s.record, e.actions, e.place + e.count - (s.number << 32), e.hash, e.last_us "  # noqa: S608 - ours
    f"FROM sessions s JOIN events e ON e.place = {work.LAST}"
)


class SQLiteStorage:
    """The store of the command line and of the service, through apsw.

    One thread writes, in groups; readers have connections of their own and never wait for it. Calls block.
    """

    name = "sqlite"
    blocking = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["strict", "batched"] = "strict",
        max_resolutions: int = 64,
        busy_seconds: float = 10.0,
        timeout_seconds: float = 60.0,
    ) -> None:
        """Open the file, or create it; raises `StorageError` for one that is not a store of this release.

        `strict` waits for the disk at every commit; `batched` does not, and can lose the last commits with the
        power, never with the process. `busy_seconds` is how long to wait for another process that writes,
        `timeout_seconds` how long a caller waits altogether.
        """
        if durability not in ("strict", "batched"):
            raise ConfigInvalid(f"durability is `{durability}`, expected strict or batched", pointer="/storage")
        self.path = os.fspath(path)
        if not self.path or "\0" in self.path or self.path.startswith((":", "file:")):
            raise ConfigInvalid(f"storage path is `{self.path}`, expected the path of a file", pointer="/storage")
        # Whoever changes the working directory later means the same file.
        self.path = str(Path(self.path).absolute())
        self.durability: str = durability
        self._max_resolutions = max_resolutions
        self.tenant = DEFAULT_TENANT
        self._pool = Pool(self.path, strict=durability == "strict", busy_s=busy_seconds, timeout_s=timeout_seconds)
        self._read = self._pool.read
        self._opened = True

    def of_tenant(self, tenant: str) -> SQLiteStorage:
        made = SQLiteStorage.__new__(SQLiteStorage)
        made.tenant = check_tenant(tenant)
        made.path, made.durability, made._max_resolutions = self.path, self.durability, self._max_resolutions
        made._pool, made._read, made._opened = self._pool, self._read, False
        return made

    def tenants(self) -> list[str]:
        rows = self._read(
            "SELECT name FROM tenants t WHERE EXISTS (SELECT 1 FROM sessions WHERE tenant = t.number) "
            "OR EXISTS (SELECT 1 FROM documents WHERE tenant = t.number) ORDER BY name"
        )
        return [row[0] for row in rows]

    @property
    def _tenant(self) -> int:
        return self._pool.tenant(self.tenant)

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        self._pool.write(self._work(session_id, expected_head, batch, change))
        if self._is_sweep_due(change):
            self._pool.write(self._sweep(change))

    def append_soon(
        self, session_id: str, expected_head: str, batch: EventBatch, change: Change, done: Done
    ) -> Pending:
        pending = self._pool.write_soon(self._work(session_id, expected_head, batch, change), done)
        if self._is_sweep_due(change):
            self._pool.write_soon(self._sweep(change), _ignore)
        return pending

    def _work(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> Work:
        tenant = self._pool.new_tenant(self.tenant)
        return work.append(tenant, session_id, expected_head, batch, change, self._max_resolutions)

    def _is_sweep_due(self, change: Change) -> bool:
        self._pool.claims += len(change.claims)
        return self._pool.claims >= _CLAIMS_BETWEEN_SWEEPS

    def _sweep(self, change: Change) -> Work:
        self._pool.claims = 0
        return partial(self._pool.sweep, change.claims_at_us)

    def load(self, session_id: str) -> tuple[SessionRecord, Head]:
        rows = self._read(f"{_SESSION} WHERE s.tenant = ? AND s.session_id = ?", (self._tenant, session_id))
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        record, actions, sequence, hash_, last_us = rows[0]
        return session_of(record, actions), Head(sequence, hash_.hex(), last_us)

    def _number(self, session_id: str) -> int:
        rows = self._read("SELECT number FROM sessions WHERE tenant = ? AND session_id = ?", (self._tenant, session_id))
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        return int(rows[0][0])

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None:
        rows = self._read(
            f"SELECT s.number, (SELECT record FROM kept WHERE session = s.number AND kind = ? AND key > {work.SURPLUS} "  # noqa: S608
            "AND id = ? ORDER BY key DESC LIMIT 1) FROM sessions s WHERE s.tenant = ? AND s.session_id = ?",
            (work.RESOLUTION, self._max_resolutions, resolution_id, self._tenant, session_id),
        )
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        return None if rows[0][1] is None else resolution_of(rows[0][1])

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        rows = self._read(
            f"SELECT s.number, {work.SURPLUS} FROM sessions s WHERE s.tenant = ? AND s.session_id = ?",  # noqa: S608
            (self._max_resolutions, self._tenant, session_id),
        )
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        number, surplus = rows[0]
        below = _MOST_ROWS
        while True:
            rows = self._read(
                "SELECT key, record FROM kept WHERE session = ? AND kind = ? AND key > ? AND key < ? "
                "AND expires_us > ? ORDER BY key DESC LIMIT 1",
                (number, work.RESOLUTION, surplus, below, now_us),
            )
            if not rows:
                return None
            below = rows[0][0]
            record = resolution_of(rows[0][1])
            if action_id is None or action_id in record.offered:
                return record

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None:
        rows = self._read(
            "SELECT id, record FROM kept WHERE session = ? AND kind = ? AND key = ?",
            (self._number(session_id), work.IDEMPOTENCY, key),
        )
        return IdempotencyRecord(key=key, call=rows[0][0], response=rows[0][1]) if rows else None

    def approval(self, approval_id: str) -> ApprovalRecord | None:
        rows = self._read(
            "SELECT record FROM approvals WHERE tenant = ? AND approval_id = ?", (self._tenant, approval_id)
        )
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
        wanted: dict[str, int | str] = {"tenant": self._tenant}
        if session_id is not None:
            wanted["session"] = self._number(session_id)
        if agent_id is not None:
            wanted["agent_id"] = agent_id
        if parameters_hash is not None:
            wanted["parameters_hash"] = parameters_hash
        where = " AND ".join([f"{column} = ?" for column in wanted])
        values = list(wanted.values())
        if after is not None:
            rows = self._read(f"SELECT number FROM approvals WHERE {where} AND approval_id = ?", (*values, after))  # noqa: S608
            if not rows:
                raise ApprovalNotFound(f"approval `{after}` does not exist")
            where += " AND number > ?"
            values.append(rows[0][0])
        # NOTE: a plus keeps SQLite from choosing an index by that column, when another one has far fewer rows.
        if session_id is not None:
            where = f"+{where}"
        if status is not None:
            where += f" AND {'' if agent_id is None else '+'}status = ?"
            values.append(status)
        rows = self._read(
            f"SELECT record FROM approvals WHERE {where} ORDER BY number LIMIT ?",  # noqa: S608
            (*values, _most(limit)),
        )
        return [approval_of(row[0]) for row in rows]

    def waiting(self, session_id: str, now_us: int) -> int:
        rows = self._read(
            "SELECT count(*) FROM approvals WHERE session = ? AND status = 'pending' AND expires_us > ?",
            (self._number(session_id), now_us),
        )
        return int(rows[0][0])

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        waits, tenant = [], self._tenant
        for claim in claims:
            rows = self._read(work.COUNTER, (tenant, claim.key))
            waits.append(work.wait_us(claim, rows[0] if rows else None, now_us))
        return waits

    def events(self, session_id: str, first: int = 0, count: int | None = None) -> bytes:
        base = self._number(session_id) << work.SHIFT
        last = _ALL if count is None else min(_ALL, first + count)
        first = min(first, _ALL)
        if first >= last:
            return b""
        rows = self._read(
            "SELECT place, lines FROM events WHERE place >= "
            "(SELECT max(place) FROM events WHERE place BETWEEN ?1 AND ?1 + ?2) AND place < ?1 + ?3 ORDER BY place",
            (base, first, last),
        )
        if not rows:
            # Purged since its number was read; a session has at least its first event.
            raise SessionNotFound(f"session `{session_id}` does not exist")
        data = b"".join([row[1] for row in rows])
        skipped = first - (rows[0][0] - base)
        if not skipped and count is None:
            return data
        lines = data.splitlines(keepends=True)
        return b"".join(lines[skipped : skipped + last - first])

    def sessions(
        self, *, agent_id: str | None = None, status: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[SessionRecord]:
        wanted, values = ["s.tenant = ?", "s.session_id > ?"], [self._tenant, after or ""]
        for column, value in (("agent_id", agent_id), ("status", status)):
            if value is not None:
                wanted.append(f"s.{column} = ?")
                values.append(value)
        rows = self._read(
            f"{_SESSION} WHERE {' AND '.join(wanted)} ORDER BY s.session_id LIMIT ?",
            (*values, _most(limit)),
        )
        return [session_of(row[0], row[1]) for row in rows]

    def ended(self, *, before_us: int | None = None, after: str | None = None, limit: int = 100) -> list[SessionRecord]:
        wanted, values = (
            "s.tenant = ? AND s.ended_us < ?",
            [self._tenant, _MOST_ROWS if before_us is None else before_us],
        )
        if after is not None:
            rows = self._read(
                "SELECT ended_us FROM sessions WHERE tenant = ? AND session_id = ? AND ended_us IS NOT NULL",
                (values[0], after),
            )
            if not rows:
                raise SessionNotFound(f"session `{after}` has not ended, or does not exist")
            wanted += " AND (s.ended_us, s.session_id) > (?, ?)"
            values += [rows[0][0], after]  # type: ignore[list-item]
        rows = self._read(
            f"{_SESSION} WHERE {wanted} ORDER BY s.ended_us, s.session_id LIMIT ?", (*values, _most(limit))
        )
        return [session_of(row[0], row[1]) for row in rows]

    def ended_count(self) -> int:
        rows = self._read("SELECT count(*) FROM sessions WHERE tenant = ? AND ended_us IS NOT NULL", (self._tenant,))
        return int(rows[0][0])

    # Documents

    def document(self, kind: str, name: str) -> Document | None:
        rows = self._read(
            "SELECT kind, name, revision, body FROM documents WHERE tenant = ? AND kind = ? AND name = ?",
            (self._tenant, kind, name),
        )
        return Document(*rows[0]) if rows else None

    def documents(self, kind: str) -> list[Document]:
        rows = self._read(
            "SELECT kind, name, revision, body FROM documents WHERE tenant = ? AND kind = ? ORDER BY number",
            (self._tenant, kind),
        )
        return [Document(*row) for row in rows]

    def revision(self, kind: str) -> int:
        rows = self._read(work.REVISION, (self._tenant, kind))
        return int(rows[0][0]) if rows else 0

    # Moving to another store

    def dump(self, session_id: str) -> SessionDump:
        return move.dump(self._pool, self._tenant, session_id, self._max_resolutions)

    def restore(self, dump: SessionDump) -> None:
        self._pool.write(move.restore(self._pool.new_tenant(self.tenant), dump, self._max_resolutions))

    def counters(self) -> Iterator[CounterRecord]:
        return move.counters(self._pool, self._tenant)

    def kinds(self) -> list[str]:
        return [
            row[0] for row in self._read("SELECT kind FROM revisions WHERE tenant = ? ORDER BY kind", (self._tenant,))
        ]

    def restore_documents(self, documents: Iterable[Document], revisions: Mapping[str, int]) -> None:
        given = list(documents)
        self._pool.write(move.restore_documents(self._pool.new_tenant(self.tenant), self.tenant, given, revisions))

    def restore_counters(self, counters: Iterable[CounterRecord]) -> None:
        self._pool.write(move.restore_counters(self._pool.new_tenant(self.tenant), counters))

    def probe(self) -> None:
        self._pool.write(work.probe)

    def check(self) -> None:
        """Raise `StorageCorrupt` when the file's own structure is damaged; reads all of it."""
        rows = self._read("PRAGMA integrity_check(1)")
        if rows != [("ok",)]:
            raise StorageCorrupt(f"`{self.path}`: {rows[0][0]}", hint="restore a backup")

    def close(self) -> None:
        if self._opened:
            self._pool.close()


def _ignore(error: BaseException | None) -> None:
    """Leave what failed to the next sweep."""


def _most(limit: int | None) -> int:
    return _MOST_ROWS if limit is None else max(0, min(limit, _MOST_ROWS))


def versions() -> tuple[str, str]:
    """Return the versions of apsw and of the SQLite in it."""
    import apsw

    return apsw.apsw_version(), apsw.sqlite_lib_version()
