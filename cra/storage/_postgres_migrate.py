"""The schema of the PostgreSQL store: its migrations, and the schemas that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cra.errors import StorageError
from cra.storage._postgres_server import Place, connect, refusal

if TYPE_CHECKING:
    from psycopg import Connection

_MIGRATIONS = Path(__file__).parent / "migrations" / "postgres"
_LOCK = 1129464112
_LOCK_TIMEOUT_MS = 60_000


def migrations() -> list[Path]:
    """Return the migrations in their order; the schema's version is how many of them it has."""
    return sorted(_MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))


def version(place: Place, connection: Connection[Any]) -> int:
    """Return the version of the schema, 0 when there is none; raises for one that is not ours, or too new."""
    row = connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL, count(c.oid) FROM pg_namespace n "
        "LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = %s",
        (f"{place.quoted}.migrations", place.schema),
    ).fetchone()
    assert row is not None  # noqa: S101
    ours, relations = row
    if not ours:
        if relations:
            raise StorageError(
                f"`{place.words}`: schema `{place.schema}` belongs to another application",
                hint="name a schema of its own for the store with ?schema=",
            )
        return 0
    found = connection.execute(
        f"SELECT coalesce(max(version), 0) FROM {place.quoted}.migrations".encode()  # noqa: S608 - checked in place_of
    ).fetchone()
    assert found is not None  # noqa: S101
    known = len(migrations())
    if found[0] > known:
        raise StorageError(
            f"`{place.words}` has schema version {found[0]}, this release knows up to {known}",
            hint="upgrade cra-core",
        )
    return int(found[0])


def migrate(place: Place, connection: Connection[Any]) -> int:
    """Bring the schema to this release's version, and return that.

    Each migration is a transaction, alone under a lock: killed half-way it did not happen, and of two processes one
    finds it done. A role that may not create anything can use a store that is up to date.
    """
    import psycopg

    known = len(migrations())
    try:
        while (at := version(place, connection)) < known:
            with connection.transaction():
                # LOCAL: what a connection works under otherwise is not known here.
                connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
                connection.execute("SET LOCAL statement_timeout = 0")
                connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, place.schema))
                if version(place, connection) == at:
                    _apply(place, connection, at)
    except psycopg.Error as error:
        raise refusal(place, error.sqlstate or "", error.diag.message_primary or "the connection was lost") from error
    return known


def _apply(place: Place, connection: Connection[Any], at: int) -> None:
    path = migrations()[at]
    if not at:
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (place.schema,)).fetchone() is None:
            connection.execute(f"CREATE SCHEMA {place.quoted}".encode())
        connection.execute(
            f"CREATE TABLE {place.quoted}.migrations (version int PRIMARY KEY, name text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT now())".encode()
        )
    connection.execute(path.read_text(encoding="utf-8").replace("{schema}", place.quoted).encode())
    connection.execute(
        f"INSERT INTO {place.quoted}.migrations (version, name) VALUES (%s, %s)".encode(),  # noqa: S608
        (at + 1, path.stem),
    )


def migrate_alone(place: Place) -> int:
    """Migrate on a connection of its own."""
    with connect(place) as connection:
        return migrate(place, connection)
