"""SQLite: sessions in one file, which several processes may share."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cra._core.chain import EventBatch
from cra.errors import ConfigInvalid, SessionNotFound, StorageCorrupt, StorageError
from cra.storage import _sqlite_append as work
from cra.storage._group import GroupCommit
from cra.storage._sqlite_file import open_reader, open_writer, storage_error
from cra.storage.base import (
    ApprovalRecord,
    Change,
    Claim,
    Head,
    IdempotencyRecord,
    ResolutionRecord,
    SessionRecord,
)
from cra.storage.records import approval_of, resolution_of, session_of

if TYPE_CHECKING:
    from apsw import Connection

_MAX_IDLE_READERS = 16
_CHECKPOINT_PAGES = 4000
# Beyond this the log is emptied even if readers have to be waited for.
_RESTART_PAGES = 8 * _CHECKPOINT_PAGES
_ALL = 1 << 32
_CLAIMS_BETWEEN_SWEEPS = 1024

_SESSION = (
    "SELECT s.record, h.actions, h.sequence, h.hash, h.last_us FROM sessions s JOIN heads h ON h.session = s.number"
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
        if not self.path or self.path.startswith((":", "file:")):
            raise ConfigInvalid(f"storage path is `{self.path}`, expected the path of a file", pointer="/storage")
        # Whoever changes the working directory later means the same file.
        self.path = str(Path(self.path).absolute())
        self.durability: str = durability
        self._max_resolutions = max_resolutions
        self._busy_s = busy_seconds
        connection = open_writer(self.path, strict=durability == "strict", busy_s=busy_seconds)
        self._readers: deque[Connection] = deque()
        self._closed = False
        self._upkeep = _Upkeep(connection)
        self._writer = GroupCommit(
            connection,
            partial(storage_error, self.path),
            timeout_seconds,
            due=self._upkeep.due,
            upkeep=self._upkeep,
        )
        self._finalizer = weakref.finalize(self, _close, self._writer, connection, self._readers, os.getpid())
        self._claims = 0
        self._swept = 0
        self._pid = os.getpid()

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        self._write(work.append(session_id, expected_head, batch, change, self._max_resolutions))
        if change.claims:
            self._claims += len(change.claims)
            if self._claims >= _CLAIMS_BETWEEN_SWEEPS:
                self._claims = 0
                self._sweep(change.claims_at_us)

    def _sweep(self, now_us: int) -> None:
        highest = self._read("SELECT max(number) FROM counters")[0][0] or 0
        after = self._swept if self._swept < highest else 0
        self._swept = after + work.SWEEP
        self._write(work.sweep(after, now_us))

    def _write(self, job: Callable[[Connection], None]) -> None:
        self._check_usable()
        self._writer.run(job)

    def _check_usable(self) -> None:
        if self._closed:
            raise StorageError("the store is closed")
        if os.getpid() != self._pid:
            # NOTE: SQLite's connections, and the thread that writes, do not survive a fork.
            raise StorageError(
                f"`{self.path}` was opened before this process was forked", hint="open a store in each process"
            )

    def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of one statement, which sees one state of the store."""
        import apsw

        self._check_usable()
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = open_reader(self.path, busy_s=self._busy_s)
        try:
            rows: list[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
        except apsw.Error as error:
            connection.close()
            raise storage_error(self.path, error) from error
        if len(self._readers) < _MAX_IDLE_READERS and not self._closed:
            self._readers.append(connection)
        else:
            connection.close()
        return rows

    def load(self, session_id: str) -> tuple[SessionRecord, Head]:
        rows = self._read(f"{_SESSION} WHERE s.session_id = ?", (session_id,))
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        record, actions, sequence, hash_, last_us = rows[0]
        return session_of(record, actions), Head(sequence, hash_.hex(), last_us)

    def _number(self, session_id: str) -> int:
        rows = self._read("SELECT number FROM sessions WHERE session_id = ?", (session_id,))
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        return int(rows[0][0])

    def resolution(self, session_id: str, resolution_id: str) -> ResolutionRecord | None:
        rows = self._read(
            "SELECT s.number, (SELECT record FROM resolutions WHERE session = s.number AND resolution_id = ? "
            "ORDER BY number DESC LIMIT 1) FROM sessions s WHERE s.session_id = ?",
            (resolution_id, session_id),
        )
        if not rows:
            raise SessionNotFound(f"session `{session_id}` does not exist")
        return None if rows[0][1] is None else resolution_of(rows[0][1])

    def latest_resolution(self, session_id: str, action_id: str | None, now_us: int) -> ResolutionRecord | None:
        number, below = self._number(session_id), 1 << 62
        while True:
            rows = self._read(
                "SELECT number, record FROM resolutions WHERE session = ? AND number < ? AND expires_us > ? "
                "ORDER BY number DESC LIMIT 1",
                (number, below, now_us),
            )
            if not rows:
                return None
            below = rows[0][0]
            record = resolution_of(rows[0][1])
            if action_id is None or action_id in record.offered:
                return record

    def idempotency(self, session_id: str, key: str) -> IdempotencyRecord | None:
        rows = self._read(
            "SELECT call, response FROM idempotency WHERE session = ? AND key = ?", (self._number(session_id), key)
        )
        return IdempotencyRecord(key=key, call=rows[0][0], response=rows[0][1]) if rows else None

    def approval(self, approval_id: str) -> ApprovalRecord | None:
        rows = self._read("SELECT record FROM approvals WHERE approval_id = ?", (approval_id,))
        return approval_of(rows[0][0]) if rows else None

    def approvals(self, *, session_id: str | None = None, status: str | None = None) -> list[ApprovalRecord]:
        wanted: list[str] = []
        values: list[Any] = []
        if session_id is not None:
            wanted.append("session = ?")
            values.append(self._number(session_id))
        if status is not None:
            wanted.append("status = ?")
            values.append(status)
        where = f"WHERE {' AND '.join(wanted)}" if wanted else ""
        rows = self._read(f"SELECT record FROM approvals {where} ORDER BY number", tuple(values))  # noqa: S608
        return [approval_of(row[0]) for row in rows]

    def peek(self, claims: list[Claim], now_us: int) -> list[int]:
        waits = []
        for claim in claims:
            rows = self._read(work.COUNTER, (claim.key,))
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
        wanted, values = ["s.session_id > ?"], [after or ""]
        for column, value in (("agent_id", agent_id), ("status", status)):
            if value is not None:
                wanted.append(f"s.{column} = ?")
                values.append(value)
        rows = self._read(
            f"{_SESSION} WHERE {' AND '.join(wanted)} ORDER BY s.session_id LIMIT ?",
            (*values, max(0, min(limit, 1 << 62))),
        )
        return [session_of(row[0], row[1]) for row in rows]

    def purge(self, session_id: str) -> None:
        self._write(work.purge(session_id))

    def check(self) -> None:
        """Raise `StorageCorrupt` when the file's own structure is damaged; reads all of it."""
        rows = self._read("PRAGMA integrity_check(1)")
        if rows != [("ok",)]:
            raise StorageCorrupt(f"`{self.path}`: {rows[0][0]}", hint="restore a backup")

    def close(self) -> None:
        self._closed = True
        self._finalizer()


def versions() -> tuple[str, str]:
    """Return the versions of apsw and of the SQLite in it."""
    import apsw

    return apsw.apsw_version(), apsw.sqlite_lib_version()


class _Upkeep:
    """What the writer does between groups, when nobody waits for it: the log goes into the database file."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pages = 0
        connection.set_wal_hook(self._written)

    def _written(self, connection: Connection, database: str, pages: int) -> int:
        self._pages = pages
        return 0

    def due(self) -> bool:
        """Say whether the log has become long."""
        return self._pages >= _CHECKPOINT_PAGES

    def __call__(self) -> None:
        import apsw

        pages, self._pages = self._pages, 0
        restart = pages >= _RESTART_PAGES
        mode = apsw.SQLITE_CHECKPOINT_RESTART if restart else apsw.SQLITE_CHECKPOINT_PASSIVE
        self._connection.wal_checkpoint(mode=mode)


def _close(writer: GroupCommit, connection: Connection, readers: deque[Connection], pid: int) -> None:
    if os.getpid() != pid:
        return
    writer.close()
    # The last connection to the file puts the log into it and removes it; that has to be the one that writes.
    while readers:
        readers.pop().close()
    connection.close()
