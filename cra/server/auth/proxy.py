"""What a proxy in front says about its caller, such as the subject of a client certificate."""

from __future__ import annotations

import ipaddress
from collections.abc import MutableMapping
from hmac import compare_digest
from typing import Any

from cra.server.auth.settings import ProxySettings

_MAX_ROLES = 100


class ProxyRefused(Exception):
    """What came is not from the proxy, or not what it sends; the words are for the log."""


class ProxyClaims:
    """Whom the proxy has identified."""

    __slots__ = ("agent_id", "roles", "subject", "tenant")

    def __init__(self, tenant: str, subject: str, roles: tuple[str, ...], agent_id: str | None) -> None:
        self.tenant = tenant
        self.subject = subject
        self.roles = roles
        self.agent_id = agent_id


class Proxy:
    """Believe one proxy, and nobody who pretends to be it."""

    def __init__(self, settings: ProxySettings) -> None:
        self._settings = settings
        self._networks = settings.networks()
        self._secret = settings.secret.reveal()
        self.headers = frozenset(name.lower().encode() for name in settings.headers())

    def claims(self, scope: MutableMapping[str, Any]) -> ProxyClaims:
        """Return who calls; `scope` has at least one of the headers. Raises `ProxyRefused`."""
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in self.headers:
                if name in found:
                    raise ProxyRefused(f"header `{name.decode()}` is there twice")
                found[name] = value
        settings = self._settings
        # INVARIANT: from anybody else these headers are refused and not passed over, so that a way around the proxy
        # is noticed.
        if not self._is_peer(scope):
            raise ProxyRefused("the headers of the proxy come from elsewhere")
        if not compare_digest(found.get(settings.secret_header.lower().encode(), b""), self._secret):
            raise ProxyRefused("the proxy's secret is not the one configured")
        subject = _text(found, settings.subject_header)
        if subject is None:
            raise ProxyRefused("the proxy names no subject")
        tenant = settings.tenants[0] if settings.tenant_header is None else _text(found, settings.tenant_header)
        if tenant not in settings.tenants:
            raise ProxyRefused("the tenant is not one of the proxy's")
        roles = settings.roles
        if settings.roles_header is not None:
            listed = (role.strip() for role in (_text(found, settings.roles_header) or "").split(","))
            roles = tuple(dict.fromkeys(role for role in listed if role))
        agent_id = None if settings.agent_header is None else _text(found, settings.agent_header)
        return ProxyClaims(tenant, subject, roles[:_MAX_ROLES], agent_id)

    def _is_peer(self, scope: MutableMapping[str, Any]) -> bool:
        client = scope.get("client")
        if client is None:
            # Through a Unix socket there is no address; who may connect is said by the socket's mode.
            server = scope.get("server")
            return self._settings.unix_socket and server is not None and server[1] is None
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


def _text(found: dict[bytes, bytes], name: str) -> str | None:
    value = found.get(name.lower().encode())
    if value is None:
        return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not 1 <= len(text) <= 255 or not text.isprintable():
        raise ProxyRefused(f"header `{name}` is no short text")
    return text
