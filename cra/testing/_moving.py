"""The storage contract of moving: a session, and what was counted, from one store to any other."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec import structs

from cra._core.windows import BudgetWindow, RateWindow
from cra.errors import DuplicateRequest, InvalidTrace, SessionExists, SessionNotFound, StaleHead, StorageError
from cra.storage.base import (
    NO_CHANGE,
    Change,
    Claim,
    ClaimRefused,
    CounterRecord,
    IdempotencyRecord,
    SessionDump,
    Storage,
)
from cra.storage.memory import MemoryStorage
from cra.testing._contract import Contract
from cra.testing.writer import (
    BIG,
    START_US,
    TEXT,
    Writer,
    approval,
    budget,
    new_id,
    purging,
    rate,
    resolution,
    taking,
    together,
)


class MovingContract(Contract):
    """What a store promises about giving sessions away and taking them."""

    def test_a_session_moves_whole_to_any_store_and_back(self, store: Storage) -> None:
        writer = _worked(store)
        dump = _read(store.dump(writer.session_id))
        assert dump.events == [bytes(writer.acknowledged)]
        places: list[Storage] = [MemoryStorage(), store.of_tenant("two"), MemoryStorage(), store.of_tenant("three")]
        for place in places:
            place.restore(dump)
            moved = _read(place.dump(writer.session_id))
            assert moved == dump
            assert place.load(writer.session_id) == store.load(writer.session_id)
            assert place.events(writer.session_id, 3, 2) == store.events(writer.session_id, 3, 2)
            dump = moved
        for place in places:
            _works_on(place, writer, dump)

    def test_an_ended_session_moves_and_is_purged_where_it_came_to(self, store: Storage) -> None:
        writer = _worked(store)
        writer.end(START_US + 7)
        place = store.of_tenant("two")
        place.restore(store.dump(writer.session_id))
        place.restore_counters(store.counters())
        assert [record.ended_us for record in place.ended()] == [START_US + 7]
        key = f"session|{writer.session_id}"
        assert place.peek([budget(50, key, window_us=0)], START_US) == [-1]
        Writer(place).append(purging(writer))
        assert place.ended() == []
        assert place.approvals() == []
        assert place.peek([budget(50, key, window_us=0)], START_US) == [0]
        writer.check()

    def test_a_dump_is_of_one_moment(self, store: Storage) -> None:
        writer = Writer(store)
        for _ in range(100):
            writer.append(Change(request_id=new_id(), actions=1))
        dump = store.dump(writer.session_id)
        before = bytes(writer.acknowledged)
        writer.append(Change(request_id=new_id(), actions=1))
        dump = _read(dump)
        assert dump.events == [before]
        assert (dump.record.action_count, len(dump.requests)) == (100, 100)

    def test_dumps_taken_while_work_goes_on_are_whole(self, store: Storage) -> None:
        writer = Writer(store)

        def work(number: int) -> None:
            if number:
                for count in range(8):
                    dump = store.dump(writer.session_id)
                    assert len(dump.requests) == dump.record.action_count
                    store.of_tenant(f"{number}-{count}").restore(dump)
            else:
                for _ in range(40):
                    writer.append(Change(request_id=new_id(), actions=1))

        together(3, work)
        for name in store.tenants():
            assert store.of_tenant(name).load(writer.session_id)[1].sequence > 0

    def test_lines_are_taken_in_pieces_of_any_size(self, store: Storage) -> None:
        writer = Writer(store)
        for number in range(40):
            writer.append(NO_CHANGE, *["action.requested"] * (number % 5 + 1), text="x" * (number * 97))
        writer.append(NO_CHANGE, text="x" * 200_000)
        writer.append()
        lines = bytes(writer.acknowledged)
        source, cuts, at = random.Random(5), [], 0  # noqa: S311
        while at < len(lines):
            size = source.choice((1, 7, 100, 5_000, 70_000))
            cuts.append(lines[at : at + size])
            at += size
        for pieces in (cuts, [lines], lines.splitlines(keepends=True)):
            place = store.of_tenant(new_id())
            place.restore(store.dump(writer.session_id)._replace(events=iter(pieces)))
            assert place.events(writer.session_id) == lines
            for first in (0, 1, 17, 60, 118):
                assert place.events(writer.session_id, first, 3) == store.events(writer.session_id, first, 3)
            writer.reload(place)
            writer.append()
            writer.reload(store)

    def test_what_does_not_verify_is_not_taken(self, store: Storage) -> None:
        writer = _worked(store)
        dump, place = _read(store.dump(writer.session_id)), store.of_tenant("two")
        (lines,) = dump.events
        each = lines.splitlines(keepends=True)
        other = Writer(store)
        for broken in (
            [],
            [lines[:-1]],
            [lines.replace(b'"number":0', b'"number":1', 1)],
            [*each[:2], *each[3:]],
            [*each[1:]],
            [lines, b"{}\n"],
            [bytes(other.acknowledged)],
            [lines, each[-1]],
        ):
            with pytest.raises(InvalidTrace):
                place.restore(dump._replace(events=broken))
        for record in (
            structs.replace(dump.record, session_id=new_id()),
            structs.replace(dump.record, trace_id=new_id()),
        ):
            with pytest.raises(InvalidTrace):
                place.restore(dump._replace(record=record))
        with pytest.raises(InvalidTrace):
            place.restore(dump._replace(approvals=(approval(new_id()),)))
        assert place.sessions() == []
        assert place.approvals() == []
        place.restore(dump)

    def test_a_session_that_is_there_is_not_taken_again(self, store: Storage) -> None:
        writer = _worked(store)
        dump = _read(store.dump(writer.session_id))
        with pytest.raises(SessionExists):
            store.restore(dump)
        writer.check()
        place = store.of_tenant("two")
        assert together(4, lambda _: _restored(place, dump)).count(True) == 1
        # One whose approval's id is taken adds nothing either.
        other = Writer(store.of_tenant("four"))
        other.append(Change(approval=structs.replace(dump.approvals[0], session_id=other.session_id)))
        with pytest.raises(StorageError, match="exists already"):
            place.restore(other.store.dump(other.session_id))
        with pytest.raises(SessionNotFound):
            place.load(other.session_id)

    def test_only_the_newest_resolutions_move(self, store: Storage) -> None:
        writer = Writer(store)
        records = [resolution(number) for number in range(70)]
        for record in records:
            writer.append(Change(resolution=record))
        dump = _read(store.dump(writer.session_id))
        assert list(dump.resolutions) == records[-64:]
        place = store.of_tenant("two")
        place.restore(dump._replace(resolutions=tuple(records)))
        writer.reload(place)
        newest = resolution(70)
        writer.append(Change(resolution=newest))
        kept = _read(place.dump(writer.session_id)).resolutions
        assert list(kept) == [*records[-63:], newest]

    # Counters

    def test_counters_keep_their_room_wherever_they_move(self, store: Storage) -> None:
        writer, source = Writer(store), random.Random(11)  # noqa: S311
        now_us = START_US
        wanted = [rate("r", 5, 40), budget(30, "b", 100, 70), budget(1, "forever", 10**6, 0), rate("one", 1, 10**12)]
        for _ in range(120):
            now_us += source.randrange(12)
            for claim in source.sample(wanted, 2):
                with suppress(ClaimRefused):
                    writer.append(taking(claim, at_us=now_us))
        records = {record.key: record for record in store.counters()}
        assert set(records) == {claim.key for claim in wanted}
        there = store.of_tenant("two")
        memory = MemoryStorage()
        for place in (memory, there):
            place.restore_counters(store.counters())
        back = store.of_tenant("three")
        back.restore_counters(memory.counters())
        for place in (memory, there, back):
            for later in (0, 1, 10, 35, 40, 69, 71, 10**6, 10**13):
                for cost in (1, 40, 100):
                    claims = [claim._replace(cost=cost) if not claim.rate else claim for claim in wanted]
                    assert place.peek(claims, now_us + later) == store.peek(claims, now_us + later)
        # Room is taken from each as from the one it came from.
        taken = [_takes(place, wanted[0], now_us) for place in (store, memory, there, back)]
        assert taken[1:] == taken[:1] * 3

    def test_a_counter_that_is_there_keeps_what_leaves_less_room(self, store: Storage) -> None:
        writer, source = Writer(store), random.Random(13)  # noqa: S311
        for turn in range(12):
            calls, spending = rate(f"r{turn}", 4, 50), budget(10, f"b{turn}", 100, 60)
            one, two = [
                _counted(calls, spending, [START_US + source.randrange(80) for _ in range(source.randrange(9))])
                for _ in range(2)
            ]
            store.restore_counters(iter(one))
            store.restore_counters(iter(two))
            store.restore_counters(iter(two))
            apart = [MemoryStorage(), MemoryStorage()]
            apart[0].restore_counters(one)
            apart[1].restore_counters(two)
            for later in range(80, 200, 7):
                for claim in (calls, spending, spending._replace(cost=70)):
                    (wait,) = store.peek([claim], START_US + later)
                    assert wait >= max(place.peek([claim], START_US + later)[0] for place in apart)
        writer.check()

    def test_a_store_that_takes_events_says_so(self, store: Storage) -> None:
        writer = Writer(store)
        store.probe()
        store.of_tenant("two").probe()
        writer.check()
        assert store.tenants() == ["default"]

    def test_a_closed_durable_store_fails_its_probe(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.close()
        if store.durability != "none":
            with pytest.raises(StorageError):
                store.probe()


def _worked(store: Storage) -> Writer:
    """Return a session with something of every kind in it."""
    writer = Writer(store, TEXT, context={"n": BIG, TEXT: [1]}, metadata={"b": [None]})
    for number in range(5):
        writer.append(
            Change(request_id=new_id(), resolution=resolution(number, context={"big": BIG}), actions=1),
            *["carp.request.received"] * (number + 1),
            text=TEXT,
            big=BIG,
        )
    writer.append(Change(idempotency=IdempotencyRecord(key="begun", call="ticket.get:00")))
    writer.append(Change(idempotency=IdempotencyRecord(key=TEXT, call="c", response=b"\x00\xff")))
    for status in ("pending", "granted"):
        writer.append(Change(approval=approval(writer.session_id, status=status, approver="ann")))
    writer.append(taking(budget(60, f"session|{writer.session_id}", window_us=0)))
    return writer


def _read(dump: SessionDump) -> SessionDump:
    """Return a dump that can be taken more than once, and compared."""
    return dump._replace(
        events=[b"".join(dump.events)],
        requests=tuple(sorted(dump.requests)),
        idempotency=tuple(sorted(dump.idempotency, key=lambda record: record.key)),
    )


def _works_on(place: Storage, writer: Writer, dump: SessionDump) -> None:
    """Assert that everything which bound the session binds it where it came to."""
    moved = Writer.__new__(Writer)
    moved.__dict__.update(writer.__dict__)
    moved.acknowledged = bytearray(writer.acknowledged)
    moved.reload(place)
    moved.check()
    for request_id in dump.requests:
        with pytest.raises(DuplicateRequest):
            place.append(moved.session_id, moved.chain.head, moved.batch(), Change(request_id=request_id))
    with pytest.raises(StaleHead):
        place.append(moved.session_id, "a" * 64, moved.batch(), NO_CHANGE)
    for record in dump.idempotency:
        assert place.idempotency(moved.session_id, record.key) == record
    for asked in dump.approvals:
        assert place.approval(asked.approval_id) == asked
        assert asked in place.approvals(session_id=asked.session_id, parameters_hash=asked.parameters_hash)
        assert asked in place.approvals(agent_id=asked.agent_id, status=asked.status)
    pending = [asked.expires_us for asked in dump.approvals if asked.status == "pending"]
    assert place.waiting(moved.session_id, START_US) == sum(expires_us > START_US for expires_us in pending)
    assert place.latest_resolution(moved.session_id, None, START_US) == dump.resolutions[-1]
    used = structs.replace(dump.approvals[1], status="used")
    moved.append(Change(approval=used, resolution=resolution(9), request_id=new_id(), actions=1))
    assert place.approvals(session_id=moved.session_id) == [dump.approvals[0], used]
    assert place.load(moved.session_id)[0].action_count == dump.record.action_count + 1
    moved.check()


def _restored(place: Storage, dump: SessionDump) -> bool:
    try:
        place.restore(dump)
    except SessionExists:
        return False
    return True


def _takes(place: Storage, claim: Claim, now_us: int) -> list[int]:
    """Return what each of some calls waits for, 0 for those that have room."""
    writer, waits = Writer(place), []
    for step in range(30):
        try:
            writer.append(taking(claim, at_us=now_us + 9 * step))
            waits.append(0)
        except ClaimRefused as refused:
            waits.append(refused.wait_us)
    return waits


def _counted(calls: Claim, spending: Claim, times: list[int]) -> list[CounterRecord]:
    """Return what two counters have counted after calls at some times."""
    window, money = RateWindow(calls.amount, calls.window_us), BudgetWindow(spending.amount, spending.window_us)
    for at_us in sorted(times):
        window.take(at_us)
        money.take(spending.cost, at_us)
    kept = window.calls()
    spent, since_us, newest_us = money.state()
    return [
        CounterRecord(
            key=calls.key,
            rate=True,
            amount=calls.amount,
            window_us=calls.window_us,
            newest_us=kept[-1] if kept else 0,
            calls_us=kept,
        ),
        CounterRecord(
            key=spending.key,
            rate=False,
            amount=spending.amount,
            window_us=spending.window_us,
            newest_us=newest_us,
            spent=spent,
            since_us=since_us,
        ),
    ]
