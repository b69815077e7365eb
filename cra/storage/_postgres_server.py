"""The server of the PostgreSQL store: where it is, what it must promise, and how its errors are told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from cra.errors import ConfigInvalid, MissingExtra, StorageError, StorageFull

if TYPE_CHECKING:
    from psycopg import Connection

_OLDEST = 140000
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_CONNECT_TIMEOUT_S = 10
UNKNOWN_HINT = "read the session again to learn it"

_STATE = """
SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
    current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
    pg_is_in_recovery(), current_setting('transaction_read_only')
"""
# `enable_seqscan`: every statement has its index. A plan that was made while a table was small must not read all of it
# when it has grown, and plans are kept for as long as a connection.
_SETTINGS = """
SELECT set_config('application_name', coalesce(nullif(current_setting('application_name'), ''), 'cra'), false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('transaction_isolation', 'read committed', false),
    set_config('synchronous_commit', %s, false),
    set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),
    set_config('idle_in_transaction_session_timeout', %s, false),
    set_config('enable_seqscan', 'off', false), set_config('client_min_messages', 'error', false),
    set_config('bytea_output', 'hex', false)
"""


class Place(NamedTuple):
    """Where a store is: what libpq is told, the schema, and the words for it that have no secret in them."""

    conninfo: str
    schema: str
    words: str

    @property
    def quoted(self) -> str:
        """The schema as SQL takes it."""
        return f'"{self.schema}"'


class Bounds(NamedTuple):
    """How long the server may take for a statement, and for a lock in it."""

    statement_s: float
    lock_s: float


def place_of(url: str, schema: str) -> Place:
    """Return the place of a URL, without its own options; raises `ConfigInvalid`."""
    if not _SCHEMA.fullmatch(schema):
        raise ConfigInvalid(f"schema is `{schema}`, expected lower-case letters, digits and _", pointer="/storage")
    try:
        from psycopg import Error
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    except ImportError as error:
        raise missing_extra() from error
    try:
        parts: dict[str, Any] = conninfo_to_dict(url)
    except Error:
        # What libpq says about it may quote the password.
        raise ConfigInvalid(
            "the storage URL is not one of PostgreSQL's",
            pointer="/storage",
            hint="expected postgresql://user:password@host:5432/database, with special characters as %XX",
        ) from None
    bounds: dict[str, str | int] = {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "client_encoding": "UTF8",
    }
    host, port, name = (str(parts.get(key) or "") for key in ("host", "port", "dbname"))
    words = f"postgresql://{host}{':' if port else ''}{port}/{name}"
    if schema != "cra":
        words += f"?schema={schema}"
    return Place(make_conninfo(**{**bounds, **parts}), schema, words)


def missing_extra() -> MissingExtra:
    """Return the error for a package that is not installed."""
    return MissingExtra(
        "storage `postgresql` needs the packages psycopg and psycopg_pool", hint="pip install 'cra-core[postgres]'"
    )


def connect(place: Place) -> Connection[Any]:
    """Return a connection of its own, in autocommit; raises `StorageError` that says why there is none."""
    import psycopg

    try:
        return psycopg.connect(place.conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise unreachable(place, error) from error


def unreachable(place: Place, error: BaseException | None) -> StorageError:
    """Return what a failure to connect means to a caller."""
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    words = lines[0].rstrip("?.,") if lines else "no connection in time"
    return StorageError(
        f"`{place.words}`: {words[:1].lower()}{words[1:]}",
        hint="check that the server runs and takes connections; nothing was written",
        details={"unreachable": True},
    )


def check(place: Place, connection: Connection[Any], durability: str) -> str:
    """Raise `StorageError` unless the server keeps what it acknowledges; returns its synchronous_commit."""
    row = connection.execute(_STATE).fetchone()
    assert row is not None  # noqa: S101
    version, encoding, fsync, pages, commit, standby, read_only = row
    where = f"`{place.words}`"
    if version < _OLDEST:
        raise StorageError(f"{where} runs PostgreSQL {version // 10000}, expected {_OLDEST // 10000} or newer")
    if encoding != "UTF8":
        raise StorageError(f"{where} has the encoding {encoding}, expected UTF8", hint="create the database with it")
    if standby or read_only == "on":
        raise read_only_error(place)
    if durability != "strict":
        return "off"
    for name, value in (("fsync", fsync), ("full_page_writes", pages), ("synchronous_commit", commit)):
        if value == "off":
            raise StorageError(
                f"{where} runs with {name}=off, which loses acknowledged events with the power",
                hint=f"turn {name} on, or say that this is meant with ?durability=batched",
            )
    return str(commit)


def configure(connection: Connection[Any], commit: str, bounds: Bounds) -> None:
    """Set what every connection of the store works under."""
    statement, lock = (f"{max(1, int(seconds * 1000))}ms" for seconds in bounds)
    connection.execute(_SETTINGS, (commit, statement, lock, statement))


def read_only_error(place: Place) -> StorageError:
    """Return the error for a server that takes no writes."""
    return StorageError(
        f"`{place.words}` is read-only: a standby, or a database set to be",
        hint="name the primary; with several hosts in the URL add target_session_attrs=read-write",
    )


def refusal(place: Place, state: str, words: str) -> StorageError:
    """Return what an error of the server means to a caller; nothing was written."""
    where = f"`{place.words}`"
    if state in ("53100", "53400"):
        return StorageFull(f"{where}: {words}", hint="free some space; what was acknowledged is safe")
    if state == "25006":
        return read_only_error(place)
    if state == "55P03":
        return StorageError(f"{where}: another writer held a lock for too long; nothing was written", hint="try again")
    if state == "57014":
        return StorageError(f"{where}: the server took too long; nothing was written", hint="try again")
    if state in ("42P01", "42883", "3F000", "42703"):
        hint = "the schema is not this release's; run `cra storage migrate`, or upgrade cra-core"
        return StorageError(f"{where}: {words}", hint=hint)
    if state == "42501":
        return StorageError(f"{where}: {words}", hint="give the role its rights on the schema")
    return StorageError(f"{where}: {words} [{state}]", hint="nothing was written; the server's log says more")


def lost(place: Place, words: str, *, wrote: bool) -> StorageError:
    """Return what a lost connection means to a caller."""
    if not wrote:
        return StorageError(f"`{place.words}`: the connection was lost while reading: {words}", hint="try again")
    return StorageError(
        f"`{place.words}`: the connection was lost; whether the record was written is unknown ({words})",
        hint=UNKNOWN_HINT,
    )
