"""The storage contract of purging: whole ended sessions go, as they were seen, or nothing does."""

from __future__ import annotations

import pytest

from cra.errors import SessionError, SessionNotFound, StaleHead
from cra.protocol.trace import GENESIS_HASH
from cra.storage.base import NO_CHANGE, Change, DocumentWrite, IdempotencyRecord, Removal, Storage
from cra.testing._contract import Contract
from cra.testing.writer import (
    BIG,
    SECOND,
    START_US,
    Writer,
    approval,
    budget,
    new_id,
    purging,
    rate,
    resolution,
    together,
)


class PurgeContract(Contract):
    """What is promised about removing sessions; a part of `StorageContract`."""

    def test_sessions_are_purged_with_everything_they_have(self, store: Storage) -> None:
        admin, other = Writer(store), Writer(store)
        gone = [Writer(store) for _ in range(3)]
        for writer in gone:
            writer.append(_full(writer.session_id))
            writer.end()
        other.append(_full(other.session_id))
        admin.append(purging(*gone, gone[0]), "session.purged")
        for writer in gone:
            for read in (store.load, store.events, store.dump):
                with pytest.raises(SessionNotFound):
                    read(writer.session_id)
            assert store.peek([budget(100, f"session|{writer.session_id}", window_us=0)], START_US) == [0]
            with pytest.raises((SessionNotFound, StaleHead)):
                store.append(writer.session_id, writer.chain.head, writer.batch(), NO_CHANGE)
            with pytest.raises(SessionNotFound):
                store.append(admin.session_id, admin.chain.head, admin.batch(), purging(writer))
        assert [record.session_id for record in store.approvals()] == [other.session_id]
        assert {record.session_id for record in store.sessions()} == {admin.session_id, other.session_id}
        assert store.ended() == []
        for writer in (admin, other):
            writer.append()
            writer.check()

    def test_a_purge_is_whole_or_not_at_all(self, store: Storage) -> None:
        admin, active, ended = Writer(store), Writer(store), Writer(store)
        ended.append(_full(ended.session_id))
        ended.end()
        late = Writer(store)
        late.end()
        moved = _removal(late)
        late.append()
        for kept, error in (
            (_removal(active), SessionError),
            (_removal(admin), SessionError),
            (Removal(new_id(), GENESIS_HASH), SessionNotFound),
            (moved, StaleHead),
        ):
            for purged in ((_removal(ended), kept), (kept, _removal(ended))):
                change = Change(purge=purged, actions=1, documents=(DocumentWrite("role", "a", b""),))
                with pytest.raises(error):
                    store.append(admin.session_id, admin.chain.head, admin.batch(), change)
        for writer in (admin, active, ended, late):
            writer.check()
        assert store.load(admin.session_id)[0].action_count == 0
        assert store.revision("role") == 0
        assert len(store.approvals()) == 1

    def test_a_session_that_has_grown_is_not_purged_as_what_it_was(self, store: Storage) -> None:
        admin, ended = Writer(store), Writer(store)
        ended.end()
        seen = purging(ended)
        ended.append()
        with pytest.raises(StaleHead, match=ended.session_id):
            store.append(admin.session_id, admin.chain.head, admin.batch("session.purged"), seen)
        for writer in (admin, ended):
            writer.check()
        admin.append(purging(ended), "session.purged")
        with pytest.raises(SessionNotFound):
            store.load(ended.session_id)

    def test_a_purged_id_begins_anew(self, store: Storage) -> None:
        writer = Writer(store)
        request_id = new_id()
        writer.append(Change(request_id=request_id, actions=3, resolution=resolution()))
        writer.end()
        Writer(store).append(purging(writer))
        again = Writer(store, session_id=writer.session_id)
        assert store.latest_resolution(writer.session_id, None, START_US) is None
        again.append(Change(request_id=request_id))
        again.check()
        assert store.load(again.session_id)[0].action_count == 0

    def test_appends_that_race_with_a_purge_land_before_it_or_not_at_all(self, store: Storage) -> None:
        for _ in range(5):
            admin, ended = Writer(store), Writer(store)
            ended.end()

            def work(number: int, admin: Writer = admin, ended: Writer = ended) -> bool:
                try:
                    if number:
                        batch = ended.batch(number=number)
                        store.append(ended.session_id, ended.chain.head, batch, NO_CHANGE)
                    else:
                        _purge(admin, ended.session_id)
                except (StaleHead, SessionNotFound):
                    return False
                return True

            done = together(4, work)
            assert done[0]
            assert sum(done[1:]) <= 1
            with pytest.raises(SessionNotFound):
                store.load(ended.session_id)


def _full(session_id: str) -> Change:
    """Return a change that leaves something of every kind."""
    return Change(
        request_id=new_id(),
        resolution=resolution(),
        idempotency=IdempotencyRecord(key="key", call="call", response=b"{}"),
        approval=approval(session_id, parameters={"n": BIG}),
        claims=(budget(60, f"session|{session_id}", window_us=0), rate("shared", 100, SECOND)),
        claims_at_us=START_US,
        actions=2,
    )


def _removal(writer: Writer) -> Removal:
    return purging(writer).purge[0]


def _purge(admin: Writer, session_id: str) -> None:
    """Remove a session, however often its chain grows meanwhile."""
    while True:
        head = admin.store.load(session_id)[1].hash
        try:
            admin.append(Change(purge=(Removal(session_id, head),)))
        except StaleHead:
            continue
        return
