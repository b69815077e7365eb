"""The file of the SQLite store: opened, migrated, and refused when it is something else."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cra.errors import MissingExtra, StorageCorrupt, StorageError, StorageFull

if TYPE_CHECKING:
    from apsw import Connection

# Big-endian "CRA1" in the file's header.
APPLICATION_ID = 0x43524131
_MIGRATIONS = Path(__file__).parent / "migrations" / "sqlite"
_PAUSE_S = 0.005
_LEAST_FREE = 1 << 20


def open_writer(path: str, *, strict: bool, busy_s: float) -> Connection:
    """Return the connection that writes, to a file that is ours and of this version."""
    _make_private(path)
    connection = _connect(path, busy_s)
    try:
        _check(path, connection)
        _write_ahead(path, connection, busy_s)
        # NORMAL hands every commit to the system, so it survives the process; FULL waits for the disk as well.
        connection.execute(f"PRAGMA synchronous = {'FULL' if strict else 'NORMAL'}").fetchall()
        if strict:
            _flush_drives(connection)
        connection.execute("PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY").fetchall()
        connection.execute("PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = 0").fetchall()
        _migrate(path, connection)
    except BaseException as error:
        close_quietly(connection)
        if isinstance(error, StorageError) or not isinstance(error, _sqlite_error()):
            raise
        raise storage_error(path, error) from error
    return connection


def _make_private(path: str) -> None:
    """Create the file for its owner alone; SQLite gives the log and its index the same mode."""
    # Where it is there already, or cannot be made, SQLite says what there is to say.
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def open_reader(path: str, *, busy_s: float) -> Connection:
    """Return a connection that only reads."""
    connection = _connect(path, busy_s)
    connection.execute("PRAGMA query_only = ON").fetchall()
    return connection


def open_checkpointer(path: str) -> Connection:
    """Return a connection that copies the log into the file."""
    connection = _connect(path, 0)
    # The log is synced before and the file after.
    connection.execute("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0").fetchall()
    _flush_drives(connection)
    return connection


def _flush_drives(connection: Connection) -> None:
    if sys.platform == "darwin":
        # NOTE: macOS's fsync does not flush the drive's cache.
        connection.execute("PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON").fetchall()


def close_quietly(connection: Connection) -> None:
    """Close a connection; what the disk says to that changes nothing that was acknowledged."""
    with suppress(_sqlite_error()):
        connection.close()


def check_room(path: str) -> None:
    """Raise `StorageFull` when the disk of the file has next to nothing left for who may write it."""
    try:
        total, _, free = shutil.disk_usage(Path(path).parent)
    except OSError:
        return  # SQLite says what there is to say
    # Some file systems do not know, and then both are 0.
    if total and free < _LEAST_FREE:
        raise _full(path)


def _full(path: str) -> StorageFull:
    return StorageFull(f"`{path}`: the disk is full", hint="free some space; what was acknowledged is safe")


def storage_error(path: str, error: BaseException) -> StorageError:
    """Return what an error of SQLite means to a caller."""
    import apsw

    words = str(error).replace("\n", " ")
    kind: type[StorageError] = StorageError
    if isinstance(error, apsw.FullError):
        return _full(path)
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StorageError(f"`{path}` is locked by another process", hint="find who holds it, or wait longer")
    if isinstance(error, apsw.ReadOnlyError):
        return StorageError(f"`{path}` is read-only", hint="give the process the right to write it and its directory")
    if isinstance(error, apsw.CantOpenError):
        return StorageError(f"`{path}` does not open: {words}", hint="check that the directory exists and is writable")
    hint = "check the disk; what was acknowledged before is safe"
    if isinstance(error, apsw.NotADBError):
        kind, hint = StorageCorrupt, "name a file of its own for the store, or restore a backup"
    elif isinstance(error, apsw.CorruptError | apsw.FormatError):
        kind, hint = StorageCorrupt, "restore a backup; `cra trace verify` tells which traces are whole"
    elif not isinstance(error, apsw.Error):
        hint = "this is a bug of the store; nothing was written"
    return kind(f"`{path}`: {words or type(error).__name__}", hint=hint)


def _sqlite_error() -> type[Exception]:
    import apsw

    return apsw.Error


def _connect(path: str, busy_s: float) -> Connection:
    try:
        import apsw
    except ImportError as error:
        raise MissingExtra("storage `sqlite` needs the package apsw", hint="pip install 'cra-core[sqlite]'") from error
    try:
        connection = apsw.Connection(path)
    except apsw.Error as error:
        raise storage_error(path, error) from error
    # PERF: otherwise SQLite plans a join anew each time it is given other values: 9 us instead of 2 to find a head.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    most = int(busy_s / _PAUSE_S)

    def wait(tries: int) -> bool:
        # SQLite's own waits grow to 100 ms, far longer than a commit takes.
        time.sleep(min(_PAUSE_S, 0.0002 * 2 ** min(tries, 8)))
        return tries < most

    connection.set_busy_handler(wait)
    return connection


def _check(path: str, connection: Connection) -> int:
    """Return the version of the file's schema, 0 for a new file; raises for a file that is not ours."""
    rows: list[Any] = connection.execute(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), "
        "(SELECT count(*) FROM sqlite_schema)"
    ).fetchall()
    owner, version, tables = rows[0]
    if owner != APPLICATION_ID and (owner or version or tables):
        raise StorageError(
            f"`{path}` is a database of another application", hint="name a file of its own for the store"
        )
    known = len(migrations())
    if version > known:
        raise StorageError(
            f"`{path}` has schema version {version}, this release knows up to {known}",
            hint="upgrade cra-core, or restore the backup from before the upgrade",
        )
    return int(version)


def _write_ahead(path: str, connection: Connection, busy_s: float) -> None:
    import apsw

    until = time.monotonic() + busy_s
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchall()[0][0]
            break
        except apsw.BusyError:
            # NOTE: SQLite does not ask the busy handler about a change of the journal mode.
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE_S)
    if mode != "wal":
        raise StorageError(
            f"`{path}` cannot keep a write-ahead log (its journal mode is `{mode}`)",
            hint="put the file on a local disk",
        )


def migrations() -> list[Path]:
    """Return the migrations in their order; the file's version is how many of them it has."""
    return sorted(_MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))


def _migrate(path: str, connection: Connection) -> None:
    # All of it in one transaction: killed half-way it did not happen, and of two processes one finds it done.
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _check(path, connection)
        for migration in migrations()[version:]:
            connection.execute(migration.read_text(encoding="utf-8")).fetchall()
        if version < len(migrations()):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
            connection.execute(f"PRAGMA user_version = {len(migrations())}").fetchall()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
