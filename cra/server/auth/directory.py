"""What the store says about tenants, keys and roles, kept in memory for at most two seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import msgspec

from cra.protocol.fields import Record, Timestamp
from cra.server.auth import keys
from cra.server.auth.keys import Lock, Permission
from cra.server.identity import SYSTEM_TENANT
from cra.storage.base import DEFAULT_TENANT, Document, Storage

ROLE_KIND = "role"
TENANT_KIND = "tenant"

# These exist without anybody having created them.
BUILT_IN_TENANTS = frozenset({DEFAULT_TENANT, SYSTEM_TENANT})

# A revocation is seen everywhere within two seconds. After the first, one caller's question has the store asked in the
# background, so that with steady traffic nobody waits for it.
_REFRESH_S = 1.0
_STALE_S = 2.0
_MAX_PARTS = 10_000

_log = logging.getLogger("cra.server.auth")


class RoleDocument(Record, frozen=True):
    """A role that a tenant has set."""

    permissions: tuple[Permission, ...]


class TenantDocument(Record, frozen=True, omit_defaults=True):
    """A tenant; a removed one keeps its name, so that nobody is ever given what another left behind."""

    name: str
    created_at: Timestamp
    created_by: str | None = None
    removed_at: Timestamp | None = None

    def body(self) -> bytes:
        """Return the document as it is stored."""
        return msgspec.json.encode(self)


def role_of(document: Document) -> RoleDocument:
    """Return what a stored document says of a role; raises `msgspec.ValidationError`."""
    return msgspec.json.decode(document.body, type=RoleDocument)


def tenant_of(document: Document) -> TenantDocument:
    """Return what a stored document says of a tenant; raises `msgspec.ValidationError`."""
    return msgspec.json.decode(document.body, type=TenantDocument)


class Part:
    """The keys and roles of one tenant, as of `asked` on the monotonic clock."""

    __slots__ = ("asked", "keys", "keys_revision", "roles", "roles_revision", "tenant")

    def __init__(
        self,
        tenant: str,
        asked: float,
        keys_revision: int,
        locks: Mapping[str, Lock],
        roles_revision: int,
        roles: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.tenant = tenant
        self.asked = asked
        self.keys_revision = keys_revision
        self.keys = locks
        self.roles_revision = roles_revision
        # The same object as long as no role changes: what was worked out from it is good as long as it is.
        self.roles = roles


class Directory:
    """The tenants of a store, with their keys and roles.

    All of a tenant is kept, not what was asked for: a flood of keys that nobody has costs the store nothing and no
    memory.
    """

    def __init__(self, storage: Storage, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._storage = storage
        self._system = storage.of_tenant(SYSTEM_TENANT)
        self._monotonic = monotonic
        self._parts: dict[str, Part] = {}
        self._flights: dict[str, asyncio.Task[Part | None]] = {}
        self._names: frozenset[str] = BUILT_IN_TENANTS
        self._names_revision = -1
        self._names_asked = float("-inf")
        # Grows when this process changes tenants: what was asked before that is no longer the answer.
        self._epoch = 0

    def fresh(self, tenant: str) -> Part | None:
        """Return a tenant's keys and roles if they are known, and as new as they have to be; None does not say more."""
        part = self._parts.get(tenant)
        if part is None:
            return None
        age = self._monotonic() - part.asked
        if age < _REFRESH_S:
            return part
        if age < _STALE_S:
            self._fly(tenant)
            return part
        return None

    async def part(self, tenant: str) -> Part | None:
        """Return a tenant's keys and roles, None when there is no such tenant; raises `StorageError`."""
        part = self.fresh(tenant)
        if part is not None:
            return part
        if tenant not in self._parts and tenant not in self._names:
            # Whatever names a flood makes up, the store is asked for all of them at once, every two seconds.
            if self._monotonic() - self._names_asked >= _STALE_S:
                await asyncio.shield(self._fly(SYSTEM_TENANT))
            if tenant not in self._names:
                return None
        # One question to the store, however many wait for its answer; who gives up waiting does not end it.
        return await asyncio.shield(self._fly(tenant))

    async def exists(self, tenant: str) -> bool:
        """Say whether there is such a tenant."""
        return await self.part(tenant) is not None

    def forget(self, tenant: str) -> None:
        """Ask the store the next time: this process has just changed something."""
        self._parts.pop(tenant, None)
        self._flights.pop(tenant, None)
        if tenant == SYSTEM_TENANT:
            self._epoch += 1
            self._names_asked = float("-inf")
            self._parts.clear()
            self._flights.clear()

    def _fly(self, tenant: str) -> asyncio.Task[Part | None]:
        flight = self._flights.get(tenant)
        if flight is None or flight.done():
            flight = self._flights[tenant] = asyncio.get_running_loop().create_task(self._ask(tenant))
            flight.add_done_callback(lambda done: self._landed(tenant, done))
        return flight

    def _landed(self, tenant: str, flight: asyncio.Task[Part | None]) -> None:
        if self._flights.get(tenant) is flight:
            del self._flights[tenant]
        if not flight.cancelled() and flight.exception() is not None:
            # Whoever waits for it gets the error; in the background nobody does.
            _log.warning("tenant `%s`: keys and roles cannot be read: %s", tenant, type(flight.exception()).__name__)

    async def _ask(self, tenant: str) -> Part | None:
        asked, known, epoch = self._monotonic(), self._parts.get(tenant), self._epoch
        if self._storage.blocking:
            found = await asyncio.to_thread(self._read, tenant, known, asked)
        else:
            found = self._read(tenant, known, asked)
        part, names, revision = found
        if epoch == self._epoch and revision >= self._names_revision:
            self._names, self._names_revision, self._names_asked = names, revision, asked
        # INVARIANT: what was forgotten while the store was asked is not put back.
        if self._flights.get(tenant) is asyncio.current_task():
            if part is None:
                self._parts.pop(tenant, None)
            else:
                if len(self._parts) >= _MAX_PARTS and tenant not in self._parts:
                    self._parts.pop(next(iter(self._parts)))
                self._parts[tenant] = part
        return part

    def _read(self, tenant: str, known: Part | None, asked: float) -> tuple[Part | None, frozenset[str], int]:
        """Ask the store; revisions are read first, so that what is written meanwhile is read the next time."""
        names, revision = self._names, self._system.revision(TENANT_KIND)
        if revision != self._names_revision:
            names = BUILT_IN_TENANTS | _tenants(self._system)
        if tenant not in names:
            return None, names, revision
        store = self._storage.of_tenant(tenant)
        keys_revision, roles_revision = store.revision(keys.KIND), store.revision(ROLE_KIND)
        if known is not None and known.keys_revision == keys_revision:
            locks = known.keys
        else:
            locks = _locks(store, known.keys if known is not None else {})
        if known is not None and known.roles_revision == roles_revision:
            roles = known.roles
        else:
            roles = custom_roles(store)
        return Part(tenant, asked, keys_revision, locks, roles_revision, roles), names, revision


def _tenants(system: Storage) -> frozenset[str]:
    found = set()
    for document in system.documents(TENANT_KIND):
        try:
            if tenant_of(document).removed_at is None:
                found.add(document.name)
        except msgspec.MsgspecError:
            _log.error("tenant `%s`: its document is not readable, so nobody gets in", document.name)
    return frozenset(found)


def _locks(store: Storage, known: Mapping[str, Lock]) -> Mapping[str, Lock]:
    found = {}
    for document in store.documents(keys.KIND):
        lock = known.get(document.name)
        if lock is not None and lock.revision == document.revision:
            found[document.name] = lock
            continue
        try:
            key = keys.key_of(document)
            if key.revoked_at is None:
                found[document.name] = Lock(key, document.revision)
        except (msgspec.MsgspecError, ValueError):
            _log.error("tenant `%s`: key `%s` is not readable, so it opens nothing", store.tenant, document.name)
    return found


def custom_roles(store: Storage) -> Mapping[str, tuple[str, ...]]:
    """Return the roles that a tenant has set; one that is not readable permits nothing."""
    found = {}
    for document in store.documents(ROLE_KIND):
        try:
            found[document.name] = role_of(document).permissions
        except msgspec.MsgspecError:
            _log.error("tenant `%s`: role `%s` is not readable, so it permits nothing", store.tenant, document.name)
    return found
