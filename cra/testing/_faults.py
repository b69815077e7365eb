"""The storage contract of failures: what a write leaves that failed before it landed, or after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from cra.errors import SessionExists, SessionNotFound, StaleHead, StorageError
from cra.storage.base import Change, DocumentWrite, IdempotencyRecord, Storage
from cra.testing._contract import Contract
from cra.testing.faults import FaultyStorage
from cra.testing.writer import START_US, Writer, approval, documents, new_id, purging, rate, resolution, taking


class FaultContract(Contract):
    """What a store promises to whoever got no answer: the head tells what has happened."""

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_after_a_fault_the_head_tells_whether_a_write_landed(self, store: Storage, when: Any) -> None:
        faulty = FaultyStorage(store)
        writer, ended = Writer(faulty), Writer(faulty)
        ended.end()
        asked = approval(writer.session_id)
        for change in (
            Change(),
            Change(request_id=new_id(), resolution=resolution(), actions=1),
            Change(idempotency=IdempotencyRecord(key="key", call="call")),
            Change(approval=asked),
            Change(approval=structs.replace(asked, status="granted")),
            taking(rate()),
            documents(atlas={"a": b"1"}),
            Change(catalog=1, documents=(DocumentWrite("atlas", "a", None),)),
            purging(ended),
        ):
            head, batch, before = writer.chain.head, writer.batch(), _state(store, writer.session_id)
            faulty.fail(when)
            with pytest.raises(StorageError, match="asked for"):
                faulty.append(writer.session_id, head, batch, change)
            found = store.load(writer.session_id)[1].hash
            assert found == (batch.head if when == "after" else head)
            if when == "before":
                # Nothing has happened, so it can be done again.
                assert _state(store, writer.session_id) == before
                faulty.append(writer.session_id, head, batch, change)
            else:
                # All of it has happened: doing it again is refused and changes nothing.
                after = _state(store, writer.session_id)
                with pytest.raises((StaleHead, StorageError, SessionNotFound)):
                    faulty.append(writer.session_id, head, batch, change)
                assert _state(store, writer.session_id) == after
            writer.chain.advance(batch)
            writer.acknowledged += batch.data
            writer.check()

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_after_a_fault_a_new_session_is_there_or_not(self, store: Storage, when: Any) -> None:
        faulty = FaultyStorage(store)
        writer = Writer(store)
        session_id = new_id()
        writes: list[Callable[[], object]] = [
            lambda: Writer(faulty, session_id=session_id),
            lambda: faulty.of_tenant("two").restore(store.dump(writer.session_id)),
        ]
        for write, part, made in zip(
            writes, (store, store.of_tenant("two")), (session_id, writer.session_id), strict=True
        ):
            faulty.fail(when)
            with pytest.raises(StorageError, match="asked for"):
                write()
            if when == "before":
                with pytest.raises(SessionNotFound):
                    part.load(made)
                write()
            else:
                with pytest.raises(SessionExists):
                    write()
            assert part.load(made)[1].sequence == 1

    def test_a_store_that_cannot_write_fails_its_probe(self, store: Storage) -> None:
        faulty = FaultyStorage(store)
        faulty.fail_always("before")
        with pytest.raises(StorageError):
            faulty.of_tenant("two").probe()
        faulty.heal()
        faulty.probe()


def _state(store: Storage, session_id: str) -> list[Any]:
    """Return what can be read of a store."""
    return [
        store.load(session_id),
        store.events(session_id),
        store.sessions(),
        store.approvals(),
        store.ended(),
        sorted(store.counters(), key=lambda record: record.key),
        store.peek([rate()], START_US),
        store.documents("atlas"),
        store.revision("atlas"),
        store.dump(session_id)._replace(events=()),
    ]
