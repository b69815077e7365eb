"""Stored atlases: every runtime on a store decides by the same ones, whoever loaded them, from the next call on."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from cra import CRARuntime, RuntimeConfig
from cra._core.chain import Chain
from cra._core.sha256 import hexdigest
from cra.atlas import loader
from cra.atlas.package import Atlas
from cra.errors import (
    ActionDenied,
    AtlasConflict,
    AtlasInvalid,
    AtlasNotFound,
    ConfigInvalid,
    CRAError,
    InvalidRequest,
    StorageCorrupt,
)
from cra.storage.base import Change, DocumentWrite, Storage
from cra.storage.memory import MemoryStorage
from cra.storage.postgres import PostgresStorage
from cra.storage.sqlite import SQLiteStorage
from cra.testing import postgres
from cra.testing.writer import together
from tests.runtime.desk import ATLAS, STORES, Desk, dense, open_store

ROOT = Path(__file__).resolve().parents[2]


def atlas(atlas_id: str, **more: Any) -> Atlas:
    return loader.load_json(
        {"atlas_version": "1.0", "atlas_id": atlas_id, "version": "1.0.0", "name": atlas_id, **more}
    )


def deny(*globs: str, atlas_id: str = "com.acme.deny") -> Atlas:
    policy = {"policy_id": "closed", "type": "deny", "actions": list(globs), "reason": "closed for today"}
    return atlas(atlas_id, policies=[policy])


def action(action_id: str, atlas_id: str) -> Atlas:
    return atlas(atlas_id, actions=[{"action_id": action_id, "name": action_id}])


class Pair:
    """Two runtimes on one store, as two processes have them: nothing but the store is shared."""

    def __init__(self, stores: tuple[Storage, Storage]) -> None:
        self.one = Desk(stores[0], stored_atlases=True)
        self.other = Desk(stores[1], seed=2, stored_atlases=True)

    def load(self, given: Atlas, **more: Any) -> None:
        self.other.runtime.administration.load_atlas(given, actor="ann", **more)

    def unload(self, atlas_id: str) -> None:
        self.other.runtime.administration.unload_atlas(atlas_id, actor="ann")


@pytest.fixture(scope="module")
def database() -> str:
    return postgres.server().database()


@pytest.fixture(params=(*STORES, "postgres"))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    if request.param == "memory":
        yield Pair((store := MemoryStorage(), store))
        return
    if request.param == "postgres":
        if os.environ.get(postgres.WITHOUT):
            pytest.skip(f"{postgres.WITHOUT} says that nothing of PostgreSQL is tested")
        url = request.getfixturevalue("database")
        opened: list[Any] = [PostgresStorage(url) for _ in range(2)]
    else:
        opened = [open_store(request.param, tmp_path) for _ in range(2)]
    # One database for all tests, in which each has a tenant.
    tenant = f"t{hexdigest(str(tmp_path).encode())[:20]}"
    yield Pair((opened[0].of_tenant(tenant), opened[1].of_tenant(tenant)))
    for store in opened:
        store.close()


@pytest.fixture
def desk() -> Desk:
    return Desk(MemoryStorage(), stored_atlases=True)


def code_of(call: Any, *arguments: Any, **named: Any) -> str:
    try:
        call(*arguments, **named)
    except CRAError as error:
        return error.code
    return "ok"


# What one loads binds all


def test_an_atlas_loaded_through_one_runtime_binds_the_very_next_call_of_another(pair: Pair) -> None:
    runtime = pair.one.runtime
    session_id = pair.one.begin()
    assert runtime.execute(session_id, "ticket.get", {}) == {"ok": True}
    pair.load(deny("ticket.*"))
    with pytest.raises(ActionDenied, match="closed for today") as caught:
        runtime.execute(session_id, "ticket.get", {})
    assert caught.value.policy_id == "closed"
    assert "ticket.get" in {denied.action_id for denied in runtime.resolve(session_id, "anything").denied_actions}
    pair.unload("com.acme.deny")
    assert runtime.execute(session_id, "ticket.get", {}) == {"ok": True}
    assert len(pair.one.calls) == 2
    dense(pair.one.store, [session_id, runtime.administration.session_id])


def test_an_unload_between_resolve_and_execute_takes_the_action_away(pair: Pair) -> None:
    pair.load(action("door.open", "com.acme.door"))
    pair.one.runtime.executor("door.*", inline=True)(lambda parameters: None)
    session_id = pair.one.begin()
    resolution = pair.one.runtime.resolve(session_id, "open the door")
    assert "door.open" in {allowed.action_id for allowed in resolution.allowed_actions}
    pair.unload("com.acme.door")
    with pytest.raises(ActionDenied, match="not declared by any loaded atlas"):
        pair.one.runtime.execute(session_id, "door.open", {}, resolution.resolution_id)


def test_what_has_begun_gets_its_outcome_though_its_atlas_is_gone(pair: Pair) -> None:
    pair.load(action("door.open", "com.acme.door"))
    session_id = pair.one.begin()

    def unload(parameters: dict[str, Any]) -> str:
        pair.unload("com.acme.door")
        return "opened"

    pair.one.runtime.executor("door.*", inline=True)(unload)
    assert pair.one.runtime.execute(session_id, "door.open", {}) == "opened"
    assert pair.one.types(session_id)[-1] == "action.executed"


def test_what_is_not_committed_sees_the_newest_atlases_too(pair: Pair) -> None:
    runtime = pair.one.runtime
    session_id = pair.one.begin()
    pair.load(deny("ticket.*"))
    simulated = runtime.simulate(session_id, action_id="ticket.get", parameters={})
    assert simulated.answer.status == "denied"
    pair.unload("com.acme.deny")
    pair.load(action("door.open", "com.acme.door"))
    offered = runtime.simulate(session_id, "open the door").answer.allowed_actions
    assert "door.open" in {allowed.action_id for allowed in offered}
    pair.load(deny("ticket.*"))
    validate = pair.one.request(session_id, "validate", execution={"action_id": "ticket.get", "parameters": {}})
    assert b'"status":"denied"' in runtime.handle(validate)


def test_an_atlas_that_was_just_loaded_elsewhere_can_be_named(pair: Pair) -> None:
    session_id = pair.one.begin()
    pair.load(action("door.open", "com.acme.door"))
    resolution = pair.one.runtime.resolve(session_id, "open", atlas_ids=["com.acme.door"])
    assert [allowed.action_id for allowed in resolution.allowed_actions] == ["door.open"]
    with pytest.raises(AtlasNotFound):
        pair.one.runtime.resolve(session_id, "open", atlas_ids=["com.acme.window"])


def test_a_new_session_names_the_atlases_that_are_stored(pair: Pair) -> None:
    pair.one.begin()
    pair.load(deny("ticket.*"))
    session = pair.one.runtime.create_session("agent-1", "goal")
    started = pair.one.events(session.id)[0][1]
    assert [named["atlas_id"] for named in started["atlases"]] == ["com.example.desk", "com.acme.deny"]


def test_an_atlas_loaded_by_another_process_binds_the_next_call(tmp_path: Path) -> None:
    store = SQLiteStorage(tmp_path / "cra.db", durability="batched")
    desk = Desk(store, stored_atlases=True)
    session_id = desk.begin()
    desk.runtime.execute(session_id, "ticket.get", {})
    program = """
import sys
from cra import CRARuntime, RuntimeConfig
from tests.runtime.test_catalog import deny
with CRARuntime(RuntimeConfig(storage=f"sqlite:///{sys.argv[1]}", stored_atlases=True)) as runtime:
    runtime.administration.load_atlas(deny("ticket.*"), actor="ann")
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "cra.db")], cwd=ROOT, check=True, timeout=60)
    assert code_of(desk.runtime.execute, session_id, "ticket.get", {}) == "action_denied"
    store.close()


def test_no_call_begins_by_an_atlas_that_was_replaced(pair: Pair) -> None:
    """Threads call while another runtime forbids: what begins after the load has returned is denied."""
    session_ids = [pair.one.begin() for _ in range(4)]
    forbidden = Event()

    def work(number: int) -> list[str]:
        if number == 4:
            pair.load(deny("ticket.*"))
            forbidden.set()
            return []
        after: list[str] = []
        while len(after) < 3:
            late = forbidden.is_set()
            code = code_of(pair.one.runtime.execute, session_ids[number], "ticket.get", {})
            if late:
                after.append(code)
        return after

    codes = [code for some in together(5, work) for code in some]
    assert Counter(codes) == {"action_denied": 12}
    dense(pair.one.store, session_ids)


def test_racing_loads_leave_a_set_that_can_be_loaded(pair: Pair) -> None:
    """Four atlases declare one action: whoever comes second is refused, in whichever runtime."""
    desks = (pair.one, pair.other)

    def work(number: int) -> str:
        given = action("door.open", f"com.acme.door{number}")
        return code_of(desks[number % 2].runtime.administration.load_atlas, given, actor="ann")

    assert Counter(together(4, work)) == {"ok": 1, "atlas_conflict": 3}
    for desk in desks:
        assert len(desk.runtime.administration.atlases()) == 2
    dense(pair.one.store, [pair.one.runtime.administration.session_id])


def test_calls_go_on_while_atlases_change(pair: Pair) -> None:
    session_ids = [pair.one.begin() for _ in range(3)]

    def work(number: int) -> list[str]:
        if number == 3:
            for turn in range(6):
                pair.load(atlas("com.acme.note", description=f"edition {turn}"), replace=True)
            return []
        return [code_of(pair.one.runtime.execute, session_ids[number], "ticket.get", {}) for _ in range(10)]

    codes = [code for some in together(4, work) for code in some]
    assert Counter(codes) == {"ok": 30}
    assert len(pair.one.calls) == 30
    dense(pair.one.store, session_ids)


def test_stored_atlases_are_decided_by_on_an_event_loop(tmp_path: Path) -> None:
    store = open_store("sqlite", tmp_path)
    desk = Desk(store, asynchronous=True, stored_atlases=True)

    async def run() -> None:
        session = await desk.runtime.create_session("agent-1", "goal")
        await desk.runtime.resolve(session.id, "goal")
        await desk.runtime.administration.load_atlas(deny("ticket.*"), actor="ann")
        with pytest.raises(ActionDenied):
            await desk.runtime.execute(session.id, "ticket.get", {})
        assert len(await desk.runtime.administration.atlases()) == 2
        await desk.runtime.administration.unload_atlas("com.acme.deny", actor="ann")
        assert await desk.runtime.execute(session.id, "ticket.get", {}) == {"ok": True}
        assert desk.runtime.administration.baseline == {"com.example.desk"}
        await desk.runtime.close()

    asyncio.run(run())


# What may be loaded


def test_the_baseline_stands_first_and_a_tenant_cannot_touch_it(desk: Desk) -> None:
    administration = desk.runtime.administration
    administration.load_atlas(deny("mail.*"), actor="ann")
    desk.runtime.load_atlas_from_json(
        {"atlas_version": "1.0", "atlas_id": "com.acme.base", "version": "1.0.0", "name": "Base"}
    )
    ids = [loaded.atlas_id for loaded in administration.atlases()]
    assert ids == ["com.example.desk", "com.acme.base", "com.acme.deny"]
    assert administration.baseline == {"com.example.desk", "com.acme.base"}
    for replace in (False, True):
        with pytest.raises(AtlasConflict, match="baseline"):
            administration.load_atlas(loader.load_json(ATLAS), replace=replace, actor="ann")
    with pytest.raises(AtlasConflict, match="baseline"):
        administration.unload_atlas("com.example.desk", actor="ann")
    with pytest.raises(AtlasNotFound):
        administration.unload_atlas("com.acme.nothing", actor="ann")
    assert desk.store.revision("atlas") == 1


def test_an_atlas_is_checked_against_the_whole_set_before_anything_is_written(desk: Desk) -> None:
    administration = desk.runtime.administration
    with pytest.raises(AtlasInvalid, match=r"`com\.acme\.door` is not loaded"):
        administration.load_atlas(atlas("com.acme.house", dependencies={"com.acme.door": "^1.0.0"}), actor="ann")
    with pytest.raises(AtlasConflict, match="declared by"):
        administration.load_atlas(action("ticket.get", "com.acme.again"), actor="ann")
    assert desk.store.revision("atlas") == 0
    administration.load_atlas(action("door.open", "com.acme.door"), actor="ann")
    administration.load_atlas(atlas("com.acme.house", dependencies={"com.acme.door": "^1.0.0"}), actor="ann")
    with pytest.raises(AtlasConflict, match="depends on"):
        administration.unload_atlas("com.acme.door", actor="ann")
    with pytest.raises(AtlasInvalid, match=r"loaded as 2\.0\.0"):
        administration.load_atlas(atlas("com.acme.door", version="2.0.0"), replace=True, actor="ann")
    with pytest.raises(AtlasConflict, match="stored already"):
        administration.load_atlas(action("door.open", "com.acme.door"), actor="ann")
    assert desk.types(administration.session_id) == ["session.started", "atlas.loaded", "atlas.loaded"]


def test_the_record_says_what_was_loaded_replaced_and_unloaded(desk: Desk) -> None:
    administration = desk.runtime.administration
    one, two = atlas("com.acme.note"), atlas("com.acme.note", version="1.1.0")
    administration.load_atlas(one, actor="ann")
    administration.load_atlas(two, replace=True, actor="bob")
    administration.unload_atlas("com.acme.note", actor="cy")
    named = {"atlas_id": "com.acme.note", "version": "1.1.0", "digest": two.digest}
    assert desk.events(administration.session_id)[1:] == [
        ("atlas.loaded", {"actor": "ann", "atlas_id": "com.acme.note", "version": "1.0.0", "digest": one.digest}),
        (
            "atlas.loaded",
            {
                "actor": "bob",
                **named,
                "replaced": {"atlas_id": "com.acme.note", "version": "1.0.0", "digest": one.digest},
            },
        ),
        ("atlas.unloaded", {"actor": "cy", **named}),
    ]


def test_an_atlas_that_is_replaced_keeps_its_place(desk: Desk) -> None:
    administration = desk.runtime.administration
    for atlas_id in ("com.acme.a", "com.acme.b"):
        administration.load_atlas(atlas(atlas_id), actor="ann")
    administration.load_atlas(atlas("com.acme.a", version="1.2.0"), replace=True, actor="ann")
    assert [one.atlas_id for one in administration.atlases()][1:] == ["com.acme.a", "com.acme.b"]
    assert administration.atlases()[1].version == "1.2.0"


@pytest.mark.parametrize("folder", sorted((ROOT / "examples" / "atlases").iterdir()), ids=lambda path: path.name)
def test_an_atlas_is_the_same_out_of_the_store(folder: Path) -> None:
    given = loader.load(folder)
    read = loader.load_archive(loader.archive_of(given))
    assert (read.digest, dict(read.files)) == (given.digest, dict(given.files))
    assert loader.archive_of(read) == loader.archive_of(given)


def test_atlases_are_not_stored_where_nobody_would_decide_by_them() -> None:
    runtime = CRARuntime()
    with pytest.raises(ConfigInvalid, match="stored_atlases"):
        runtime.administration.load_atlas(deny("*"), actor="ann")
    with pytest.raises(ConfigInvalid, match="stored_atlases"):
        runtime.administration.unload_atlas("com.acme.deny", actor="ann")
    with pytest.raises(ConfigInvalid, match="stored_atlases"):
        RuntimeConfig(stored_atlases=1)  # type: ignore[arg-type]


def test_tenants_decide_by_their_own_atlases() -> None:
    store = MemoryStorage()
    one, other = (Desk(store.of_tenant(name), stored_atlases=True) for name in ("one", "other"))
    session_id = other.begin()
    one.runtime.administration.load_atlas(deny("*"), actor="ann")
    assert other.runtime.execute(session_id, "ticket.get", {}) == {"ok": True}
    assert [loaded.atlas_id for loaded in other.runtime.administration.atlases()] == ["com.example.desk"]


def test_answers_are_the_same_whether_atlases_are_loaded_or_stored() -> None:
    """The ids and times of a first call do not depend on where its atlas comes from."""
    traces = []
    for stored in (False, True):
        store = MemoryStorage()
        if stored:
            desk = Desk(store, stored_atlases=True)
            # In another process, so that what it draws is not taken from this one's ids.
            Desk(store, seed=9, stored_atlases=True).runtime.administration.load_atlas(deny("mail.*"), actor="ann")
        else:
            desk = Desk(store)
            desk.runtime.load_atlas(deny("mail.*"))
        session_id = desk.begin()
        desk.runtime.execute(session_id, "ticket.get", {})
        traces.append(store.events(session_id))
    assert traces[0] == traces[1]


def test_a_replay_finds_the_atlases_that_are_stored(pair: Pair) -> None:
    pair.load(deny("mail.*"))
    session_id = pair.one.begin()
    trace = pair.one.runtime.get_trace(session_id)
    fresh = Desk(pair.other.store, seed=3, stored_atlases=True).runtime
    replayed = fresh.replay(trace)
    assert replayed.ok
    assert replayed.what_if is None
    assert fresh.what_if(trace, [loader.load_json(ATLAS)]).changed


# Fail closed


def spoil(desk: Desk, name: str, body: bytes | None) -> None:
    """Write an atlas document as no runtime would."""
    desk.runtime.administration.put("key", "x", b"", "key.created", {}, actor="ann")
    session_id = desk.runtime.administration.session_id
    record, head = desk.store.load(session_id)
    chain = Chain(session_id, record.trace_id, head.sequence, head.hash, head.last_us)
    batch = chain.begin(head.last_us, bytes(16))
    batch.add("atlas.loaded", {"atlas_id": name})
    desk.store.append(session_id, head.hash, batch, Change(documents=(DocumentWrite("atlas", name, body),)))


@pytest.mark.parametrize("body", [b"", b"PK not an archive", loader.archive_of(deny("*", atlas_id="com.acme.else"))])
def test_a_stored_atlas_that_cannot_be_read_lets_nothing_be_decided(desk: Desk, body: bytes) -> None:
    runtime = desk.runtime
    session_id = desk.begin()
    spoil(desk, "com.acme.deny", body)
    before = desk.store.events(session_id)
    for call in (
        lambda: runtime.resolve(session_id, "anything"),
        lambda: runtime.execute(session_id, "ticket.get", {}),
        lambda: runtime.simulate(session_id, "anything"),
        lambda: runtime.create_session("agent-1", "goal"),
        runtime.administration.atlases,
        lambda: Desk(desk.store, stored_atlases=True).runtime.resolve(session_id, "anything"),
        lambda: runtime.administration.load_atlas(atlas("com.acme.note"), actor="ann"),
    ):
        with pytest.raises(StorageCorrupt, match=r"stored atlas `com\.acme\.deny` cannot be read") as caught:
            call()
        assert "unload it" in str(caught.value.hint)
    assert desk.store.events(session_id) == before
    assert desk.calls == []
    # It can be replaced, or taken away.
    runtime.administration.load_atlas(deny("mail.*"), replace=True, actor="ann")
    assert desk.last(runtime.administration.session_id)[1]["replaced"] == {"atlas_id": "com.acme.deny"}
    assert runtime.execute(session_id, "ticket.get", {}) == {"ok": True}
    spoil(desk, "com.acme.deny", body)
    runtime.administration.unload_atlas("com.acme.deny", actor="ann")
    assert runtime.execute(session_id, "ticket.get", {}) == {"ok": True}


def test_a_stored_atlas_under_the_name_of_another_lets_nothing_be_decided(desk: Desk) -> None:
    """Though its bytes have been read before, under their own name."""
    administration = desk.runtime.administration
    administration.load_atlas(deny("mail.*"), actor="ann")
    session_id = desk.begin()
    body = desk.runtime.administration.get("atlas", "com.acme.deny").body
    spoil(desk, "com.acme.deny", None)
    spoil(desk, "com.acme.else", body)
    with pytest.raises(StorageCorrupt, match=r"it is `com\.acme\.deny`"):
        desk.runtime.execute(session_id, "ticket.get", {})


def test_stored_atlases_that_do_not_go_together_let_nothing_be_decided(desk: Desk) -> None:
    """A baseline that grows into what a tenant has stored: neither is dropped silently."""
    desk.runtime.administration.load_atlas(deny("ticket.*"), actor="ann")
    later = Desk(desk.store, stored_atlases=True)
    later.runtime.load_atlas(deny("mail.*"))
    with pytest.raises(StorageCorrupt, match="one of the baseline and stored too") as caught:
        later.runtime.create_session("agent-1", "goal")
    assert caught.value.hint == "unload the stored one"
    later.runtime.administration.unload_atlas("com.acme.deny", actor="ann")
    session_id = later.begin()
    assert later.runtime.execute(session_id, "ticket.get", {}) == {"ok": True}


def test_a_store_that_does_not_answer_about_its_atlases_allows_nothing(desk: Desk, monkeypatch: Any) -> None:
    session_id = desk.begin()
    Desk(desk.store, seed=2, stored_atlases=True).runtime.administration.load_atlas(deny("*"), actor="ann")
    monkeypatch.setattr(desk.store, "documents", lambda kind: (_ for _ in ()).throw(StorageCorrupt("a lost page")))
    with pytest.raises(StorageCorrupt, match="a lost page"):
        desk.runtime.execute(session_id, "ticket.get", {})
    assert desk.calls == []


def test_only_people_with_names_load_atlases(desk: Desk) -> None:
    with pytest.raises(InvalidRequest, match="actor"):
        desk.runtime.administration.load_atlas(deny("*"), actor="")
    assert desk.store.revision("atlas") == 0
