"""The storage contract of tenants and their administration: documents, catalogs, what has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from cra.errors import (
    ApprovalNotFound,
    ConfigInvalid,
    DuplicateRequest,
    SessionNotFound,
    StaleCatalog,
    StaleHead,
)
from cra.protocol.trace import GENESIS_HASH
from cra.storage.base import (
    DEFAULT_TENANT,
    NO_CHANGE,
    Change,
    ClaimRefused,
    Document,
    DocumentWrite,
    IdempotencyRecord,
    Removal,
    Storage,
)
from cra.testing._contract import Contract
from cra.testing.writer import (
    START_US,
    TEXT,
    Writer,
    approval,
    budget,
    documents,
    new_id,
    purging,
    rate,
    resolution,
    taking,
    together,
)


class TenantContract(Contract):
    """What a store promises about tenants."""

    def test_a_store_opens_as_the_default_tenant_and_names_its_tenants(self, store: Storage) -> None:
        assert store.tenant == DEFAULT_TENANT
        assert store.tenants() == []
        other = store.of_tenant("acme")
        assert (other.tenant, other.name, other.durability, other.blocking) == (
            "acme",
            store.name,
            store.durability,
            store.blocking,
        )
        assert store.tenants() == []
        Writer(other)
        assert store.tenants() == other.tenants() == ["acme"]
        Writer(store)
        Writer(store.of_tenant("system"))
        assert store.tenants() == ["acme", "default", "system"]
        assert other.of_tenant(DEFAULT_TENANT).sessions() == store.sessions()
        for name in ("", "x" * 64):
            with pytest.raises(ConfigInvalid):
                store.of_tenant(name)
        Writer(store.of_tenant("x" * 63))

    def test_a_tenant_with_only_documents_is_one_until_they_are_gone(self, store: Storage) -> None:
        acme = store.of_tenant("acme")
        writer = Writer(acme)
        writer.append(documents(role={"a": b"1"}))
        writer.end()
        Writer(acme).append(purging(writer))
        assert store.tenants() == ["acme"]

    def test_tenants_never_see_each_other(self, store: Storage) -> None:
        one, two = store.of_tenant("one"), store.of_tenant("two")
        session_id, request_id = new_id(), new_id()
        mine, theirs = Writer(one, session_id=session_id), Writer(two, "agent-2", session_id)
        known = IdempotencyRecord(key="key", call="one")
        kept, asked = resolution(1), approval(session_id)
        mine.append(
            Change(
                request_id=request_id,
                resolution=kept,
                idempotency=known,
                approval=asked,
                claims=(rate("r", 1), budget(5, f"s|{session_id}", window_us=0)),
                claims_at_us=START_US,
                actions=3,
                documents=(DocumentWrite("atlas", "a", b"one"),),
            )
        )
        # Everything of one is absent in the other: for reading,
        assert two.resolution(session_id, kept.resolution_id) is None
        assert two.latest_resolution(session_id, None, START_US) is None
        assert two.idempotency(session_id, "key") is None
        assert two.approval(asked.approval_id) is None
        assert two.approvals() == two.approvals(session_id=session_id) == two.approvals(status="pending") == []
        with pytest.raises(ApprovalNotFound):
            two.approvals(after=asked.approval_id)
        assert two.peek([rate("r", 1), budget(100, f"s|{session_id}", window_us=0)], START_US) == [0, 0]
        assert list(two.counters()) == []
        assert two.document("atlas", "a") is None
        assert two.documents("atlas") == []
        assert two.revision("atlas") == 0
        assert two.load(session_id)[0].action_count == 0
        assert [record.agent_id for record in two.sessions()] == ["agent-2"]
        theirs.check()
        # and for writing: the same ids, counters and names are free.
        theirs.append(
            Change(
                request_id=request_id,
                approval=structs.replace(asked, agent_id="agent-2"),
                claims=(rate("r", 1),),
                claims_at_us=START_US,
                documents=(DocumentWrite("atlas", "a", b"two"),),
                catalog=0,
            )
        )
        assert one.approval(asked.approval_id) == asked
        assert one.document("atlas", "a") == Document("atlas", "a", 1, b"one")
        assert two.document("atlas", "a") == Document("atlas", "a", 1, b"two")
        # A head of one is worth nothing in the other.
        with pytest.raises(StaleHead):
            two.append(session_id, mine.chain.head, mine.batch(), NO_CHANGE)
        mine.check()
        theirs.check()

    def test_what_only_another_tenant_has_is_not_found(self, store: Storage) -> None:
        hidden = Writer(store.of_tenant("one"))
        hidden.end()
        two = store.of_tenant("two")
        for read in (two.load, two.events, two.dump):
            with pytest.raises(SessionNotFound):
                read(hidden.session_id)
        with pytest.raises(SessionNotFound):
            two.ended(after=hidden.session_id)
        with pytest.raises(SessionNotFound):
            two.append(hidden.session_id, hidden.chain.head, hidden.batch(), NO_CHANGE)
        writer = Writer(two)
        with pytest.raises(SessionNotFound):
            store.of_tenant("two").append(writer.session_id, writer.chain.head, writer.batch(), purging(hidden))
        hidden.check()
        writer.check()
        assert (two.ended(), two.ended_count()) == ([], 0)

    def test_purging_in_one_tenant_leaves_the_same_session_of_another(self, store: Storage) -> None:
        one, two = store.of_tenant("one"), store.of_tenant("two")
        session_id = new_id()
        writers = [Writer(part, session_id=session_id) for part in (one, two)]
        key = f"s|{session_id}"
        for writer in writers:
            writer.append(taking(budget(60, key, window_us=0)))
            writer.append(Change(approval=approval(session_id), request_id=new_id()))
            writer.end()
        Writer(one).append(purging(writers[0]))
        with pytest.raises(SessionNotFound):
            one.load(session_id)
        writers[1].check()
        assert len(two.approvals()) == 1
        assert one.peek([budget(50, key, window_us=0)], START_US) == [0]
        assert two.peek([budget(50, key, window_us=0)], START_US) == [-1]

    def test_pages_of_one_tenant_skip_the_others(self, store: Storage) -> None:
        parts = [store.of_tenant(name) for name in ("one", "two")]
        ids: list[list[str]] = [[], []]
        asked: list[list[str]] = [[], []]
        for number in range(10):
            which = number % 2
            writer = Writer(parts[which])
            record = approval(writer.session_id)
            writer.append(Change(approval=record))
            writer.end(START_US + number)
            ids[which].append(writer.session_id)
            asked[which].append(record.approval_id)
        for part, mine, wanted in zip(parts, ids, asked, strict=True):
            assert _paged(part.sessions, "session_id", 2) == sorted(mine)
            assert _paged(part.ended, "session_id", 2) == mine
            assert _paged(part.approvals, "approval_id", 2) == wanted
            assert part.ended_count() == 5

    def test_tenants_survive_with_their_store(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        if store.durability == "none":
            store.close()
            pytest.skip("the store ends with its process")
        writer = Writer(store.of_tenant("acme"))
        writer.append(documents(atlas={"a": b"1"}))
        # Closing a tenant's part leaves the store open.
        store.of_tenant("acme").close()
        writer.append()
        store.close()
        store = self.open(tmp_path)
        try:
            assert store.tenants() == ["acme"]
            acme = store.of_tenant("acme")
            assert acme.document("atlas", "a") == Document("atlas", "a", 1, b"1")
            writer.reload(acme)
            writer.check()
        finally:
            store.close()

    # Documents

    def test_documents_are_put_replaced_and_removed(self, store: Storage) -> None:
        writer = Writer(store)
        assert store.document("atlas", "a") is None
        assert store.revision("atlas") == 0
        body = b"\x00\xff" + TEXT.encode()
        writer.append(documents(atlas={"b": b"", "a": body}))
        assert store.documents("atlas") == [Document("atlas", "b", 1, b""), Document("atlas", "a", 1, body)]
        writer.append(documents(atlas={"b": b"new", TEXT: b"3"}, role={"a": b"role"}))
        assert store.documents("atlas") == [
            Document("atlas", "b", 2, b"new"),
            Document("atlas", "a", 1, body),
            Document("atlas", TEXT, 2, b"3"),
        ]
        assert store.documents("role") == [Document("role", "a", 1, b"role")]
        writer.append(documents(atlas={"b": None, "never": None}))
        assert store.document("atlas", "b") is None
        writer.append(documents(atlas={"b": b"again"}))
        assert [document.name for document in store.documents("atlas")] == ["a", TEXT, "b"]
        assert (store.revision("atlas"), store.revision("role"), store.revision("key")) == (4, 1, 0)
        writer.check()

    def test_of_two_writes_of_one_document_the_later_counts(self, store: Storage) -> None:
        writer = Writer(store)
        twice = tuple(DocumentWrite("role", "a", body) for body in (b"1", None, b"2"))
        writer.append(Change(documents=twice))
        assert store.documents("role") == [Document("role", "a", 1, b"2")]

    def test_a_session_can_begin_with_documents(self, store: Storage) -> None:
        writer = Writer(store, begin=documents(atlas={"a": b"1"}))
        assert store.document("atlas", "a") == Document("atlas", "a", 1, b"1")
        writer.check()

    def test_a_large_document_comes_back_whole(self, store: Storage) -> None:
        body = bytes(range(256)) * 20_000
        Writer(store).append(documents(atlas={"a": body}))
        found = store.document("atlas", "a")
        assert found is not None
        assert found.body == body

    def test_a_refused_append_writes_no_document(self, store: Storage) -> None:
        writer = Writer(store)
        request_id = new_id()
        writer.append(structs.replace(taking(rate("full", 1)), request_id=request_id))
        change = documents(role={"a": b"1"})
        for refused, error in (
            (structs.replace(change, request_id=request_id), DuplicateRequest),
            (structs.replace(change, claims=(rate("full", 1),), claims_at_us=START_US), ClaimRefused),
            (structs.replace(change, purge=(Removal(new_id(), GENESIS_HASH),)), SessionNotFound),
            (structs.replace(change, catalog=1), StaleCatalog),
        ):
            with pytest.raises(error):
                store.append(writer.session_id, writer.chain.head, writer.batch(), refused)
        with pytest.raises(StaleHead):
            store.append(writer.session_id, "e" * 64, writer.batch(), change)
        assert (store.documents("role"), store.revision("role")) == ([], 0)
        writer.check()

    def test_a_decision_by_another_catalog_is_refused_and_nothing_is_written(self, store: Storage) -> None:
        admin, writer = Writer(store), Writer(store)
        writer.append(Change(catalog=0, actions=1))
        admin.append(documents(atlas={"a": b"1"}))
        admin.append(documents(role={"a": b"1"}))
        asked, request_id = approval(writer.session_id), new_id()
        for catalog in (0, 2):
            change = Change(
                catalog=catalog,
                request_id=request_id,
                actions=1,
                approval=asked,
                resolution=resolution(),
                idempotency=IdempotencyRecord(key="key", call="call"),
                claims=(rate("r", 1),),
                claims_at_us=START_US,
            )
            with pytest.raises(StaleCatalog):
                store.append(writer.session_id, writer.chain.head, writer.batch(), change)
            assert store.load(writer.session_id)[0].action_count == 1
            assert store.approvals() == []
            assert store.latest_resolution(writer.session_id, None, START_US) is None
            assert store.idempotency(writer.session_id, "key") is None
            assert store.peek([rate("r", 1)], START_US) == [0]
        writer.append(Change(catalog=1, request_id=request_id))
        writer.check()
        # Checked before the documents of the same change are written.
        admin.append(structs.replace(documents(atlas={"a": b"2"}), catalog=1))
        assert store.revision("atlas") == 2
        with pytest.raises(StaleCatalog):
            Writer(store, begin=Change(catalog=1))

    def test_no_decision_by_an_old_catalog_lands_after_the_new_one(self, store: Storage) -> None:
        admin, stop = Writer(store), START_US + 40

        def work(number: int) -> list[tuple[int, int]]:
            seen: list[tuple[int, int]] = []
            if not number:
                for count in range(12):
                    admin.append(documents(atlas={"a": str(count).encode()}))
                return seen
            writer = Writer(store, f"agent-{number}")
            for _ in range(stop - START_US):
                catalog = store.revision("atlas")
                try:
                    writer.append(Change(catalog=catalog))
                    seen.append((catalog, store.revision("atlas")))
                except StaleCatalog:
                    assert store.revision("atlas") > catalog
            writer.check()
            return seen

        for seen in together(4, work):
            assert all(before <= after for before, after in seen)
        assert store.revision("atlas") == 12

    # Listing what has ended

    def test_ended_sessions_are_listed_in_the_order_in_which_they_ended(self, store: Storage) -> None:
        writers = [Writer(store, f"agent-{number}") for number in range(9)]
        times = [5, 3, 3, 9, 1, 3, 7]
        for writer, at in zip(writers, times, strict=False):
            writer.end(START_US + at)
        ended = sorted((START_US + at, writer.session_id) for writer, at in zip(writers, times, strict=False))
        listed = [session_id for _, session_id in ended]
        assert [record.session_id for record in store.ended()] == listed
        assert store.ended_count() == 7
        for limit in (1, 2, 3, 7):
            assert _paged(store.ended, "session_id", limit) == listed
        before = store.ended(before_us=START_US + 5)
        assert [record.session_id for record in before] == [session_id for us, session_id in ended if us < START_US + 5]
        assert store.ended(before_us=START_US + 5, after=listed[3]) == []
        assert [record.session_id for record in store.ended(before_us=START_US + 9, after=listed[3])] == listed[4:6]
        assert store.ended(limit=0) == []
        for absent in (new_id(), writers[-1].session_id):
            with pytest.raises(SessionNotFound):
                store.ended(after=absent)
        Writer(store).append(purging(*[writer for writer in writers if writer.session_id in (listed[0], listed[4])]))
        assert [record.session_id for record in store.ended()] == listed[1:4] + listed[5:]
        assert store.ended_count() == 5
        assert store.ended()[0].end_reason == "completed"

    def test_approvals_come_in_pages(self, store: Storage) -> None:
        one, two = Writer(store), Writer(store)
        asked = []
        for number in range(9):
            writer = (one, two)[number % 2]
            asked.append(approval(writer.session_id, requested_us=START_US + number))
            writer.append(Change(approval=asked[-1]))
        for number in (0, 4, 5):
            asked[number] = structs.replace(asked[number], status="granted", approver="ann")
            (one, two)[number % 2].append(Change(approval=asked[number]))
        ids = [record.approval_id for record in asked]
        assert _paged(store.approvals, "approval_id", 2) == ids
        pending = [record.approval_id for record in asked if record.status == "pending"]
        assert _paged(store.approvals, "approval_id", 2, status="pending") == pending
        assert _paged(store.approvals, "approval_id", 2, session_id=one.session_id) == ids[::2]
        # The page begins after it, whatever has become of it meanwhile.
        assert store.approvals(after=ids[0], status="pending", limit=1) == [asked[1]]
        assert store.approvals(limit=0) == []
        with pytest.raises(ApprovalNotFound):
            store.approvals(after=ids[1], session_id=one.session_id)
        with pytest.raises(ApprovalNotFound):
            store.approvals(after=new_id())

    def test_approvals_are_found_by_agent_and_by_call(self, store: Storage) -> None:
        writers = [Writer(store, agent_id) for agent_id in (TEXT, TEXT, "agent-2")]
        asked = []
        for number in range(24):
            writer = writers[number % 3]
            made = approval(
                writer.session_id,
                agent_id=writer.record.agent_id,
                parameters_hash=f"{number // 3 % 4:064d}",
                requested_us=START_US + number,
            )
            asked.append(made)
            writer.append(Change(approval=made))
        for number in (0, 1, 5, 9):
            asked[number] = structs.replace(asked[number], status="granted", approver="ann", parameters=None)
            writers[number % 3].append(Change(approval=asked[number]))
        for session_id in (None, writers[0].session_id, writers[2].session_id):
            for agent_id in (None, TEXT, "agent-2", "nobody"):
                for parameters_hash in (None, f"{1:064d}", "f" * 64):
                    for status in (None, "pending", "granted"):
                        which: dict[str, Any] = {
                            "session_id": session_id,
                            "agent_id": agent_id,
                            "parameters_hash": parameters_hash,
                            "status": status,
                        }
                        wanted = [
                            record
                            for record in asked
                            if all(value in (None, getattr(record, name)) for name, value in which.items())
                        ]
                        assert store.approvals(**which) == wanted
                        ids = [record.approval_id for record in wanted]
                        assert _paged(store.approvals, "approval_id", 3, **which) == ids
        foreign = asked[2].approval_id
        assert store.approvals(agent_id="agent-2", after=foreign)[0] == asked[5]
        whose: tuple[dict[str, Any], ...] = (
            {"agent_id": TEXT},
            {"parameters_hash": f"{1:064d}"},
            {"session_id": writers[0].session_id},
        )
        for others in whose:
            with pytest.raises(ApprovalNotFound):
                store.approvals(after=foreign, **others)

    def test_what_waits_in_a_session_is_what_is_pending_and_not_expired(self, store: Storage) -> None:
        one, two = Writer(store), Writer(store)
        assert store.waiting(one.session_id, START_US) == 0
        asked = [approval(one.session_id, expires_us=START_US + number) for number in range(6)]
        for made in asked:
            one.append(Change(approval=made))
        two.append(Change(approval=approval(two.session_id)))
        for number, status in ((5, "granted"), (4, "rejected"), (3, "expired")):
            one.append(Change(approval=structs.replace(asked[number], status=status)))
        assert [store.waiting(one.session_id, START_US + late) for late in (-1, 0, 1, 2, 3)] == [3, 2, 1, 0, 0]
        assert store.waiting(two.session_id, START_US) == 1

    def test_what_is_changed_in_an_approval_that_was_read_changes_nothing_stored(self, store: Storage) -> None:
        writer = Writer(store)
        asked = approval(writer.session_id, parameters={"to": ["ann"]})
        writer.append(Change(approval=asked))
        for read in (
            store.approval(asked.approval_id),
            store.approvals()[0],
            store.approvals(session_id=writer.session_id, parameters_hash=asked.parameters_hash)[0],
        ):
            assert read is not None
            assert read.parameters is not None
            read.parameters["to"].append("bob")
        assert store.approval(asked.approval_id) == approval(
            writer.session_id,
            approval_id=asked.approval_id,
            resolution_id=asked.resolution_id,
            parameters={"to": ["ann"]},
        )


def _paged(read: Callable[..., Iterable[Any]], name: str, limit: int, **which: str | None) -> list[str]:
    """Return what all pages have together, each by its field of that name."""
    found: list[str] = []
    after: str | None = None
    while page := [str(getattr(record, name)) for record in read(after=after, limit=limit, **which)]:
        found += page
        after = found[-1]
    return found
