"""Pool: the connections of one process to one file, shared by its tenants."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from cra.errors import StorageError
from cra.storage import _sqlite_append as work
from cra.storage._group import GroupCommit
from cra.storage._sqlite_file import close_quietly, open_reader, open_writer, storage_error
from cra.storage._sqlite_log import Upkeep
from cra.storage.base import Done, Pending

if TYPE_CHECKING:
    from apsw import Connection

_MAX_IDLE_READERS = 16

Rows = list[tuple[Any, ...]]


class Pool:
    """One connection that writes, in groups, and readers that never wait for it."""

    def __init__(self, path: str, *, strict: bool, busy_s: float, timeout_s: float) -> None:
        self.path = path
        self.pid = os.getpid()
        self.closed = False
        self._busy_s = busy_s
        connection = open_writer(path, strict=strict, busy_s=busy_s)
        self._readers: deque[Connection] = deque()
        self.upkeep = Upkeep(path, connection)
        self.writer = GroupCommit(
            connection, partial(storage_error, path), timeout_s, due=self.upkeep.due, upkeep=self.upkeep
        )
        self._finalizer = weakref.finalize(self, _close, self.writer, self.upkeep, connection, self._readers, self.pid)
        self._tenants = {"default": 1}
        # Claims taken since the last sweep, and the last counter it looked at.
        self.claims = 0
        self.swept = 0

    def write(self, job: Callable[[Connection], None]) -> None:
        """Return when the job is durable."""
        self._check_usable()
        self.writer.run(job)

    def write_soon(self, job: Callable[[Connection], None], done: Done) -> Pending:
        """Do the job in the writer's thread, which calls `done` once it is durable, or with what it raised."""
        self._check_usable()
        return self.writer.submit(job, done)

    def _check_usable(self) -> None:
        if self.closed:
            raise StorageError("the store is closed")
        if os.getpid() != self.pid:
            # NOTE: SQLite's connections, and the thread that writes, do not survive a fork.
            raise StorageError(
                f"`{self.path}` was opened before this process was forked", hint="open a store in each process"
            )

    def read(self, sql: str, values: tuple[Any, ...] = ()) -> Rows:
        """Return the rows of one statement, which sees one state of the store."""
        with self._reader() as connection:
            return connection.execute(sql, values).fetchall()

    def read_all(self, *statements: tuple[str, tuple[Any, ...]]) -> list[Rows]:
        """Return the rows of several statements, which see the same state of the store."""
        with self._reader() as connection:
            connection.execute("BEGIN")
            found: list[Rows] = [connection.execute(sql, values).fetchall() for sql, values in statements]
            connection.execute("COMMIT")
            return found

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        import apsw

        self._check_usable()
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = open_reader(self.path, busy_s=self._busy_s)
        try:
            yield connection
        except BaseException as error:
            close_quietly(connection)
            if isinstance(error, apsw.Error):
                raise storage_error(self.path, error) from error
            raise
        if len(self._readers) < _MAX_IDLE_READERS and not self.closed:
            self._readers.append(connection)
        else:
            close_quietly(connection)

    def tenant(self, name: str) -> int:
        """Return a tenant's number, 0 for one that has nothing yet."""
        number = self._tenants.get(name)
        if number is None:
            rows = self.read("SELECT number FROM tenants WHERE name = ?", (name,))
            if not rows:
                return 0
            number = self._tenants[name] = rows[0][0]
        return number

    def new_tenant(self, name: str) -> int:
        """Return a tenant's number, which it gets if it has none."""
        number = self.tenant(name)
        if not number:
            # By itself: whoever reads the number afterwards finds one that stays.
            self.write(partial(_add_tenant, name))
            number = self.tenant(name)
        return number

    def sweep(self, now_us: int, connection: Connection) -> None:
        """Drop some counters whose windows are over, those behind the ones looked at last; a job for the writer."""
        highest: Any = connection.execute("SELECT max(number) FROM counters").get or 0
        after = self.swept if self.swept < highest else 0
        self.swept = after + work.SWEEP
        work.sweep(connection, after, now_us)

    def close(self) -> None:
        """Finish what waits and close every connection; safe to call twice."""
        self.closed = True
        self._finalizer()


def _add_tenant(name: str, connection: Connection) -> None:
    connection.execute("INSERT OR IGNORE INTO tenants (name) VALUES (?)", (name,))


def _close(writer: GroupCommit, upkeep: Upkeep, connection: Connection, readers: deque[Connection], pid: int) -> None:
    if os.getpid() != pid:
        return
    writer.close()
    upkeep.close()
    # The last connection to the file puts the log into it and removes it; that has to be the one that writes.
    while readers:
        close_quietly(readers.pop())
    close_quietly(connection)
