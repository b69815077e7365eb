"""The connections of the PostgreSQL store: taken for one statement each, replaced when they break."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Any

from cra.errors import StorageError
from cra.storage import _postgres_server as server
from cra.storage._postgres_migrate import migrate
from cra.storage._postgres_wire import Lost, Refused, Row, Statement, Value, alive, run
from cra.storage._queue import Queued, Work
from cra.storage.base import Done, Pending

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg_pool import ConnectionPool

# Deadlocks and failures to serialize: nothing was written, and the next try finds the others done.
_AGAIN = ("40P01", "40001")
# What is prepared on a connection is gone: somebody else uses it too.
_UNPREPARED = "26000"
_TRIES = 5
_MARGIN_S = 5.0
_RECONNECT_S = 4.0
# How many connections are handed out again before the pool is asked, last in first out.
_HOT = 4

_BEGIN, _COMMIT = Statement(b"begin", b"BEGIN"), Statement(b"commit", b"COMMIT")
_END = Statement(
    b"end",
    b"SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE pid = $1::int AND usename = current_user",
)
_ROLLBACK = Statement(b"rollback", b"ROLLBACK")

Execute = Callable[..., list[Row]]


class Pool:
    """What a store and its tenants share."""

    def __init__(self, url: str, *, schema: str, durability: str, size: int, lock_s: float, timeout_s: float) -> None:
        self.place = server.place_of(url, schema)
        self._durability = durability
        self._bounds = server.Bounds(timeout_s, min(lock_s, timeout_s))
        # An answer comes a little later than the server's own bound, which says that nothing was written.
        self._most_s = timeout_s + _MARGIN_S
        self._pid = os.getpid()
        self._closed = False
        with server.connect(self.place) as connection:
            server.check(self.place, connection, durability)
            migrate(self.place, connection)
        self._size = size
        # PERF: the pool hands out the connection that was idle the longest. With 32 of them, an append one at a time
        # then takes 1.8 times as long as on the one that was used last, whose process is still in the caches.
        self._hot: deque[Connection[Any]] = deque()
        self._wanting = 0
        self._counting = Lock()
        self._pool = self._open(size)
        # PERF: as many as there are connections. Over HTTP a resolve costs 270 us of processor instead of 370, because
        # no caller needs a thread of its own to wait in.
        self._writers = ThreadPoolExecutor(size, thread_name_prefix="cra-storage-writer")
        self._write_s = 2 * (timeout_s + lock_s)

    def _open(self, size: int) -> ConnectionPool[Any]:
        try:
            from psycopg_pool import ConnectionPool
        except ImportError as error:
            raise server.missing_extra() from error
        # NOTE: not `check=`: after a connection that fails it, the pool sleeps for a second before the next.
        pool: ConnectionPool[Any] = ConnectionPool(
            self.place.conninfo,
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=1,
            max_size=size,
            configure=self._configure,
            name="cra-storage",
            timeout=self._bounds.lock_s,
            reconnect_timeout=_RECONNECT_S,
            open=True,
        )
        return pool

    def _configure(self, connection: Connection[Any]) -> None:
        # Again for each: the server may be another one by now, or started with other settings.
        commit = server.check(self.place, connection, self._durability)
        server.configure(connection, commit, self._bounds)

    def read(self, statement: Statement, values: tuple[Value, ...]) -> list[Row]:
        """Return the rows of a statement that changes nothing; asked again on another connection when one is lost."""
        try:
            return self._run(statement, values, wrote=False)
        except Lost:
            try:
                return self._run(statement, values, wrote=False)
            except Lost as error:
                raise server.lost(self.place, str(error), wrote=False) from error

    def write(self, statement: Statement, values: tuple[Value, ...]) -> list[Row]:
        """Return the rows of a statement once what it wrote is durable."""
        try:
            return self._run(statement, values, wrote=True)
        except Lost as error:
            if error.late is not None:
                self._end(error.late)
            raise server.lost(self.place, str(error), wrote=True) from error

    def write_soon(self, work: Work, done: Done) -> Pending:
        """Do work that writes in another thread, which then calls `done` with what it raised, or None."""
        self._check_usable()
        job = Queued(work, self._write_s, done)
        try:
            self._writers.submit(job.run)
        except RuntimeError as error:
            raise StorageError("the store is closed") from error
        return job

    def _end(self, process: int) -> None:
        """Have the server end one of our processes, so that it does not write after its caller has read the head."""
        with suppress(StorageError, Lost):
            self._run(_END, (process,), wrote=False)

    def _run(self, statement: Statement, values: tuple[Value, ...], *, wrote: bool) -> list[Row]:
        tries = _TRIES
        while True:
            tries -= 1
            connection = self.take()
            try:
                return run(connection, statement, values, self._most_s)
            except Refused as error:
                if error.state == _UNPREPARED:
                    connection.close()
                if not tries or error.state not in (*_AGAIN, _UNPREPARED):
                    raise server.refusal(self.place, error.state, error.words) from error
            finally:
                self.give(connection)

    def take(self) -> Connection[Any]:
        """Return a connection that works, as far as can be told without asking the server; it has to be given back."""
        from psycopg_pool import PoolClosed, PoolTimeout

        self._check_usable()
        try:
            while True:
                connection = self._next()
                if alive(connection):
                    return connection
                connection.close()
                self._pool.putconn(connection)
        except PoolTimeout as error:
            raise self._no_connection() from error
        except PoolClosed as error:
            raise StorageError("the store is closed") from error

    def _next(self) -> Connection[Any]:
        with suppress(IndexError):
            return self._hot.pop()
        with self._counting:
            self._wanting += 1
        try:
            # Again: whoever gave one back before it could see that one is wanted has left it there.
            with suppress(IndexError):
                return self._hot.pop()
            connection: Connection[Any] = self._pool.getconn()
            return connection
        finally:
            with self._counting:
                self._wanting -= 1

    def give(self, connection: Connection[Any]) -> None:
        """Take a connection back; a broken one is replaced."""
        if connection.closed or self._busy() or len(self._hot) >= _HOT:
            self._pool.putconn(connection)
            return
        self._hot.append(connection)
        if self._busy():
            # Who began to wait, or closed the store, before it was there did not see it.
            with suppress(IndexError):
                self._pool.putconn(self._hot.pop())

    def _busy(self) -> bool:
        return self._closed or self._wanting > 0

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        """Yield what runs statements in one transaction, which is durable at its end, or did not happen."""
        connection = self.take()
        begun, most_s = False, self._most_s

        def execute(statement: Statement, values: tuple[Value, ...] = ()) -> list[Row]:
            return run(connection, statement, values, most_s)

        try:
            execute(_BEGIN)
            begun = True
            yield execute
            begun = False
            execute(_COMMIT)
        except Lost as error:
            if error.late is not None:
                self._end(error.late)
            raise server.lost(self.place, str(error), wrote=True) from error
        except Refused as error:
            raise server.refusal(self.place, error.state, error.words) from error
        finally:
            if begun:
                # A connection that is lost by now has no transaction: the server ends what it hears no end of.
                with suppress(Refused, Lost):
                    execute(_ROLLBACK)
            self.give(connection)

    def _no_connection(self) -> StorageError:
        """Return why there is none: because of the server, or because all are in use."""
        try:
            with server.connect(self.place) as connection:
                server.check(self.place, connection, self._durability)
        except StorageError as error:
            return error
        return StorageError(
            f"`{self.place.words}`: all {self._size} connections are in use; nothing was written",
            hint="raise ?pool=, or find what keeps the server busy",
        )

    def _check_usable(self) -> None:
        """Raise `StorageError` when the store is closed, or another process's."""
        if self._closed:
            raise StorageError("the store is closed")
        if os.getpid() != self._pid:
            # Two processes on one connection would read each other's answers.
            raise StorageError(
                f"`{self.place.words}` was opened before this process was forked", hint="open a store in each process"
            )

    def probe(self, statement: Statement) -> None:
        """Raise `StorageError` unless the server would take a write, and keep it."""
        import psycopg

        connection = self.take()
        try:
            server.check(self.place, connection, self._durability)
        except psycopg.Error as error:
            raise server.lost(self.place, type(error).__name__, wrote=False) from error
        finally:
            self.give(connection)
        self.write(statement, ())

    def close(self) -> None:
        """Close the connections; safe to call twice."""
        if os.getpid() == self._pid:
            # What is queued is finished first.
            self._writers.shutdown()
        closed, self._closed = self._closed, True
        if not closed and os.getpid() == self._pid:
            while self._hot:
                with suppress(IndexError):
                    self._pool.putconn(self._hot.pop())
            self._pool.close()
