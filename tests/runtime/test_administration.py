"""Administration: one chain for each tenant, one append for each change, decided again for each head."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from cra import CRARuntime, RuntimeConfig
from cra.errors import CRAError, InvalidRequest, SessionError, SessionExists, SessionNotFound, StorageError
from cra.runtime.kernel import administration_id
from cra.storage.base import Document, Storage
from cra.storage.memory import MemoryStorage
from cra.testing.faults import FaultyStorage
from cra.testing.writer import together
from tests.runtime.desk import Desk, dense

ADMINISTRATOR = "ann"


def put(runtime: CRARuntime, name: str, body: bytes | None = b"{}", **more: Any) -> None:
    runtime.administration.put("key", name, body, "key.created", {"key_id": name}, actor=ADMINISTRATOR, **more)


def test_a_document_and_its_event_land_together(store: Storage) -> None:
    desk = Desk(store)
    administration = desk.runtime.administration
    put(desk.runtime, "k1", b'{"a":1}')
    assert administration.get("key", "k1") == Document("key", "k1", 1, b'{"a":1}')
    assert [document.name for document in administration.all("key")] == ["k1"]
    assert desk.events(administration.session_id) == [
        ("session.started", {"agent_id": "cra.administration", "atlases": [], "goal": _goal(store)}),
        ("key.created", {"actor": "ann", "key_id": "k1"}),
    ]
    administration.put("key", "k1", None, "key.revoked", {"key_id": "k1"}, actor=ADMINISTRATOR)
    assert administration.get("key", "k1") is None
    assert desk.last(administration.session_id)[0] == "key.revoked"
    dense(store, [administration.session_id])


def _goal(store: Storage) -> str:
    return f"administration of tenant `{store.tenant}`"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_whose_append_fails_is_whole_or_absent(when: Any) -> None:
    inner = MemoryStorage()
    faulty = FaultyStorage(inner)
    runtime = CRARuntime(RuntimeConfig(storage=faulty))
    landed, changes = when == "after", 0
    # The first one starts the session.
    for name in ("k1", "k2"):
        faulty.fail(when)
        with pytest.raises(StorageError):
            put(runtime, name)
        changes += landed
        assert (inner.document("key", name) is not None) is landed
        # Whatever became of it, the next change goes on from there.
        put(runtime, f"{name}-next")
        changes += 1
        dense(inner, [runtime.administration.session_id])
        assert len(runtime.get_trace(runtime.administration.session_id)) == 1 + changes


def test_a_change_that_is_refused_starts_no_record(store: Storage) -> None:
    desk = Desk(store)

    def refuse(current: Document | None) -> None:
        raise SessionExists("no")

    with pytest.raises(SessionExists):
        put(desk.runtime, "k1", check=refuse)
    assert desk.runtime.list_sessions() == []


def test_the_administration_session_is_one_whoever_starts_it_first(store: Storage) -> None:
    desks = [Desk(store, seed=seed) for seed in range(4)]
    together(8, lambda number: put(desks[number % 4].runtime, f"k{number}"))
    session_id = desks[0].runtime.administration.session_id
    assert {desk.runtime.administration.session_id for desk in desks} == {session_id}
    assert Counter(desks[0].types(session_id)) == {"session.started": 1, "key.created": 8}
    assert len(desks[0].runtime.administration.all("key")) == 8
    dense(store, [session_id])


def test_what_is_read_before_a_change_is_what_it_changes(store: Storage) -> None:
    """Two runtimes that each want to be the first are decided by the head: one is, the others see it."""
    desks = [Desk(store, seed=seed) for seed in range(4)]

    def absent(current: Document | None) -> None:
        if current is not None:
            raise SessionExists("it is there")

    def work(number: int) -> str:
        try:
            put(desks[number % 4].runtime, "only", b"%d" % number, check=absent)
        except CRAError as error:
            return error.code
        return "ok"

    assert Counter(together(8, work)) == {"ok": 1, "session_exists": 7}
    assert desks[0].types(desks[0].runtime.administration.session_id).count("key.created") == 1


def test_tenants_have_administrations_of_their_own(store: Storage) -> None:
    one, other = Desk(store.of_tenant("one")), Desk(store.of_tenant("other"))
    put(one.runtime, "k1")
    assert one.runtime.administration.session_id != other.runtime.administration.session_id
    assert other.runtime.administration.all("key") == []
    with pytest.raises(SessionNotFound):
        other.runtime.get_trace(one.runtime.administration.session_id)


def test_the_administration_session_has_the_same_id_everywhere() -> None:
    # Fixed by the law: another implementation on the same store has to find it.
    assert administration_id("default") == "45340f82-87d0-8088-8ddf-075137502c9b"
    assert administration_id("default") == administration_id("default") != administration_id("system")


def test_nothing_is_decided_in_the_administration_session(store: Storage) -> None:
    desk = Desk(store)
    runtime = desk.runtime
    put(runtime, "k1")
    session_id = runtime.administration.session_id
    before = store.events(session_id)
    request = desk.request(session_id)
    for call in (
        lambda: runtime.resolve(session_id, "anything"),
        lambda: runtime.execute(session_id, "ticket.get", {}),
        lambda: runtime.simulate(session_id, "anything"),
        lambda: runtime.simulate(session_id, action_id="ticket.get"),
        lambda: runtime.handle(request),
        lambda: runtime.end_session(session_id),
        lambda: runtime.create_session("agent-1", "goal", parent_session_id=session_id),
    ):
        with pytest.raises(SessionError, match="nothing is decided in it") as caught:
            call()
        assert caught.value.code == "session_error"
    assert store.events(session_id) == before
    assert runtime.get_session(session_id).agent_id == "cra.administration"


@pytest.mark.parametrize("agent_id", ["cra.administration", " CRA.Administration "])
def test_nobody_starts_a_session_in_the_name_of_the_record(agent_id: str) -> None:
    runtime = CRARuntime()
    with pytest.raises(InvalidRequest, match="reserved"):
        runtime.create_session(agent_id, "goal")
    assert runtime.list_sessions() == []


def test_nobody_takes_the_place_of_the_administration_session(store: Storage) -> None:
    runtime = Desk(store).runtime
    with pytest.raises(InvalidRequest, match="reserved"):
        runtime.create_session("agent-1", "goal", session_id=runtime.administration.session_id)
    put(runtime, "k1")


def test_the_record_of_an_administration_verifies_and_replays_as_given(store: Storage) -> None:
    runtime = Desk(store).runtime
    put(runtime, "k1")
    session_id = runtime.administration.session_id
    assert runtime.verify_chain(session_id)
    replayed = runtime.replay(runtime.get_trace(session_id))
    # There is nothing in it to decide again: what people did is taken as recorded.
    assert replayed.ok
    assert replayed.complete
    assert replayed.counts() == {"same": 1, "different": 0, "not_retained": 0, "given": 1}


def test_what_has_methods_of_its_own_is_not_put() -> None:
    runtime = CRARuntime()
    for kind in ("atlas", "hold", "retention"):
        with pytest.raises(InvalidRequest, match="methods of their own"):
            runtime.administration.put(kind, "x", b"", "atlas.loaded", {}, actor=ADMINISTRATOR)
    for actor in ("", "x" * 256, None):
        with pytest.raises(InvalidRequest, match="actor"):
            runtime.administration.put("key", "x", b"", "key.created", {}, actor=actor)  # type: ignore[arg-type]
    assert runtime.list_sessions() == []


def test_administration_is_awaited_from_an_event_loop(store: Storage) -> None:
    desk = Desk(store, asynchronous=True)

    async def run() -> None:
        administration = desk.runtime.administration
        await administration.put("key", "k1", b"{}", "key.created", {}, actor=ADMINISTRATOR)
        assert [document.name for document in await administration.all("key")] == ["k1"]
        assert await administration.get("key", "k2") is None
        assert await desk.runtime.verify_chain(administration.session_id)
        session = await desk.runtime.create_session("agent-1", "goal")
        await administration.place_hold(session.id, actor=ADMINISTRATOR, reason="a case")
        assert [hold.session_id for hold in await administration.holds()] == [session.id]
        assert (await administration.hold(session.id)) is not None
        await administration.set_retention({"keep_ended": 0}, actor=ADMINISTRATOR)
        assert (await administration.retention()).keep_ended == 0
        await desk.runtime.end_session(session.id)
        assert await administration.purge() == []
        await administration.release_hold(session.id, actor=ADMINISTRATOR)
        assert await administration.purge() == [session.id]

    asyncio.run(run())
