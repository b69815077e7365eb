"""cra storage: status, migrate, and moving everything between stores, also when it was stopped half-way."""

import json
import os
import re
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from cra._core.canonical import dumps
from cra.errors import ApprovalRequired, InvalidInput, InvalidTrace, SessionExists, StorageError
from cra.storage.base import Change, DocumentWrite, IdempotencyRecord, Storage
from cra.storage.memory import MemoryStorage
from cra.storage.open import open_storage
from cra.storage.transfer import export, import_
from cra.testing import postgres
from cra.testing.faults import FaultyStorage
from cra.testing.writer import BIG, START_US, TEXT, Writer, approval, budget, new_id, rate, resolution
from tests.cli.harness import Run
from tests.runtime.desk import Desk

pytest.importorskip("apsw")


def opened(url: str) -> Storage:
    return open_storage(url, max_sessions=1, max_events=1)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/other.db"
    if os.environ.get(postgres.WITHOUT):
        pytest.skip(f"{postgres.WITHOUT} says that nothing of PostgreSQL is tested")
    return postgres.server().database()


def filled(store: Storage) -> list[Writer]:
    writers = []
    for tenant in ("default", "acme"):
        part = store.of_tenant(tenant)
        for number in range(3):
            writer = Writer(part, TEXT, context={"n": BIG, TEXT: [1.5]})
            writer.append(
                Change(
                    request_id=new_id(),
                    resolution=resolution(number, context={"big": BIG}),
                    idempotency=IdempotencyRecord(key=TEXT, call="c", response=b"\x00\xff"),
                    approval=approval(writer.session_id),
                    claims=(rate("r", 5), budget(7, f"s|{writer.session_id}", window_us=0)),
                    claims_at_us=START_US + number,
                    documents=(
                        DocumentWrite("atlas", f"a{number % 2}", b"\x00body%d" % number),
                        DocumentWrite("key", TEXT, b"k"),
                    ),
                    actions=1,
                ),
                text=TEXT * 40,
            )
            writers.append(writer)
        writers[-1].end()
    return writers


def same(one: Storage, other: Storage) -> None:
    assert sorted(list(export(one, one.tenants()))[1:]) == sorted(list(export(other, one.tenants()))[1:])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_an_export_is_for_its_owner_only_as_the_store_is(cra: Run, tmp_path: Path) -> None:
    filled(opened("sqlite:///cra.db"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"kept")
    Path("all.jsonl.part").symlink_to(elsewhere)
    before = os.umask(0o022)
    try:
        assert cra("storage", "export", "-o", "all.jsonl").code == 0
    finally:
        os.umask(before)
    assert Path("all.jsonl").stat().st_mode & 0o777 == 0o600
    assert elsewhere.read_bytes() == b"kept"


def test_a_store_moves_whole_to_any_other_and_back(cra: Run, tmp_path: Path, url: str) -> None:
    source = opened("sqlite:///cra.db")
    writers = filled(source)
    assert cra("storage", "export", "-o", "all.jsonl").code == 0
    ran = cra("storage", "import", "all.jsonl", "--storage", url, "--json")
    assert (ran.code, ran.json) == (0, {"tenants": 2, "sessions": 6, "known": 0}), ran.err
    ran = cra("storage", "import", "all.jsonl", "--storage", url, "--json")
    assert (ran.code, ran.json) == (0, {"tenants": 2, "sessions": 0, "known": 6})
    assert cra("storage", "export", "--storage", url, "-o", "again.jsonl").code == 0
    # The header names the store, and counters have no order.
    before, after = ((tmp_path / f"{name}.jsonl").read_bytes().splitlines() for name in ("all", "again"))
    assert sorted(before[1:]) == sorted(after[1:])
    assert not (tmp_path / "all.jsonl.part").exists()
    assert cra("storage", "import", "again.jsonl", "--storage", "sqlite:///back.db").code == 0
    back, there = opened("sqlite:///back.db"), opened(url)
    same(source, back)
    for writer in writers:
        for place in (back, there):
            writer.store = place.of_tenant(writer.store.tenant)
            writer.check()
    for store in (source, back, there):
        store.close()


def test_status_and_migrate_say_what_is_there(cra: Run, url: str) -> None:
    assert cra("storage", "migrate", "--storage", url, "--json").json["schema_version"] >= 1
    store = opened(url)
    filled(store)
    store.close()
    value = cra("storage", "status", "--storage", url, "--json").json
    assert (value["durability"], len(value["tenants"])) == ("strict", 2)
    assert value["tenants"][0] == {"tenant": "acme", "sessions": 3, "ended": 1, "events": 7, "documents": 3}
    assert "acme" in cra("storage", "status", "--storage", url, "--tenant", "acme").out
    assert cra("storage", "status", "--storage", url, "--tenant", "nobody").code == 4


def test_the_memory_store_and_a_missing_one_are_refused(cra: Run) -> None:
    assert cra("storage", "status", "--storage", "memory").code == 2
    assert cra("storage", "status").code == 4
    assert cra("storage", "import", "absent.jsonl").code == 4


def test_only_some_tenants_move(cra: Run, url: str) -> None:
    source = opened("sqlite:///cra.db")
    filled(source)
    source.close()
    assert cra("storage", "export", "-o", "acme.jsonl", "--tenant", "acme").code == 0
    assert cra("storage", "export", "-o", "all.jsonl").code == 0
    assert cra("storage", "import", "acme.jsonl", "--storage", url).code == 0
    ran = cra("storage", "import", "all.jsonl", "--storage", url, "--tenant", "acme", "--json")
    assert ran.json == {"tenants": 1, "sessions": 0, "known": 3}
    ran = cra("storage", "import", "acme.jsonl", "--storage", url, "--tenant", "acme", "--tenant", "default", "--json")
    assert (ran.code, ran.error["hint"]) == (3, "it has acme")
    store = opened(url)
    assert store.tenants() == ["acme"]
    store.close()


def test_an_import_that_was_stopped_anywhere_is_done_again() -> None:
    source = MemoryStorage()
    filled(source)
    lines = list(export(source, source.tenants()))
    for stop in range(1, len(lines), 5):
        place = MemoryStorage()
        with pytest.raises(InvalidInput, match="in the middle"):
            import_(place, lines[:stop])
        import_(place, lines)
        same(source, place)
    # Of each tenant the documents, the counters and three sessions.
    for nth in range(1, 11):
        place = MemoryStorage()
        faulty = FaultyStorage(place)
        faulty.fail("after" if nth % 2 else "before", nth=nth)
        with pytest.raises(StorageError):
            import_(faulty, lines)
        import_(place, lines)
        same(source, place)


def test_what_was_changed_on_the_way_is_refused() -> None:
    source = MemoryStorage()
    (writer, *_) = filled(source)
    lines = list(export(source, source.tenants()))
    joined = b"".join(lines)
    place = next(number for number, line in enumerate(lines) if line.startswith((b'{"lines"', b'{"bytes"')))
    for broken, kind in (
        ([*lines[:place], *lines[place + 1 :]], InvalidInput),
        ([b'{"cra_export":2}\n', *lines[1:]], InvalidInput),
        ([b"[]\n"], InvalidInput),
        ([b"{\n"], InvalidInput),
        ([*lines[:2], b'{"document":{"kind":1}}\n', *lines[2:]], InvalidInput),
        ([*lines[:2], b'{"nothing":1}\n'], InvalidInput),
        ([*lines[:-1], b'{"total":{"sessions":1}}\n'], InvalidInput),
        (
            joined.replace(writer.record.trace_id.encode(), new_id().encode()).splitlines(keepends=True),
            (InvalidTrace, InvalidInput),
        ),
    ):
        with pytest.raises(kind):
            import_(MemoryStorage(), broken)
    there = MemoryStorage()
    import_(there, lines)
    writer.store = there.of_tenant(writer.store.tenant)
    writer.append()
    with pytest.raises(SessionExists, match="another"):
        import_(there, lines)


def edited(lines: list[bytes], kind: str, **fields: Any) -> list[bytes]:
    """Return an export in which one line says otherwise, with digests that fit."""
    made, digest, changed = [], sha256(), False
    for line in lines:
        item = json.loads(line)
        if kind in item and not changed:
            item = {**item, **fields} if kind in fields else {**item, kind: {**item[kind], **fields}}
            changed = True
        if "session" in item:
            digest = sha256()
        if "end" in item:
            item["end"] = digest.hexdigest()
        made.append(dumps(item) + b"\n")
        digest.update(made[-1])
    assert changed
    return made


def exported(status: str) -> list[bytes]:
    """Return the export of a session whose one approval is of this status."""
    desk = Desk(MemoryStorage())
    session_id = desk.begin()
    with suppress(ApprovalRequired):
        desk.runtime.execute(session_id, "mail.send", {})
    if status != "pending":
        desk.runtime.approvals.grant(desk.runtime.approvals.list()[0].approval_id, approver="dana")
    if status == "used":
        desk.runtime.execute(session_id, "mail.send", {})
    lines = list(export(desk.store, ["default"]))
    import_(MemoryStorage(), lines)
    return lines


@pytest.mark.parametrize(
    ("status", "kind", "fields", "words"),
    [
        ("used", "session", {"agent_id": "admin"}, "agent_id is `admin`, its events say `agent-1`"),
        ("used", "session", {"goal": "anything"}, "goal is `anything`"),
        ("used", "session", {"status": "ended", "ended_us": 5}, "status is `ended`, its events say `active`"),
        ("used", "session", {"agent_id": 5}, "line 4 of the export has another shape"),
        ("used", "session", {"started_us": -1}, "line 4 of the export has another shape"),
        ("used", "session", {"context": [1]}, "line 4 of the export has another shape"),
        ("used", "session", {"ended_us": 1 << 62}, "line 4 of the export has another shape"),
        ("used", "resolution", {"offered": [1]}, "another shape"),
        ("used", "requests", {"requests": "ab"}, "another shape"),
        ("pending", "approval", {"status": "granted", "approver": "eve"}, "is `granted`, its events say"),
        ("pending", "approval", {"status": "perhaps"}, "another shape"),
        ("granted", "approval", {"parameters_hash": "0" * 64}, "is `granted`, its events say"),
        ("granted", "approval", {"approver": "agent-1"}, "is `granted`, its events say"),
        ("used", "approval", {"action_id": "ticket.delete"}, "is `used`, its events say"),
    ],
)
def test_a_state_that_the_events_do_not_tell_is_refused_and_nothing_is_taken(
    status: str, kind: str, fields: dict[str, Any], words: str
) -> None:
    place = MemoryStorage()
    with pytest.raises(InvalidInput, match=re.escape(words)):
        import_(place, edited(exported(status), kind, **fields))
    assert place.sessions() == []


def test_a_line_of_a_session_that_was_changed_is_refused_by_its_digest() -> None:
    lines = exported("pending")
    place = MemoryStorage()
    for number, line in enumerate(lines):
        if line.startswith((b'{"actions"', b'{"requests"', b'{"resolution"', b'{"approval"')):
            with pytest.raises(InvalidInput, match="another digest"):
                import_(place, [*lines[:number], line.replace(b"\n", b" \n"), *lines[number + 1 :]])
    assert place.sessions() == []


@pytest.mark.parametrize("more", [b"\n", b"garbage\n", b"[" * 200_000 + b"\n", b'{"tenant":"default"}\n'])
def test_what_follows_the_end_of_an_export_is_not_left_out_in_silence(more: bytes) -> None:
    lines = exported("used")
    with pytest.raises(InvalidInput, match=r"line 1[0-9]"):
        import_(MemoryStorage(), [*lines, more])
    with pytest.raises(InvalidInput, match="goes on behind its end"):
        import_(MemoryStorage(), [*lines, *lines])


@pytest.mark.parametrize("words", [("storage", "status"), ("session", "list"), ("serve", "--check")])
def test_a_storage_of_an_unknown_kind_is_refused_with_the_kinds_there_are(cra: Run, words: tuple[str, ...]) -> None:
    ran = cra(*words, "--storage", "mysql://user:hunter2@db/cra")
    assert (ran.code, ran.out.count("mysql"), "hunter2" in ran.out + ran.err) == (3, words[0] == "serve", False)
    assert "expected memory, sqlite:///path or postgresql://host/database" in ran.err
    assert "sqlite:///cra.db" in ran.err.partition("hint:")[2]
