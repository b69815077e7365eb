"""The PostgreSQL store keeps the contract, on a server that the tests start, whatever happens to that."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cra._core.chain import EventBatch, verify
from cra.errors import ConfigInvalid, SessionNotFound, StaleHead, StorageError, StorageFull
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.storage import _postgres_migrate
from cra.storage._postgres_server import place_of
from cra.storage._postgres_wire import escaped, unescaped
from cra.storage.base import NO_CHANGE, Change, Storage
from cra.storage.memory import MemoryStorage
from cra.storage.open import open_storage
from cra.storage.postgres import PostgresStorage
from cra.storage.sqlite import SQLiteStorage
from cra.testing import postgres
from cra.testing.storage import StorageContract
from cra.testing.writer import SECOND, START_US, TEXT, Writer, budget, new_id, rate, resolution, taking, together
from tests.storage import process
from tests.storage.killing import ProcessContract
from tests.storage.queued import Queued

if os.environ.get(postgres.WITHOUT):
    pytest.skip(f"{postgres.WITHOUT} says that nothing of PostgreSQL is tested", allow_module_level=True)


@pytest.fixture(scope="module")
def server() -> postgres.Server:
    return postgres.server()


@pytest.fixture
def url(server: postgres.Server) -> str:
    return server.database()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStorage]:
    store = PostgresStorage(url)
    yield store
    store.close()


class TestPostgresStorage(StorageContract):
    threads = 8

    @pytest.fixture(autouse=True)
    def _database(self) -> None:
        self.url = ""

    def open(self, directory: Path) -> Storage:
        self.url = self.url or postgres.server().database()
        return PostgresStorage(self.url)


class TestQueuedPostgresStorage(TestPostgresStorage):
    threads = 4

    def open(self, directory: Path) -> Storage:
        return Queued(super().open(directory))


class TestPostgresProcesses(ProcessContract):
    @pytest.fixture
    def target(self, url: str) -> str:
        return url


# Opening


def test_a_url_says_durability_pool_and_schema_and_the_rest_is_for_the_driver(url: str) -> None:
    opened = open_storage(
        f"{url}&durability=batched&pool=3&schema=other&application_name=me", max_sessions=1, max_events=1
    )
    assert isinstance(opened, PostgresStorage)
    writer = Writer(opened)
    writer.check()
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT DISTINCT nspname FROM pg_namespace WHERE nspname IN ('cra', 'other')")
        assert names.fetchall() == [("other",)]
        (settings,) = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'me'")
        assert settings[0] >= 1
    assert opened._read("known", "default", writer.session_id) == [(1,)]
    assert opened.durability == "batched"
    opened.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("durability=maybe", "durability"),
        ("pool=0", "pool"),
        ("pool=x", "pool"),
        ("schema=pg_catalog", "schema"),
        ("schema=A-b", "schema"),
        ("nonsense=1", "not one of PostgreSQL's"),
    ],
)
def test_an_option_that_is_wrong_is_named(options: str, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        open_storage(f"postgresql://u:hunter2@localhost/db?{options}", max_sessions=1, max_events=1)


def test_no_message_has_the_password_in_it(server: postgres.Server) -> None:
    for url in (
        "postgresql://u:hunter2@127.0.0.1:1/db",
        "postgresql://u:hunter2@127.0.0.1:x/db",
        "postgresql://u:hunter2%zz@127.0.0.1/db",
        server.url("absent", password="hunter2"),
        server.url("postgres", user="nobody", password="hunter2"),
    ):
        with pytest.raises((StorageError, ConfigInvalid)) as refused:
            PostgresStorage(url)
        error: BaseException | None = refused.value
        while error is not None:
            assert "hunter2" not in f"{error!r} {getattr(error, 'hint', '')}"
            error = error.__cause__
    store = PostgresStorage(server.database() + "&password=hunter2")
    assert "hunter2" not in repr(store)
    store.close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_server_that_loses_what_it_acknowledged_is_refused_unless_the_url_says_so(
    server: postgres.Server, url: str, setting: str
) -> None:
    if setting == "synchronous_commit":
        name = url.partition("@/")[2].partition("?")[0]
        server.execute(url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    else:
        server.stop()
        server.start(**{setting: "off"})
    try:
        with pytest.raises(StorageError, match=f"{setting}=off") as refused:
            PostgresStorage(url)
        assert "durability=batched" in str(refused.value.hint)
        store = PostgresStorage(url, durability="batched")
        Writer(store).check()
        assert store._read("revision", "default", "atlas") == []
        store.close()
    finally:
        if setting != "synchronous_commit":
            server.stop()
            server.start(**{setting: "on"})


def test_a_database_that_takes_no_writes_is_refused(server: postgres.Server, url: str) -> None:
    store = PostgresStorage(url, lock_seconds=1)
    writer = Writer(store)
    name = url.partition("@/")[2].partition("?")[0]
    server.execute(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StorageError, match="read-only"):
        PostgresStorage(url, lock_seconds=1)
    # One that becomes so while it is used, as after a failover.
    drop_connections(server, url)
    with pytest.raises(StorageError):
        writer.append()
    with pytest.raises(StorageError):
        store.probe()
    store.close()


def test_a_newer_schema_and_a_foreign_one_are_refused(server: postgres.Server, url: str) -> None:
    PostgresStorage(url).close()
    server.execute(url, "INSERT INTO cra.migrations (version, name) VALUES (99, 'future')")
    with pytest.raises(StorageError, match="schema version 99, this release knows up to"):
        PostgresStorage(url)
    server.execute(url, "CREATE SCHEMA theirs CREATE TABLE orders (id int)")
    with pytest.raises(StorageError, match="another application"):
        PostgresStorage(url, schema="theirs")


def test_a_role_that_may_not_create_anything_can_use_a_store_that_is_up_to_date(
    server: postgres.Server, url: str
) -> None:
    PostgresStorage(url).close()
    role = f"worker_{new_id()[-12:]}"
    server.execute(
        url,
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA cra TO {role};"
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cra TO {role};"
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA cra TO {role}",
    )
    store = PostgresStorage(url.replace("cra@", f"{role}@"))
    Writer(store).check()
    store.close()


def test_texts_that_postgres_cannot_keep_come_back() -> None:
    source = random.Random(1)
    pieces = ["\\", "\0", "u0000", "\\u0000", "\ud800", "\udfff", "a", "é", "\N{GRINNING FACE}", "\\\\"]
    seen = {}
    for _ in range(2000):
        text = "".join(source.choices(pieces, k=source.randrange(6)))
        kept = escaped(text)
        assert unescaped(kept) == text
        assert "\0" not in kept.encode().decode()
        assert seen.setdefault(kept, text) == text


def test_ids_that_nobody_can_have_are_not_found(store: PostgresStorage) -> None:
    for session_id in ("", "\0", "\ud800", "x" * 5000, TEXT, "'; DROP TABLE cra.heads; --"):
        with pytest.raises(SessionNotFound):
            store.load(session_id)


# Migrations


def test_a_migration_that_is_killed_half_way_did_not_happen(server: postgres.Server, url: str) -> None:
    place = place_of(url, "cra")
    with psycopg.connect(url, autocommit=True) as holder, psycopg.connect(url, autocommit=True) as victim:
        with holder.transaction():
            # Nobody sees the schema that is being made; who makes the same one waits for how this ends.
            holder.execute("CREATE SCHEMA cra")
            failed: list[BaseException] = []

            def migrate() -> None:
                try:
                    _postgres_migrate.migrate(place, victim)
                except StorageError as error:
                    failed.append(error)

            thread = threading.Thread(target=migrate)
            thread.start()
            wait_until_blocked(url, victim.info.backend_pid)
            server.execute(url, f"SELECT pg_terminate_backend({victim.info.backend_pid})")
            thread.join()
            assert len(failed) == 1
            holder.execute("DROP SCHEMA cra")
    store = PostgresStorage(url)
    Writer(store).check()
    store.close()


def test_a_later_migration_is_made_once_and_the_rest_goes_on(
    server: postgres.Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStorage(url)
    writer = Writer(store)
    for path in _postgres_migrate.migrations():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "0002_more.sql").write_text("CREATE TABLE {schema}.more (n int); INSERT INTO {schema}.more VALUES (1);")
    (tmp_path / "0003_worse.sql").write_text("CREATE TABLE {schema}.worse (n int); SELECT 1 / 0;")
    monkeypatch.setattr(_postgres_migrate, "_MIGRATIONS", tmp_path)
    # The second lands, the third fails whole.
    with pytest.raises(StorageError, match="division by zero"):
        PostgresStorage(url)
    (tmp_path / "0003_worse.sql").unlink()
    assert server.execute(url, "SELECT to_regclass('cra.worse'), max(version) FROM cra.migrations") == [(None, 2)]
    for opened in together(4, lambda _: PostgresStorage(url)):
        opened.close()
    assert server.execute(url, "SELECT count(*) FROM cra.more") == [(1,)]
    # Whoever was there before goes on.
    writer.append()
    writer.check()
    store.close()


# Connections and the server


def drop_connections(server: postgres.Server, url: str) -> None:
    name = url.partition("@/")[2].partition("?")[0]
    server.execute(
        server.url("postgres"), f"SELECT pg_terminate_backend(pid, 9999) FROM pg_stat_activity WHERE datname = '{name}'"
    )


def wait_until_blocked(url: str, pid: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", (pid,)).fetchone()[0]:
            pass


def test_connections_that_were_dropped_while_idle_are_not_noticed(
    server: postgres.Server, store: PostgresStorage, url: str
) -> None:
    writer = Writer(store)
    for _ in range(3):
        drop_connections(server, url)
        writer.append()
        drop_connections(server, url)
        writer.check()


def test_an_append_whose_connection_is_dropped_says_that_its_outcome_is_unknown(
    server: postgres.Server, store: PostgresStorage, url: str
) -> None:
    writer = Writer(store)
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1 FROM cra.heads FOR UPDATE")
        failed: list[StorageError] = []

        def append() -> None:
            with pytest.raises(StorageError, match="unknown") as lost:
                writer.append()
            failed.append(lost.value)

        thread = threading.Thread(target=append)
        thread.start()
        waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not server.execute(url, waiting)[0][0]:
            pass
        server.execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        thread.join()
    assert "read the session again" in str(failed[0].hint)
    writer.check()
    writer.append()
    writer.check()


@pytest.mark.parametrize("drops", [25, pytest.param(400, marks=pytest.mark.slow)])
def test_connections_dropped_at_any_moment_lose_nothing_acknowledged(
    server: postgres.Server, store: PostgresStorage, url: str, seed: int, drops: int
) -> None:
    writers = [Writer(store) for _ in range(3)]
    done = threading.Event()

    def drop() -> None:
        source = random.Random(seed)
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            name = url.partition("@/")[2].partition("?")[0]
            for _ in range(drops):
                done.wait(source.random() * 0.02)
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        done.set()

    def work(number: int) -> None:
        if number == 3:
            drop()
            return
        writer = writers[number]
        # However slow the machine is, each goes on working when it is over.
        while not done.is_set() or writer.chain.sequence <= 3:
            append_or_learn(store, writer)

    together(4, work)
    for writer in writers:
        writer.check()


def append_or_learn(store: Storage, writer: Writer) -> None:
    """Append; when the outcome is unknown, take what the head says."""
    batch = writer.batch()
    try:
        store.append(writer.session_id, writer.chain.head, batch, NO_CHANGE)
    except StorageError:
        head = wait_for_head(store, writer)
        assert head in (writer.chain.head, batch.head)
        if head != batch.head:
            return
    writer.chain.advance(batch)
    writer.acknowledged += batch.data


@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(seed: int, kills: int) -> None:
    source = random.Random(seed)
    server = postgres.Server()
    try:
        url = server.database()
        store = PostgresStorage(url, lock_seconds=1)
        writers = [Writer(store) for _ in range(3)]
        for _ in range(kills):
            enough, wanted = threading.Event(), source.randrange(1, 40)
            how = source.choice((signal.SIGQUIT, signal.SIGKILL))

            def work(number: int, store: Storage = store, enough=enough, wanted=wanted, how=how) -> EventBatch | None:
                if number == 3:
                    enough.wait(30)
                    server.stop(how)
                    return None
                writer = writers[number]
                for turn in range(10**6):
                    batch = writer.batch()
                    try:
                        store.append(writer.session_id, writer.chain.head, batch, NO_CHANGE)
                    except StorageError:
                        break
                    writer.chain.advance(batch)
                    writer.acknowledged += batch.data
                    if turn == wanted:
                        enough.set()
                return batch

            unknown = together(4, work)
            store.close()
            server.start()
            store = PostgresStorage(url, lock_seconds=1)
            for writer, batch in zip(writers, unknown, strict=False):
                writer.store = store
                head = store.load(writer.session_id)[1].hash
                assert head in (writer.chain.head, batch.head)
                if head == batch.head:
                    writer.chain.advance(batch)
                    writer.acknowledged += batch.data
                writer.check()
        store.close()
    finally:
        server.close()


def wait_for_head(store: Storage, writer: Writer) -> str:
    for _ in range(50):
        try:
            return store.load(writer.session_id)[1].hash
        except StorageError:
            continue
    raise AssertionError("the store has not recovered")


def test_a_server_that_is_away_is_named_and_the_store_recovers(url: str) -> None:
    server = postgres.Server()
    try:
        store = PostgresStorage(server.database(), lock_seconds=1)
        writer = Writer(store)
        server.stop(signal.SIGQUIT)
        for call in (writer.append, lambda: store.load(writer.session_id), store.probe):
            with pytest.raises(StorageError):
                call()
        server.start()
        wait_for_head(store, writer)
        writer.append()
        writer.check()
        store.probe()
        store.close()
    finally:
        server.close()


def test_a_lock_that_another_holds_is_waited_for_and_then_named(url: str) -> None:
    store = PostgresStorage(url, lock_seconds=0.1)
    writer = Writer(store)
    with psycopg.connect(url) as holder:
        holder.execute("SELECT 1 FROM cra.heads FOR UPDATE")
        with pytest.raises(StorageError, match="nothing was written"):
            writer.append()
        # Reading goes on meanwhile.
        writer.check()
    writer.append()
    writer.check()
    store.close()


def test_a_server_that_does_not_answer_is_given_up(server: postgres.Server, url: str) -> None:
    store = PostgresStorage(url, timeout_seconds=0.5)
    writer = Writer(store)
    store._pool._most_s = 0.5
    connection = store._pool.take()
    pid = connection.info.backend_pid
    store._pool.give(connection)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StorageError, match="unknown"):
            writer.append()
    finally:
        os.kill(pid, signal.SIGCONT)
    head = wait_for_head(store, writer)
    assert verify(store.events(writer.session_id)).head == head
    store.close()


def test_a_full_disk_is_said_to_be_full_and_nothing_is_written(
    server: postgres.Server, store: PostgresStorage, url: str
) -> None:
    writer = Writer(store)
    server.execute(
        url,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON cra.events FOR EACH ROW EXECUTE FUNCTION full_disk()",
    )
    with pytest.raises(StorageFull, match="could not extend"):
        writer.append()
    writer.check()
    server.execute(url, "DROP TRIGGER full_disk ON cra.events")
    writer.append()
    writer.check()


def test_more_threads_than_connections_take_turns(url: str) -> None:
    store = PostgresStorage(url, pool=2)

    def work(number: int) -> Writer:
        writer = Writer(store, f"agent-{number}")
        for _ in range(15):
            writer.append()
        return writer

    for writer in together(12, work):
        writer.check()
    assert store._pool._wanting == 0
    store.close()


# Several of it


def test_a_session_moves_between_stores_at_any_call(url: str) -> None:
    one, two = PostgresStorage(url), PostgresStorage(url)
    writer = Writer(one)
    for number in range(20):
        store = (one, two)[number % 2]
        assert store.load(writer.session_id)[1] == (writer.chain.sequence, writer.chain.head, writer.chain.last_us)
        writer.store = store
        writer.append(Change(actions=1))
    stale = writer.batch()
    writer.append()
    with pytest.raises(StaleHead):
        one.append(writer.session_id, stale.previous_head, stale, NO_CHANGE)
    writer.check()
    one.close()
    two.close()


def test_a_session_moves_between_runtimes_at_any_call(url: str) -> None:
    runtimes = []
    for _ in range(2):
        made = CRARuntime(RuntimeConfig(storage=PostgresStorage(url)))
        made.load_atlas_from_json(process.ATLAS)
        made.executor("ticket.*", inline=True)(lambda parameters: parameters)
        runtimes.append(made)
    one, two = runtimes
    session = one.create_session("agent-1", "move")
    source = random.Random(3)
    for number in range(20):
        here, there = source.sample(runtimes, 2)
        here.resolve(session.id, f"goal {number}")
        assert there.execute(session.id, "ticket.get", {"n": number}) == {"n": number}
    assert one.get_session(session.id) == two.get_session(session.id)
    assert two.get_session(session.id).action_count == 20
    two.end_session(session.id)
    assert one.verify_chain(session.id).ok
    for made in runtimes:
        made.close()


def test_writers_that_want_the_same_counters_in_any_order_never_wait_in_a_circle(url: str) -> None:
    stores = [PostgresStorage(url, lock_seconds=30), PostgresStorage(url, lock_seconds=30)]
    keys = [f"c{number}" for number in range(6)]

    def work(number: int) -> None:
        source = random.Random(number)
        writer = Writer(stores[number % 2], session_id=new_id())
        for _ in range(25):
            wanted = source.sample(keys, 4)
            writer.append(taking(*(rate(key, 10**6) for key in wanted)))

    together(8, work)
    counted = [len(counter.calls_us) for counter in stores[0].counters()]
    assert sum(counted) == 8 * 25 * 4
    for store in stores:
        store.close()


def test_counters_whose_windows_are_over_are_dropped(store: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cra.storage.postgres._CLAIMS_BETWEEN_SWEEPS", 20)
    writer = Writer(store)
    writer.append(taking(budget(1, f"s|{writer.session_id}", window_us=0)))
    for number in range(100):
        now_us = START_US + number * 10 * SECOND
        writer.append(
            taking(rate(f"r{number}", window_us=30 * SECOND), budget(5, f"b{number}", window_us=SECOND), at_us=now_us)
        )
    left = list(store.counters())
    assert len(left) < 40
    assert sum(len(counter.calls_us) for counter in left) < 20
    assert store.peek([budget(100, f"s|{writer.session_id}", window_us=0)], now_us) == [-1]
    assert store.peek([rate("r99", 1, 30 * SECOND)], now_us) == [0]


def test_a_rate_keeps_no_more_calls_than_it_allows(server: postgres.Server, store: PostgresStorage, url: str) -> None:
    writer = Writer(store)
    for number in range(30):
        writer.append(taking(rate("r", 4, 10), at_us=START_US + number * 10))
    assert server.execute(url, "SELECT count(*) FROM cra.calls") == [(4,)]


def test_sessions_move_between_sqlite_and_postgres_byte_for_byte(store: PostgresStorage, tmp_path: Path) -> None:
    writer = Writer(store, TEXT)
    for number in range(30):
        writer.append(Change(resolution=resolution(number), request_id=new_id()), text=TEXT * number)
    sqlite, back = SQLiteStorage(tmp_path / "cra.db", durability="batched"), store.of_tenant("back")
    sqlite.restore(store.dump(writer.session_id))
    back.restore(sqlite.dump(writer.session_id))
    memory = MemoryStorage()
    memory.restore(back.dump(writer.session_id))
    for place in (sqlite, back, memory):
        assert place.events(writer.session_id) == bytes(writer.acknowledged)
        assert place.load(writer.session_id) == store.load(writer.session_id)
    sqlite.close()


def test_what_is_queued_is_done_before_the_store_closes(url: str) -> None:
    store = PostgresStorage(url, pool=2)
    writers = [Writer(store) for _ in range(20)]
    told: list[BaseException | None] = []
    for writer in writers:
        batch = writer.batch()
        store.append_soon(writer.session_id, writer.chain.head, batch, NO_CHANGE, told.append)
        writer.chain.advance(batch)
        writer.acknowledged += batch.data
    store.close()
    assert told == [None] * 20
    with pytest.raises(StorageError, match="closed"):
        store.append_soon(writers[0].session_id, writers[0].chain.head, writers[0].batch(), NO_CHANGE, told.append)
    again = PostgresStorage(url)
    for writer in writers:
        writer.store = again
        writer.check()
    again.close()
