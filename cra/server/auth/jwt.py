"""Bearer tokens: JWTs of configured issuers, checked in every part."""

from __future__ import annotations

import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from cra.errors import CRAError
from cra.protocol.jsontext import decode
from cra.server.auth.jwks import KeySource
from cra.server.auth.settings import AuthSettings, IssuerSettings
from cra.server.auth.signature import is_good

MAX_TOKEN = 8192
_MAX_HEADER = 1024
_MAX_DEPTH = 8
_MAX_ROLES = 100
_MAX_VERIFIED = 10_000
_VERIFIED_S = 60.0
# Seconds far beyond any token's life; larger numbers are no times.
_LATEST = 1 << 40

_SEGMENT = re.compile(rb"[A-Za-z0-9_-]+\Z")
# What tells a verifier where a key is, or changes what is verified: never taken from whom we do not know yet.
_REFUSED = ("jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc")


class TokenRefused(Exception):
    """A token is not good; the words are for the log and never for the caller."""


class Claims:
    """What a verified token says, in our words."""

    __slots__ = ("agent_id", "expires_us", "issuer", "roles", "scopes", "subject", "tenant")

    def __init__(
        self,
        *,
        issuer: str,
        tenant: str,
        subject: str,
        roles: tuple[str, ...],
        agent_id: str | None,
        scopes: frozenset[str] | None,
        expires_us: int,
    ) -> None:
        self.issuer = issuer
        self.tenant = tenant
        self.subject = subject
        self.roles = roles
        self.agent_id = agent_id
        self.scopes = scopes
        self.expires_us = expires_us


class Tokens:
    """Verify the tokens of the configured issuers.

    A verified token is remembered by its digest for a minute at most, and not beyond its end or its issuer's keys.
    """

    def __init__(
        self, settings: AuthSettings, *, now_us: Callable[[], int], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuers = {issuer.issuer: (issuer, KeySource(issuer, monotonic=monotonic)) for issuer in settings.issuers}
        self._now_us = now_us
        self._monotonic = monotonic
        self._verified: OrderedDict[bytes, tuple[Claims, float, int]] = OrderedDict()

    async def claims(self, token: bytes) -> Claims:
        """Return what a good token says; raises `TokenRefused`."""
        if not self._issuers or len(token) > MAX_TOKEN:
            raise TokenRefused("no issuer is configured" if not self._issuers else "the token is too long")
        name = sha256(token).digest()
        known = self._verified.get(name)
        if known is not None:
            claims, until, generation = known
            source = self._issuers[claims.issuer][1]
            await source.renew()
            if self._now_us() < claims.expires_us and self._monotonic() < until and generation == source.generation:
                return claims
            self._verified.pop(name, None)
        return await self._verify(token, name)

    async def _verify(self, token: bytes, name: bytes) -> Claims:
        header, payload = _parse(token)
        algorithm, kid = _check_header(header)
        # Nothing in here is believed yet: it only says whose keys to verify it with.
        found = self._issuers.get(payload["iss"]) if isinstance(payload.get("iss"), str) else None
        if found is None:
            raise TokenRefused("the issuer is not configured")
        settings, source = found
        _check_type(header, settings)
        if algorithm not in settings.algorithms:
            # Somebody has made this up: nothing of it is a line of the log of its own.
            raise TokenRefused(f"algorithm {algorithm[:20]!r} is not one of the issuer's")
        if not source.fixed and kid is None:
            raise TokenRefused("the token names no key")
        key = await source.key(kid)
        generation = source.generation
        if key is None or algorithm not in key.algorithms:
            raise TokenRefused("the issuer has no such key for that algorithm")
        if not is_good(token, key.key, algorithm):
            raise TokenRefused("the signature is not good")
        claims = read_claims(payload, settings, self._now_us())
        self._verified[name] = claims, self._monotonic() + _VERIFIED_S, generation
        while len(self._verified) > _MAX_VERIFIED:
            self._verified.popitem(last=False)
        return claims


def _parse(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    segments = token.split(b".")
    if len(segments) != 3:
        raise TokenRefused("the token has not three parts")
    header, payload = _object(segments[0], "header", _MAX_HEADER), _object(segments[1], "payload", MAX_TOKEN)
    _decoded(segments[2], "signature")
    return header, payload


def _decoded(segment: bytes, what: str) -> bytes:
    """Return the bytes of one part, in the one way to write them."""
    if not _SEGMENT.match(segment):
        raise TokenRefused(f"the {what} is not base64url")
    try:
        data = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        raise TokenRefused(f"the {what} is not base64url") from None
    if urlsafe_b64encode(data).rstrip(b"=") != segment:
        raise TokenRefused(f"the {what} is written in an unusual way")
    return data


def _object(segment: bytes, what: str, longest: int) -> dict[str, Any]:
    try:
        value = decode(_decoded(segment, what), max_bytes=longest, max_depth=_MAX_DEPTH)
    except CRAError as error:
        raise TokenRefused(f"the {what} is not strict JSON: {error.code}") from None
    if type(value) is not dict:
        raise TokenRefused(f"the {what} is no object")
    return value


def _check_header(header: Mapping[str, Any]) -> tuple[str, str | None]:
    for name in _REFUSED:
        if name in header:
            raise TokenRefused(f"the header has `{name}`")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise TokenRefused("the header has no algorithm")
    if kid is not None and (not isinstance(kid, str) or not 1 <= len(kid) <= 255):
        raise TokenRefused("the kid is no short text")
    return algorithm, kid


def _check_type(header: Mapping[str, Any], settings: IssuerSettings) -> None:
    found = header.get("typ")
    kinds = {kind.lower().removeprefix("application/") for kind in settings.types}
    if not isinstance(found, str) or found.lower().removeprefix("application/") not in kinds:
        raise TokenRefused("the typ is not one of the issuer's")
    if header.get("cty") is not None:
        raise TokenRefused("the header has `cty`, as if the token were in another")


def read_claims(payload: Mapping[str, Any], settings: IssuerSettings, now_us: int) -> Claims:
    """Return what the claims of a token with a good signature say; raises `TokenRefused`."""
    now, leeway = now_us // 1_000_000, settings.leeway_seconds
    expires, issued = _time(payload, "exp"), _time(payload, "iat")
    if expires is None or issued is None:
        raise TokenRefused("exp or iat is missing")
    before = _time(payload, "nbf")
    if now >= expires + leeway:
        raise TokenRefused("the token has expired")
    if issued > now + leeway or (before is not None and before > now + leeway):
        raise TokenRefused("the token is not good yet")
    if now - issued > settings.max_age_seconds + leeway:
        raise TokenRefused("the token is too old")
    audience = payload.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not any(
        isinstance(name, str) and name in settings.audience for name in audiences
    ):
        raise TokenRefused("the token is for another audience")
    last = min(expires, issued + settings.max_age_seconds) + leeway
    return Claims(
        issuer=settings.issuer,
        tenant=_tenant(payload, settings),
        subject=_text(_claim(payload, settings.subject_claim), settings.subject_claim),
        roles=_roles(payload, settings),
        agent_id=_agent(payload, settings),
        scopes=_scopes(payload, settings),
        expires_us=int(last) * 1_000_000,
    )


def _time(payload: Mapping[str, Any], name: str) -> float | None:
    value = payload.get(name)
    if name not in payload:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise TokenRefused(f"{name} is no time")
    return value


def _claim(payload: Mapping[str, Any], name: str) -> Any:
    """Return a claim; a name that starts with `/` is a JSON pointer, for issuers that nest them."""
    if not name.startswith("/"):
        return payload.get(name)
    value: Any = payload
    for part in name[1:].split("/"):
        value = value.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 255 or not value.isprintable():
        raise TokenRefused(f"claim `{name}` is no short text")
    return value


def _tenant(payload: Mapping[str, Any], settings: IssuerSettings) -> str:
    # INVARIANT: an issuer speaks only for the tenants that the settings give it.
    if settings.tenant_claim is None:
        return settings.tenants[0]
    tenant = _claim(payload, settings.tenant_claim)
    if not isinstance(tenant, str) or tenant not in settings.tenants:
        raise TokenRefused("the tenant is not one of the issuer's")
    return tenant


def _roles(payload: Mapping[str, Any], settings: IssuerSettings) -> tuple[str, ...]:
    value = _claim(payload, settings.roles_claim) if settings.roles_claim is not None else None
    if value is None:
        return settings.roles
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > _MAX_ROLES or not all(isinstance(name, str) for name in names):
        raise TokenRefused(f"claim `{settings.roles_claim}` is no list of roles")
    if settings.roles_map is None:
        return tuple(dict.fromkeys(name for name in names if 1 <= len(name) <= 63))
    mapped = (role for name in names for role in settings.roles_map.get(name, ()))
    return tuple(dict.fromkeys(mapped))


def _agent(payload: Mapping[str, Any], settings: IssuerSettings) -> str | None:
    if settings.agent_claim is None:
        return None
    value = _claim(payload, settings.agent_claim)
    return None if value is None else _text(value, settings.agent_claim)


def _scopes(payload: Mapping[str, Any], settings: IssuerSettings) -> frozenset[str] | None:
    if settings.scope_claim is None:
        return None
    value = _claim(payload, settings.scope_claim)
    names: Sequence[Any] | None = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TokenRefused(f"claim `{settings.scope_claim}` is no list of permissions")
    return frozenset(names)
