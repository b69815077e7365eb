"""Keys and roles over HTTP, at a real socket: made, used, rotated, revoked, and never more than their maker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cra.server.settings import ServiceSettings
from cra.storage.memory import MemoryStorage
from tests.server.identities import make_key, make_tenant, memory
from tests.server.running import running


class Place:
    """A running service, with its store."""

    def __init__(self, url: str, store: MemoryStorage) -> None:
        self.url = url
        self.store = store
        self.client = httpx.Client(base_url=url)

    def key(self, tenant: str = "default", **request: Any) -> str:
        return make_key(self.store, tenant, **request)[1]

    def ask(self, key: str | None, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.client.request(
            method, path, headers=headers, json=body if body is not None else None, params=query or None
        )


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    store = memory()
    # Before it starts: what others do to its store, a service sees only within two seconds.
    make_tenant(store, "acme")
    make_tenant(store, "lonely")
    settings = ServiceSettings(storage="memory", shutdown_seconds=5)
    with running(settings, storage=store) as service:
        made = Place(service.url, store)
        yield made
        made.client.close()


@pytest.fixture(scope="module")
def admin(place: Place) -> str:
    return place.key()


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    value: dict[str, Any] = answer.json()
    return value


def new(place: Place, admin: str, **request: Any) -> dict[str, Any]:
    answer = place.ask(admin, "POST", "/v1/keys", {"subject": "someone", "roles": ["viewer"], **request})
    assert answer.status_code == 201, answer.text
    value: dict[str, Any] = answer.json()
    return value


def test_a_key_is_made_used_listed_rotated_and_revoked(place: Place, admin: str) -> None:
    made = new(place, admin, subject="ci", scopes=["sessions.read"], expires_at="2999-01-01T00:00:00Z")
    text, path = made.pop("key"), f"/v1/keys/{made['key_id']}"
    assert made["status"] == "active" and made["created_by"] == "dana@example.com"
    assert place.ask(text, "GET", "/v1/sessions").status_code == 200
    assert problem(place.ask(text, "GET", "/v1/atlases"), 403)["details"] == {"permission": "atlases.read"}
    assert place.ask(admin, "GET", path).json() == made
    assert made in place.ask(admin, "GET", "/v1/keys", limit=1000).json()["keys"]
    rotated = place.ask(admin, "POST", f"{path}/rotate", {"overlap_seconds": 3600}).json()
    assert rotated["key"] != text and rotated["key_id"] == made["key_id"]
    for secret in (text, rotated["key"]):
        assert place.ask(secret, "GET", "/v1/sessions").status_code == 200
    revoked = place.ask(admin, "DELETE", path)
    assert revoked.json()["status"] == "revoked"
    for secret in (text, rotated["key"]):
        problem(place.ask(secret, "GET", "/v1/sessions"), 401)
    assert place.ask(admin, "DELETE", path).json() == revoked.json()
    assert problem(place.ask(admin, "POST", f"{path}/rotate"), 409)["code"] == "administration_conflict"


def test_what_was_done_to_keys_is_in_the_record_with_who_did_it(place: Place, admin: str) -> None:
    made = new(place, admin)
    place.ask(admin, "POST", f"/v1/keys/{made['key_id']}/rotate")
    place.ask(admin, "DELETE", f"/v1/keys/{made['key_id']}")
    sessions = place.ask(admin, "GET", "/v1/sessions", agent_id="cra.administration").json()["sessions"]
    path = f"/v1/sessions/{sessions[0]['session_id']}/trace"
    events = place.ask(admin, "GET", path, limit=10_000).json()["events"]
    told = [e for e in events if e["payload"].get("key_id") == made["key_id"]]
    assert [e["event_type"] for e in told] == ["key.created", "key.rotated", "key.revoked"]
    assert {e["payload"]["actor"] for e in told} == {"dana@example.com"}
    assert made["key"][-43:] not in json.dumps(events)
    assert place.ask(admin, "GET", f"{path}/verify").json()["ok"] is True


def test_pages_of_keys_are_all_keys_once(place: Place) -> None:
    place_key = place.key("acme")
    for number in range(6):
        place.key("acme", subject=f"s{number}", roles=["viewer"])
    seen: list[str] = []
    after: dict[str, Any] = {}
    while True:
        answer = place.ask(place_key, "GET", "/v1/keys", limit=2, **after).json()
        assert len(answer["keys"]) <= 2
        seen += [key["key_id"] for key in answer["keys"]]
        if "next" not in answer:
            break
        after = {"after": answer["next"]}
    assert len(seen) == len(set(seen)) == 7
    assert place.ask(place_key, "GET", "/v1/keys", after="nowhere").json() == {"keys": []}


BAD_KEYS: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "no roles": ({"roles": []}, 400, "/roles"),
    "an unknown role": ({"roles": ["viewer", "root"]}, 400, "/roles/1"),
    "an unknown scope": ({"scopes": ["keys.write"]}, 400, "/scopes/0"),
    "no scopes at all": ({"scopes": []}, 400, "/scopes"),
    "the role agent without an agent": ({"roles": ["agent"]}, 400, "/agent_id"),
    "the runtime's own agent": ({"roles": ["agent"], "agent_id": "cra.administration"}, 400, "/agent_id"),
    "an empty subject": ({"subject": ""}, 400, "/subject"),
    "a subject with controls": ({"subject": "a\nb"}, 400, "/subject"),
    "a subject too long": ({"subject": "x" * 256}, 400, "/subject"),
    "an end that is past": ({"expires_at": "2020-01-01T00:00:00Z"}, 400, "/expires_at"),
    "an end that is no time": ({"expires_at": "2027-02-30T00:00:00Z"}, 400, "/expires_at"),
    "an unknown member": ({"tenant": "acme"}, 400, None),
    "a secret of one's own": ({"digest": "0" * 64}, 400, None),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_key_that_makes_no_sense_is_not_made(place: Place, admin: str, name: str) -> None:
    more, status, pointer = BAD_KEYS[name]
    before = len(place.store.of_tenant("default").documents("key"))
    found = problem(place.ask(admin, "POST", "/v1/keys", {"subject": "s", "roles": ["viewer"], **more}), status)
    if pointer is not None:
        assert found["pointer"] == pointer
    assert len(place.store.of_tenant("default").documents("key")) == before


@pytest.mark.parametrize("key_id", ["7" * 16, "nobody", "A" * 16, "..~", "x" * 200])
def test_a_key_that_is_not_there_is_not_found(place: Place, admin: str, key_id: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        answer = place.ask(admin, method, f"/v1/keys/{key_id}{path}")
        assert problem(answer, 404)["code"] in ("key_not_found", "route_not_found")


# -- nobody gets more than they have ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clerk(place: Place, admin: str) -> str:
    """Return the key of somebody who manages keys and roles, and may little else."""
    wanted = ["keys.read", "keys.manage", "roles.manage", "sessions.read", "traces.read", "atlases.read"]
    wanted.append("approvals.read")
    assert place.ask(admin, "PUT", "/v1/roles/clerk", {"permissions": wanted}).status_code == 200
    return str(new(place, admin, subject="clerk", roles=["clerk"])["key"])


def test_nobody_makes_a_key_that_may_more_than_they(place: Place, admin: str, clerk: str) -> None:
    assert new(place, clerk, roles=["viewer"])
    assert new(place, clerk, roles=["clerk"])
    for more in ({"roles": ["admin"]}, {"roles": ["developer"]}, {"roles": ["viewer", "auditor"]}):
        found = problem(place.ask(clerk, "POST", "/v1/keys", {"subject": "s", **more}), 403)
        assert found["code"] == "forbidden" and found["details"]["permission"]
    # Narrowed to what they have themselves, it is no more.
    assert new(place, clerk, roles=["admin"], scopes=["sessions.read"])


def test_scopes_of_the_maker_bind_what_is_made(place: Place, admin: str) -> None:
    narrow = new(place, admin, roles=["admin"], scopes=["keys.manage", "sessions.read"])["key"]
    problem(place.ask(narrow, "POST", "/v1/keys", {"subject": "s", "roles": ["viewer"]}), 403)
    assert new(place, narrow, roles=["viewer"], scopes=["sessions.read"])


def test_nobody_takes_over_a_key_that_may_more_by_rotating_it(place: Place, admin: str, clerk: str) -> None:
    strong = new(place, admin, roles=["admin"])
    path = f"/v1/keys/{strong['key_id']}"
    problem(place.ask(clerk, "POST", f"{path}/rotate"), 403)
    problem(place.ask(clerk, "DELETE", path, last="true"), 403)
    assert place.ask(strong["key"], "GET", "/v1/keys").status_code == 200


def test_nobody_sets_a_role_that_may_more_than_they(place: Place, clerk: str) -> None:
    assert place.ask(clerk, "PUT", "/v1/roles/reader", {"permissions": ["sessions.read"]}).status_code == 200
    problem(place.ask(clerk, "PUT", "/v1/roles/reader", {"permissions": ["approvals.decide"]}), 403)
    problem(place.ask(clerk, "PUT", "/v1/roles/clerk", {"permissions": ["keys.manage", "retention.manage"]}), 403)
    reader = new(place, clerk, roles=["reader"])["key"]
    problem(place.ask(reader, "GET", "/v1/atlases"), 403)


def test_nobody_takes_from_a_role_what_they_could_not_give_it(place: Place, admin: str, clerk: str) -> None:
    before = {"permissions": ["approvals.decide", "approvals.read"]}
    assert place.ask(admin, "PUT", "/v1/roles/judge", before).status_code == 200
    for method, body in (("PUT", {"permissions": []}), ("PUT", {"permissions": ["approvals.read"]}), ("DELETE", None)):
        found = problem(place.ask(clerk, method, "/v1/roles/judge", body), 403)
        assert found["details"]["permission"] == "approvals.decide"
    roles = {role["name"]: role for role in place.ask(admin, "GET", "/v1/roles").json()["roles"]}
    assert roles["judge"]["permissions"] == before["permissions"]
    assert place.ask(admin, "DELETE", "/v1/roles/judge").status_code == 204


def test_an_agents_key_manages_nothing_even_with_the_role_of_an_administrator(place: Place, admin: str) -> None:
    agent = new(place, admin, roles=["admin", "agent"], agent_id="bot")["key"]
    assert place.ask(agent, "GET", "/v1/sessions").status_code == 200
    for method, path in (("POST", "/v1/keys"), ("GET", "/v1/keys"), ("PUT", "/v1/roles/x"), ("POST", "/v1/atlases")):
        problem(place.ask(agent, method, path, {} if method != "GET" else None), 403)


def test_the_last_key_that_can_manage_keys_is_revoked_only_when_it_is_meant(place: Place) -> None:
    first_id, first = make_key(place.store, "lonely")
    second = new(place, first, roles=["admin"])
    new(place, first, roles=["admin"], scopes=["keys.read"])
    assert place.ask(second["key"], "DELETE", f"/v1/keys/{second['key_id']}").status_code == 200
    path = f"/v1/keys/{first_id}"
    found = problem(place.ask(first, "DELETE", path), 409)
    assert found["code"] == "administration_conflict" and "last=true" in found["hint"]
    problem(place.ask(first, "DELETE", path, last="false"), 409)
    problem(place.ask(first, "DELETE", path, last="maybe"), 400)
    assert place.ask(first, "GET", path).status_code == 200
    assert place.ask(first, "DELETE", path, last="true").status_code == 200
    problem(place.ask(first, "GET", path), 401)


# -- roles ------------------------------------------------------------------------------------------------------------


def test_a_role_is_set_shown_used_and_removed(place: Place, admin: str) -> None:
    wanted = {"permissions": ["approvals.read", "approvals.decide"]}
    shown = place.ask(admin, "PUT", "/v1/roles/approver", wanted).json()
    assert shown == {"name": "approver", "permissions": ["approvals.decide", "approvals.read"], "built_in": False}
    roles = place.ask(admin, "GET", "/v1/roles").json()["roles"]
    assert [role["name"] for role in roles[:5]] == ["admin", "developer", "agent", "auditor", "viewer"]
    assert shown in roles
    made = new(place, admin, roles=["approver"])
    assert place.ask(made["key"], "GET", "/v1/approvals").status_code == 200
    problem(place.ask(made["key"], "GET", "/v1/sessions"), 403)
    found = problem(place.ask(admin, "DELETE", "/v1/roles/approver"), 409)
    assert made["key_id"] in found["detail"]
    place.ask(admin, "DELETE", f"/v1/keys/{made['key_id']}")
    assert place.ask(admin, "DELETE", "/v1/roles/approver").status_code == 204
    assert problem(place.ask(admin, "DELETE", "/v1/roles/approver"), 404)["code"] == "role_not_found"


def test_what_is_set_of_a_role_holds_for_its_keys_from_the_next_call_on(place: Place, admin: str) -> None:
    place.ask(admin, "PUT", "/v1/roles/moving", {"permissions": ["sessions.read"]})
    key = new(place, admin, roles=["moving"])["key"]
    assert place.ask(key, "GET", "/v1/sessions").status_code == 200
    place.ask(admin, "PUT", "/v1/roles/moving", {"permissions": []})
    problem(place.ask(key, "GET", "/v1/sessions"), 403)


@pytest.mark.parametrize("name", ["admin", "agent", "viewer"])
def test_a_built_in_role_stays_what_it_is(place: Place, admin: str, name: str) -> None:
    problem(place.ask(admin, "PUT", f"/v1/roles/{name}", {"permissions": []}), 409)
    problem(place.ask(admin, "DELETE", f"/v1/roles/{name}"), 409)


@pytest.mark.parametrize("name", ["Admin", "a_b", "9", "-", "a" * 64])
def test_a_role_has_a_plain_name(place: Place, admin: str, name: str) -> None:
    problem(place.ask(admin, "PUT", f"/v1/roles/{name}", {"permissions": []}), 400)


def test_a_role_of_unknown_permissions_is_not_set(place: Place, admin: str) -> None:
    found = problem(place.ask(admin, "PUT", "/v1/roles/x", {"permissions": ["sessions.read", "all"]}), 400)
    assert found["pointer"] == "/permissions/1"


# -- the service's own limits -----------------------------------------------------------------------------------------


def test_a_credential_that_calls_too_fast_is_told_when_to_come_back_and_others_are_not() -> None:
    store = memory()
    make_tenant(store, "acme")
    settings = ServiceSettings(
        storage="memory", shutdown_seconds=5, auth={"throttle": {"key_per_second": 1, "key_burst": 3}}
    )
    with running(settings, storage=store) as service:
        place = Place(service.url, store)
        first, second, third = place.key(), place.key(), place.key("acme")
        answers = [place.ask(first, "GET", "/v1/sessions") for _ in range(12)]
        assert [answer.status_code for answer in answers[:3]] == [200] * 3
        late = [answer for answer in answers if answer.status_code == 429]
        assert len(late) >= 5
        assert problem(late[0], 429)["code"] == "rate_limited"
        assert int(late[0].headers["retry-after"]) >= 1
        assert place.ask(second, "GET", "/v1/sessions").status_code == 200
        assert place.ask(third, "GET", "/v1/sessions").status_code == 200
        assert place.ask(None, "GET", "/v1/health/live").status_code == 200
        place.client.close()


def test_a_tenant_that_calls_too_fast_does_not_slow_another() -> None:
    from cra.errors import RateLimited
    from cra.server.auth.settings import ThrottleSettings
    from cra.server.identity import Identity
    from cra.server.throttle import Throttle

    throttle = Throttle(ThrottleSettings(tenant_per_second=1, tenant_burst=2, max_tracked=10))

    def call(tenant: str, key: str) -> bool:
        identity = Identity(tenant=tenant, subject="s", roles=(), permissions=frozenset(), credential=f"key:{key}")
        try:
            throttle.check(identity)
        except RateLimited as error:
            assert error.details["retry_after_seconds"] >= 1
            return False
        return True

    assert [call("a", f"k{n}") for n in range(8)][:2] == [True, True]
    assert not all(call("a", f"k{n}") for n in range(8))
    assert call("b", "k0")
    for number in range(100):
        call(f"t{number}", "k")
    remembered: Any = throttle._tenant
    assert len(remembered._store._backend._client) == 10


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_first_key_is_made_at_the_command_line_and_opens_the_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("apsw")
    pytest.importorskip("typer")
    from cra.cli import main

    url = f"sqlite:///{tmp_path}/cra.db"

    def cra(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--storage", url])
        out, err = capsys.readouterr()
        return code, out.strip(), err

    code, text, err = cra("keys", "create", "--subject", "dana", "--role", "admin")
    assert code == 0 and text.startswith("cra_default_") and text not in err
    assert cra("tenants", "create", "acme")[0] == 0
    code, out, _ = cra("keys", "create", "--subject", "b", "--role", "agent", "--agent", "bot", "-t", "acme", "--json")
    agent = json.loads(out)
    assert (code, agent["agent_id"], agent["status"]) == (0, "bot", "active")
    assert cra("keys", "create", "--subject", "x", "--role", "admin", "-t", "nobody")[0] == 4
    assert cra("keys", "create", "--subject", "x", "--role", "root")[0] == 3
    assert cra("tenants", "create", "Acme")[0] == 3
    assert cra("tenants", "create", "acme")[0] == 7
    assert cra("keys", "revoke", "0" * 16)[0] == 4
    with running(ServiceSettings(storage=url, shutdown_seconds=5)) as service:
        with httpx.Client(base_url=service.url) as client:

            def status(key: str) -> int:
                return client.get("/v1/sessions", headers={"X-API-Key": key}).status_code

            assert status(text) == 200
            assert status(agent["key"]) == 200
            # What another process does is seen here soon: nobody tells this one.
            assert cra("keys", "revoke", agent["key_id"], "-t", "acme")[0] == 0
            deadline = time.monotonic() + 30
            while status(agent["key"]) == 200:
                assert time.monotonic() < deadline
            assert status(agent["key"]) == 401
            assert status(text) == 200
    code, out, _ = cra("keys", "list", "-t", "acme", "--json")
    assert [key["status"] for key in json.loads(out)["keys"]] == ["revoked"]
    assert cra("keys", "revoke", text.split("_")[2])[0] == 7
    code, rotated, _ = cra("keys", "rotate", text.split("_")[2], "--overlap", "5")
    assert code == 0 and rotated.startswith("cra_default_") and rotated != text
    assert cra("keys", "revoke", text.split("_")[2], "--last")[0] == 0
    assert cra("tenants", "remove", "acme")[0] == 0
    assert "acme" not in cra("tenants", "list")[1]
    assert cra("keys", "list", "-t", "acme")[0] == 4
