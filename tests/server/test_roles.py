"""The table of roles, and that no route is without its permission."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cra.errors import ConfigInvalid
from cra.runtime.kernel import RESERVED_AGENT_ID
from cra.server.app import create_app
from cra.server.identity import Identity
from cra.server.roles import PERMISSIONS, ROLES, check_permissions, effective, permissions_of
from cra.server.routes import ROUTES, Route
from cra.server.settings import ServiceSettings
from tests.server.identities import make_key, memory, set_role

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {"/v1/health/live", "/v1/health/ready", "/openapi.json", "/docs"}


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_every_route_names_a_permission_that_exists_or_is_listed_as_public() -> None:
    assert len(ROUTES) > 40
    without = {route.path for route in ROUTES if route.permission is None}
    assert without == PUBLIC
    assert {route.permission for route in ROUTES} - {None} <= PERMISSIONS.keys()


def test_every_permission_opens_some_route() -> None:
    assert PERMISSIONS.keys() == {route.permission for route in ROUTES} - {None}


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, httpx.Response, httpx.Response]]:
    """Ask every route without a credential, and with one that permits everything but what the route asks for."""
    store = memory()
    permissions = {route.permission for route in ROUTES} - {None}
    texts = {}
    for number, permission in enumerate(sorted(p for p in permissions if p)):
        set_role(store, "default", f"all-but-{number}", *(p for p in PERMISSIONS if p != permission))
        _, texts[permission] = make_key(store, roles=[f"all-but-{number}"])
    app = create_app(ServiceSettings(storage="memory"), storage=store)

    async def ask() -> dict[str, tuple[int, httpx.Response, httpx.Response]]:
        found = {}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            for route in ROUTES:
                if route.permission is None:
                    continue
                path = re.sub(r"\{[^}]*\}", "00000000-0000-7000-8000-000000000000", route.path)
                bare = await client.request(route.method, path)
                headers = {"Authorization": f"Bearer {texts[route.permission]}"}
                without = await client.request(route.method, path, headers=headers)
                found[named(route)] = (0, bare, without)
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize("route", [route for route in ROUTES if route.permission], ids=named)
def test_a_route_answers_nobody_without_its_permission(
    answers: dict[str, tuple[int, httpx.Response, httpx.Response]], route: Route
) -> None:
    _, bare, without = answers[named(route)]
    assert bare.status_code == 401
    assert bare.json()["code"] == "unauthenticated"
    assert bare.headers["www-authenticate"].startswith("Bearer")
    assert without.status_code == 403
    assert without.json()["details"] == {"permission": route.permission}


def test_the_openapi_document_names_the_same_permissions() -> None:
    yaml = pytest.importorskip("yaml")
    paths = yaml.safe_load((ROOT / "specs" / "openapi.yaml").read_text(encoding="utf-8"))["paths"]
    routes = {(route.path, route.method): route.permission for route in ROUTES}
    for path, methods in paths.items():
        for method, operation in methods.items():
            if method.upper() in ("GET", "POST", "PUT", "DELETE") and (path, method.upper()) in routes:
                assert operation.get("x-permission") == routes[path, method.upper()], f"{method} {path}"


def test_the_table_in_the_docs_is_the_table() -> None:
    text = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")
    rows = dict(_rows(text))
    assert rows.keys() == PERMISSIONS.keys()
    for permission, (words, *cells) in rows.items():
        assert words == PERMISSIONS[permission]
        assert {role for role, cell in zip(ROLES, cells, strict=True) if cell == "yes"} == {
            role for role in ROLES if permission in ROLES[role]
        }, permission


def _rows(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 2 + len(ROLES):
            yield cells[0].strip("`"), cells[1:]


def test_only_administrators_decide_approvals_and_manage() -> None:
    for permission in PERMISSIONS:
        if permission.endswith((".decide", ".manage")):
            assert {role for role in ROLES if permission in ROLES[role]} == {"admin"}


def test_who_reads_changes_nothing() -> None:
    for role in ("viewer", "auditor"):
        assert all(p.endswith((".read", ".verify")) or p == "service.metrics" for p in ROLES[role])


def test_unknown_roles_and_permissions_permit_nothing() -> None:
    assert permissions_of(["root", "ADMIN", ""], "default") == frozenset()
    assert permissions_of(["own"], "default", custom={"own": ["everything", "*"]}) == frozenset()


def test_a_tenants_role_cannot_take_the_name_of_a_built_in_one() -> None:
    assert permissions_of(["viewer"], "default", custom={"viewer": list(PERMISSIONS)}) == ROLES["viewer"]


def test_the_agent_role_needs_an_agent() -> None:
    assert permissions_of(["agent"], "default") == frozenset()
    assert permissions_of(["agent"], "default", agent_id="a") == ROLES["agent"]


def test_an_agent_has_at_most_what_agents_have_whatever_the_role() -> None:
    found = permissions_of(["admin"], "default", agent_id="a")
    assert found == ROLES["agent"] | {"traces.verify"}


def test_nobody_is_the_runtimes_own_agent() -> None:
    assert permissions_of(["admin", "agent"], "default", agent_id=RESERVED_AGENT_ID) == frozenset()


def test_managing_tenants_means_something_in_system_only_and_little_else_does() -> None:
    everything = frozenset(PERMISSIONS)
    assert effective(everything, "default") == everything - {"tenants.manage"}
    assert "tenants.manage" in effective(everything, "system")
    assert not effective(everything, "system") & {"carp.resolve", "carp.execute", "sessions.create", "atlases.load"}


def test_an_unknown_permission_is_named_with_its_place() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        check_permissions(["keys.read", "keys.write"])
    assert caught.value.pointer == "/permissions/1"
    assert "`keys.write`" in caught.value.message


def test_an_identity_is_frozen() -> None:
    identity = Identity(tenant="default", subject="s", roles=(), permissions=frozenset(), credential="dev")
    with pytest.raises(AttributeError):
        identity.tenant = "other"  # type: ignore[misc]
