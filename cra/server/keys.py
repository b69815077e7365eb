"""Keys and roles of a tenant over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from cra.server.auth import issuing, keys
from cra.server.auth.authenticator import Authenticator
from cra.server.auth.issuing import MAX_OVERLAP_SECONDS, KeyRequest, Write
from cra.server.auth.keys import Permission
from cra.server.auth.writing import write_later
from cra.server.call import Answer, Call, Response, json_response
from cra.storage.base import Storage

V = TypeVar("V")


class PageQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of a list."""

    after: Annotated[str, Meta(max_length=64)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class RevokeQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the last key that can manage keys is meant."""

    last: bool = False


class Rotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the secret before stays good."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=MAX_OVERLAP_SECONDS)] = 0


class NewRole(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a role permits."""

    permissions: Annotated[tuple[Permission, ...], Meta(max_length=50)]


def store_of(call: Call) -> Storage:
    """Return the caller's tenant's part of the store."""
    store = call.tenant.runtime.config.storage
    assert not isinstance(store, str)  # noqa: S101  # the tenancy hands each runtime its part
    return store


def forget(call: Call, tenant: str) -> None:
    """Have this process ask the store about a tenant at its next call; other processes do within two seconds."""
    if isinstance(call.service.authenticate, Authenticator):
        call.service.authenticate.directory.forget(tenant)


def page_of(values: list[dict[str, Any]], query: PageQuery, name: str, id_name: str) -> Answer:
    """Answer with the part of a list that was asked for."""
    start = next((at + 1 for at, value in enumerate(values) if value[id_name] == query.after), 0)
    if query.after is not None and start == 0:
        return json_response({name: []})
    part = values[start : start + query.limit]
    answer: dict[str, Any] = {name: part}
    if start + query.limit < len(values):
        answer["next"] = part[-1][id_name]
    return json_response(answer)


async def _change(call: Call, make: Callable[[], tuple[V, Write | None]]) -> V:
    """Write what `make` makes, as the caller, and have it hold from the next call on."""
    try:
        return await write_later(
            call.tenant.runtime.administration, call.identity.subject, lambda: call.service.aside(make)
        )
    finally:
        # Also when the outcome is unknown.
        forget(call, call.tenant.name)


def _now_us(call: Call) -> int:
    return call.tenant.runtime.config.clock()


async def page(call: Call) -> Answer:
    """List keys, in the order in which they were made."""
    query, store, now_us = call.parameters(PageQuery), store_of(call), _now_us(call)
    documents = await call.service.aside(store.documents, keys.KIND)
    values = [issuing.shown(key, now_us) for key in issuing.readable(documents)]
    return page_of(values, query, "keys", "key_id")


async def get(call: Call) -> Answer:
    """Show a key, without its secret."""
    _, key = await call.service.aside(issuing.read_document, store_of(call), call.path["key_id"])
    return json_response(issuing.shown(key, _now_us(call)))


async def create(call: Call) -> Answer:
    """Make a key; its text is in the answer and nowhere else."""
    request, store, now_us = await call.json(KeyRequest), store_of(call), _now_us(call)

    def make() -> tuple[dict[str, Any], Write]:
        key, made, write = issuing.create_key(
            store, request, maker=call.identity.permissions, actor=call.identity.subject, now_us=now_us
        )
        return issuing.shown(key, now_us) | {"key": made.text}, write

    value = await _change(call, make)
    return json_response(value, 201, headers=[(b"location", f"/v1/keys/{value['key_id']}".encode())])


async def rotate(call: Call) -> Answer:
    """Give a key another secret; its text is in the answer and nowhere else."""
    rotation = await call.json(Rotation) if await call.body() else Rotation()
    store, now_us = store_of(call), _now_us(call)

    def make() -> tuple[dict[str, Any], Write]:
        key, made, write = issuing.rotate_key(
            store,
            call.path["key_id"],
            maker=call.identity.permissions,
            overlap_seconds=rotation.overlap_seconds,
            now_us=now_us,
        )
        return issuing.shown(key, now_us) | {"key": made.text}, write

    return json_response(await _change(call, make))


async def revoke(call: Call) -> Answer:
    """Revoke a key; a second time changes nothing."""
    query, store, now_us = call.parameters(RevokeQuery), store_of(call), _now_us(call)

    def make() -> tuple[dict[str, Any], Write | None]:
        key, write = issuing.revoke_key(
            store, call.path["key_id"], maker=call.identity.permissions, last=query.last, now_us=now_us
        )
        return issuing.shown(key, now_us), write

    return json_response(await _change(call, make))


async def roles(call: Call) -> Answer:
    """List roles: those built in, then the tenant's own."""
    return json_response({"roles": await call.service.aside(issuing.roles_shown, store_of(call))})


async def set_role(call: Call) -> Answer:
    """Set a role of the tenant."""
    role, store, name = await call.json(NewRole), store_of(call), call.path["name"]

    def make() -> tuple[dict[str, Any], Write]:
        write = issuing.set_role(store, name, role.permissions, maker=call.identity.permissions)
        return {"name": name, "permissions": write.payload["permissions"], "built_in": False}, write

    return json_response(await _change(call, make))


async def remove_role(call: Call) -> Answer:
    """Remove a role of the tenant."""
    store, name, now_us = store_of(call), call.path["name"], _now_us(call)
    maker = call.identity.permissions
    await _change(call, lambda: (None, issuing.remove_role(store, name, maker=maker, now_us=now_us)))
    return Response(status=204)
