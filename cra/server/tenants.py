"""Tenants over HTTP, for who manages them in the tenant `system`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from cra.server.auth import issuing
from cra.server.auth.directory import BUILT_IN_TENANTS
from cra.server.auth.issuing import ANYTHING, KeyRequest, Write
from cra.server.auth.keys import Subject
from cra.server.auth.settings import TenantName
from cra.server.auth.writing import write_later
from cra.server.call import Answer, Call, json_response
from cra.server.identity import SYSTEM_TENANT
from cra.server.keys import PageQuery, forget, page_of, store_of


class NewTenant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant, and whom its first key is for; without `admin` it has none."""

    name: TenantName
    admin: Subject | None = None


async def page(call: Call) -> Answer:
    """List tenants."""
    query = call.parameters(PageQuery)
    values = await call.service.aside(issuing.tenants_shown, store_of(call))
    return page_of(values, query, "tenants", "name")


async def get(call: Call) -> Answer:
    """Show a tenant."""
    name = call.path["name"]
    if name in BUILT_IN_TENANTS:
        return json_response({"name": name, "built_in": True})
    _, tenant = await call.service.aside(issuing.read_tenant, store_of(call), name)
    return json_response(issuing.tenant_shown(tenant))


async def create(call: Call) -> Answer:
    """Create a tenant, with a key for its first administrator when one is named."""
    new, system = await call.json(NewTenant), store_of(call)
    now_us, actor = call.tenant.runtime.config.clock(), call.identity.subject

    def make() -> tuple[dict[str, Any], Write]:
        tenant, write = issuing.create_tenant(system, new.name, actor=actor, now_us=now_us)
        return issuing.tenant_shown(tenant), write

    try:
        value = await write_later(call.tenant.runtime.administration, actor, lambda: call.service.aside(make))
    finally:
        forget(call, SYSTEM_TENANT)
    if new.admin is not None:
        value |= {"admin": await _first_key(call, new.name, new.admin, now_us)}
    return json_response(value, 201, headers=[(b"location", f"/v1/tenants/{new.name}".encode())])


async def _first_key(call: Call, tenant: str, subject: str, now_us: int) -> dict[str, Any]:
    store = store_of(call).of_tenant(tenant)
    # Whose record it is in has no such person; where they come from says so.
    actor = f"{SYSTEM_TENANT}:{call.identity.subject}"[:255]
    request = KeyRequest(subject=subject, roles=("admin",))

    def make() -> tuple[dict[str, Any], Write]:
        key, made, write = issuing.create_key(store, request, maker=ANYTHING, actor=actor, now_us=now_us)
        return issuing.shown(key, now_us) | {"key": made.text}, write

    administration = call.service.tenancy.get(tenant).runtime.administration
    return await write_later(administration, actor, lambda: call.service.aside(make))


async def remove(call: Call) -> Answer:
    """Close a tenant; its record stays."""
    system, name = store_of(call), call.path["name"]
    now_us = call.tenant.runtime.config.clock()

    def make() -> tuple[dict[str, Any], Write]:
        tenant, write = issuing.remove_tenant(system, name, now_us=now_us)
        return issuing.tenant_shown(tenant), write

    try:
        value = await write_later(
            call.tenant.runtime.administration, call.identity.subject, lambda: call.service.aside(make)
        )
    finally:
        forget(call, SYSTEM_TENANT)
    call.service.tenancy.forget(name)
    return json_response(value)
