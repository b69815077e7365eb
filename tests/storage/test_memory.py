"""The memory store keeps the contract, and its bounds."""

import dis
import inspect
from pathlib import Path
from random import Random
from threading import Barrier

import pytest

from cra._core.ledger import Ledger
from cra.errors import StorageFull
from cra.storage import _counters
from cra.storage.base import Change, ClaimRefused, Storage
from cra.storage.memory import MemoryStorage
from cra.testing.storage import StorageContract
from cra.testing.writer import SECOND, START_US, Writer, budget, documents, purging, rate, resolution, taking, together


class TestMemoryStorage(StorageContract):
    def open(self, directory: Path) -> Storage:
        return MemoryStorage()


def fill(store: Storage, number: int) -> int:
    """Append to one session until the store is full; return how many events it took."""
    events = 0
    try:
        writer = Writer(store, f"agent-{number}")
        events = 1
        while True:
            writer.append(Change(), *["action.requested"] * (number % 3 + 1))
            events += number % 3 + 1
    except StorageFull:
        return events


@pytest.mark.parametrize("bound", [1, 7, 500, 5000])
def test_the_bound_on_events_is_exact_whoever_races_for_the_rest(bound: int) -> None:
    store = MemoryStorage(max_events=bound)
    taken = sum(together(16, lambda number: fill(store, number)))
    # Room for one more event is left only to those that wanted to add several.
    assert bound - 2 <= taken <= bound
    for number in range(bound - taken):
        Writer(store, f"late-{number}")
    with pytest.raises(StorageFull, match=f"its bound is {bound}"):
        Writer(store, "too late")
    assert sum(store.events(record.session_id).count(b"\n") for record in store.sessions(limit=10_000)) == bound


def test_the_bound_on_sessions_is_exact_whoever_races_for_the_last() -> None:
    store = MemoryStorage(max_sessions=10)

    def create(number: int) -> bool:
        try:
            Writer(store, f"agent-{number}")
        except StorageFull:
            return False
        return True

    assert together(16, create).count(True) == 10


def test_what_is_purged_makes_room() -> None:
    store = MemoryStorage(max_sessions=2, max_events=25)
    admin = Writer(store)
    for number in range(20):
        writer = Writer(store.of_tenant("default"), f"agent-{number}")
        writer.append(Change(), "action.requested", "action.approved")
        writer.end()
        admin.append(purging(writer))
    assert len(store.sessions()) == 1


def test_pages_have_every_session_whatever_comes_and_goes_between_them() -> None:
    random, store = Random(7), MemoryStorage()
    admin = Writer(store)
    writers = {admin.session_id: admin}
    for _ in range(300):
        others = [one for one in writers.values() if one is not admin]
        if others and random.randrange(3) == 0:
            gone = writers.pop(random.choice(others).session_id)
            gone.end()
            admin.append(purging(gone))
            again = gone.session_id if random.randrange(2) else None
        else:
            again = None
        if again is not None or random.randrange(3):
            writer = Writer(store, session_id=again)
            writers[writer.session_id] = writer
        found: list[str] = []
        while page := store.sessions(after=found[-1] if found else None, limit=random.randrange(1, 40)):
            found += [record.session_id for record in page]
        assert found == sorted(writers)


def test_a_full_store_can_still_be_told_what_to_let_go() -> None:
    store = MemoryStorage(max_sessions=5, max_events=20)
    writers = [Writer(store) for _ in range(5)]
    for writer in writers:
        writer.append(Change(), *["action.requested"] * 3)
    for refused in (lambda: Writer(store), writers[0].append):
        with pytest.raises(StorageFull):
            refused()
    # Ending, a document and a purge go beyond the bound, the first two of them not for ever.
    for writer in writers[1:]:
        writer.end()
    admin = Writer(store, begin=documents(retention={"policy": b"{}"}))
    for number in range(10_000):
        try:
            admin.append(documents(role={"a": b"%d" % number}))
        except StorageFull:
            break
    assert 900 < number < 1100
    with pytest.raises(StorageFull):
        store.probe()
    admin.append(purging(*writers[1:]), *["session.purged"] * 4)
    assert [record.session_id for record in store.sessions()] == sorted([writers[0].session_id, admin.session_id])
    for writer in (admin, writers[0]):
        writer.check()


def test_what_a_full_store_was_told_beyond_its_bound_is_counted() -> None:
    store = MemoryStorage(max_events=40)
    admin, others = Writer(store), [Writer(store) for _ in range(13)]
    for writer in others:
        writer.append(Change(), "action.requested", "action.approved")
    with pytest.raises(StorageFull):
        admin.append()
    for number in range(5):
        admin.append(documents(role={"a": b"%d" % number}))
    for writer in others[:5]:
        writer.end()
    admin.append(purging(*others[:5]), *["session.purged"] * 5)
    # 40 and 10 beyond, of which 20 went and 5 came: 5 are left.
    for _ in range(5):
        admin.append()
    with pytest.raises(StorageFull):
        admin.append()
    assert sum(store.events(record.session_id).count(b"\n") for record in store.sessions()) == 40


def test_a_session_that_did_not_fit_leaves_nothing() -> None:
    store = MemoryStorage(max_sessions=2, max_events=2)
    Writer(store).append()
    for _ in range(3):
        with pytest.raises(StorageFull):
            Writer(store)
    assert len(store.sessions()) == 1


def test_only_the_newest_resolutions_are_kept() -> None:
    store = MemoryStorage(max_resolutions=3)
    writer = Writer(store)
    records = [resolution(number) for number in range(8)]
    for record in records:
        writer.append(Change(resolution=record))
    kept = [store.resolution(writer.session_id, record.resolution_id) for record in records]
    assert kept == [None] * 5 + records[5:]


def test_counters_whose_windows_are_over_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_counters, "_FEW_COUNTERS", 16)
    store = MemoryStorage()
    writer = Writer(store)
    key = f"s|{writer.session_id}"
    writer.append(taking(budget(1, key, window_us=0)))
    for number in range(300):
        now_us = START_US + number * 10 * SECOND
        writer.append(taking(rate(f"r{number}", window_us=30 * SECOND), budget(5, f"b{number}"), at_us=now_us))
    assert len(store._counters.by_key) < 40
    assert store.peek([budget(100, key, window_us=0)], now_us) == [-1]


def test_threads_meet_the_sweep_and_keep_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_counters, "_FEW_COUNTERS", 0)
    store, barrier = MemoryStorage(), Barrier(8)

    def work(number: int) -> list[bool]:
        writer, taken = Writer(store, f"agent-{number}"), []
        for turn in range(30):
            # Between two turns every window ends, so that each turn begins with a sweep of the last one's counters.
            at_us = START_US + turn * 3600 * SECOND
            barrier.wait()
            try:
                writer.append(taking(rate("shared", 5, 50), at_us=at_us))
                taken.append(True)
            except ClaimRefused:
                taken.append(False)
            writer.append(taking(rate(f"own {number} {turn}", 1, 10), at_us=at_us))
        return taken

    turns = zip(*together(8, work), strict=True)
    assert [sum(turn) for turn in turns] == [5] * 30


@pytest.mark.parametrize("claims", [(rate("one", 1),), (rate("one", 1), rate("two", 1))])
def test_nobody_takes_from_a_counter_that_was_swept(claims, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStorage()
    writer = Writer(store)
    find, found = store._counters._counter, []

    def found_too_late(claim):
        counter = find(claim)
        if len(found) < len(claims):
            # The sweep comes between looking it up and locking it.
            counter.dead = True
            store._counters.by_key.pop(claim.key)
        found.append(counter)
        return counter

    monkeypatch.setattr(store._counters, "_counter", found_too_late)
    writer.append(taking(*claims))
    with pytest.raises(ClaimRefused):
        store.append(writer.session_id, writer.chain.head, writer.batch(), taking(*claims))
    writer.check()


def test_an_append_lands_in_one_piece_between_two_signals() -> None:
    # A signal handler that raises runs after calls and at loops' ends; there is one call, of compiled code, at the end.
    names = [instruction.opname for instruction in dis.get_instructions(MemoryStorage._land)]
    assert not {name for name in names if name.startswith(("FOR_ITER", "JUMP_BACKWARD"))}
    calls = [number for number, name in enumerate(names) if name == "CALL"]
    assert len(calls) == 1
    assert set(names[calls[0] + 1 :]) <= {"POP_TOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "CACHE"}
    assert inspect.isroutine(Ledger.add) and not inspect.isfunction(Ledger.add)
