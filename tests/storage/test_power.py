"""What a cut of the power leaves: everything that was acknowledged with strict durability, and never a broken chain."""

import random
from contextlib import suppress
from pathlib import Path
from threading import Thread

import apsw
import pytest

from cra._core.chain import verify
from cra.errors import CRAError, StorageError
from cra.storage.base import Change, IdempotencyRecord
from cra.storage.sqlite import SQLiteStorage
from cra.testing.writer import Writer, approval, documents, new_id, rate, resolution, taking
from tests.storage.disk import Disk, disk


def work(store: SQLiteStorage, source: random.Random, writers: list[Writer]) -> None:
    """Append until the power is gone."""
    part = store.of_tenant(source.choice(("default", "acme")))
    own: list[Writer] = []
    try:
        while True:
            if not own or source.random() < 0.1:
                own.append(Writer(part, begin=documents(role={new_id(): b"x" * 50})))
                writers.append(own[-1])
            writer = source.choice(own)
            change = source.choice(
                (
                    Change(),
                    Change(actions=1),
                    Change(request_id=new_id(), resolution=resolution()),
                    Change(approval=approval(writer.session_id)),
                    Change(idempotency=IdempotencyRecord(key=new_id(), call="call", response=b"{}")),
                    taking(rate("r", 10**6)),
                    documents(atlas={"a": bytes(source.randrange(3000))}),
                )
            )
            writer.append(change, *["action.requested"] * source.randrange(1, 4), text="x" * source.randrange(2000))
    except StorageError:
        return


def run_until_dark(folder: Path, device: Disk, source: random.Random, durability: str) -> list[Writer]:
    """Work on a store until its power is cut; return the writers with what was acknowledged to each."""
    writers: list[Writer] = []
    device.cut_at(source.randrange(1, 900))
    try:
        store = SQLiteStorage(folder / "cra.db", durability=durability, busy_seconds=0.1)  # type: ignore[arg-type]
    except StorageError:
        return writers
    threads = [
        Thread(target=work, args=(store, random.Random(source.random()), writers))
        for _ in range(source.choice((1, 1, 4)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with suppress(Exception):
        store.close()
    return writers


def lost(folder: Path, writers: list[Writer]) -> int:
    """Return how many acknowledged events are missing; everything that is there has to be whole."""
    store = SQLiteStorage(folder / "cra.db", durability="batched")
    try:
        store.check()
        missing = 0
        for name in store.tenants():
            part = store.of_tenant(name)
            for record in part.sessions(limit=10**6):
                data = part.events(record.session_id)
                verdict = verify(data)
                assert verdict.ok, verdict.message
                head = part.load(record.session_id)[1]
                assert (head.sequence, head.hash) == (verdict.events, verdict.head)
        for writer in writers:
            try:
                data = store.of_tenant(writer.store.tenant).events(writer.session_id)
            except CRAError:
                data = b""
            if not data.startswith(bytes(writer.acknowledged)):
                # What is there is the beginning of what was acknowledged, never something else.
                assert bytes(writer.acknowledged).startswith(data)
                missing += writer.acknowledged.count(b"\n") - data.count(b"\n")
        # What was found goes on.
        Writer(store).append()
        return missing
    finally:
        store.close()


def cuts(tmp_path: Path, source: random.Random, count: int, durability: str) -> tuple[int, int]:
    """Cut the power that many times; return how many acknowledged events there were, and how many were lost."""
    acknowledged = missing = 0
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        with disk() as device:
            writers = run_until_dark(folder, device, source, durability)
        acknowledged += sum(writer.acknowledged.count(b"\n") for writer in writers)
        for outcome in range(3):
            after = tmp_path / f"{number}-{outcome}"
            device.survivors(after, source)
            missing += lost(after, writers)
    return acknowledged, missing


@pytest.fixture(autouse=True)
def _a_short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cra.storage._sqlite_log._CHECKPOINT_PAGES", 30)
    monkeypatch.setattr("cra.storage._sqlite_log._RESTART_PAGES", 60)


@pytest.mark.parametrize("count", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_cut_of_the_power_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int, count: int) -> None:
    acknowledged, missing = cuts(tmp_path, random.Random(seed), count, "strict")
    assert acknowledged > count
    assert missing == 0


@pytest.mark.parametrize("count", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_a_cut_of_the_power_may_lose_the_end_of_what_was_not_synced(tmp_path: Path, seed: int, count: int) -> None:
    # Were nothing lost here, the test above would prove nothing.
    acknowledged, missing = cuts(tmp_path, random.Random(seed), count, "batched")
    assert 0 < missing < 3 * acknowledged


def test_a_test_disk_loses_what_was_not_synced_and_keeps_what_was(tmp_path: Path, seed: int) -> None:
    source, found = random.Random(seed), set()
    with disk() as device:
        connection = apsw.Connection(str(tmp_path / "x.db"))
        connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t (x)").fetchall()
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        for number in range(5):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        for outcome in range(60):
            device.survivors(tmp_path / str(outcome), source)
            copy = apsw.Connection(str(tmp_path / str(outcome) / "x.db"), vfs=device.base)
            found.add(copy.execute("SELECT count(*) FROM t").get)
            copy.close()
        connection.close()
    # Nothing of it, some of it, all of it.
    assert {0, 5} < found
