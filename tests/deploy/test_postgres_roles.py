"""The roles of deploy/postgres work with the schema as it is, and nobody may more than was meant."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cra import CRARuntime, RuntimeConfig
from cra.atlas import loader
from cra.errors import StorageError
from cra.storage.open import open_storage

pytest.importorskip("psycopg")
postgres = pytest.importorskip("cra.testing.postgres")

ROOT = Path(__file__).resolve().parents[2]
DESK = ROOT / "examples/atlases/customer-support"

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="no PostgreSQL server here")


def url_of(url: str, user: str) -> str:
    return url.replace("postgresql://cra@", f"postgresql://{user}@", 1)


def open_at(url: str) -> None:
    open_storage(url, max_sessions=1, max_events=1).close()


@pytest.fixture
def database() -> str:
    """Return the URL of a database that was set up as docs/security.md says."""
    server = postgres.server()
    url: str = server.database()
    for name in ("cra_owner", "cra_app", "cra_purge", "cra_reader"):
        # Roles are of the whole server, which other tests of this process share.
        if server.execute(url, f"SELECT 1 FROM pg_roles WHERE rolname = '{name}'"):
            for other in server.execute(url, "SELECT datname FROM pg_database WHERE datallowconn"):
                server.execute(url.replace(urlsplit(url).path, f"/{other[0]}", 1), f"DROP OWNED BY {name} CASCADE")
            server.execute(url, f"DROP ROLE {name}")
    server.execute(url, (ROOT / "deploy/postgres/roles.sql").read_text())
    open_at(url_of(url, "cra_owner"))
    server.execute(url_of(url, "cra_owner"), (ROOT / "deploy/postgres/grants.sql").read_text())
    return url


def work(url: str) -> str:
    """Do what a service does, and return the session."""
    with CRARuntime(RuntimeConfig(storage=url, stored_atlases=True)) as runtime:
        administration = runtime.administration
        administration.load_atlas(loader.load(DESK), actor="ann")

        @runtime.executor("ticket.get")
        def get(parameters: dict[str, Any]) -> dict[str, Any]:
            ticket = {"customer_id": "C-7", "subject": "Where is it?", "status": "open", "priority": "normal"}
            return {"ticket_id": parameters["ticket_id"], **ticket}

        session = runtime.create_session(agent_id="bot", goal="Help")
        for _ in range(3):
            runtime.resolve(session.id, "Look at T-1")
        runtime.execute(session.id, "ticket.get", {"ticket_id": "T-1"}, idempotency_key="k")
        runtime.end_session(session.id)
        administration.set_retention({"ended_days": 0, "keep_ended": 0}, actor="ann")
        assert runtime.verify_chain(session.id)
    store = open_storage(url, max_sessions=1, max_events=1)
    store.probe()
    store.close()
    return session.id


def purge(url: str) -> list[str]:
    with CRARuntime(RuntimeConfig(storage=url)) as runtime:
        return list(runtime.administration.purge())


def test_the_service_works_as_a_role_that_cannot_change_events(database: str) -> None:
    server, app = postgres.server(), url_of(database, "cra_app")
    session = work(app)
    for statement in (
        "UPDATE cra.events SET lines = ''",
        "DELETE FROM cra.events",
        "TRUNCATE cra.events",
        "DROP TABLE cra.events",
        "CREATE TABLE cra.mine (a int)",
        "CREATE TABLE public.mine (a int)",
        "ALTER TABLE cra.events OWNER TO cra_app",
        "DELETE FROM cra.migrations",
    ):
        with pytest.raises(Exception, match=r"permission denied|must be owner"):
            server.execute(app, statement)
    with pytest.raises(StorageError, match="permission denied") as caught:
        purge(app)
    assert caught.value.hint == "give the role its rights on the schema"
    # Nothing of the purge has happened, and who may purge, can.
    server.execute(database, "GRANT cra_purge TO cra_app")
    assert purge(app) == [session]


def test_a_reader_reads_and_cannot_write(database: str) -> None:
    work(url_of(database, "cra_app"))
    reader = url_of(database, "cra_reader")
    assert postgres.server().execute(reader, "SELECT count(*) FROM cra.events") != [(0,)]
    with pytest.raises(Exception, match="permission denied"):
        postgres.server().execute(reader, "INSERT INTO cra.requests VALUES ('default', 's', 'r')")


def test_a_service_without_the_right_to_migrate_does_not_start_on_an_old_schema(database: str) -> None:
    postgres.server().execute(database, "DELETE FROM cra.migrations")
    with pytest.raises(StorageError):
        open_at(url_of(database, "cra_app"))
