"""StorageContract: the tests that every store has to pass."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from msgspec import structs

from cra._core.chain import EventBatch
from cra._core.windows import BudgetWindow, RateWindow
from cra.errors import DuplicateRequest, SessionExists, SessionNotFound, StaleHead, StorageError
from cra.storage.base import NO_CHANGE, Change, ClaimRefused, IdempotencyRecord, Storage
from cra.testing._faults import FaultContract
from cra.testing._moving import MovingContract
from cra.testing._purging import PurgeContract
from cra.testing._tenants import TenantContract
from cra.testing.writer import (
    BIG,
    SECOND,
    START_US,
    TEXT,
    Writer,
    approval,
    budget,
    new_id,
    rate,
    resolution,
    taking,
    together,
)


class StorageContract(TenantContract, PurgeContract, MovingContract, FaultContract):
    """What every store promises. Inherit it in a test class and define `open`.

    class TestMyStorage(StorageContract):
        def open(self, directory: Path) -> Storage:
            return MyStorage(directory / "events")
    """

    # Events

    def test_stored_bytes_are_the_hashed_bytes(self, store: Storage) -> None:
        writer = Writer(store)
        for count in (1, 7, 1, 3):
            writer.append(NO_CHANGE, *["action.requested"] * count, text=TEXT, big=BIG)
        writer.check()

    def test_any_part_of_a_trace_can_be_read(self, store: Storage) -> None:
        writer = Writer(store)
        for count in (3, 1, 4):
            writer.append(NO_CHANGE, *["action.requested"] * count)
        lines = writer.acknowledged.splitlines(keepends=True)
        for first in range(len(lines) + 2):
            assert store.events(writer.session_id, first) == b"".join(lines[first:])
            for count in range(len(lines) + 2):
                assert store.events(writer.session_id, first, count) == b"".join(lines[first : first + count])

    def test_a_large_event_comes_back_whole(self, store: Storage) -> None:
        writer = Writer(store)
        writer.append(NO_CHANGE, text="x" * 2_000_000)
        writer.check()

    def test_a_stale_head_is_refused_and_nothing_is_written(self, store: Storage) -> None:
        writer = Writer(store)
        head, batch = writer.chain.head, writer.batch(text="late")
        writer.append()
        with pytest.raises(StaleHead):
            store.append(writer.session_id, head, batch, Change(request_id=new_id(), actions=1))
        writer.check()
        assert store.load(writer.session_id)[0].action_count == 0

    def test_a_head_that_never_was_is_refused(self, store: Storage) -> None:
        writer = Writer(store)
        batch = writer.batch()
        with pytest.raises(StaleHead):
            store.append(writer.session_id, "f" * 64, batch, NO_CHANGE)
        writer.check()

    def test_of_writers_that_race_for_a_head_one_wins(self, store: Storage) -> None:
        writer = Writer(store)
        for _ in range(10):
            head = writer.chain.head
            batches = [writer.batch(racer=number) for number in range(self.threads)]

            def race(number: int, head: str = head, batches: list[EventBatch] = batches) -> bool:
                try:
                    store.append(writer.session_id, head, batches[number], NO_CHANGE)
                except StaleHead:
                    return False
                return True

            won = together(self.threads, race)
            assert won.count(True) == 1
            winner = batches[won.index(True)]
            writer.chain.advance(winner)
            writer.acknowledged += winner.data
        writer.check()

    def test_an_unknown_session_is_not_found(self, store: Storage) -> None:
        unknown = new_id()
        for read in (store.load, store.events):
            with pytest.raises(SessionNotFound):
                read(unknown)
        for read_one in (store.resolution, store.idempotency):
            with pytest.raises(SessionNotFound):
                read_one(unknown, new_id())
        with pytest.raises(SessionNotFound):
            store.latest_resolution(unknown, None, START_US)
        with pytest.raises(SessionNotFound):
            store.approvals(session_id=unknown)
        with pytest.raises(SessionNotFound):
            store.waiting(unknown, START_US)
        writer = Writer(store)
        with pytest.raises(SessionNotFound):
            store.append(unknown, writer.chain.head, writer.batch(), NO_CHANGE)

    def test_a_session_is_created_once(self, store: Storage) -> None:
        first = Writer(store)
        with pytest.raises(SessionExists):
            Writer(store, "agent-2", first.session_id)
        first.check()
        assert store.load(first.session_id)[0] == first.record

    def test_of_creators_that_race_for_an_id_one_wins(self, store: Storage) -> None:
        session_id = new_id()

        def create(number: int) -> Writer | None:
            try:
                return Writer(store, f"agent-{number}", session_id)
            except SessionExists:
                return None

        (winner,) = [writer for writer in together(self.threads, create) if writer is not None]
        winner.check()
        assert store.load(session_id)[0].agent_id == winner.record.agent_id

    def test_threads_on_their_own_sessions_leave_dense_chains(self, store: Storage) -> None:
        def work(number: int) -> Writer:
            writer = Writer(store, f"agent-{number}")
            for count in range(1, 12):
                writer.append(Change(request_id=new_id(), actions=1), *["action.requested"] * (count % 4 + 1))
            return writer

        for writer in together(self.threads, work):
            writer.check()
            assert store.load(writer.session_id)[0].action_count == 11

    # State

    def test_records_come_back_as_they_were(self, store: Storage) -> None:
        writer = Writer(
            store,
            TEXT,
            parent_session_id=new_id(),
            context={"n": BIG, TEXT: [1.5, None, True]},
            metadata={"b": -BIG},
        )
        assert store.load(writer.session_id)[0] == writer.record
        kept = resolution(goal=TEXT, context={"big": BIG, "list": [{}, [TEXT]]})
        writer.append(Change(resolution=kept))
        assert store.resolution(writer.session_id, kept.resolution_id) == kept
        asked = approval(writer.session_id)
        writer.append(Change(approval=asked))
        assert store.approval(asked.approval_id) == asked
        known = IdempotencyRecord(key=TEXT, call="ticket.get:00", response=b"\x00\xff{}")
        writer.append(Change(idempotency=known))
        assert store.idempotency(writer.session_id, TEXT) == known

    def test_actions_are_added_up(self, store: Storage) -> None:
        writer = Writer(store)
        for actions in (1, 0, 2):
            writer.append(Change(actions=actions))
        assert store.load(writer.session_id)[0].action_count == 3

    def test_a_request_id_is_used_once_in_a_session(self, store: Storage) -> None:
        writer, other = Writer(store), Writer(store)
        request_id = new_id()
        writer.append(Change(request_id=request_id))
        batch = writer.batch()
        with pytest.raises(DuplicateRequest):
            store.append(writer.session_id, writer.chain.head, batch, Change(request_id=request_id, actions=1))
        writer.check()
        assert store.load(writer.session_id)[0].action_count == 0
        other.append(Change(request_id=request_id))
        other.check()

    def test_the_newest_resolution_that_offers_an_action_is_found(self, store: Storage) -> None:
        writer = Writer(store)
        old, get, create, gone = (
            resolution(0),
            resolution(1),
            resolution(2, offered=frozenset({"ticket.create"})),
            resolution(3, expires_us=START_US),
        )
        assert store.latest_resolution(writer.session_id, None, START_US) is None
        for record in (old, get, create, gone):
            writer.append(Change(resolution=record))
        latest = store.latest_resolution
        assert latest(writer.session_id, "ticket.get", START_US) == get
        assert latest(writer.session_id, "ticket.create", START_US) == create
        assert latest(writer.session_id, None, START_US) == create
        assert latest(writer.session_id, "ticket.delete", START_US) is None
        assert latest(writer.session_id, None, START_US - 1) == gone
        assert latest(writer.session_id, None, get.expires_us) is None
        assert store.resolution(writer.session_id, gone.resolution_id) == gone
        assert store.resolution(Writer(store).session_id, get.resolution_id) is None

    def test_the_newest_resolutions_are_kept(self, store: Storage) -> None:
        writer = Writer(store)
        records = [resolution(number) for number in range(70)]
        for record in records:
            writer.append(Change(resolution=record))
        for record in records[-64:]:
            assert store.resolution(writer.session_id, record.resolution_id) == record

    def test_an_idempotency_key_gets_its_response_later(self, store: Storage) -> None:
        writer = Writer(store)
        assert store.idempotency(writer.session_id, "key") is None
        begun = IdempotencyRecord(key="key", call="ticket.get:00")
        writer.append(Change(idempotency=begun))
        assert store.idempotency(writer.session_id, "key") == begun
        done = structs.replace(begun, response=b"{}")
        writer.append(Change(idempotency=done))
        assert store.idempotency(writer.session_id, "key") == done
        assert store.idempotency(Writer(store).session_id, "key") is None

    def test_approvals_are_listed_oldest_first(self, store: Storage) -> None:
        one, two = Writer(store), Writer(store)
        asked = []
        for number in range(6):
            writer = (one, two)[number % 2]
            asked.append(approval(writer.session_id, requested_us=START_US + number))
            writer.append(Change(approval=asked[-1]))
        asked[0] = structs.replace(asked[0], status="granted", approver="ann", reason="fine", parameters=None)
        one.append(Change(approval=asked[0]))
        assert store.approvals() == asked
        assert store.approvals(session_id=one.session_id) == asked[::2]
        assert store.approvals(status="pending") == asked[1:]
        assert store.approvals(session_id=one.session_id, status="granted") == asked[:1]
        assert store.approval(new_id()) is None

    def test_sessions_are_listed_in_the_order_of_their_ids(self, store: Storage) -> None:
        writers = [Writer(store, f"agent-{number % 2}") for number in range(7)]
        writers[3].end()
        listed = [record.session_id for record in store.sessions()]
        assert listed == sorted(writer.session_id for writer in writers)
        pages = []
        after: str | None = None
        while page := store.sessions(after=after, limit=2):
            pages += [record.session_id for record in page]
            after = pages[-1]
        assert pages == listed
        assert {record.session_id for record in store.sessions(agent_id="agent-1")} == {
            writer.session_id for writer in writers[1::2]
        }
        (ended,) = store.sessions(status="ended")
        assert (ended.session_id, ended.end_reason) == (writers[3].session_id, "completed")
        assert len(store.sessions(status="active", agent_id="agent-0")) == 4
        assert store.sessions(limit=0) == []

    # Limits

    def test_a_rate_limit_is_exact_at_its_boundary(self, store: Storage) -> None:
        writer = Writer(store)
        for number in range(3):
            writer.append(taking(rate(), at_us=START_US + number))
        assert store.peek([rate()], START_US + 2) == [60 * SECOND - 2]
        last = START_US + 60 * SECOND
        with pytest.raises(ClaimRefused) as refused:
            store.append(writer.session_id, writer.chain.head, writer.batch(), taking(rate(), at_us=last - 1))
        assert refused.value.wait_us == 1
        assert refused.value.claim == rate()
        writer.check()
        writer.append(taking(rate(), at_us=last))
        assert store.peek([rate()], last) == [1]

    def test_a_budget_is_exact(self, store: Storage) -> None:
        writer = Writer(store)
        writer.append(taking(budget(60)))
        assert store.peek([budget(40), budget(41), budget(101)], START_US) == [0, 60 * SECOND, -1]
        writer.append(taking(budget(40), at_us=START_US + 1))
        assert store.peek([budget(1), budget(0)], START_US + 1) == [60 * SECOND - 1, 0]
        writer.append(taking(budget(100), at_us=START_US + 60 * SECOND))

    def test_a_budget_without_a_window_never_resets(self, store: Storage) -> None:
        writer = Writer(store)
        key = f"session|{writer.session_id}"
        writer.append(taking(budget(60, key, window_us=0)))
        assert store.peek([budget(41, key, window_us=0)], START_US + 10**15) == [-1]
        assert store.peek([budget(40, key, window_us=0)], START_US + 10**15) == [0]

    def test_amounts_of_any_size_are_counted_or_refused(self, store: Storage) -> None:
        writer = Writer(store)
        assert store.peek([budget(10**30, "b", 10**29)], START_US) == [-1]
        with pytest.raises(ClaimRefused):
            store.append(writer.session_id, writer.chain.head, writer.batch(), taking(budget(10**30, "b", 10**29)))
        writer.append(taking(budget(10**18, "c", 10**40)))
        assert store.peek([budget(10**30, "c", 10**40), budget(10**18, "c", 10**40)], START_US) == [-1, 0]
        writer.check()

    def test_windows_count_as_the_core_does(self, store: Storage) -> None:
        writer, source = Writer(store), random.Random(7)  # noqa: S311
        calls, spending = RateWindow(5, 40), BudgetWindow(100, 70)
        now_us = START_US
        for _ in range(150):
            # Back as well: a time before the newest one counts as that.
            now_us += source.randrange(-4, 14)
            one, two = rate("r", 5, 40), budget(source.randrange(60), "s", 100, 70)
            expected = [calls.peek(now_us), spending.peek(two.cost, now_us)]
            assert store.peek([one, two], now_us) == expected
            if source.random() < 0.5:
                change = taking(*[one, two][:: source.choice((1, -1))], at_us=now_us)
                if expected == [0, 0]:
                    writer.append(change)
                    assert calls.take(now_us)
                    assert spending.take(two.cost, now_us)
                else:
                    with pytest.raises(ClaimRefused):
                        store.append(writer.session_id, writer.chain.head, writer.batch(), change)
        writer.check()

    def test_claims_are_taken_all_or_none(self, store: Storage) -> None:
        writer = Writer(store)
        full, free = rate("full", 1), rate("free", 1)
        writer.append(taking(full))
        request_id = new_id()
        for claims in ((free, full), (full, free)):
            change = structs.replace(taking(*claims), request_id=request_id, actions=1)
            with pytest.raises(ClaimRefused) as refused:
                store.append(writer.session_id, writer.chain.head, writer.batch(), change)
            assert refused.value.claim == full
        assert store.peek([free], START_US) == [0]
        writer.check()
        assert store.load(writer.session_id)[0].action_count == 0
        writer.append(Change(request_id=request_id))

    def test_a_stale_head_takes_nothing(self, store: Storage) -> None:
        writer = Writer(store)
        with pytest.raises(StaleHead):
            store.append(writer.session_id, "e" * 64, writer.batch(), taking(rate("r", 1)))
        assert store.peek([rate("r", 1)], START_US) == [0]

    def test_peeking_takes_nothing(self, store: Storage) -> None:
        for _ in range(5):
            assert store.peek([rate("r", 1), budget(100, "b")], START_US) == [0, 0]

    def test_limits_are_never_exceeded_by_threads(self, store: Storage) -> None:
        claims = (rate("calls", 20), budget(7, "money", 100), rate("many", 1000))

        def work(number: int) -> int:
            writer, taken = Writer(store, f"agent-{number}"), 0
            for attempt in range(4):
                wanted = claims if (number + attempt) % 2 else claims[::-1]
                try:
                    writer.append(taking(*wanted))
                    taken += 1
                except ClaimRefused as refused:
                    assert refused.claim.key != "many"
            writer.check()
            return taken

        taken = sum(together(self.threads, work))
        # 14 times 7 is 98: the budget is what stops them, exactly.
        assert taken == min(14, 4 * self.threads)
        assert store.peek([budget(3, "money", 100), budget(2, "money", 100)], START_US) == [60 * SECOND, 0]

    # Opening and closing

    def test_a_durable_store_goes_on_where_it_was(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        if store.durability == "none":
            store.close()
            pytest.skip("the store ends with its process")
        writer, kept, request_id = Writer(store), resolution(), new_id()
        writer.append(Change(resolution=kept, request_id=request_id, claims=(rate("r", 1),), claims_at_us=START_US))
        store.close()
        store = self.open(tmp_path)
        try:
            writer.reload(store)
            writer.check()
            assert store.latest_resolution(writer.session_id, "ticket.get", START_US) == kept
            assert store.peek([rate("r", 1)], START_US) == [60 * SECOND]
            with pytest.raises(DuplicateRequest):
                store.append(writer.session_id, writer.chain.head, writer.batch(), Change(request_id=request_id))
            writer.append()
            writer.check()
        finally:
            store.close()

    def test_closing_twice_is_fine(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        Writer(store)
        store.close()
        store.close()

    def test_a_store_says_what_it_promises(self, store: Storage) -> None:
        assert store.durability in ("none", "batched", "strict")
        assert store.name
        assert isinstance(store.blocking, bool)

    def test_a_closed_durable_store_refuses(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        writer = Writer(store)
        store.close()
        if store.durability == "none":
            return
        with pytest.raises(StorageError):
            writer.append()
        with pytest.raises(StorageError):
            store.load(writer.session_id)
