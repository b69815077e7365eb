"""What changes keys, roles and tenants: each a document and an event, made here and written by whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, structs

from cra.errors import AdministrationConflict, ConfigInvalid, Forbidden, KeyNotFound, RoleNotFound, TenantNotFound
from cra.protocol.fields import Record, Timestamp
from cra.protocol.times import format_timestamp, parse_timestamp
from cra.runtime.kernel import RESERVED_AGENT_ID
from cra.server.auth import keys
from cra.server.auth.directory import (
    BUILT_IN_TENANTS,
    ROLE_KIND,
    TENANT_KIND,
    RoleDocument,
    TenantDocument,
    custom_roles,
    role_of,
    tenant_of,
)
from cra.server.auth.keys import KeyDocument, NewKey, Permission, RoleName, Subject, key_of, new_key
from cra.server.roles import AGENT_ROLES, PERMISSIONS, ROLES, check_permissions, permissions_of
from cra.storage.base import Document, Storage

MAX_KEYS = 10_000
MAX_ROLES = 1000
MAX_TENANTS = 10_000
MAX_OVERLAP_SECONDS = 30 * 86_400
_MANAGE = "keys.manage"

# Who may do anything: somebody at the command line, who has the store itself.
ANYTHING = frozenset(PERMISSIONS)


class KeyRequest(Record, frozen=True):
    """What a new key is to be."""

    subject: Subject
    roles: Annotated[tuple[RoleName, ...], Meta(min_length=1, max_length=20)]
    agent_id: Subject | None = None
    scopes: Annotated[tuple[Permission, ...], Meta(min_length=1, max_length=50)] | None = None
    expires_at: Timestamp | None = None


class Write(NamedTuple):
    """One change: a document and the event that says so; `check` is asked again for each head it is to follow."""

    kind: str
    name: str
    body: bytes | None
    event_type: str
    payload: dict[str, Any]
    check: Callable[[Document | None], object]


class Changed(Exception):
    """The document is no longer what the change was made from; read it again."""


def read_document(store: Storage, key_id: str) -> tuple[Document, KeyDocument]:
    """Return a key as it is stored; raises `KeyNotFound`."""
    document = store.document(keys.KIND, key_id) if _is_key_id(key_id) else None
    if document is None:
        raise KeyNotFound(
            f"key `{key_id[:40]}` does not exist", hint="`cra keys list` and `GET /v1/keys` list the tenant's keys"
        )
    try:
        return document, key_of(document)
    except msgspec.MsgspecError:
        raise KeyNotFound(f"key `{key_id}` is not readable", hint="make a new one") from None


def _is_key_id(text: str) -> bool:
    return len(text) == 16 and text.isascii() and text.isalnum()


def permissions_of_key(store: Storage, key: KeyDocument) -> frozenset[str]:
    """Return what a key permits by the roles as they are stored now."""
    found = permissions_of(key.roles, store.tenant, custom=custom_roles(store), agent_id=key.agent_id)
    return found if key.scopes is None else found & frozenset(key.scopes)


# Keys


def create_key(
    store: Storage,
    request: KeyRequest,
    *,
    maker: frozenset[str],
    actor: str,
    now_us: int,
) -> tuple[KeyDocument, NewKey, Write]:
    """Make a key that permits nothing its maker is not permitted; raises `Forbidden`, `ConfigInvalid`."""
    _check_request(store, request, now_us)
    made = new_key(store.tenant)
    key = KeyDocument(
        key_id=made.key_id,
        subject=request.subject,
        roles=tuple(dict.fromkeys(request.roles)),
        digest=made.digest,
        created_at=format_timestamp(now_us),
        created_by=actor,
        agent_id=request.agent_id,
        scopes=None if request.scopes is None else tuple(dict.fromkeys(request.scopes)),
        expires_at=_normal(request.expires_at),
    )

    def check(current: Document | None) -> None:
        if current is not None:
            raise Changed
        # A role may have been set to more since the request came.
        _check_no_more(permissions_of_key(store, key), maker)
        _check_room(store.documents(keys.KIND), MAX_KEYS, "keys", lambda d: key_of(d).is_good(now_us))

    check(None)
    return key, made, Write(keys.KIND, key.key_id, key.body(), "key.created", _told(key), check)


def _check_request(store: Storage, request: KeyRequest, now_us: int) -> None:
    custom = custom_roles(store)
    for number, role in enumerate(request.roles):
        if role not in ROLES and role not in custom:
            raise ConfigInvalid(
                f"`{role}` is no role of the tenant",
                hint=f"there are {', '.join([*ROLES, *sorted(custom)[:20]])}",
                pointer=f"/roles/{number}",
            )
        if role in AGENT_ROLES and request.agent_id is None:
            raise ConfigInvalid(f"role `{role}` needs an agent_id to act as", pointer="/agent_id")
    if request.agent_id == RESERVED_AGENT_ID:
        raise ConfigInvalid(f"agent_id is `{RESERVED_AGENT_ID}`, which is the runtime's own", pointer="/agent_id")
    check_permissions(request.scopes or (), pointer="/scopes")
    if request.expires_at is not None and parse_timestamp(request.expires_at, pointer="/expires_at") <= now_us:
        raise ConfigInvalid(f"expires_at is `{request.expires_at}`, expected a time to come", pointer="/expires_at")


def rotate_key(
    store: Storage, key_id: str, *, maker: frozenset[str], overlap_seconds: int, now_us: int
) -> tuple[KeyDocument, NewKey, Write]:
    """Give a key another secret; the one before stays good for the overlap, and whatever was before that does not.

    Who has the new secret is permitted what the key is, so it takes as much as to make it.
    """
    document, key = read_document(store, key_id)
    if not key.is_good(now_us):
        raise AdministrationConflict(f"key `{key_id}` is revoked or expired", hint="make a new one")
    made = new_key(store.tenant, key_id=key_id)
    overlap_us = overlap_seconds * 1_000_000
    rotated = structs.replace(
        key,
        digest=made.digest,
        rotated_at=format_timestamp(now_us),
        previous_digest=key.digest if overlap_seconds else None,
        previous_until=format_timestamp(now_us + overlap_us) if overlap_seconds else None,
    )

    def check(current: Document | None) -> None:
        _check_same(current, document)
        _check_no_more(permissions_of_key(store, key), maker)

    check(document)
    told = {**_told(rotated), "overlap_seconds": overlap_seconds}
    return rotated, made, Write(keys.KIND, key_id, rotated.body(), "key.rotated", told, check)


def revoke_key(
    store: Storage, key_id: str, *, maker: frozenset[str], last: bool, now_us: int
) -> tuple[KeyDocument, Write | None]:
    """Revoke a key at once, both of its secrets; nothing is left to write when it is revoked already.

    The last key that can manage keys, whoever revokes it, is only revoked when `last` says so: after it, keys can be
    made only at the command line or by an issuer's token.
    """
    document, key = read_document(store, key_id)
    if key.revoked_at is not None:
        return key, None
    revoked = structs.replace(key, revoked_at=format_timestamp(now_us), previous_digest=None, previous_until=None)

    def check(current: Document | None) -> None:
        _check_same(current, document)
        _check_no_more(permissions_of_key(store, key), maker)
        if not last and _is_last(store, key, now_us):
            raise AdministrationConflict(
                f"key `{key_id}` is the last one of the tenant that can manage keys",
                hint="make another one first, or say that it is meant: `last=true`, at the command line `--last`",
            )

    check(document)
    return revoked, Write(keys.KIND, key_id, revoked.body(), "key.revoked", _told(revoked), check)


def _is_last(store: Storage, key: KeyDocument, now_us: int) -> bool:
    custom = custom_roles(store)

    def manages(one: KeyDocument) -> bool:
        found = permissions_of(one.roles, store.tenant, custom=custom, agent_id=one.agent_id)
        return one.is_good(now_us) and _MANAGE in found and (one.scopes is None or _MANAGE in one.scopes)

    others = (other for other in readable(store.documents(keys.KIND)) if other.key_id != key.key_id)
    return manages(key) and not any(manages(other) for other in others)


def readable(documents: Iterable[Document]) -> Iterable[KeyDocument]:
    """Yield the keys in stored documents; one that cannot be read opens nothing and is left out."""
    for document in documents:
        try:
            yield key_of(document)
        except msgspec.MsgspecError:
            continue


def shown(key: KeyDocument, now_us: int) -> dict[str, Any]:
    """Return a key as it is shown: nothing that its secret could be looked for with."""
    value = _told(key)
    for name in ("created_at", "created_by", "rotated_at", "previous_until"):
        if getattr(key, name) is not None:
            value[name] = getattr(key, name)
    value["status"] = "revoked" if key.revoked_at else "active" if key.is_good(now_us) else "expired"
    return value


def _told(key: KeyDocument) -> dict[str, Any]:
    value: dict[str, Any] = {"key_id": key.key_id, "subject": key.subject, "roles": list(key.roles)}
    if key.scopes is not None:
        value["scopes"] = list(key.scopes)
    for name in ("agent_id", "expires_at", "revoked_at"):
        if getattr(key, name) is not None:
            value[name] = getattr(key, name)
    return value


# Roles


def set_role(store: Storage, name: str, permissions: Iterable[str], *, maker: frozenset[str]) -> Write:
    """Set a role of the tenant; neither before nor after may it permit what its maker is not permitted."""
    _check_own_role(name)
    wanted = check_permissions(permissions)
    before = custom_roles(store).get(name)
    body = msgspec.json.encode(RoleDocument(permissions=tuple(sorted(wanted))))

    def check(current: Document | None) -> None:
        _check_no_more(_of_role(store, name, wanted), maker)
        _check_no_more(_of_role(store, name, () if current is None else _permissions(current)), maker)
        if current is None:
            _check_room(store.documents(ROLE_KIND), MAX_ROLES, "roles", lambda _: True)

    check(store.document(ROLE_KIND, name))
    told: dict[str, Any] = {"role": name, "permissions": sorted(wanted)}
    if before is not None:
        told["previous"] = sorted(before)
    return Write(ROLE_KIND, name, body, "role.set", told, check)


def remove_role(store: Storage, name: str, *, maker: frozenset[str], now_us: int) -> Write:
    """Remove a role that no good key has; raises `RoleNotFound`, `Forbidden`, `AdministrationConflict`.

    Tokens of an issuer may name it, so it takes as much as to set it.
    """
    _check_own_role(name)

    def check(current: Document | None) -> None:
        if current is None:
            raise RoleNotFound(f"role `{name[:63]}` does not exist", hint="`GET /v1/roles` lists them")
        _check_no_more(_of_role(store, name, _permissions(current)), maker)
        for key in readable(store.documents(keys.KIND)):
            if name in key.roles and key.is_good(now_us):
                raise AdministrationConflict(
                    f"role `{name}` is what key `{key.key_id}` has", hint="revoke the keys that have it first"
                )

    check(store.document(ROLE_KIND, name))
    return Write(ROLE_KIND, name, None, "role.removed", {"role": name}, check)


def _of_role(store: Storage, name: str, permissions: Iterable[str]) -> frozenset[str]:
    return permissions_of((name,), store.tenant, custom={name: permissions})


def _check_own_role(name: str) -> None:
    if name in ROLES:
        raise AdministrationConflict(f"role `{name}` is built in", hint="give it another name")
    try:
        msgspec.convert(name, RoleName)
    except msgspec.ValidationError:
        raise ConfigInvalid(
            f"role is `{name[:63]}`, expected a name such as `approver`: lower-case letters, digits and `-`"
        ) from None


def roles_shown(store: Storage) -> list[dict[str, Any]]:
    """Return the roles, those built in first, with what they permit in this tenant."""
    built_in = [
        {
            "name": name,
            "permissions": sorted(permissions_of((name,), store.tenant, agent_id=_any(name))),
            "built_in": True,
        }
        for name in ROLES
    ]
    own = [
        {"name": document.name, "permissions": sorted(_permissions(document)), "built_in": False}
        for document in store.documents(ROLE_KIND)
    ]
    return built_in + own


def _any(role: str) -> str | None:
    return "*" if role in AGENT_ROLES else None


def _permissions(document: Document) -> tuple[str, ...]:
    try:
        return role_of(document).permissions
    except msgspec.MsgspecError:
        return ()


# Tenants


def create_tenant(system: Storage, name: str, *, actor: str, now_us: int) -> tuple[TenantDocument, Write]:
    """Create a tenant; a name is given once, and not again after it was removed."""
    _check_tenant_name(name)
    tenant = TenantDocument(name=name, created_at=format_timestamp(now_us), created_by=actor)

    def check(current: Document | None) -> None:
        if current is not None or name in BUILT_IN_TENANTS:
            raise AdministrationConflict(
                f"tenant `{name}` exists, or has existed",
                hint="choose another name: what a tenant leaves behind is never given to the next",
            )
        _check_room(system.documents(TENANT_KIND), MAX_TENANTS, "tenants", lambda d: tenant_of(d).removed_at is None)

    check(system.document(TENANT_KIND, name))
    return tenant, Write(TENANT_KIND, name, tenant.body(), "tenant.created", {"tenant": name}, check)


def remove_tenant(system: Storage, name: str, *, now_us: int) -> tuple[TenantDocument, Write]:
    """Close a tenant: from now on nobody gets in; its record stays where it is."""
    if name in BUILT_IN_TENANTS:
        raise AdministrationConflict(f"tenant `{name}` is built in", hint="revoke its keys instead")
    document, tenant = read_tenant(system, name)
    removed = structs.replace(tenant, removed_at=format_timestamp(now_us))

    def check(current: Document | None) -> None:
        _check_same(current, document)

    return removed, Write(TENANT_KIND, name, removed.body(), "tenant.removed", {"tenant": name}, check)


def read_tenant(system: Storage, name: str) -> tuple[Document, TenantDocument]:
    """Return a tenant that has been created and not removed; raises `TenantNotFound`."""
    document = system.document(TENANT_KIND, name) if name.isascii() and len(name) <= 63 else None
    tenant = tenant_of(document) if document is not None else None
    if document is None or tenant is None or tenant.removed_at is not None:
        raise TenantNotFound(
            f"tenant `{name[:63]}` does not exist", hint="`cra tenants list` and `GET /v1/tenants` list them"
        )
    return document, tenant


def tenants_shown(system: Storage) -> list[dict[str, Any]]:
    """Return the tenants, those built in first, without those that were removed."""
    found = [{"name": name, "built_in": True} for name in sorted(BUILT_IN_TENANTS)]
    for document in system.documents(TENANT_KIND):
        tenant = tenant_of(document)
        if tenant.removed_at is None:
            found.append(tenant_shown(tenant))
    return found


def tenant_shown(tenant: TenantDocument) -> dict[str, Any]:
    """Return a tenant as it is shown."""
    value: dict[str, Any] = {"name": tenant.name, "built_in": False, "created_at": tenant.created_at}
    for name in ("created_by", "removed_at"):
        if getattr(tenant, name) is not None:
            value[name] = getattr(tenant, name)
    return value


def _check_tenant_name(name: str) -> None:
    from cra.server.auth.settings import TenantName

    try:
        msgspec.convert(name, TenantName)
    except msgspec.ValidationError:
        raise ConfigInvalid(
            f"name is `{name[:63]}`, expected 1 to 63 lower-case letters, digits and `-`, a letter first",
            pointer="/name",
        ) from None


# What they share


def _check_no_more(wanted: frozenset[str], maker: frozenset[str]) -> None:
    # INVARIANT: nobody hands on, or takes over by a new secret, what they are not permitted themselves.
    if more := wanted - maker:
        raise Forbidden(
            f"it would permit `{min(more)}`, which the credential does not",
            hint="ask somebody who is permitted that, or narrow it with scopes",
            details={"permission": min(more)},
        )


def _check_same(current: Document | None, read: Document) -> None:
    if current != read:
        raise Changed


def _check_room(documents: Iterable[Document], most: int, what: str, counts: Callable[[Document], bool]) -> None:
    found = 0
    for document in documents:
        try:
            found += counts(document)
        except msgspec.MsgspecError:
            found += 1
    if found >= most:
        raise AdministrationConflict(f"there are {found} {what} already, as many as there can be", hint="remove some")


def _normal(text: str | None) -> str | None:
    return None if text is None else format_timestamp(parse_timestamp(text))
