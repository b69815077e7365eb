"""Every route answers, and refuses, as the document says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cra._core.chain import verify
from cra.atlas import loader
from cra.server.routes import ROUTES
from specs.bundle import bundle
from tests.server.desk import desk, other, request
from tests.server.running import Running, running

CARP = "application/vnd.cra.carp+json"
NOBODY = "00000000-0000-4000-8000-000000000000"


def register(runtime: Any) -> None:
    runtime.register_executor("*", lambda parameters: {"done": parameters}, inline=True)


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with running(atlases=(desk(),), register=register) as found:
        yield found


@pytest.fixture(scope="module")
def client(service: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=20) as found:
        yield found


@pytest.fixture
def session(client: httpx.Client) -> dict[str, Any]:
    value: dict[str, Any] = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).json()
    return value


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    value: dict[str, Any] = answer.json()
    assert (value["status"], value["code"]) == (status, code)
    assert value["instance"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    return value


def test_the_table_and_the_document_have_the_same_routes_and_permissions() -> None:
    document = json.loads(bundle())
    told = {
        (method.upper(), path): operation.get("x-permission")
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert {(route.method, route.path): route.permission for route in ROUTES} == told


def test_the_media_types_of_bodies_and_answers_are_those_of_the_document() -> None:
    document = json.loads(bundle())
    components = document["components"]
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        body = operation.get("requestBody", {})
        body = components["requestBodies"][body["$ref"].rsplit("/", 1)[1]] if "$ref" in body else body
        assert set(body.get("content", {})) == set(route.takes), route.path
        assert not body or body.get("required", False) != route.body_optional, route.path
        for status, response in operation["responses"].items():
            if status.startswith("2") and status != "204":
                if "$ref" in response:
                    response = components["responses"][response["$ref"].rsplit("/", 1)[1]]
                assert list(response["content"]) == list(route.gives), route.path


def test_a_carp_request_is_answered_with_the_bytes_of_the_runtime(
    client: httpx.Client, session: dict[str, Any]
) -> None:
    answer = client.post("/v1/resolve", json=request(session), headers={"accept": CARP})
    assert answer.headers["content-type"] == CARP
    resolution = answer.json()
    assert resolution["decision"]["type"] == "partial"
    assert answer.content == json.dumps(resolution, separators=(",", ":"), sort_keys=True).encode()
    call = {"action_id": "desk.look", "parameters": {"a": 1}}
    body = json.dumps(request(session, "execute", execution=call))
    done = client.post("/v1/execute", content=body, headers={"content-type": f"{CARP}; charset=utf-8"})
    assert (done.json()["status"], done.json()["result"]) == ("success", {"done": {"a": 1}})
    burnt = request(session, "execute", execution={"action_id": "desk.burn", "parameters": {}})
    assert client.post("/v1/execute", json=burnt).json()["status"] == "denied"
    tried = client.post("/v1/validate", json=request(session, "validate", execution=call)).json()
    assert tried["simulated"] is True


def test_a_carp_request_on_the_wrong_path_or_twice_is_refused(client: httpx.Client, session: dict[str, Any]) -> None:
    body = request(session)
    found = problem(client.post("/v1/execute", json=body), 400, "invalid_request")
    assert found["pointer"] == "/operation"
    assert client.post("/v1/resolve", json=body).status_code == 200
    problem(client.post("/v1/resolve", json=body), 409, "duplicate_request")
    problem(client.post("/v1/resolve", json={**body, "more": 1}), 400, "invalid_request")
    absent = request({"agent_id": "a", "session_id": NOBODY})
    problem(client.post("/v1/resolve", json=absent), 404, "session_not_found")


def test_the_short_forms_resolve_execute_and_simulate(client: httpx.Client, session: dict[str, Any]) -> None:
    path = f"/v1/sessions/{session['session_id']}"
    call = {"action_id": "desk.look", "parameters": {}}
    early = client.post(f"{path}/execute", json=call)
    assert early.json().get("code", early.json().get("error", {}).get("code")) == "resolution_required"
    simulated = client.post(f"{path}/simulate", json={"goal": "x"}).json()
    assert simulated["simulated"] is True
    assert simulated["events"][-1]["event_type"] == "carp.resolution.completed"
    before = client.get(f"{path}/trace").json()["events"]
    assert client.post(f"{path}/resolve", json={"goal": "x", "context": {"big": 10**30}}).status_code == 200
    assert len(before) < len(client.get(f"{path}/trace").json()["events"])
    done = client.post(f"{path}/execute", json=call, headers={"idempotency-key": "k"}).json()
    assert client.post(f"{path}/execute", json={**call, "idempotency_key": "k"}).json() == done
    differ = client.post(f"{path}/execute", json={**call, "idempotency_key": "l"}, headers={"idempotency-key": "k"})
    assert problem(differ, 400, "invalid_request")["pointer"] == "/idempotency_key"
    assert client.post(f"{path}/simulate", json=call).json()["answer"]["simulated"] is True


def test_a_trace_is_read_in_pages_as_lines_and_by_type(client: httpx.Client, session: dict[str, Any]) -> None:
    path = f"/v1/sessions/{session['session_id']}"
    for _ in range(40):
        client.post(f"{path}/resolve", json={"goal": "x"})
    lines = client.get(f"{path}/trace", headers={"accept": "application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert verify(lines.content).ok
    events = [json.loads(line) for line in lines.content.splitlines()]
    found, first = [], 0
    while True:
        page = client.get(f"{path}/trace", params={"first": first, "limit": 50}).json()
        found += page["events"]
        if "next" not in page:
            break
        first = page["next"]
    assert found == events
    typed = client.get(f"{path}/trace", params={"event_type": ["session.started", "carp.resolution.completed"]}).json()
    assert len(typed["events"]) == 41
    some = client.get(
        f"{path}/trace",
        params={"event_type": "carp.resolution.completed", "first": 3, "limit": 2},
        headers={"accept": "application/vnd.cra.trace+jsonl"},
    )
    wanted = [e for e in events if e["event_type"] == "carp.resolution.completed" and e["sequence"] >= 3][:2]
    assert [json.loads(line) for line in some.content.splitlines()] == wanted
    assert client.get(f"{path}/trace", params={"first": 10**9}).json() == {"events": []}
    verdict = client.get(f"{path}/trace/verify").json()
    assert (verdict["ok"], verdict["events"], verdict["head"]) == (True, len(events), events[-1]["event_hash"])
    for query in ("first=-1", "limit=0", "limit=x", "first=1&first=2", "frist=1", "first=%ff"):
        problem(client.get(f"{path}/trace?{query}"), 400, "invalid_request")


def test_a_session_is_replayed_and_compared(client: httpx.Client, session: dict[str, Any]) -> None:
    path = f"/v1/sessions/{session['session_id']}"
    client.post(f"{path}/resolve", json={"goal": "x"})
    assert client.post(f"{path}/trace/replay").json()["ok"] is True
    assert client.post(f"{path}/trace/replay", json={"atlas_ids": ["test.desk"]}).json()["ok"] is True
    problem(client.post(f"{path}/trace/replay", json={"atlas_ids": ["test.gone"]}), 404, "atlas_not_found")
    twin = client.post("/v1/sessions", json={"agent_id": "a", "goal": "g"}).json()
    pair = {"left": session["session_id"], "right": twin["session_id"]}
    assert client.post("/v1/traces/diff", json=pair).status_code == 200
    problem(client.post("/v1/traces/diff", json={**pair, "right": NOBODY}), 404, "session_not_found")


def test_atlases_are_loaded_shown_and_unloaded(client: httpx.Client) -> None:
    made = client.post("/v1/atlases", json=other())
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/atlases/test.other"
    problem(client.post("/v1/atlases", json=other()), 409, "atlas_conflict")
    assert client.post("/v1/atlases", params={"replace": "true"}, json=other()).status_code == 201
    listed = client.get("/v1/atlases").json()
    assert [one["atlas_id"] for one in listed["atlases"]] == ["test.desk", "test.other"]
    assert client.get("/v1/atlases/test.other").json()["atlas_id"] == "test.other"
    assert client.get("/v1/atlases/test.other/digest").json() == made.json()
    archive = loader.archive_of(loader.load_json(other("test.packed")))
    packed = client.post("/v1/atlases", content=archive, headers={"content-type": "application/vnd.cra.atlas+zip"})
    assert packed.status_code == 201, packed.text
    for atlas_id in ("test.other", "test.packed"):
        assert client.delete(f"/v1/atlases/{atlas_id}").status_code == 204
    problem(client.delete("/v1/atlases/test.other"), 404, "atlas_not_found")
    problem(client.delete("/v1/atlases/test.desk"), 409, "atlas_conflict")
    bad = problem(client.post("/v1/atlases", json={**other(), "policies": [{}]}), 422, "atlas_invalid")
    assert bad["details"]["problems"]
    garbage = client.post("/v1/atlases", content=b"PK", headers={"content-type": "application/vnd.cra.atlas+zip"})
    problem(garbage, 422, "atlas_invalid")


def test_an_approval_is_asked_for_waited_for_and_decided(client: httpx.Client, session: dict[str, Any]) -> None:
    path = f"/v1/sessions/{session['session_id']}"
    client.post(f"{path}/resolve", json={"goal": "x"})
    asked = client.post(f"{path}/execute", json={"action_id": "desk.pay", "parameters": {}}).json()
    assert asked["status"] == "pending_approval"
    approval_id = asked["error"]["details"]["approval_id"]
    page = client.get("/v1/approvals", params={"session_id": session["session_id"], "status": "pending"}).json()
    assert [one["approval_id"] for one in page["approvals"]] == [approval_id]
    own = problem(client.post(f"/v1/approvals/{approval_id}/grant"), 409, "approval_conflict")
    assert own["hint"] == "somebody else has to decide"
    problem(client.post(f"/v1/approvals/{NOBODY}/reject", json={"reason": "no"}), 404, "approval_not_found")
    assert client.get(f"/v1/approvals/{approval_id}").json()["status"] == "pending"
    problem(client.get(f"/v1/approvals/{approval_id}", params={"wait_seconds": 61}), 400, "invalid_request")


def test_sessions_are_kept_held_and_purged(client: httpx.Client, session: dict[str, Any]) -> None:
    path = f"/v1/sessions/{session['session_id']}"
    problem(client.get(f"{path}/hold"), 404, "session_not_found")
    assert client.put(f"{path}/hold", json={"reason": "a lawsuit"}).json()["reason"] == "a lawsuit"
    client.delete(path)
    policy = {"ended_days": None, "keep_ended": 0}
    assert client.put("/v1/retention", json=policy).json() == policy
    told = client.get("/v1/retention").json()
    assert told["policy"] == policy
    assert session["session_id"] in [hold["session_id"] for hold in told["holds"]]
    assert session["session_id"] not in client.post("/v1/retention/purge").json()["purged"]
    assert client.delete(f"{path}/hold").status_code == 204
    assert session["session_id"] in client.post("/v1/retention/purge").json()["purged"]
    problem(client.get(path), 404, "session_not_found")
    problem(client.put("/v1/retention", json={"keep_ended": -1}), 400, "invalid_request")
    client.put("/v1/retention", json={})


def test_an_ended_session_takes_no_more(client: httpx.Client, session: dict[str, Any]) -> None:
    path = f"/v1/sessions/{session['session_id']}"
    client.delete(path)
    problem(client.delete(path), 409, "session_ended")
    problem(client.post(f"{path}/resolve", json={"goal": "x"}), 409, "session_ended")
    problem(client.post("/v1/sessions", json=session | {"more": 1}), 400, "invalid_request")
    given = {"agent_id": "a", "goal": "g", "session_id": session["session_id"]}
    problem(client.post("/v1/sessions", json=given), 409, "session_exists")


def test_sessions_are_listed_in_pages(client: httpx.Client) -> None:
    for _ in range(5):
        client.post("/v1/sessions", json={"agent_id": "pages", "goal": "g"})
    found, after = [], {}
    while True:
        page = client.get("/v1/sessions", params={"agent_id": "pages", "limit": 2, **after}).json()
        found += [one["session_id"] for one in page["sessions"]]
        if "next" not in page:
            break
        after = {"after": page["next"]}
    assert len(found) == len(set(found)) == 5


def test_the_service_says_how_it_is_and_what_it_can(client: httpx.Client, session: dict[str, Any]) -> None:
    client.post(f"/v1/sessions/{session['session_id']}/resolve", json={"goal": "g"})
    ready = client.get("/v1/health/ready").json()
    assert (ready["storage"], ready["durability"]) == ("memory", "none")
    assert client.get("/openapi.json").content == bundle()
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "http://" not in page.text.replace("http://127.0.0.1:8420", "")
    text = client.get("/metrics").text
    assert 'cra_requests_total{method="GET",route="/docs",status="200"' in text
    assert "cra_appends_total" in text
    assert 'cra_decisions_total{decision="partial",operation="resolve",tenant="default"}' in text


def test_development_says_so_in_every_answer(client: httpx.Client) -> None:
    assert "never expose" in client.get("/v1/health/live").headers["x-cra-dev"]


def test_what_is_not_there_and_what_is_not_taken_says_so(client: httpx.Client) -> None:
    problem(client.get("/v1/nothing"), 404, "route_not_found")
    assert client.patch("/v1/sessions").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    problem(client.patch("/v1/sessions"), 405, "method_not_allowed")
    options = client.options("/v1/resolve")
    assert (options.status_code, options.headers["allow"]) == (204, "OPTIONS, POST")
    head = client.head("/v1/health/live")
    assert (head.status_code, head.content) == (200, b"")
    problem(client.get("/v1/sessions", headers={"accept": "text/html"}), 406, "not_acceptable")
    assert client.get("/v1/sessions", headers={"accept": "text/*;q=0.5, application/*;q=0.1"}).status_code == 200
    plain = client.post("/v1/sessions", content=b"{}", headers={"content-type": "text/plain"})
    problem(plain, 415, "media_type_unsupported")
    problem(client.post("/v1/sessions", content=b"{}"), 415, "media_type_unsupported")
    json_type = {"content-type": "application/json"}
    zipped = client.post("/v1/sessions", content=b"{}", headers={**json_type, "content-encoding": "gzip"})
    problem(zipped, 415, "media_type_unsupported")
    latin = client.post("/v1/sessions", content=b"{}", headers={"content-type": "application/json; charset=latin-1"})
    problem(latin, 415, "media_type_unsupported")
    for body in (b"", b"{", b'{"a":1,"a":2}', b"\xff", b"[" * 200, b"NaN", b'"\\ud800"'):
        problem(client.post("/v1/sessions", content=body, headers=json_type), 400, "invalid_json")
    problem(client.get("/v1/sessions", headers={"origin": "https://evil.test"}), 403, "forbidden")
    assert client.get("/v1/health/live", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/v1/health/live", headers={"x-request-id": "no good"}).headers["x-request-id"] != "no good"


def test_without_a_credential_nothing_is_told() -> None:
    from cra.server.settings import ServiceSettings

    with running(ServiceSettings(storage="memory")) as locked, httpx.Client(base_url=locked.url) as client:
        for route in ROUTES:
            if route.permission is None:
                continue
            path = route.path.replace("{session_id}", NOBODY).replace("{approval_id}", NOBODY)
            answer = client.request(route.method, path.replace("{", "").replace("}", ""))
            found = problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer"), found
