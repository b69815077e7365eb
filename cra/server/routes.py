"""The one table of routes: which path and method is which handler, and what it takes to call it."""

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from cra.server import (
    approvals,
    atlases,
    carp,
    documentation,
    health,
    keys,
    live,
    metrics,
    retention,
    sessions,
    tenants,
    traces,
)
from cra.server.call import JSON, Handler, Prompt
from cra.server.media import ATLAS_JSON, ATLAS_ZIP, CARP, EVENTS, NDJSON, TRACE

# Whole requests are small; an atlas is what `cra.atlas.bounds` takes as an archive.
MAX_ATLAS_BYTES = 16 << 20


class Route(Struct, frozen=True, kw_only=True):
    """One method of one path.

    `takes` are the media types of its body, none when it has none; `gives` those of its answer, the first the default.
    `permission` None is for everybody. An `urgent` route is answered however busy the service is. A route that `waits`
    is counted with the streams, not with the calls. `body_optional` lets the body be empty. `at_once` does what
    `handler` does where the tenant's store makes nobody wait; where it does, such a `handler` may be begun without a
    task, and has to ask nothing of one.
    """

    method: str
    path: str
    handler: Handler
    at_once: Prompt | None = None
    permission: str | None
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = (JSON,)
    query: bool = False
    body_optional: bool = False
    max_bytes: int | None = None
    urgent: bool = False
    waits: bool = False


def _route(
    method: str,
    path: str,
    handler: Handler,
    permission: str | None,
    *,
    at_once: Prompt | None = None,
    takes: tuple[str, ...] = (),
    gives: tuple[str, ...] = (JSON,),
    query: bool = False,
    body_optional: bool = False,
    max_bytes: int | None = None,
    urgent: bool = False,
    waits: bool = False,
) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        at_once=at_once,
        permission=permission,
        takes=takes,
        gives=gives,
        query=query,
        body_optional=body_optional,
        max_bytes=max_bytes,
        urgent=urgent,
        waits=waits,
    )


_JSON = (JSON,)
_CARP = (JSON, CARP)
_ATLAS = (JSON, ATLAS_JSON, ATLAS_ZIP)
_SESSION = "/v1/sessions/{session_id}"
_TRACE = f"{_SESSION}/trace"
_APPROVAL = "/v1/approvals/{approval_id}"
_KEY = "/v1/keys/{key_id}"
_ROLE = "/v1/roles/{name}"
_TENANT = "/v1/tenants/{name}"
_ONE_ATLAS = "/v1/atlases/{atlas_id}"

ROUTES: tuple[Route, ...] = (
    _route("POST", "/v1/sessions", sessions.create, "sessions.create", takes=_JSON),
    _route("GET", "/v1/sessions", sessions.page, "sessions.read", query=True),
    _route("GET", _SESSION, sessions.get, "sessions.read"),
    _route("DELETE", _SESSION, sessions.end, "sessions.end", query=True),
    _route("POST", "/v1/resolve", carp.resolve, "carp.resolve", at_once=carp.resolve_at_once, takes=_CARP, gives=_CARP),
    _route("POST", f"{_SESSION}/resolve", carp.resolve_goal, "carp.resolve", takes=_JSON, gives=_CARP),
    _route("POST", "/v1/execute", carp.execute, "carp.execute", takes=_CARP, gives=_CARP),
    _route("POST", f"{_SESSION}/execute", carp.execute_call, "carp.execute", takes=_JSON, gives=_CARP),
    _route("POST", "/v1/validate", carp.validate, "carp.resolve", takes=_CARP, gives=_CARP),
    _route("POST", f"{_SESSION}/simulate", carp.simulate, "carp.resolve", takes=_JSON),
    _route("GET", _TRACE, traces.page, "traces.read", gives=(JSON, NDJSON, TRACE), query=True),
    _route("GET", f"{_TRACE}/live", live.follow, "traces.read", gives=(EVENTS,), query=True, waits=True),
    _route("GET", f"{_TRACE}/verify", traces.verify, "traces.verify"),
    _route("POST", f"{_TRACE}/replay", traces.replay, "traces.verify", takes=_JSON, body_optional=True),
    _route("POST", "/v1/traces/diff", traces.diff, "traces.read", takes=_JSON),
    _route("GET", "/v1/atlases", atlases.listed, "atlases.read"),
    _route("POST", "/v1/atlases", atlases.load, "atlases.load", takes=_ATLAS, query=True, max_bytes=MAX_ATLAS_BYTES),
    _route("GET", _ONE_ATLAS, atlases.get, "atlases.read", gives=_ATLAS),
    _route("DELETE", _ONE_ATLAS, atlases.unload, "atlases.load"),
    _route("GET", f"{_ONE_ATLAS}/digest", atlases.digest, "atlases.read"),
    _route("GET", "/v1/approvals", approvals.page, "approvals.read", query=True),
    _route("GET", _APPROVAL, approvals.get, "approvals.read", query=True, waits=True),
    _route("POST", f"{_APPROVAL}/grant", approvals.grant, "approvals.decide", takes=_JSON, body_optional=True),
    _route("POST", f"{_APPROVAL}/reject", approvals.reject, "approvals.decide", takes=_JSON, body_optional=True),
    _route("GET", "/v1/keys", keys.page, "keys.read", query=True),
    _route("POST", "/v1/keys", keys.create, "keys.manage", takes=_JSON),
    _route("GET", _KEY, keys.get, "keys.read"),
    _route("DELETE", _KEY, keys.revoke, "keys.manage", query=True),
    _route("POST", f"{_KEY}/rotate", keys.rotate, "keys.manage", takes=_JSON, body_optional=True),
    _route("GET", "/v1/roles", keys.roles, "keys.read"),
    _route("PUT", _ROLE, keys.set_role, "roles.manage", takes=_JSON),
    _route("DELETE", _ROLE, keys.remove_role, "roles.manage"),
    _route("GET", "/v1/tenants", tenants.page, "tenants.manage", query=True),
    _route("POST", "/v1/tenants", tenants.create, "tenants.manage", takes=_JSON),
    _route("GET", _TENANT, tenants.get, "tenants.manage"),
    _route("DELETE", _TENANT, tenants.remove, "tenants.manage"),
    _route("GET", "/v1/retention", retention.get, "retention.read"),
    _route("PUT", "/v1/retention", retention.put, "retention.manage", takes=_JSON),
    _route("POST", "/v1/retention/purge", retention.purge, "retention.manage"),
    _route("GET", f"{_SESSION}/hold", retention.held, "retention.read"),
    _route("PUT", f"{_SESSION}/hold", retention.hold, "retention.manage", takes=_JSON),
    _route("DELETE", f"{_SESSION}/hold", retention.release, "retention.manage"),
    _route("GET", "/v1/health/live", health.live, None, urgent=True),
    _route("GET", "/v1/health/ready", health.ready, None, urgent=True),
    _route("GET", "/metrics", metrics.scrape, "service.metrics", gives=(metrics.TEXT,)),
    _route("GET", "/openapi.json", documentation.openapi, None),
    _route("GET", "/docs", documentation.page, None, gives=("text/html",)),
)

# What a path's parameter may be; nothing of the service has a name that would need percent-encoding.
_SEGMENT = re.compile(rb"[A-Za-z0-9_:~-][A-Za-z0-9_.:~-]{0,254}\Z")

Methods = Mapping[str, Route]
_NOTHING: Mapping[str, str] = {}


class RouteTable:
    """Routes by path; a path is matched as it was sent, byte for byte, with nothing decoded or made shorter."""

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        self._fixed: dict[bytes, dict[str, Route]] = {}
        # Those that may be answered at once, by the line that such a request begins with.
        self.at_once: dict[bytes, Route] = {}
        self._open: dict[int, list[tuple[tuple[bytes, ...], dict[str, Route]]]] = {}
        for route in routes:
            if "{" not in route.path:
                self._fixed.setdefault(route.path.encode(), {})[route.method] = route
                if route.at_once is not None:
                    self.at_once[f"{route.method} {route.path} HTTP/1.1".encode()] = route
                continue
            parts = tuple(route.path.encode().split(b"/"))
            same = self._open.setdefault(len(parts), [])
            for known, methods in same:
                if known == parts:
                    methods[route.method] = route
                    break
            else:
                same.append((parts, {route.method: route}))

    def find(self, path: bytes) -> tuple[Methods, Mapping[str, str]] | None:
        """Return a path's methods and its parameters, None when there is no such path."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, _NOTHING
        segments = path.split(b"/")
        for parts, methods in self._open.get(len(segments), ()):
            values: dict[str, str] = {}
            for part, segment in zip(parts, segments, strict=True):
                if part == segment:
                    continue
                if part[:1] != b"{" or not _SEGMENT.match(segment):
                    break
                values[part[1:-1].decode()] = segment.decode("ascii")
            else:
                return methods, values
        return None
