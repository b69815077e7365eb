"""A lost database, a full disk, an expired token, a foreign id: a clear error, nothing changed, and then it goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from cra.server.routes import ROUTES
from cra.server.settings import ServiceSettings
from cra.storage.memory import MemoryStorage
from cra.storage.postgres import PostgresStorage
from cra.testing import postgres
from tests.server.desk import desk, request
from tests.server.identities import claims, make_key, make_tenant, public, sign, signing_key
from tests.server.running import running
from tests.storage.disk import disk

NOBODY = "00000000-0000-4000-8000-000000000000"


def register(runtime: Any) -> None:
    runtime.register_executor("*", lambda parameters: {"done": parameters}, inline=True)


@contextmanager
def serving(url: str, **options: Any) -> Iterator[tuple[httpx.Client, dict[str, Any]]]:
    """Run the service on a store; return a client and a session that has a resolution."""
    settings = ServiceSettings(storage=url, dev=True, shutdown_seconds=5)
    with (
        running(settings, atlases=(desk(),), register=register, **options) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        session = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).raise_for_status().json()
        client.post("/v1/resolve", json=request(session)).raise_for_status()
        yield client, session


def writes(client: httpx.Client, session: dict[str, Any]) -> list[Callable[[], httpx.Response]]:
    """Return calls of every kind that write."""
    call = {"action_id": "desk.look", "parameters": {}}
    return [
        lambda: client.post("/v1/resolve", json=request(session)),
        lambda: client.post("/v1/execute", json=request(session, "execute", execution=call)),
        lambda: client.post(f"/v1/sessions/{session['session_id']}/execute", json=call),
        lambda: client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}),
        lambda: client.put("/v1/retention", json={"keep_ended": 1000}),
        lambda: client.post("/v1/keys", json={"subject": "s", "roles": ["viewer"]}),
    ]


def trace(client: httpx.Client, session: dict[str, Any]) -> bytes:
    answer = client.get(f"/v1/sessions/{session['session_id']}/trace", headers={"accept": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text
    return answer.content


def refused(answer: httpx.Response, status: int, code: str) -> None:
    found = answer.json()
    assert (answer.status_code, found["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert found["detail"] and found["status"] == status
    assert status != 503 or answer.headers["retry-after"].isdigit()


@pytest.mark.skipif(postgres.WITHOUT in os.environ, reason="nothing of PostgreSQL is tested")
@pytest.mark.parametrize("how", [signal.SIGQUIT, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_service_goes_on_when_its_database_is_back(how: signal.Signals) -> None:
    server = postgres.Server()
    try:
        url = server.database()
        # Each call waits that long for a connection, which is not to be had.
        with serving(url, storage=PostgresStorage(url, lock_seconds=0.5)) as (client, session):
            before = trace(client, session)
            server.stop(how)
            for call in writes(client, session):
                refused(call(), 503, "storage_error")
            refused(client.get("/v1/sessions"), 503, "storage_error")
            refused(client.get(f"/v1/sessions/{session['session_id']}/trace"), 503, "storage_error")
            refused(client.get("/v1/health/ready"), 503, "storage_error")
            assert client.get("/v1/health/live").status_code == 200
            server.start()
            # Connections are tried again by and by; each of these calls waits for one.
            assert any(client.get("/v1/health/ready").status_code == 200 for _ in range(60))
            assert trace(client, session) == before
            assert [each["session_id"] for each in client.get("/v1/sessions").json()["sessions"]] == [
                session["session_id"]
            ]
            for call in writes(client, session):
                assert call().is_success
            assert client.get(f"/v1/sessions/{session['session_id']}/trace/verify").json()["ok"] is True
    finally:
        server.close()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (apsw.FullError("no space left on device"), 507, "storage_full"),
        (apsw.IOError("bad disk"), 503, "storage_error"),
    ],
)
@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_service_goes_on_when_its_disk_has_room_again(
    tmp_path: Path, kind: str, error: Exception, status: int, code: str
) -> None:
    with disk() as device, serving(f"sqlite:///{tmp_path}/cra.db") as (client, session):
        before = trace(client, session)
        device.fail(kind, error, times=10**9)
        for call in writes(client, session):
            refused(call(), status, code)
        assert trace(client, session) == before
        device.heal()
        assert trace(client, session) == before
        assert len(client.get("/v1/sessions").json()["sessions"]) == 1
        for call in writes(client, session):
            assert call().is_success
        assert client.get(f"/v1/sessions/{session['session_id']}/trace/verify").json()["ok"] is True


@contextmanager
def tenants(folder: Path) -> Iterator[tuple[httpx.Client, MemoryStorage]]:
    """Run a service with the tenants default and acme, and an issuer."""
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(public(signing_key("P-256"))))
    issuer = {"issuer": claims()["iss"], "audience": ["cra"], "tenants": ["default"], "jwks_file": str(jwks)}
    settings = ServiceSettings(storage="memory", shutdown_seconds=5, auth={"issuers": [issuer]})
    store = MemoryStorage()
    make_tenant(store, "acme")
    with (
        running(settings, storage=store, atlases=(desk(),), register=register) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        yield client, store


def everything(store: MemoryStorage) -> list[bytes]:
    """Return every tenant's events."""
    parts = [store.of_tenant(name) for name in ("default", "acme", "system")]
    return [part.events(session.session_id) for part in parts for session in part.sessions()]


def test_an_expired_token_opens_nothing_and_changes_nothing(tmp_path: Path) -> None:
    with tenants(tmp_path) as (client, store):
        now = int(time.time())

        def header(**more: Any) -> dict[str, str]:
            token = sign(signing_key("P-256"), claims(roles=["admin"], iat=now - 600, **more)).decode()
            return {"Authorization": f"Bearer {token}"}

        good, expired = header(exp=now + 600), header(exp=now - 300)
        new = {"agent_id": "a", "goal": "g"}
        assert client.post("/v1/sessions", json=new, headers=good).status_code == 201
        before = everything(store)
        for route in ROUTES:
            if route.permission is not None:
                path = route.path.replace("{session_id}", NOBODY).replace("{approval_id}", NOBODY)
                answer = client.request(route.method, path.replace("{name}", "x"), headers=expired)
                if "{" not in path.replace("{name}", "x"):
                    refused(answer, 401, "unauthenticated")
                    assert answer.headers["www-authenticate"].startswith("Bearer")
        refused(client.post("/v1/sessions", json=new, headers=expired), 401, "unauthenticated")
        assert everything(store) == before


def test_a_foreign_id_is_answered_as_one_that_is_not_there(tmp_path: Path) -> None:
    with tenants(tmp_path) as (client, store):
        ours, theirs = ({"X-API-Key": make_key(store, tenant)[1]} for tenant in ("default", "acme"))
        session = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}, headers=theirs).json()
        session_id = session["session_id"]
        client.post("/v1/resolve", json=request(session), headers=theirs).raise_for_status()
        pay = {"action_id": "desk.pay", "parameters": {}}
        client.post(f"/v1/sessions/{session_id}/execute", json=pay, headers=theirs).raise_for_status()
        approval_id = client.get("/v1/approvals", headers=theirs).json()["approvals"][0]["approval_id"]
        key_id = make_key(store, "acme", roles=["viewer"])[0]
        before = everything(store)
        bodies: dict[str, Any] = {
            "resolve": {"goal": "g"}, "execute": pay, "simulate": {"goal": "g"}, "hold": {"reason": "r"},
        }  # fmt: skip
        asked = 0
        for route in ROUTES:
            for name, foreign, nobody in (
                ("{session_id}", session_id, NOBODY),
                ("{approval_id}", approval_id, NOBODY),
                ("{key_id}", key_id, "0123456789abcdef"),
            ):
                if name in route.path:
                    body = bodies.get(route.path.rsplit("/", 1)[1]) if route.takes and route.method != "GET" else None
                    more: dict[str, Any] = {} if body is None else {"json": body}
                    answers = [
                        client.request(
                            route.method,
                            route.path.replace(name, each),
                            headers={**ours, "X-Request-Id": "same"},
                            **more,
                        )
                        for each in (foreign, nobody)
                    ]
                    assert answers[0].status_code == 404, (route.path, answers[0].text)
                    assert answers[0].text.replace(foreign, nobody) == answers[1].text
                    asked += 1
        assert asked == sum("_id}" in route.path and "{atlas_id}" not in route.path for route in ROUTES)
        wire = request(session)
        refused(client.post("/v1/resolve", json=wire, headers=ours), 404, "session_not_found")
        both = {"left": session_id, "right": session_id}
        refused(client.post("/v1/traces/diff", json=both, headers=ours), 404, "session_not_found")
        assert everything(store) == before


def test_what_another_agent_has_is_not_there_where_it_is_only_referred_to(tmp_path: Path) -> None:
    with tenants(tmp_path) as (client, store):
        one, other = (
            {"X-API-Key": make_key(store, agent_id=name, subject=name, roles=["agent"])[1]} for name in ("one", "other")
        )
        made: dict[str, tuple[str, list[str]]] = {}
        for name, header in (("one", one), ("other", other)):
            session = client.post("/v1/sessions", json={"agent_id": name, "goal": "g"}, headers=header).json()
            session_id = session["session_id"]
            client.post("/v1/resolve", json=request(session), headers=header).raise_for_status()
            for number in range(40):
                pay = {"action_id": "desk.pay", "parameters": {"number": number}}
                client.post(f"/v1/sessions/{session_id}/execute", json=pay, headers=header).raise_for_status()
            page = client.get("/v1/approvals", params={"limit": 1000}, headers=header).json()
            assert "next" not in page
            made[name] = session_id, [one["approval_id"] for one in page["approvals"]]
            assert len(made[name][1]) == 40
        session_id, approval_ids = made["other"]
        for query, code in (
            ({"session_id": session_id}, "session_not_found"),
            ({"after": approval_ids[0]}, "approval_not_found"),
        ):
            ((name, foreign),) = query.items()
            answers = [
                client.get("/v1/approvals", params={name: each}, headers={**one, "X-Request-Id": "same"})
                for each in (foreign, NOBODY)
            ]
            refused(answers[0], 404, code)
            assert answers[0].text.replace(foreign, NOBODY) == answers[1].text
        # Its own pages go over what is the other's without a word of it.
        found: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = client.get("/v1/approvals", params={"limit": "7", **after}, headers=one).json()
            found += [approval["approval_id"] for approval in page["approvals"]]
            if "next" not in page:
                break
            after = {"after": page["next"]}
        assert found == made["one"][1]
