"""API keys: who gets in by one, who does not, and that nobody can tell why not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cra.errors import StorageError, Unauthenticated
from cra.server.auth import issuing
from cra.server.auth.authenticator import Authenticator
from cra.server.auth.directory import _STALE_S
from cra.server.auth.keys import new_key, read_key
from cra.server.identity import Identity
from cra.server.roles import ROLES
from cra.storage.base import Storage
from tests.server.identities import (
    NOW_S,
    Clocks,
    authenticator,
    bearer,
    change,
    make_key,
    make_tenant,
    memory,
    scope,
    set_role,
)


def ask(doorman: Authenticator, *scopes: dict[str, Any]) -> Identity:
    async def all_of() -> Identity:
        for one in scopes[:-1]:
            await doorman(one)
        return await doorman(scopes[-1])

    return asyncio.run(all_of())


def refused(doorman: Authenticator, given: dict[str, Any]) -> str:
    with pytest.raises(Unauthenticated) as caught:
        ask(doorman, given)
    assert caught.value.details == {}
    return f"{caught.value.code} {caught.value.message} {caught.value.hint}"


def revoke(store: Storage, tenant: str, key_id: str) -> None:
    part = store.of_tenant(tenant)
    change(
        store,
        tenant,
        lambda: issuing.revoke_key(part, key_id, maker=issuing.ANYTHING, last=True, now_us=NOW_S * 1_000_000),
    )


class Counting:
    """A store that counts what is asked of it, through all of its tenants."""

    def __init__(self, store: Storage, counts: dict[str, int] | None = None) -> None:
        self._store = store
        self.counts = {} if counts is None else counts
        self.fails = False

    def of_tenant(self, tenant: str) -> Counting:
        return Counting(self._store.of_tenant(tenant), self.counts)

    def __getattr__(self, name: str) -> Any:
        if name in ("document", "documents", "revision"):
            self.counts[name] = self.counts.get(name, 0) + 1
            if self.counts.get("fail"):
                raise StorageError("the store is away")
        return getattr(self._store, name)


def test_a_key_is_its_subject_roles_and_tenant_by_either_header() -> None:
    store = memory()
    key_id, text = make_key(store, subject="dana", roles=["developer"])
    doorman = authenticator(store)
    for given in (bearer(text), scope(("x-api-key", text)), scope(("Authorization", f"bEaReR {text}"))):
        found = ask(doorman, given)
        assert (found.tenant, found.subject, found.roles) == ("default", "dana", ("developer",))
        assert found.permissions == ROLES["developer"]
        assert found.credential == f"key:{key_id}"
        assert found.agent_id is None and found.expires_us is None


def test_every_bad_credential_gets_the_same_answer() -> None:
    store, clocks = memory(), Clocks()
    make_tenant(store, "acme")
    _, good = make_key(store)
    _, expired = make_key(store, expires_at="2026-09-21T14:13:30Z", clock=clocks.now_us)
    gone_id, gone = make_key(store)
    revoke(store, "default", gone_id)
    prefix, secret = good.rsplit("_", 1)[0], good[-43:]
    other = new_key("default").text
    bad: list[dict[str, Any]] = [
        scope(),
        scope(("Authorization", good)),
        scope(("Authorization", f"Basic {good}")),
        scope(("Authorization", "Bearer")),
        scope(("Authorization", f"Bearer  {good}")),
        scope(("Authorization", f"Bearer {good} ")),
        scope(("Authorization", f"Bearer {good}\n")),
        scope(("Authorization", f"Bearer {good}"), ("x-api-key", good)),
        scope(("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")),
        bearer(other),
        bearer(f"cra_default_{prefix[-16:]}_{other[-43:]}"),
        bearer(f"cra_acme_{prefix[-16:]}_{secret}"),
        bearer(f"cra_nobody_{prefix[-16:]}_{secret}"),
        bearer(f"cra_system_{prefix[-16:]}_{secret}"),
        bearer(f"cra_DEFAULT_{prefix[-16:]}_{secret}"),
        bearer(f"cra_default_{prefix[-16:].upper()}_{secret}"),
        bearer(good[:-1]),
        bearer(good + "A"),
        bearer(good.replace("_", "-")),
        bearer(b"cra_default_" + b"\xff" * 16 + b"_" + secret.encode()),
        bearer(b"\x00"),
        bearer(b""),
        bearer("a.b.c"),
        bearer("x" * 100_000),
        bearer("cra_" + "a" * 100_000),
        scope(("x-api-key", "")),
        scope(("x-api-key", f"Bearer {good}")),
        bearer(gone),
    ]
    doorman = authenticator(store, clocks)
    answers = {refused(doorman, given) for given in bad}
    ask(doorman, bearer(expired))
    clocks.pass_(60 + 1e6)
    answers.add(refused(doorman, bearer(expired)))
    assert len(answers) == 1
    assert ask(doorman, bearer(good)).subject == "dana@example.com"


def test_the_text_of_a_key_is_read_back_as_it_was_made() -> None:
    made = new_key("acme-2")
    presented = read_key(made.text.encode())
    assert presented is not None
    assert (presented.tenant, presented.key_id) == ("acme-2", made.key_id)
    assert presented.secret_digest.hex() == made.digest
    assert made.text not in repr(made) and made.text[-43:] not in repr(presented)


def test_what_is_stored_shown_and_recorded_has_no_secret_in_it() -> None:
    store = memory()
    key_id, text = make_key(store)
    part = store.of_tenant("default")
    document = part.document("key", key_id)
    assert document is not None
    assert text[-43:].encode() not in document.body
    _, key = issuing.read_document(part, key_id)
    session = part.sessions()[0].session_id
    for seen in (part.events(session), str(issuing.shown(key, 0)).encode()):
        assert text[-43:].encode() not in seen
        assert key.digest.encode() not in seen


def test_a_revocation_elsewhere_is_seen_within_two_seconds(tmp_path: Path) -> None:
    pytest.importorskip("apsw")
    from cra.storage.sqlite import SQLiteStorage

    here, there = SQLiteStorage(str(tmp_path / "a.db")), SQLiteStorage(str(tmp_path / "a.db"))
    try:
        key_id, text = make_key(there)
        clocks = Clocks()
        doorman = authenticator(here, clocks)
        assert ask(doorman, bearer(text))
        revoke(there, "default", key_id)
        clocks.elapsed_s += _STALE_S
        assert refused(doorman, bearer(text))
    finally:
        here.close()
        there.close()


def test_with_steady_traffic_the_store_is_asked_in_the_background_and_nobody_waits() -> None:
    store = Counting(memory())
    key_id, text = make_key(store)  # type: ignore[arg-type]
    clocks = Clocks()
    doorman = authenticator(store, clocks)  # type: ignore[arg-type]

    async def busy() -> None:
        await doorman(bearer(text))
        store.counts.clear()
        for _ in range(100):
            await doorman(bearer(text))
        assert store.counts == {}
        revoke(store, "default", key_id)  # type: ignore[arg-type]
        clocks.elapsed_s += 1.5
        await doorman(bearer(text))  # still good, and the question is on its way
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(Unauthenticated):
            await doorman(bearer(text))

    asyncio.run(busy())


def test_a_flood_of_made_up_keys_and_tenants_costs_the_store_nothing() -> None:
    store = Counting(memory())
    _, text = make_key(store)  # type: ignore[arg-type]
    doorman = authenticator(store, auth={"throttle": {"failures_per_second": 0}})  # type: ignore[arg-type]
    ask(doorman, bearer(text))
    store.counts.clear()
    for number in range(500):
        refused(doorman, bearer(new_key("default").text))
        refused(doorman, bearer(new_key(f"made-up-{number}").text))
    assert store.counts == {}
    assert len(doorman.directory._parts) <= 2


def test_many_callers_at_once_ask_the_store_once() -> None:
    store = Counting(memory())
    _, text = make_key(store)  # type: ignore[arg-type]
    doorman = authenticator(store)  # type: ignore[arg-type]
    store.counts.clear()

    async def crowd() -> None:
        await asyncio.gather(*(doorman(bearer(text)) for _ in range(100)))

    asyncio.run(crowd())
    assert store.counts["documents"] <= 3


def test_when_the_store_does_not_answer_nobody_gets_in() -> None:
    store = Counting(memory())
    _, text = make_key(store)  # type: ignore[arg-type]
    clocks = Clocks()
    doorman = authenticator(store, clocks)  # type: ignore[arg-type]
    ask(doorman, bearer(text))
    store.counts["fail"] = 1
    ask(doorman, bearer(text))
    clocks.elapsed_s += 2.0
    with pytest.raises(StorageError):
        ask(doorman, bearer(text))
    store.counts["fail"] = 0
    assert ask(doorman, bearer(text))


def test_a_key_that_is_not_readable_opens_nothing_and_disturbs_no_other() -> None:
    from cra import CRARuntime, RuntimeConfig

    store = memory()
    broken_id, broken = make_key(store)
    _, text = make_key(store)
    runtime = CRARuntime(RuntimeConfig(storage=store.of_tenant("default")))
    runtime.administration.put("key", broken_id, b'{"key_id": 7}', "key.rotated", {}, actor="tests")
    doorman = authenticator(store)
    assert ask(doorman, bearer(text))
    refused(doorman, bearer(broken))


def test_scopes_narrow_what_the_roles_permit_and_never_widen_it() -> None:
    store = memory()
    _, text = make_key(store, roles=["developer"], scopes=["carp.resolve", "keys.manage"])
    assert ask(authenticator(store), bearer(text)).permissions == {"carp.resolve"}


def test_an_agents_key_acts_as_that_agent_and_manages_nothing_whatever_its_roles() -> None:
    store = memory()
    _, text = make_key(store, roles=["agent", "admin"], agent_id="support-1")
    found = ask(authenticator(store), bearer(text))
    assert found.agent_id == "support-1"
    assert found.is_for("support-1") and not found.is_for("support-2")
    assert "carp.execute" in found.permissions
    assert not found.permissions & {"approvals.decide", "keys.manage", "roles.manage", "atlases.load", "keys.read"}


def test_a_custom_role_counts_in_its_tenant_and_from_the_moment_it_is_set() -> None:
    store, clocks = memory(), Clocks()
    make_tenant(store, "acme")
    set_role(store, "default", "approver", "approvals.read", "approvals.decide")
    _, text = make_key(store, roles=["approver"])
    doorman = authenticator(store, clocks)
    assert ask(doorman, bearer(text)).permissions == {"approvals.read", "approvals.decide"}
    set_role(store, "default", "approver", "approvals.read")
    clocks.pass_(2.0)
    assert ask(doorman, bearer(text)).permissions == {"approvals.read"}


def test_after_a_rotation_the_secret_before_is_good_for_the_overlap_only() -> None:
    store, clocks = memory(), Clocks()
    part = store.of_tenant("default")
    key_id, old = make_key(store, clock=clocks.now_us)

    def rotated(overlap: int) -> str:
        def make() -> tuple[str, issuing.Write]:
            _, made, write = issuing.rotate_key(
                part, key_id, maker=issuing.ANYTHING, overlap_seconds=overlap, now_us=clocks.now_us()
            )
            return made.text, write

        return str(change(store, "default", make))

    doorman = authenticator(store, clocks)
    ask(doorman, bearer(old))
    new = rotated(60)
    clocks.pass_(3)
    assert ask(doorman, bearer(new)) == ask(doorman, bearer(old))
    clocks.pass_(57)
    refused(doorman, bearer(old))
    newest = rotated(0)
    clocks.pass_(3)
    assert ask(doorman, bearer(newest))
    refused(doorman, bearer(new))


def test_a_closed_tenant_lets_nobody_in() -> None:
    store, clocks = memory(), Clocks()
    make_tenant(store, "acme")
    _, text = make_key(store, "acme")
    doorman = authenticator(store, clocks)
    assert ask(doorman, bearer(text)).tenant == "acme"
    system = store.of_tenant("system")
    change(store, "system", lambda: issuing.remove_tenant(system, "acme", now_us=clocks.now_us()))
    clocks.pass_(2.0)
    refused(doorman, bearer(text))


def test_an_administrator_of_a_tenant_has_nothing_in_system_and_the_other_way_round() -> None:
    store = memory()
    _, of_default = make_key(store)
    _, of_system = make_key(store, "system")
    doorman = authenticator(store)
    assert "tenants.manage" not in ask(doorman, bearer(of_default)).permissions
    found = ask(doorman, bearer(of_system)).permissions
    assert "tenants.manage" in found
    assert not {p for p in found if p.startswith(("carp.", "atlases.", "approvals."))}
    assert "sessions.create" not in found


def test_development_mode_takes_calls_from_this_machine_and_not_from_web_pages() -> None:
    doorman = authenticator(auth={"dev": True})
    for host in ("localhost:8420", "127.0.0.1", "[::1]:8420"):
        assert ask(doorman, scope(("Host", host))).credential == "dev"
    assert ask(doorman, scope(("Host", "localhost"), ("Origin", "http://localhost:3000"))).tenant == "default"
    for given in (
        scope(("Host", "localhost"), client=("10.0.0.9", 1)),
        scope(("Host", "localhost"), client=None),
        scope(("Host", "evil.test:8420")),
        scope(("Host", "127.0.0.1.evil.test")),
        scope(("Host", "localhost"), ("Origin", "https://evil.test")),
        scope(("Host", "localhost"), ("Origin", "null")),
        scope(("Host", "[bad")),
        scope(("Host", "localhost"), ("Authorization", "Bearer x")),
    ):
        refused(doorman, given)
