"""Who calls: one place where a request becomes an identity, or does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cra.errors import MissingExtra, Unauthenticated
from cra.server.auth.directory import Directory, Part
from cra.server.auth.fetch import is_loopback
from cra.server.auth.keys import Lock, Presented, opens_nothing, read_key
from cra.server.auth.proxy import Proxy, ProxyRefused
from cra.server.auth.settings import AuthSettings
from cra.server.identity import Identity
from cra.server.roles import permissions_of
from cra.storage.base import DEFAULT_TENANT, Storage

if TYPE_CHECKING:
    from cra.server.auth.failures import Failures
    from cra.server.auth.jwt import Claims, Tokens
    from cra.server.throttle import Throttle

_log = logging.getLogger("cra.server.auth")

_MAX_HEADER = 8300
_DEV_HINT = "in development mode, calls are taken from this machine only, and not from web pages of others"


class Authenticator:
    """Turn a request's credential into an identity.

    A request carries exactly one credential: a key or token in `Authorization: Bearer`, a key in `X-API-Key`, or the
    headers of a configured proxy. Whatever is wrong with it, the answer is the same.
    """

    def __init__(
        self,
        settings: AuthSettings,
        storage: Storage,
        *,
        now_us: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = Directory(storage, monotonic=monotonic)
        self._now_us = now_us
        self._dev = settings.dev
        self._proxy = Proxy(settings.proxy) if settings.proxy is not None else None
        self._proxied: frozenset[bytes] = self._proxy.headers if self._proxy is not None else frozenset()
        self._throttle = _throttle(settings)
        self._failures = _failures(settings, monotonic)
        self._tokens = _tokens(settings, now_us, monotonic) if settings.issuers else None
        # Worked out once for each key as long as it and the tenant's roles stay what they are.
        self._known: dict[str, tuple[Lock, Mapping[str, tuple[str, ...]], Identity]] = {}

    async def __call__(self, scope: MutableMapping[str, Any]) -> Identity:
        """Return who calls, and count the call; raises `Unauthenticated`, `RateLimited`."""
        # PERF: the address of a good call is looked at only while some address is shut out.
        if self._failures.shut:
            self._failures.check(scope)
        try:
            identity = await self._identify(scope)
        except Unauthenticated as error:
            raise self._counted(error, scope) from None
        self.count(identity)
        return identity

    async def again(self, scope: MutableMapping[str, Any]) -> Identity:
        """Return who makes a call that was let in and goes on; nothing is counted. Raises `Unauthenticated`."""
        return await self._identify(scope)

    async def _identify(self, scope: MutableMapping[str, Any]) -> Identity:
        pairs = scope["headers"]
        kind, text = self._shown(pairs, dict(pairs))
        if kind == _KEY:
            presented = _read(text)
            return self._by_key(presented, await self.directory.part(presented.tenant))
        if kind == _TOKEN:
            return await self._by_token(text)
        return await self._by_proxy(scope) if kind == _PROXY else self._nearby(scope)

    def known(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes]) -> Identity | None:
        """Return who calls, as calling it does, if nothing has to be waited for to know; it is not counted.

        `headers` are the scope's by their names.
        """
        if self._failures.shut:
            self._failures.check(scope)
        try:
            kind, text = self._shown(scope["headers"], headers)
            if kind == _KEY:
                presented = _read(text)
                part = self.directory.fresh(presented.tenant)
                return None if part is None else self._by_key(presented, part)
            return self._nearby(scope) if kind == _NOBODY else None
        except Unauthenticated as error:
            raise self._counted(error, scope) from None

    def count(self, identity: Identity) -> None:
        """Count a call; raises `RateLimited`."""
        if self._throttle is not None:
            self._throttle.check(identity)

    def _counted(self, error: Unauthenticated, scope: MutableMapping[str, Any]) -> Unauthenticated:
        """Return a refusal that has been counted for the address it goes to; raises `RateLimited`."""
        if not isinstance(error, NothingPresented):
            self._failures.count(scope)
        return error

    def _shown(self, pairs: list[tuple[bytes, bytes]], headers: Mapping[bytes, bytes]) -> tuple[int, bytes]:
        """Return which credential a request carries, and its text; `headers` are the pairs by their names."""
        bearer, key = headers.get(b"authorization"), headers.get(b"x-api-key")
        proxied = bool(self._proxied) and not self._proxied.isdisjoint(headers)
        count = (bearer is not None) + (key is not None) + proxied
        if len(pairs) != len(headers):
            # Each that is there again is one more.
            names = [name for name, _ in pairs]
            count += sum(max(0, names.count(name) - 1) for name in (b"authorization", b"x-api-key"))
        if count != 1:
            if count == 0 and self._dev:
                return _NOBODY, b""
            if count == 0:
                raise _refused("there is no credential", kind=NothingPresented)
            raise _refused("there are two credentials")
        if proxied:
            return _PROXY, b""
        if bearer is None:
            return _KEY, key or b""
        # The scheme may be written in any case; everything behind it is the credential.
        if bearer[:7].lower() != b"bearer ":
            raise _refused("the scheme is not Bearer")
        text = bearer[7:]
        return (_KEY if text[:4] == b"cra_" else _TOKEN), text

    def _by_key(self, presented: Presented, part: Part | None) -> Identity:
        lock = part.keys.get(presented.key_id) if part is not None else None
        if part is None or lock is None:
            opens_nothing(presented.secret_digest)
            raise _refused("there is no such tenant" if part is None else "there is no such key")
        if not lock.opens(presented.secret_digest, self._now_us()):
            raise _refused("the key is expired or its secret is another")
        known = self._known.get(presented.key_id)
        if known is not None and known[0] is lock and known[1] is part.roles:
            return known[2]
        identity = identity_of_key(part.tenant, lock, part.roles)
        while len(self._known) >= _MAX_KNOWN:
            self._known.pop(next(iter(self._known)), None)
        self._known[presented.key_id] = lock, part.roles, identity
        return identity

    async def _by_token(self, token: bytes) -> Identity:
        from cra.server.auth.jwt import TokenRefused

        if self._tokens is None:
            raise _refused("no issuer is configured")
        try:
            claims = await self._tokens.claims(token)
        except TokenRefused as error:
            raise _refused(str(error)) from None
        part = await self.directory.part(claims.tenant)
        if part is None:
            raise _refused("there is no such tenant")
        return _identity_of_claims(claims, part)

    async def _by_proxy(self, scope: MutableMapping[str, Any]) -> Identity:
        try:
            claims = self._proxy.claims(scope) if self._proxy is not None else None
        except ProxyRefused as error:
            raise _refused(str(error)) from None
        part = await self.directory.part(claims.tenant) if claims is not None else None
        if claims is None or part is None:
            raise _refused("there is no such tenant")
        return Identity(
            tenant=claims.tenant,
            subject=claims.subject,
            roles=claims.roles,
            permissions=permissions_of(claims.roles, claims.tenant, custom=part.roles, agent_id=claims.agent_id),
            agent_id=claims.agent_id,
            credential="proxy",
        )

    def _nearby(self, scope: MutableMapping[str, Any]) -> Identity:
        """Return the identity of development: everything in the default tenant, for this machine's own programs."""
        client = scope.get("client")
        if client is None or not is_loopback(client[0]):
            raise _refused("development mode is for loopback", _DEV_HINT, NothingPresented)
        for name, value in scope["headers"]:
            # A page of somebody else in a browser on this machine is not this machine's own program.
            if name == b"host" and not _is_near("//" + value.decode("latin-1")):
                raise _refused("the host is not loopback", _DEV_HINT, NothingPresented)
            if name == b"origin" and not _is_near(value.decode("latin-1")):
                raise _refused("the origin is not loopback", _DEV_HINT, NothingPresented)
        return _DEV


_MAX_KNOWN = 100_000

# What a request can carry.
_KEY, _TOKEN, _PROXY, _NOBODY = range(4)

_DEV = Identity(
    tenant=DEFAULT_TENANT,
    subject="dev",
    roles=("admin",),
    permissions=permissions_of(("admin",), DEFAULT_TENANT),
    credential="dev",
)


def _read(text: bytes) -> Presented:
    # PERF: the secret is hashed for each call, 0.6 us, so nothing has to keep what was presented.
    presented = read_key(text)
    if presented is None:
        raise _refused("the key is not one of ours")
    return presented


def _is_near(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def _throttle(settings: AuthSettings) -> Throttle | None:
    if not settings.throttle.key_per_second and not settings.throttle.tenant_per_second:
        return None
    try:
        from cra.server.throttle import Throttle
    except ImportError as error:
        raise _without(error) from None
    return Throttle(settings.throttle)


def _failures(settings: AuthSettings, monotonic: Callable[[], float]) -> Failures:
    try:
        from cra.server.auth.failures import Failures
    except ImportError as error:
        raise _without(error) from None
    return Failures(settings.throttle, () if settings.proxy is None else settings.proxy.networks(), monotonic)


def _without(error: ImportError) -> MissingExtra:
    return MissingExtra(f"rate limits need the package `{error.name}`", hint="pip install 'cra-core[server]'")


def _tokens(settings: AuthSettings, now_us: Callable[[], int], monotonic: Callable[[], float]) -> Tokens:
    try:
        from cra.server.auth.jwt import Tokens
    except ImportError as error:
        raise MissingExtra(f"tokens need the package `{error.name}`", hint="pip install 'cra-core[server]'") from None
    return Tokens(settings, now_us=now_us, monotonic=monotonic)


def identity_of_key(tenant: str, lock: Lock, custom: Mapping[str, tuple[str, ...]]) -> Identity:
    """Return whom a key stands for."""
    key = lock.document
    permissions = permissions_of(key.roles, tenant, custom=custom, agent_id=key.agent_id)
    return Identity(
        tenant=tenant,
        subject=key.subject,
        roles=key.roles,
        permissions=permissions if key.scopes is None else permissions & frozenset(key.scopes),
        agent_id=key.agent_id,
        credential=f"key:{key.key_id}",
        expires_us=lock.expires_us,
    )


def _identity_of_claims(claims: Claims, part: Part) -> Identity:
    permissions = permissions_of(claims.roles, claims.tenant, custom=part.roles, agent_id=claims.agent_id)
    return Identity(
        tenant=claims.tenant,
        subject=claims.subject,
        roles=claims.roles,
        permissions=permissions if claims.scopes is None else permissions & claims.scopes,
        agent_id=claims.agent_id,
        credential=f"jwt:{claims.issuer}",
        expires_us=claims.expires_us,
    )


class NothingPresented(Unauthenticated):
    """There was no credential, so nothing was guessed."""


def _refused(
    why: str,
    hint: str = "send `Authorization: Bearer` with a key or token that is good now",
    kind: type[Unauthenticated] = Unauthenticated,
) -> Unauthenticated:
    """Return the one answer to every credential that is not good; why is for the log."""
    _log.info("refused: %s", why)
    return kind("the call has no credential, or one that is not good", hint=hint)
