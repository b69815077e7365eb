"""What the SQLite store does on a disk that fails: an error for whoever wrote, and everything before it stays."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from cra._core.chain import verify
from cra.errors import StorageError, StorageFull
from cra.storage.base import Change, IdempotencyRecord
from cra.storage.sqlite import SQLiteStorage
from cra.testing.writer import START_US, Writer, approval, documents, new_id, rate, resolution, taking
from tests.storage.disk import Disk, disk

ERRORS = {
    "full": apsw.FullError("no space left on device"),
    "broken": apsw.IOError("input/output error"),
}


@pytest.fixture
def device() -> Iterator[Disk]:
    with disk() as made:
        yield made


@pytest.fixture
def store(device: Disk, tmp_path: Path) -> Iterator[SQLiteStorage]:
    store = SQLiteStorage(tmp_path / "cra.db")
    yield store
    device.heal()
    store.close()


def changes(writer: Writer) -> list[Change]:
    asked = approval(writer.session_id)
    return [
        Change(),
        Change(request_id=new_id(), resolution=resolution(), actions=1),
        Change(idempotency=IdempotencyRecord(key="key", call="call", response=b"x" * 5000)),
        Change(approval=asked),
        taking(rate("r", 1)),
        documents(atlas={"a": b"x" * 20_000}),
    ]


@pytest.mark.parametrize("kind", ["write", "sync"])
@pytest.mark.parametrize("error", ERRORS)
def test_an_append_that_the_disk_refuses_is_an_error_and_adds_nothing(
    store: SQLiteStorage, device: Disk, kind: str, error: str
) -> None:
    writer = Writer(store)
    for change in changes(writer):
        # Fail at each operation that the append makes, until it makes no more.
        for nth in range(1, 40):
            head, batch = writer.chain.head, writer.batch(text="x" * 3000)
            device.fail(kind, ERRORS[error], nth=nth, times=100)
            try:
                store.append(writer.session_id, head, batch, change)
            except StorageError as raised:
                assert isinstance(raised, StorageFull) == (error == "full")
                assert raised.hint
                device.heal()
            else:
                device.heal()
                writer.chain.advance(batch)
                writer.acknowledged += batch.data
                break
            # Reading went on all the time, and what was not acknowledged is not there.
            writer.check()
        else:
            raise AssertionError("the append never ends")
        assert nth > 1
    writer.check()
    assert store.load(writer.session_id)[0].action_count == 1
    assert store.revision("atlas") == 1
    assert store.peek([rate("r", 1)], START_US) != [0]


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_store_that_cannot_write_says_so_when_asked(store: SQLiteStorage, device: Disk, kind: str) -> None:
    store.probe()
    device.fail(kind, ERRORS["broken"], times=10**6)
    for _ in range(3):
        with pytest.raises(StorageError):
            store.probe()
        with pytest.raises(StorageError):
            store.of_tenant("new").probe()
    device.heal()
    store.probe()


def test_a_store_on_a_full_disk_says_so_when_asked_although_its_log_has_room(
    store: SQLiteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(store)
    for total, free, full in ((10**9, 10**6, True), (10**9, 10**8, False), (0, 0, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, told=(total, 0, free): told)
        if full:
            with pytest.raises(StorageFull, match="the disk is full"):
                store.probe()
        else:
            store.probe()
        writer.append()
    writer.check()


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_session_is_restored_whole_or_not_at_all_on_a_disk_that_fails(
    store: SQLiteStorage, device: Disk, kind: str
) -> None:
    writer, place = Writer(store), store.of_tenant("acme")
    for change in changes(writer):
        writer.append(change, text="x" * 30_000)
    refused = 0
    Writer(place)
    for nth in range(1, 200):
        device.fail(kind, ERRORS["broken"], nth=nth, times=10**6)
        try:
            place.restore(store.dump(writer.session_id))
        except StorageError:
            refused += 1
            assert len(place.sessions()) == 1
            assert place.approvals() == []
            continue
        finally:
            device.heal()
        break
    assert refused > 0
    assert place.events(writer.session_id) == writer.acknowledged


def test_a_log_that_cannot_be_emptied_is_kept_and_emptied_later(
    store: SQLiteStorage, device: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cra.storage._sqlite_log._CHECKPOINT_PAGES", 10)
    monkeypatch.setattr("cra.storage._sqlite_log._RESTART_PAGES", 20)
    writer, source = Writer(store), random.Random(5)
    for _ in range(300):
        if source.random() < 0.3:
            device.fail(source.choice(("write", "sync")), ERRORS["broken"], nth=source.randrange(1, 9), times=3)
        head, batch = writer.chain.head, writer.batch(text="x" * source.randrange(4000))
        try:
            store.append(writer.session_id, head, batch, Change(actions=1))
        except StorageError:
            # The disk has failed at the commit, so whether it has landed is for the head to tell.
            device.heal()
            if store.load(writer.session_id)[1].hash != batch.head:
                continue
        device.heal()
        writer.chain.advance(batch)
        writer.acknowledged += batch.data
    writer.check()
    assert verify(store.events(writer.session_id)).ok
    store.check()


def test_a_new_file_on_a_disk_that_fails_is_not_half_a_store(device: Disk, tmp_path: Path) -> None:
    path = tmp_path / "cra.db"
    refused = 0
    for kind in ("write", "sync"):
        for nth in range(1, 60):
            device.fail(kind, ERRORS["broken"], nth=nth, times=10**6)
            try:
                SQLiteStorage(path).close()
            except StorageError:
                refused += 1
            device.heal()
            store = SQLiteStorage(path)
            Writer(store).check()
            store.check()
            store.close()
            path.unlink()
    assert refused > 4
