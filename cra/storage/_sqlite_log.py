"""Log: SQLite's write-ahead log, kept short, and given room ahead of its use."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from cra.storage._sqlite_file import close_quietly, open_checkpointer

if TYPE_CHECKING:
    from apsw import Connection

# From so many pages on, the log is copied into the file.
_CHECKPOINT_PAGES = 1000
# When no more than so many have not been copied yet, the writer does the rest itself, and then begins the log anew.
_REST_PAGES = 250
# Beyond this the log is emptied even if readers have to be waited for.
_RESTART_PAGES = 32_000
# The log's file is made longer by so many pages, which the next commit waits for, when so few are left.
_MORE_PAGES = 256
_FEW_PAGES = 32
# A process that writes no more than a new store and a little does without.
_LITTLE_PAGES = 40
_HEADER = 32
_FRAME = 24 + 4096


class Upkeep:
    """What is done for the log: most of it in a thread of its own, the end of it by the writer between its groups.

    PERF: copying the log takes as long as ten commits and more, and who waits for the writer meanwhile waits for that;
    over HTTP at half load it was what one request in fifty waited for. And a commit that makes the log's file longer
    waits for the file system's own log too; one that writes over zeros waits only for its data. A durable append of one
    event: 0.9 of what appending it to a file and syncing that takes, instead of 1.6.
    """

    def __init__(self, path: str, connection: Connection) -> None:
        self._path = path
        self._log = f"{path}-wal"
        self._connection = connection
        self._pages = 0
        # Up to which page the log's file is known to reach.
        self._room = _LITTLE_PAGES
        self._copier: _Copier | None = None
        connection.set_wal_hook(self._written)

    def _written(self, connection: Connection, database: str, pages: int) -> int:
        self._pages = pages
        return 0

    def due(self) -> bool:
        """Say whether the log has become long, or nearly reaches the end of its file."""
        pages, copier = self._pages, self._copier
        return pages >= self._room or (pages >= _CHECKPOINT_PAGES and (copier is None or not copier.busy))

    def __call__(self) -> None:
        import apsw

        pages, self._pages = self._pages, 0
        if pages >= _RESTART_PAGES:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            return
        if pages >= self._room:
            self._lengthen(pages)
        if pages >= _CHECKPOINT_PAGES:
            if self._copier is None:
                self._copier = _Copier(self._path)
            if self._copier.busy:
                return
            if pages - self._copier.take() <= _REST_PAGES:
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            else:
                self._copier.wake()

    def close(self) -> None:
        """Let the thread end; safe to call twice."""
        if self._copier is not None:
            self._copier.close()

    def _lengthen(self, pages: int) -> None:
        """Write zeros behind the log."""
        target = min(pages + _MORE_PAGES, _RESTART_PAGES + _FEW_PAGES)
        # Before it is done: where it fails, it is not tried again for every commit.
        self._room = target - _FEW_PAGES
        if not hasattr(os, "pwrite"):
            return
        # INVARIANT: nobody else writes to the log meanwhile, and nothing is written where it reaches.
        # NOTE: SQLite has no locks on this file, so that opening and closing it here gives up none.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            file = os.open(self._log, os.O_RDWR)
            try:
                size = os.fstat(file).st_size
                missing = _HEADER + target * _FRAME - size
                if missing > 0:
                    os.pwrite(file, bytes(missing), size)
            finally:
                os.close(file)
        finally:
            self._connection.execute("ROLLBACK")


class _Copier:
    """A thread with a connection of its own that copies what the log has into the file, while others write and read."""

    def __init__(self, path: str) -> None:
        self.busy = False
        self._copied = 0
        self._path = path
        self._wanted = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="cra-storage-copier", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have it copy what there is."""
        self.busy = True
        self._wanted.set()

    def take(self) -> int:
        """Return up to which page it has copied the log, once; 0 if it has not."""
        copied, self._copied = self._copied, 0
        return copied

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wanted.set()
        self._thread.join()

    def _serve(self) -> None:
        # Whatever is wrong with the disk meets the next commit, which has somebody to tell.
        connection = None
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed:
                break
            with suppress(Exception):
                connection = connection or open_checkpointer(self._path)
                self._copied = _copy(connection)
            self.busy = False
        if connection is not None:
            close_quietly(connection)


def _copy(connection: Connection) -> int:
    """Copy the log, and what was added meanwhile; return up to which page."""
    import apsw

    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)[1]
