"""How callers are known: the `[auth]` part of the service's settings."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from cra.errors import ConfigInvalid
from cra.protocol.explain import explain

ASYMMETRIC = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
SYMMETRIC = ("HS256", "HS384", "HS512")
# An HMAC secret is as long as its digest, as RFC 7518 section 3.2 asks.
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
MIN_PROXY_SECRET = 32

Words = tuple[Annotated[str, Meta(min_length=1, max_length=255)], ...]
Seconds = Annotated[int, Meta(ge=0, le=30 * 86_400)]
TenantName = Annotated[str, Meta(pattern="^[a-z][a-z0-9-]{0,62}$(?!\\n)")]
HeaderName = Annotated[str, Meta(pattern="^[A-Za-z0-9-]{1,64}$(?!\\n)")]
PlainText = Annotated[str, Meta(min_length=1, max_length=255)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Secret:
    """A secret that never shows: not in a repr, a log or a message."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> bytes:
        """Return the bytes to compute with."""
        return self._text.encode()

    def __repr__(self) -> str:
        return "Secret(...)"


class _Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base: frozen, unknown settings refused."""


class IssuerSettings(_Settings, frozen=True):
    """One issuer of tokens, where its keys are, and what its claims mean here.

    Exactly one of `jwks_uri`, `jwks_file`, `secret` says where the keys are; without any, the issuer is asked
    (OpenID discovery). It speaks for the `tenants` listed and for no other.
    """

    issuer: Annotated[str, Meta(min_length=1, max_length=1000)]
    audience: Annotated[Words, Meta(min_length=1)]
    tenants: Annotated[tuple[TenantName, ...], Meta(min_length=1)]
    algorithms: Annotated[Words, Meta(min_length=1)] = ("RS256", "ES256", "EdDSA", "Ed25519")
    types: Annotated[Words, Meta(min_length=1)] = ("at+jwt",)
    jwks_uri: str | None = None
    jwks_file: str | None = None
    secret: Secret | None = None
    subject_claim: PlainText = "sub"
    tenant_claim: PlainText | None = None
    roles_claim: PlainText | None = "roles"
    roles_map: dict[str, Words] | None = None
    roles: Words = ()
    agent_claim: PlainText | None = "agent_id"
    scope_claim: PlainText | None = None
    leeway_seconds: Annotated[int, Meta(ge=0, le=300)] = 30
    max_age_seconds: Annotated[int, Meta(ge=1, le=30 * 86_400)] = 86_400
    jwks_ttl_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    jwks_stale_seconds: Seconds = 3600
    jwks_refresh_seconds: Annotated[int, Meta(ge=1, le=3600)] = 30

    def __post_init__(self) -> None:
        sources = [name for name in ("jwks_uri", "jwks_file", "secret") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise self._bad(f"has {' and '.join(sources)}, expected one of them")
        # INVARIANT: an issuer is symmetric or asymmetric, never both; a public key can be nobody's HMAC secret.
        allowed = SYMMETRIC if self.secret is not None else ASYMMETRIC
        for name in self.algorithms:
            if name not in allowed:
                raise self._bad(
                    f"algorithm is `{name}`, expected {', '.join(allowed)}",
                    hint="HS algorithms go with `secret`, all others with keys that are fetched or in a file",
                )
            if self.secret is not None and len(self.secret.reveal()) < _SECRET_BYTES[name]:
                raise self._bad(f"secret is too short for {name}, expected at least {_SECRET_BYTES[name]} bytes")
        if self.tenant_claim is None and len(self.tenants) > 1:
            raise self._bad("speaks for several tenants, so tenant_claim is needed to tell which")

    def _bad(self, words: str, hint: str | None = None) -> ConfigInvalid:
        return ConfigInvalid(f"issuer `{self.issuer}`: {words}", hint=hint or "see docs/identity.md")


class ProxySettings(_Settings, frozen=True):
    """Whom a proxy in front has identified, by its client certificate or however it does that.

    The headers are believed from `peers` (addresses or networks) or through a Unix socket, and only with the secret
    in `secret_header`; from anybody else they are refused.
    """

    secret: Secret
    subject_header: HeaderName = "X-Client-Subject"
    secret_header: HeaderName = "X-Proxy-Secret"  # noqa: S105  # a header's name
    tenant_header: HeaderName | None = None
    roles_header: HeaderName | None = None
    agent_header: HeaderName | None = None
    peers: Words = ()
    unix_socket: bool = False
    tenants: Annotated[tuple[TenantName, ...], Meta(min_length=1)] = ("default",)
    roles: Words = ()

    def __post_init__(self) -> None:
        if not self.peers and not self.unix_socket:
            raise ConfigInvalid("proxy: peers is empty, expected addresses, or unix_socket = true")
        if len(self.secret.reveal()) < MIN_PROXY_SECRET:
            raise ConfigInvalid(f"proxy: secret is too short, expected at least {MIN_PROXY_SECRET} bytes")
        if self.tenant_header is None and len(self.tenants) > 1:
            raise ConfigInvalid("proxy: there are several tenants, so tenant_header is needed to tell which")
        names = [name.lower() for name in self.headers()]
        if len(set(names)) < len(names):
            raise ConfigInvalid("proxy: a header has two meanings, expected one each")
        if taken := {"authorization", "x-api-key", "host", "content-type", "content-length"} & set(names):
            raise ConfigInvalid(f"proxy: header `{min(taken)}` has a meaning of its own")
        self.networks()

    def headers(self) -> list[str]:
        """Return the names of all headers that say who calls."""
        optional = (self.tenant_header, self.roles_header, self.agent_header)
        return [self.secret_header, self.subject_header, *(name for name in optional if name is not None)]

    def networks(self) -> tuple[Network, ...]:
        """Return the peers as networks."""
        return _networks("proxy: peers", self.peers)


def _networks(what: str, words: Words) -> tuple[Network, ...]:
    try:
        return tuple([ipaddress.ip_network(word) for word in words])
    except ValueError:
        raise ConfigInvalid(f"{what} is {list(words)}, expected addresses or networks") from None


class ThrottleSettings(_Settings, frozen=True):
    """Calls a second and how many may come at once, for each credential and each tenant; 0 is no limit.

    Refused credentials are counted for the address they come from: that of the connection, or, from one of the
    `proxies`, the last one in `address_header`; a proxy without it is not counted.

    One process counts its own calls, so N processes let N times as many through.
    """

    key_per_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    key_burst: Annotated[int, Meta(ge=1, le=10_000_000)] = 1000
    tenant_per_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    tenant_burst: Annotated[int, Meta(ge=1, le=10_000_000)] = 5000
    failures_per_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 10
    failure_burst: Annotated[int, Meta(ge=1, le=10_000_000)] = 100
    proxies: Words = ()
    address_header: HeaderName | None = None
    max_tracked: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000

    def __post_init__(self) -> None:
        self.networks()

    def networks(self) -> tuple[Network, ...]:
        """Return the proxies as networks."""
        return _networks("throttle: proxies", self.proxies)


class AuthSettings(_Settings, frozen=True):
    """Who may call: tokens of these issuers, what a proxy says; keys are always taken. `dev` takes everybody nearby."""

    issuers: tuple[IssuerSettings, ...] = ()
    proxy: ProxySettings | None = None
    throttle: ThrottleSettings = ThrottleSettings()
    dev: bool = False

    def __post_init__(self) -> None:
        names = [issuer.issuer for issuer in self.issuers]
        for name in names:
            if names.count(name) > 1:
                raise ConfigInvalid(f"issuer `{name}` is there twice, expected once")


def auth_settings(value: Any) -> AuthSettings:
    """Return the settings in a decoded `[auth]` table; raises `ConfigInvalid`."""
    try:
        return msgspec.convert(value, AuthSettings, dec_hook=_secret)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigInvalid):
            raise error.__cause__ from None
        words, pointer = explain(error, AuthSettings)
        raise ConfigInvalid(
            f"auth{pointer and f' at `{pointer}`'}: {words}",
            pointer=f"/auth{pointer}",
            hint="see docs/identity.md",
        ) from None


def _secret(kind: type, value: object) -> Any:
    """Read a secret: the text itself, `env:NAME` or `file:PATH`; a trailing line break of a file is not part of it."""
    if kind is not Secret or not isinstance(value, str) or not value:
        raise ValueError("expected a secret")
    scheme, colon, rest = value.partition(":")
    if colon and scheme == "env":
        import os

        text = os.environ.get(rest)
        if not text:
            raise ConfigInvalid(f"the environment has no `{rest}`, where a secret is expected")
        return Secret(text)
    if colon and scheme == "file":
        from pathlib import Path

        try:
            return Secret(Path(rest).read_text(encoding="utf-8").rstrip("\r\n"))
        except (OSError, UnicodeDecodeError):
            raise ConfigInvalid(f"`{rest}` cannot be read, where a secret is expected") from None
    return Secret(value)
