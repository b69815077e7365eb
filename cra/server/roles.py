"""The one table of what a role may do."""

from collections.abc import Iterable, Mapping

from cra.errors import ConfigInvalid
from cra.runtime.kernel import RESERVED_AGENT_ID
from cra.server.identity import SYSTEM_TENANT

PERMISSIONS: Mapping[str, str] = {
    "sessions.create": "start sessions",
    "sessions.read": "list and read sessions",
    "sessions.end": "end sessions",
    "carp.resolve": "resolve, validate and simulate",
    "carp.execute": "execute actions",
    "traces.read": "read, follow and compare traces",
    "traces.verify": "verify chains and replay sessions",
    "atlases.read": "list and read atlases",
    "atlases.load": "load and unload atlases",
    "approvals.read": "list and read approvals",
    "approvals.decide": "grant and reject approvals",
    "keys.read": "list keys and roles",
    "keys.manage": "make, rotate and revoke keys",
    "roles.manage": "set and remove roles",
    "retention.read": "read the retention policy and the holds",
    "retention.manage": "set the retention policy, place and release holds, purge",
    "tenants.manage": "create and remove tenants; only in the tenant `system`",
    "service.metrics": "read the metrics",
}

_READ = {"sessions.read", "traces.read", "atlases.read", "approvals.read"}
_ACT = {"sessions.create", "sessions.read", "sessions.end", "carp.resolve", "carp.execute", "traces.read"}

# INVARIANT: only `admin` decides approvals and manages; everything else is a custom role that somebody set.
ROLES: Mapping[str, frozenset[str]] = {
    "admin": frozenset(PERMISSIONS),
    "developer": frozenset(_ACT | _READ | {"traces.verify", "atlases.load", "service.metrics"}),
    "agent": frozenset(_ACT | {"atlases.read", "approvals.read"}),
    "auditor": frozenset(_READ | {"traces.verify", "keys.read", "retention.read", "service.metrics"}),
    "viewer": frozenset(_READ),
}

# Roles that are worth nothing without an agent to act as.
AGENT_ROLES = frozenset({"agent"})

# What a credential that acts as one agent can have at most, whatever its roles say: who could make keys or decide
# approvals would no longer be that agent only.
_FOR_AGENTS = frozenset(_ACT | {"traces.verify", "atlases.read", "approvals.read"})

# In `system` live tenants, and who may manage them; nobody resolves or executes there.
_IN_SYSTEM = frozenset(
    {"tenants.manage", "keys.read", "keys.manage", "roles.manage", "service.metrics"}
    | {"sessions.read", "traces.read", "traces.verify"}
)
_NOT_IN_TENANTS = frozenset({"tenants.manage"})


def effective(permissions: Iterable[str], tenant: str, *, agent_id: str | None = None) -> frozenset[str]:
    """Return those of the permissions that mean something in a tenant, and for who acts as an agent."""
    wanted = frozenset(permissions)
    if agent_id == RESERVED_AGENT_ID:
        # What the runtime writes itself, under this name, belongs to no agent.
        return frozenset()
    if agent_id is not None:
        wanted &= _FOR_AGENTS
    return wanted & _IN_SYSTEM if tenant == SYSTEM_TENANT else wanted - _NOT_IN_TENANTS


def permissions_of(
    roles: Iterable[str],
    tenant: str,
    *,
    custom: Mapping[str, Iterable[str]] | None = None,
    agent_id: str | None = None,
) -> frozenset[str]:
    """Return what roles permit together in a tenant; a role that nobody knows permits nothing."""
    own = custom or {}
    found: set[str] = set()
    for role in roles:
        if role in AGENT_ROLES and agent_id is None:
            continue
        found.update(ROLES.get(role) or own.get(role, ()))
    return effective(found & PERMISSIONS.keys(), tenant, agent_id=agent_id)


def check_permissions(permissions: Iterable[str], *, pointer: str = "/permissions") -> frozenset[str]:
    """Return permissions as a set, or raise `ConfigInvalid` for the first that does not exist."""
    wanted = tuple(permissions)
    for number, permission in enumerate(wanted):
        if permission not in PERMISSIONS:
            raise ConfigInvalid(
                f"`{permission}` is no permission",
                hint=f"there are {', '.join(PERMISSIONS)}",
                pointer=f"{pointer}/{number}",
            )
    return frozenset(wanted)
