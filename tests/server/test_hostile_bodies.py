"""Whatever is sent, wherever it is put, the answer says what is wrong, and nothing has changed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import cra.errors
from cra._core.chain import EventBatch
from cra.server.routes import ROUTES, Route
from cra.server.settings import ServiceSettings
from cra.storage.base import Change, Storage
from cra.storage.memory import MemoryStorage
from cra.testing.faults import FaultyStorage
from specs.bundle import bundle
from tests.server.desk import MANIFEST, desk, other, request
from tests.server.hostile import BODIES, STRINGS, VALUES, parsing_cases
from tests.server.identities import make_key
from tests.server.running import running

CODES = {kind.code for kind in vars(cra.errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
# No limit of ours: a call that takes this long hangs.
DEADLINE_SECONDS = 30
NOBODY = "00000000-0000-4000-8000-000000000000"
TAKES = [route for route in ROUTES if route.takes]
FORMS = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")


class Watched(FaultyStorage):
    """A store that counts the writes that landed."""

    def __init__(self, inner: Storage, landed: list[str] | None = None) -> None:
        super().__init__(inner)
        self.landed = [] if landed is None else landed

    def of_tenant(self, tenant: str) -> Watched:
        return Watched(self.inner.of_tenant(tenant), self.landed)

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        super().append(session_id, expected_head, batch, change)
        self.landed.append(session_id)


class Place:
    """A service, its store that counts writes, a session in it, and a good body for every route that takes one."""

    def __init__(self, store: Watched, client: httpx.Client, keys: dict[str, str]) -> None:
        self.store = store
        self.client = client
        self.keys = keys
        self.session = self.send("POST", "/v1/sessions", json={"agent_id": "a", "goal": "g"}).json()
        session_id = self.session["session_id"]
        resolution = self.send("POST", f"/v1/sessions/{session_id}/resolve", json={"goal": "g"}).json()
        pay = {"action_id": "desk.pay", "parameters": {}}
        self.send("POST", f"/v1/sessions/{session_id}/execute", json=pay)
        pending = self.send("GET", "/v1/approvals").json()["approvals"][0]
        self.path = {
            "session_id": session_id, "approval_id": pending["approval_id"], "key_id": "0123456789abcdef",
            "atlas_id": MANIFEST["atlas_id"], "name": "clerk",
        }  # fmt: skip
        call = {
            "action_id": "desk.look", "parameters": {}, "resolution_id": resolution["resolution_id"],
            "idempotency_key": "k", "approval_id": NOBODY,
        }  # fmt: skip
        goal = {
            "goal": "g", "risk_tier": "low", "context_hints": ["h"], "required_capabilities": ["c"],
            "atlas_ids": [MANIFEST["atlas_id"]], "context": {},
        }  # fmt: skip
        wire = {"execution": {**call}}
        self.bodies: dict[str, Any] = {
            "POST /v1/sessions": {
                "agent_id": "a", "goal": "g", "session_id": NOBODY, "trace_id": NOBODY, "parent_session_id": session_id,
                "context": {}, "metadata": {},
            },
            "POST /v1/resolve": {**request(self.session), **goal, "task": {"goal": "g"}},
            "POST /v1/sessions/{session_id}/resolve": goal,
            "POST /v1/execute": {**request(self.session, "execute"), **wire},
            "POST /v1/sessions/{session_id}/execute": call,
            "POST /v1/validate": {**request(self.session, "validate"), **wire},
            "POST /v1/sessions/{session_id}/simulate": goal,
            "POST /v1/sessions/{session_id}/trace/replay": {"atlas_ids": [MANIFEST["atlas_id"]]},
            "POST /v1/traces/diff": {"left": session_id, "right": session_id},
            "POST /v1/atlases": other(),
            "POST /v1/approvals/{approval_id}/grant": {"reason": "r"},
            "POST /v1/approvals/{approval_id}/reject": {"reason": "r"},
            "POST /v1/keys": {
                "subject": "s", "roles": ["viewer"], "agent_id": "a", "scopes": ["sessions.read"],
                "expires_at": "2099-01-01T00:00:00Z",
            },
            "POST /v1/keys/{key_id}/rotate": {"overlap_seconds": 1},
            "PUT /v1/roles/{name}": {"permissions": ["sessions.read"]},
            "POST /v1/tenants": {"name": "acme", "admin": "s"},
            "PUT /v1/retention": {"ended_days": 36_500, "keep_ended": 1_000_000},
            "PUT /v1/sessions/{session_id}/hold": {"reason": "r"},
        }  # fmt: skip
        for name in ("goal", "risk_tier", "context_hints", "required_capabilities"):
            del self.bodies["POST /v1/resolve"][name]

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call as an administrator, of the service where it is about tenants."""
        key = self.keys["system" if path.startswith("/v1/tenants") else "default"]
        more["headers"] = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
        return self.client.request(method, path, **more)

    def url(self, route: Route, **changed: str) -> str:
        """Return a route's path with something good in every place, and `changed` in some."""
        return re.sub(r"\{(\w+)\}", lambda found: {**self.path, **changed}[found[1]], route.path)

    def post(self, route: Route, body: bytes) -> httpx.Response:
        """Send a body."""
        return self.send(route.method, self.url(route), content=body, headers={"Content-Type": "application/json"})

    def safe(self, answer: httpx.Response, writes: int, what: object) -> dict[str, Any] | None:
        """Assert that an answer is a good one, or a clear refusal that has changed nothing, which is returned."""
        assert FORMS.search("".join(answer.headers.values())) is None, what
        if answer.status_code < 400:
            return None
        assert answer.status_code < 500, (what, answer.text)
        assert len(self.store.landed) == writes, (what, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", what
        found: dict[str, Any] = answer.json()
        assert found["code"] in CODES and found["status"] == answer.status_code, what
        assert found["instance"] == answer.headers["x-request-id"], what
        for text in (found["detail"], found.get("hint", "")):
            assert FORMS.search(text) is None, (what, text)
            assert len(text) <= 1000, (what, text)
        assert len(answer.content) < 100_000, what
        assert found.get("pointer", "") == "" or found["pointer"].startswith("/"), what
        return found


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    store = Watched(MemoryStorage(max_sessions=100_000, max_events=10_000_000))
    keys = {tenant: make_key(store, tenant)[1] for tenant in ("default", "system")}

    def register(runtime: Any) -> None:
        runtime.register_executor("*", lambda parameters: {"done": parameters}, inline=True)

    settings = ServiceSettings(storage="memory", shutdown_seconds=5)
    with (
        running(settings, storage=store, atlases=(desk(),), register=register) as service,
        httpx.Client(base_url=service.url, timeout=DEADLINE_SECONDS) as client,
    ):
        yield Place(store, client, keys)


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def leaves(value: Any, pointer: str = "") -> Iterator[str]:
    """Return the pointers of everything in a body that is no object or list, and of empty ones."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{pointer}/{key}")
    elif isinstance(value, list) and value:
        for at, item in enumerate(value):
            yield from leaves(item, f"{pointer}/{at}")
    else:
        yield pointer


def placed(body: Any, pointer: str, text: str) -> bytes:
    """Return a body as JSON, with a text where the pointer points, just as it is."""
    mark = "c2a1e0f4-mark"
    changed = copy.deepcopy(body)
    at: Any = changed
    *way, last = pointer.split("/")[1:]
    for part in way:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[int(last) if isinstance(at, list) else last] = mark
    return json.dumps(changed).replace(json.dumps(mark), text, 1).encode("utf-8", "surrogatepass")


def test_every_route_that_takes_a_body_has_a_good_one_here(place: Place) -> None:
    assert set(place.bodies) == {name_of(route) for route in TAKES}


@pytest.mark.parametrize("route", TAKES, ids=name_of)
def test_what_is_no_json_or_no_request_is_refused(place: Place, route: Route) -> None:
    for name, data in (*parsing_cases(), *((repr(body[:20]), body) for body in BODIES)):
        if not data.strip() and route.body_optional:
            continue
        writes = len(place.store.landed)
        found = place.safe(place.post(route, data), writes, name)
        if not (data.strip().startswith(b"{") and name.startswith(("y_", "i_"))):
            assert found is not None, name
        if name.startswith("n_"):
            assert found is not None and found["status"] in (400, 404, 422), (name, found)


@pytest.mark.parametrize("route", TAKES, ids=name_of)
def test_what_stands_in_a_field_is_taken_or_refused_with_its_place(place: Place, route: Route) -> None:
    body = place.bodies[name_of(route)]
    texts = [*map(json.dumps, STRINGS), *VALUES]
    for pointer in leaves(body):
        for text in texts:
            writes = len(place.store.landed)
            found = place.safe(place.post(route, placed(body, pointer, text)), writes, (pointer, text[:100]))
            if found is not None and found["code"] == "invalid_request":
                assert found.get("pointer", "").startswith(pointer), (pointer, text[:100], found)


def test_a_name_that_no_body_has_is_refused_with_its_place(place: Place) -> None:
    for route in TAKES:
        body = place.bodies[name_of(route)]
        for text in STRINGS:
            writes = len(place.store.landed)
            data = json.dumps({**body, text: 1}).encode()
            found = place.safe(place.post(route, data), writes, (route.path, text[:100]))
            assert found is not None, (route.path, text[:100])


def test_what_stands_in_a_path_is_not_found_or_refused(place: Place) -> None:
    for route in ROUTES:
        for name in re.findall(r"\{(\w+)\}", route.path):
            for text in STRINGS:
                segment = quote(text.encode("utf-8", "surrogatepass"), safe="")
                for given in {segment, quote(text, safe="!$&'()*+,;=:@~")}:
                    if len(given) > 8000 or given in {"", ".", ".."}:
                        continue  # a client would make the path shorter; test_limits sends such paths as they are
                    more = {"json": place.bodies[name_of(route)]} if route.takes else {}
                    writes = len(place.store.landed)
                    place.safe(place.send(route.method, place.url(route, **{name: given}), **more), writes, given[:100])


def test_what_stands_in_a_query_is_taken_or_refused(place: Place) -> None:
    paths = json.loads(bundle())["paths"]
    for route in ROUTES:
        if not route.query or route.waits:
            continue
        parameters = paths[route.path][route.method.lower()].get("parameters", [])
        names = [item["name"] if "name" in item else item["$ref"].rsplit("/", 1)[1].lower() for item in parameters]
        for name, text in ((name, text) for name in [*names, "nobody"] for text in STRINGS):
            given = quote(text.encode("utf-8", "surrogatepass"), safe="")
            if len(given) < 8000:
                more = {"json": place.bodies[name_of(route)]} if route.takes else {}
                writes = len(place.store.landed)
                url = f"{place.url(route)}?{name}={given}"
                found = place.safe(place.send(route.method, url, **more), writes, url[:100])
                assert found is not None or name != "nobody"


HEADERS = (
    "Authorization", "X-API-Key", "Accept", "Content-Type", "Content-Encoding", "Idempotency-Key", "Last-Event-ID",
    "X-Request-Id",
    "Origin", "Cookie", "X-Forwarded-For", "X-Client-Subject", "Forwarded", "Range", "If-None-Match", "Expect-Ct",
    "Prefer",
)  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_what_stands_in_a_header_is_taken_or_refused(place: Place, name: str) -> None:
    url = place.url(next(route for route in ROUTES if route.path.endswith("/simulate")))
    for text in STRINGS:
        value = re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"?", text.encode("utf-8", "surrogatepass")).strip(b" \t")
        if len(value) > 8000:
            continue
        for given in (value, (b"Bearer " + value).strip()):
            writes = len(place.store.landed)
            answer = place.send("POST", url, json={"goal": "g"}, headers={name: given})
            place.safe(answer, writes, (name, given[:100]))
            assert re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", answer.headers["x-request-id"])


def test_the_place_still_works(place: Place) -> None:
    assert place.send("POST", "/v1/resolve", json=request(place.session)).status_code == 200
    session_id = place.session["session_id"]
    assert place.send("GET", f"/v1/sessions/{session_id}/trace/verify").json()["ok"] is True
