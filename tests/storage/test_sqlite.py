"""The SQLite store keeps the contract, whatever happens to its file and its process."""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import apsw
import pytest

from cra._core.chain import verify
from cra.errors import ConfigInvalid, StaleHead, StorageCorrupt, StorageError, StorageFull
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.storage import _sqlite_append, _sqlite_file
from cra.storage._sqlite_file import open_checkpointer
from cra.storage.base import NO_CHANGE, Change, Storage
from cra.storage.open import open_storage
from cra.storage.sqlite import SQLiteStorage, versions
from cra.testing.storage import StorageContract
from cra.testing.writer import SECOND, START_US, Writer, budget, rate, resolution, taking, together
from tests.storage import process
from tests.storage.killing import ProcessContract
from tests.storage.queued import Queued


class TestSQLiteStorage(StorageContract):
    def open(self, directory: Path) -> Storage:
        return SQLiteStorage(directory / "cra.db", durability="batched")


class TestQueuedSQLiteStorage(StorageContract):
    def open(self, directory: Path) -> Storage:
        return Queued(SQLiteStorage(directory / "cra.db", durability="batched"))


class TestStrictSQLiteStorage(StorageContract):
    threads = 4

    def open(self, directory: Path) -> Storage:
        return SQLiteStorage(directory / "cra.db")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cra.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStorage]:
    store = SQLiteStorage(path, durability="batched")
    yield store
    store.close()


def rows(path: Path, sql: str) -> list[tuple]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


# What it is


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_new_file_and_its_log_are_their_owner_s_alone(tmp_path: Path) -> None:
    store = SQLiteStorage(tmp_path / "events")
    Writer(store)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) > 1
    store.close()


def test_the_durability_is_what_sqlite_was_told(tmp_path: Path) -> None:
    for durability, synchronous in (("strict", 2), ("batched", 1)):
        store = SQLiteStorage(tmp_path / f"{durability}.db", durability=durability)
        assert store.durability == durability
        assert store._pool.upkeep._connection.execute("PRAGMA synchronous").get == synchronous
        assert store._pool.upkeep._connection.execute("PRAGMA journal_mode").get == "wal"
        store.close()
    with pytest.raises(ConfigInvalid, match="expected strict or batched"):
        SQLiteStorage(tmp_path / "x.db", durability="maybe")  # type: ignore[arg-type]


def test_a_url_names_the_file_and_the_durability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, name, durability in (
        ("sqlite:///one.db", "one.db", "strict"),
        (f"sqlite:///{tmp_path}/two%20words.db?durability=batched", "two words.db", "batched"),
    ):
        store = open_storage(url, max_sessions=1, max_events=1)
        assert isinstance(store, SQLiteStorage)
        assert (Path(store.path), store.durability) == (tmp_path / name, durability)
        store.close()
    with pytest.raises(ConfigInvalid):
        open_storage("sqlite:///one.db?durable=yes", max_sessions=1, max_events=1)
    with pytest.raises(ConfigInvalid):
        open_storage("sqlite:///:memory:", max_sessions=1, max_events=1)


def test_the_sqlite_inside_is_free_of_the_bug_that_corrupts_a_restarted_log() -> None:
    assert tuple(int(part) for part in versions()[1].split(".")[:2]) >= (3, 51)


def test_a_closed_store_leaves_one_file(path: Path) -> None:
    store = SQLiteStorage(path)
    Writer(store).append()
    store.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["cra.db"]


def test_a_store_that_was_forgotten_is_closed_with_its_last_reference(path: Path) -> None:
    store = SQLiteStorage(path)
    writer = Writer(store)
    thread = store._pool.writer._thread
    del store, writer
    thread.join()
    assert not thread.is_alive()


# Files that are not ours


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (
            lambda path: path.write_bytes(b"not a database, but long enough to be looked at" * 40),
            StorageCorrupt,
            "not a",
        ),
        (lambda path: rows(path, "CREATE TABLE theirs (x)"), StorageError, "another application"),
        (
            lambda path: rows(path, "PRAGMA application_id = 77; CREATE TABLE t (x)"),
            StorageError,
            "another application",
        ),
        (lambda path: rows(path, "PRAGMA user_version = 3; CREATE TABLE t (x)"), StorageError, "another application"),
        (lambda path: path.mkdir(), StorageError, "does not open"),
    ],
)
def test_a_foreign_file_is_refused_and_left_as_it_is(path: Path, make, kind: type[Exception], words: str) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(kind, match=words) as refused:
        SQLiteStorage(path)
    assert refused.value.hint
    assert before is None or path.read_bytes() == before


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not open") as refused:
        SQLiteStorage(tmp_path / "none" / "cra.db")
    assert refused.value.hint is not None
    assert "directory" in refused.value.hint


def test_a_newer_file_is_refused(path: Path) -> None:
    SQLiteStorage(path).close()
    known = len(_sqlite_file.migrations())
    rows(path, f"PRAGMA user_version = {known + 1}")
    with pytest.raises(StorageError, match=f"version {known + 1}") as refused:
        SQLiteStorage(path)
    assert "upgrade" in (refused.value.hint or "")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_named(path: Path) -> None:
    SQLiteStorage(path).close()
    path.chmod(0o444)
    with pytest.raises(StorageError, match="read-only"):
        SQLiteStorage(path)


def read_all(path: Path, session_id: str) -> None:
    store = SQLiteStorage(path)
    try:
        store.events(session_id)
        store.check()
    finally:
        store.close()


def test_a_damaged_file_is_reported_as_corrupt(path: Path) -> None:
    store = SQLiteStorage(path)
    writer = Writer(store)
    for _ in range(50):
        writer.append(NO_CHANGE, text="x" * 2000)
    store.check()
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:] = os.urandom(len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StorageCorrupt) as found:
        read_all(path, writer.session_id)
    assert found.value.hint


def test_migrations_are_numbered_without_gaps_and_run_once(path: Path) -> None:
    numbers = [int(migration.name[:4]) for migration in _sqlite_file.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
    SQLiteStorage(path).close()
    before = rows(path, "SELECT type, name, sql FROM sqlite_schema ORDER BY name")
    SQLiteStorage(path).close()
    assert rows(path, "SELECT type, name, sql FROM sqlite_schema ORDER BY name") == before


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    shutil.copy(_sqlite_file.migrations()[0], folder)
    (folder / "0002_bad.sql").write_text("CREATE TABLE more (x); CREATE TABLE more (x);")
    monkeypatch.setattr(_sqlite_file, "_MIGRATIONS", folder)
    with pytest.raises(StorageError, match="already exists"):
        SQLiteStorage(tmp_path / "cra.db")
    assert rows(tmp_path / "cra.db", "SELECT count(*) FROM sqlite_schema") == [(0,)]
    (folder / "0002_bad.sql").write_text("CREATE TABLE more (x);")
    SQLiteStorage(tmp_path / "cra.db").close()
    assert rows(tmp_path / "cra.db", "PRAGMA user_version") == [(2,)]


def test_openers_that_race_for_a_new_file_all_get_it(path: Path) -> None:
    stores = together(8, lambda _: SQLiteStorage(path))
    writers = [Writer(store) for store in stores]
    for store in stores:
        assert len(store.sessions()) == len(stores)
    for writer, store in zip(writers, reversed(stores), strict=True):
        writer.reload(store)
        writer.check()
    for store in stores:
        store.close()


# When it cannot write


def fill(writer: Writer) -> None:
    for _ in range(40):
        writer.append(Change(actions=1), text="x" * 3000)


def test_a_full_disk_adds_nothing_and_says_so(store: SQLiteStorage) -> None:
    writer = Writer(store)
    connection = store._pool.upkeep._connection
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').get + 2}").fetchall()
    with pytest.raises(StorageFull, match="disk is full") as full:
        fill(writer)
    assert full.value.hint
    writer.check()
    connection.execute("PRAGMA max_page_count = 100000").fetchall()
    writer.append(NO_CHANGE, text="x" * 3000)
    writer.check()


@pytest.fixture
def gathered(store: SQLiteStorage) -> Iterator[Callable[[list[Callable[[], object]]], list[str]]]:
    """Return a function that has calls land in one group, and returns how each ended."""

    def gather(calls: list[Callable[[], object]]) -> list[str]:
        begun, gate = Event(), Event()

        def hold(connection: apsw.Connection) -> None:
            begun.set()
            assert gate.wait(30)

        def end(call: Callable[[], object]) -> str:
            try:
                call()
            except StorageError as error:
                return type(error).__name__
            return "landed"

        # As after a group of several: nobody commits in its own thread.
        store._pool.writer._alone = False
        with ThreadPoolExecutor(len(calls) + 1) as pool:
            holding = pool.submit(store._pool.writer.run, hold)
            assert begun.wait(30)
            waiting = [pool.submit(end, call) for call in calls]
            while store._pool.writer._queue.qsize() < len(calls):
                time.sleep(0)
            gate.set()
            holding.result()
            return [future.result() for future in waiting]

    return gather


def appending(writer: Writer) -> Callable[[], object]:
    return lambda: writer.append(Change(actions=1))


def half_done(store: SQLiteStorage) -> Callable[[], object]:
    def work(connection: apsw.Connection) -> None:
        connection.execute("UPDATE events SET count = 99")
        raise ZeroDivisionError

    return lambda: store._pool.writer.run(work)


def test_what_waits_lands_in_one_transaction(store: SQLiteStorage, gathered) -> None:
    writers = [Writer(store) for _ in range(30)]
    commits = []

    def count() -> bool:
        commits.append(1)
        return False

    store._pool.upkeep._connection.set_commit_hook(count)
    assert set(gathered([appending(writer) for writer in writers])) == {"landed"}
    store._pool.upkeep._connection.set_commit_hook(None)
    # The one that held the thread, and the group.
    assert len(commits) == 2
    for writer in writers:
        writer.check()


def test_one_that_is_refused_in_a_group_leaves_the_others_alone(store: SQLiteStorage, gathered) -> None:
    writers = [Writer(store) for _ in range(12)]
    calls = [appending(writer) for writer in writers]
    batch = writers[5].batch()
    calls[5] = lambda: store.append(writers[5].session_id, "d" * 64, batch, NO_CHANGE)
    assert gathered(calls) == ["landed"] * 5 + ["StaleHead"] + ["landed"] * 6
    for writer in writers:
        writer.check()


def test_one_that_breaks_in_a_group_leaves_the_others_alone(store: SQLiteStorage, gathered) -> None:
    writers = [Writer(store) for _ in range(12)]
    calls = [appending(writer) for writer in writers]
    calls.insert(7, half_done(store))
    assert gathered(calls) == ["landed"] * 7 + ["StorageError"] + ["landed"] * 5
    for writer in writers:
        writer.check()


def test_a_commit_that_fails_fails_everybody_in_it(store: SQLiteStorage, gathered) -> None:
    writers = [Writer(store) for _ in range(6)]
    calls = [appending(writer) for writer in writers]
    # A hook that returns true turns the commit into an error; the first commit is that of the one who holds the thread.
    answers = [False, True]
    store._pool.upkeep._connection.set_commit_hook(lambda: answers.pop(0))
    assert set(gathered(calls)) == {"StorageError"}
    store._pool.upkeep._connection.set_commit_hook(None)
    for writer in writers:
        writer.check()
        assert store.load(writer.session_id)[0].action_count == 0
    assert gathered(calls) == ["landed"] * 6


def test_a_file_that_another_process_holds_is_waited_for_and_then_named(path: Path) -> None:
    store = SQLiteStorage(path, busy_seconds=0.05)
    writer = Writer(store)
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked by another process"):
        writer.append()
    # Reading goes on meanwhile.
    writer.check()
    holder.execute("ROLLBACK")
    holder.close()
    writer.append()
    writer.check()
    store.close()


def test_who_waits_too_long_learns_that_the_outcome_is_unknown(path: Path) -> None:
    store = SQLiteStorage(path, timeout_seconds=0.05)
    writer = Writer(store)
    store._pool.writer._alone = False
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    head, batch = writer.chain.head, writer.batch()
    with pytest.raises(StorageError, match="unknown"):
        store.append(writer.session_id, head, batch, NO_CHANGE)
    holder.execute("ROLLBACK")
    holder.close()
    store.close()
    # The one that was begun has landed; the head tells.
    store = SQLiteStorage(path)
    assert store.load(writer.session_id)[1].hash in (head, batch.head)
    assert verify(store.events(writer.session_id)).ok
    store.close()


def test_an_interruption_in_the_middle_of_a_write_leaves_nothing(store: SQLiteStorage) -> None:
    writer = Writer(store)

    def interrupt(connection: apsw.Connection) -> None:
        connection.execute("UPDATE events SET count = 99")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._pool.writer.run(interrupt)
    writer.check()
    # Even one that comes before the rollback.
    store._pool.upkeep._connection.execute("BEGIN IMMEDIATE; UPDATE events SET count = 99")
    writer.append()
    writer.check()


def test_readers_see_only_what_was_committed(store: SQLiteStorage, path: Path) -> None:
    writer = Writer(store)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE; DELETE FROM events; DELETE FROM sessions")
    writer.check()
    other.execute("ROLLBACK")
    other.close()


# Bounds


def test_only_the_newest_resolutions_are_kept(path: Path) -> None:
    store = SQLiteStorage(path, max_resolutions=3, durability="batched")
    writer = Writer(store)
    records = [resolution(number) for number in range(8)]
    for record in records:
        writer.append(Change(resolution=record))
    kept = [store.resolution(writer.session_id, record.resolution_id) for record in records]
    assert kept == [None] * 5 + records[5:]
    store.close()


def test_counters_whose_windows_are_over_are_dropped(store: SQLiteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cra.storage.sqlite._CLAIMS_BETWEEN_SWEEPS", 20)
    writer = Writer(store)
    writer.append(taking(budget(1, f"s|{writer.session_id}", window_us=0)))
    for number in range(100):
        now_us = START_US + number * 10 * SECOND
        writer.append(
            taking(rate(f"r{number}", window_us=30 * SECOND), budget(5, f"b{number}", window_us=SECOND), at_us=now_us)
        )
    assert store._read("SELECT count(*) FROM counters")[0][0] < 40
    assert store._read("SELECT count(*) FROM calls")[0][0] < 20
    assert store.peek([budget(100, f"s|{writer.session_id}", window_us=0)], now_us) == [-1]
    assert store.peek([rate("r99", 1, 30 * SECOND)], now_us) == [0]


def test_a_rate_keeps_no_more_calls_than_it_allows(store: SQLiteStorage) -> None:
    writer = Writer(store)
    for number in range(30):
        writer.append(taking(rate("r", 4, 10), at_us=START_US + number * 10))
    assert store._read("SELECT count(*) FROM calls")[0][0] <= 4


def test_the_log_goes_into_the_file_while_work_goes_on(store: SQLiteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cra.storage._sqlite_log._CHECKPOINT_PAGES", 20)
    monkeypatch.setattr("cra.storage._sqlite_log._RESTART_PAGES", 40)
    writer = Writer(store)
    for _ in range(300):
        writer.append(NO_CHANGE, text="x" * 3000)
    writer.check()
    assert Path(f"{store.path}-wal").stat().st_size < 100 * 4096


def append_until_the_log_begins_anew(writer: Writer, store: SQLiteStorage) -> None:
    def times_begun() -> bytes:
        # https://www.sqlite.org/fileformat2.html#the_write_ahead_log: a count in the log's header.
        with Path(f"{store.path}-wal").open("rb") as log:
            return log.read(16)[12:]

    before = times_begun()
    for _ in range(3000):
        writer.append(NO_CHANGE, text="x" * 3000)
        if times_begun() != before:
            return
    upkeep = store._pool.upkeep
    busy = upkeep._copier is not None and upkeep._copier.busy
    raise AssertionError(f"the log has only grown: {upkeep._pages} pages, room {upkeep._room}, busy {busy}")


def test_the_log_is_copied_by_a_thread_of_its_own_and_then_begins_anew(
    store: SQLiteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cra.storage._sqlite_log._CHECKPOINT_PAGES", 20)
    monkeypatch.setattr("cra.storage._sqlite_log._REST_PAGES", 10)
    # On a busy machine the copy may never catch up; then this ends it.
    monkeypatch.setattr("cra.storage._sqlite_log._RESTART_PAGES", 1000)
    writer, upkeep = Writer(store), store._pool.upkeep
    append_until_the_log_begins_anew(writer, store)
    assert upkeep._copier is not None
    writer.check()
    # What is in the file itself is whole, up to where the log begins.
    store.close()
    assert not upkeep._copier._thread.is_alive()
    again = SQLiteStorage(store.path)
    assert again.events(writer.session_id) == writer.acknowledged
    again.close()


def test_a_copy_that_fails_is_tried_again(store: SQLiteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cra.storage._sqlite_log._CHECKPOINT_PAGES", 20)
    monkeypatch.setattr("cra.storage._sqlite_log._REST_PAGES", 10)
    # On a busy machine the copy may never catch up; then this ends it.
    monkeypatch.setattr("cra.storage._sqlite_log._RESTART_PAGES", 1000)
    faults: list[Exception] = [apsw.IOError("the disk does not answer"), apsw.FullError("the disk is full")]

    def open_or_fail(path: str) -> apsw.Connection:
        if faults:
            raise faults.pop()
        return open_checkpointer(path)

    monkeypatch.setattr("cra.storage._sqlite_log.open_checkpointer", open_or_fail)
    writer = Writer(store)
    append_until_the_log_begins_anew(writer, store)
    assert not faults
    writer.check()


def test_the_log_gets_room_ahead_of_its_use_and_never_over_what_is_in_it(path: Path) -> None:
    one, two = SQLiteStorage(path), SQLiteStorage(path)
    log = Path(f"{path}-wal")
    # Who only opens a store does without.
    assert log.stat().st_size < 64 * 4120
    first, second = Writer(one), Writer(two)
    for number in range(200):
        (first, second)[number % 2].append(NO_CHANGE, text="x" * 500)
        if not number % 40:
            # As if a store knew of nothing that the other has done.
            one._pool.upkeep._lengthen(number)
            two._pool.upkeep._lengthen(0)
    assert log.stat().st_size > 256 * 4120
    for writer in (first, second):
        writer.check()
    # What a process finds that reads the log from its start, as after a crash, is the same.
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    shutil.copy(log, f"{copy}-wal")
    found = SQLiteStorage(copy)
    for writer in (first, second):
        assert found.events(writer.session_id) == writer.acknowledged
    found.check()
    for store in (found, one, two):
        store.close()


def test_an_idle_session_costs_few_bytes_of_disk(store: SQLiteStorage, path: Path) -> None:
    for number in range(500):
        Writer(store, f"agent-{number}")
    store.close()
    assert path.stat().st_size / 500 < 2048


# Several of it


def test_a_session_moves_between_stores_at_any_call(path: Path) -> None:
    one, two = SQLiteStorage(path, durability="batched"), SQLiteStorage(path, durability="batched")
    writer = Writer(one)
    for number in range(20):
        store = (one, two)[number % 2]
        assert store.load(writer.session_id)[1] == (
            writer.chain.sequence,
            writer.chain.head,
            writer.chain.last_us,
        )
        writer.store = store
        writer.append(Change(actions=1))
    stale = writer.batch()
    writer.append()
    with pytest.raises(StaleHead):
        one.append(writer.session_id, stale.previous_head, stale, NO_CHANGE)
    writer.check()
    one.close()
    two.close()


def test_a_session_moves_between_runtimes_at_any_call(path: Path) -> None:
    runtimes = []
    for _ in range(2):
        made = CRARuntime(RuntimeConfig(storage=SQLiteStorage(path, durability="batched")))
        made.load_atlas_from_json(process.ATLAS)
        made.executor("ticket.*", inline=True)(lambda parameters: parameters)
        runtimes.append(made)
    one, two = runtimes
    session = one.create_session("agent-1", "move")
    source = random.Random(3)
    for number in range(30):
        here, there = source.sample(runtimes, 2)
        here.resolve(session.id, f"goal {number}")
        assert there.execute(session.id, "ticket.get", {"n": number}) == {"n": number}
    assert one.get_session(session.id) == two.get_session(session.id)
    assert two.get_session(session.id).action_count == 30
    two.end_session(session.id)
    assert one.verify_chain(session.id).ok
    assert one.get_session(session.id).status == "ended"
    for made in runtimes:
        made.close()


class TestProcesses(ProcessContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/cra.db"

    def check_store(self, store: Storage) -> None:
        assert isinstance(store, SQLiteStorage)
        store.check()


class TestBatchedProcesses(TestProcesses):
    @pytest.fixture
    def target(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/cra.db?durability=batched"


def test_the_work_of_an_append_is_not_done_twice_for_one_counter(store: SQLiteStorage) -> None:
    writer = Writer(store)
    with pytest.raises(StorageError):
        store.append(writer.session_id, writer.chain.head, writer.batch(), taking(rate("r"), rate("r")))
    writer.check()
    assert _sqlite_append.SWEEP > 0
