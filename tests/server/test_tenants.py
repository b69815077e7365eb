"""Tenants over HTTP: made, entered, closed; and nothing of one at the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cra.server.settings import ServiceSettings
from tests.server.identities import make_key, memory
from tests.server.running import running


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    store = memory()
    ops = make_key(store, "system", subject="ops@example.com")[1]
    admin = make_key(store, "default")[1]
    settings = ServiceSettings(storage="memory", shutdown_seconds=5)
    with running(settings, storage=store) as service:
        with httpx.Client(base_url=service.url) as client:
            client.headers["x-ops"], client.headers["x-admin"] = ops, admin
            yield client


def ask(client: httpx.Client, key: str, method: str, path: str, body: Any = None) -> httpx.Response:
    text = client.headers.get(f"x-{key}", key)
    return client.request(method, path, json=body, headers={"Authorization": f"Bearer {text}"})


def made(client: httpx.Client, name: str) -> str:
    answer = ask(client, "ops", "POST", "/v1/tenants", {"name": name, "admin": "dana"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["admin"]["key"])


def test_a_tenant_is_created_with_its_first_administrator_who_gets_in_at_once(client: httpx.Client) -> None:
    answer = ask(client, "ops", "POST", "/v1/tenants", {"name": "acme", "admin": "dana@acme.example"})
    value = answer.json()
    assert answer.headers["location"] == "/v1/tenants/acme"
    assert value["created_by"] == "ops@example.com" and value["built_in"] is False
    key = value["admin"]["key"]
    assert key.startswith("cra_acme_")
    assert ask(client, key, "POST", "/v1/sessions", {"agent_id": "a", "goal": "g"}).status_code == 201
    shown = ask(client, "ops", "GET", "/v1/tenants/acme").json()
    assert shown["name"] == "acme" and "admin" not in shown
    names = [tenant["name"] for tenant in ask(client, "ops", "GET", "/v1/tenants").json()["tenants"]]
    assert names[:2] == ["default", "system"] and "acme" in names
    assert ask(client, "ops", "GET", "/v1/tenants/default").json() == {"name": "default", "built_in": True}


def test_a_tenant_without_an_administrator_has_no_key(client: httpx.Client) -> None:
    answer = ask(client, "ops", "POST", "/v1/tenants", {"name": "empty"})
    assert answer.status_code == 201 and "admin" not in answer.json()


@pytest.mark.parametrize("name", ["Acme", "a_b", "1a", "", "a" * 64, "a\n", "ä"])
def test_a_tenant_has_a_plain_name(client: httpx.Client, name: str) -> None:
    answer = ask(client, "ops", "POST", "/v1/tenants", {"name": name})
    assert (answer.status_code, answer.json()["pointer"]) == (400, "/name")


def test_a_closed_tenant_lets_nobody_in_and_its_name_is_never_given_again(client: httpx.Client) -> None:
    key = made(client, "closing")
    assert ask(client, key, "GET", "/v1/sessions").status_code == 200
    closed = ask(client, "ops", "DELETE", "/v1/tenants/closing")
    assert closed.status_code == 200 and closed.json()["removed_at"]
    assert ask(client, key, "GET", "/v1/sessions").status_code == 401
    for method in ("GET", "DELETE"):
        assert ask(client, "ops", method, "/v1/tenants/closing").json()["code"] == "tenant_not_found"
    again = ask(client, "ops", "POST", "/v1/tenants", {"name": "closing", "admin": "mallory"})
    assert (again.status_code, again.json()["code"]) == (409, "administration_conflict")
    assert ask(client, key, "GET", "/v1/sessions").status_code == 401


@pytest.mark.parametrize("name", ["default", "system"])
def test_a_built_in_tenant_is_neither_made_nor_closed(client: httpx.Client, name: str) -> None:
    assert ask(client, "ops", "POST", "/v1/tenants", {"name": name}).status_code == 409
    assert ask(client, "ops", "DELETE", f"/v1/tenants/{name}").status_code == 409


def test_only_system_manages_tenants_and_it_does_nothing_else(client: httpx.Client) -> None:
    for method, path, body in (
        ("GET", "/v1/tenants", None),
        ("POST", "/v1/tenants", {"name": "mine"}),
        ("GET", "/v1/tenants/default", None),
        ("DELETE", "/v1/tenants/default", None),
    ):
        answer = ask(client, "admin", method, path, body)
        assert answer.status_code == 403, path
    for path in ("/v1/sessions", "/v1/resolve", "/v1/execute", "/v1/atlases", "/v1/validate"):
        assert ask(client, "ops", "POST", path, {}).status_code == 403
    for path in ("/v1/approvals", "/v1/atlases", "/v1/retention"):
        assert ask(client, "ops", "GET", path).status_code == 403


def test_the_same_session_id_in_two_tenants_is_two_sessions(client: httpx.Client) -> None:
    one, two = made(client, "one"), made(client, "two")
    session = {"session_id": "00000000-0000-7000-8000-00000000abcd", "agent_id": "a"}
    path = f"/v1/sessions/{session['session_id']}"
    assert ask(client, one, "POST", "/v1/sessions", {**session, "goal": "of one"}).status_code == 201
    absent = ask(client, two, "GET", path)
    never = ask(client, two, "GET", path[:-1] + "0")
    assert absent.status_code == never.status_code == 404
    assert absent.json()["code"] == never.json()["code"] == "session_not_found"
    assert ask(client, two, "POST", "/v1/sessions", {**session, "goal": "of two"}).status_code == 201
    assert ask(client, one, "GET", path).json()["goal"] == "of one"
    assert ask(client, two, "GET", path).json()["goal"] == "of two"
    ask(client, two, "DELETE", path)
    assert ask(client, one, "GET", path).json()["status"] == "active"


def test_keys_and_roles_of_another_tenant_do_not_exist(client: httpx.Client) -> None:
    left, right = made(client, "left"), made(client, "right")
    ask(client, left, "PUT", "/v1/roles/secret-role", {"permissions": ["sessions.read"]})
    key_id = left.split("_")[2]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        assert ask(client, right, method, f"/v1/keys/{key_id}{path}").json()["code"] == "key_not_found"
    assert ask(client, right, "DELETE", "/v1/roles/secret-role").json()["code"] == "role_not_found"
    body = {"subject": "s", "roles": ["secret-role"]}
    assert ask(client, right, "POST", "/v1/keys", body).status_code == 400
    for path in ("/v1/keys", "/v1/roles"):
        text = ask(client, right, "GET", path).text
        assert key_id not in text and "secret-role" not in text


def test_the_metrics_of_a_tenant_are_its_own_and_system_sees_them_all(client: httpx.Client) -> None:
    left, right = made(client, "metrics-left"), made(client, "metrics-right")
    ask(client, left, "GET", "/v1/sessions")
    ask(client, right, "GET", "/v1/sessions")
    ask(client, "made-up", "GET", "/v1/sessions")
    seen = [line for line in ask(client, left, "GET", "/metrics").text.splitlines() if line and line[0] != "#"]
    assert seen and all('tenant="metrics-left"' in line for line in seen)
    whole = ask(client, "ops", "GET", "/metrics").text
    assert 'tenant="metrics-left"' in whole and 'tenant="metrics-right"' in whole


def test_tenants_are_listed_in_pages(client: httpx.Client) -> None:
    first = ask(client, "ops", "GET", "/v1/tenants?limit=2").json()
    assert [tenant["name"] for tenant in first["tenants"]] == ["default", "system"]
    rest = ask(client, "ops", "GET", "/v1/tenants?limit=1000&after=system").json()
    assert "next" not in rest and {"default", "system"}.isdisjoint(t["name"] for t in rest["tenants"])
