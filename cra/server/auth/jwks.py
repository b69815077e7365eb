"""The keys of an issuer: fetched, kept, renewed, and given up when they are too old."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from cra.errors import ConfigInvalid, CRAError, Overloaded
from cra.server.auth.fetch import MAX_DEPTH, FetchFailed, check_url, fetch_json
from cra.server.auth.oidc import discover
from cra.server.auth.settings import IssuerSettings, Secret

Key = RSAKey | ECKey | OKPKey | OctKey

MAX_KEYS = 100
MIN_RSA_BITS = 2048
# Calls that wait for one issuer's keys: anybody can make up a key id, and a service has places for so many calls.
MAX_WAITING = 128
_RSA_TEXT = (342, 2732)  # 2048 and 16384 bits
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}

_log = logging.getLogger("cra.server.auth")


class VerifyKey:
    """A public key, and the only algorithms that it verifies."""

    __slots__ = ("algorithms", "key")

    def __init__(self, key: Key, algorithms: frozenset[str]) -> None:
        self.key = key
        self.algorithms = algorithms


def read_keys(document: Mapping[str, Any]) -> dict[str, VerifyKey]:
    """Return the usable keys of a JWKS by their kid; raises `FetchFailed` when there are none.

    What is not for verifying, too short, private, symmetric or without a kid is left out; so is a kid that occurs
    twice, because nobody can tell which is meant.
    """
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise FetchFailed(f"a key set has no list of at most {MAX_KEYS} keys")
    found: dict[str, VerifyKey] = {}
    twice = set()
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        if not isinstance(kid, str) or not 1 <= len(kid) <= 255:
            continue
        if kid in found or kid in twice:
            twice.add(kid)
            found.pop(kid, None)
            continue
        key = _usable(entry)
        if key is not None:
            found[kid] = key
    if not found:
        raise FetchFailed("a key set has no key that verifies signatures")
    return found


def _usable(entry: dict[str, Any]) -> VerifyKey | None:
    uses = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(uses, list) or "verify" not in uses:
        return None
    kinds: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = kinds.get(str(entry.get("kty")))
    # A private key in a published set is nobody's secret any more.
    if kind is None or "d" in entry:
        return None
    # Before anything is computed with it: how long the modulus is, in base64url.
    if kind is RSAKey and not (isinstance(entry.get("n"), str) and _RSA_TEXT[0] <= len(entry["n"]) <= _RSA_TEXT[1]):
        return None
    wanted: dict[str, Any] = {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
    try:
        key = kind.import_key(wanted)
        algorithms = _algorithms_of(key)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    named = entry.get("alg")
    if named is not None and not isinstance(named, str):
        return None
    if named is not None:
        algorithms &= {named} if named not in ("EdDSA", "Ed25519") else {"EdDSA", "Ed25519"}
    return VerifyKey(key, frozenset(algorithms)) if algorithms else None


def _algorithms_of(key: RSAKey | ECKey | OKPKey) -> set[str]:
    if isinstance(key, RSAKey):
        public: Any = key.public_key
        if public.key_size < MIN_RSA_BITS:
            return set()
        return {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    curve = key.curve_name
    return {name for name, wanted in _CURVES.items() if wanted == curve}


class KeySource:
    """The keys of one issuer.

    Renewed when older than their time to live, and once in `jwks_refresh_seconds` for a kid that is not there. While
    that fails the last good ones serve until they are `jwks_stale_seconds` beyond their time; then there are none.
    """

    def __init__(self, settings: IssuerSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._keys: dict[str, VerifyKey] = {}
        # Grows whenever keys are gone or others: what one of them verified is then no longer taken as verified.
        self.generation = 0
        self._good_at = float("-inf")
        self._tried_at = float("-inf")
        self._failed = False
        self._uri: str | None = None
        self._flight: asyncio.Task[None] | None = None
        self._waiting = 0
        self._secret: VerifyKey | None = None
        if settings.secret is not None:
            self._secret = _symmetric(settings, settings.secret)
        elif settings.jwks_uri is not None:
            check_url(settings.jwks_uri, what="jwks_uri")
        elif settings.jwks_file is None:
            check_url(settings.issuer, what="issuer")

    @property
    def fixed(self) -> bool:
        """Whether there is one secret and nothing to look up."""
        return self._secret is not None

    @property
    def _flying(self) -> bool:
        return self._flight is not None and not self._flight.done()

    async def key(self, kid: str | None) -> VerifyKey | None:
        """Return the key of that id, None when there is none now; raises `Overloaded`."""
        if self._secret is not None:
            return self._secret
        if kid is None:
            return None
        await self.renew()
        found = self._keys.get(kid)
        # A new key may be in what is being fetched just now.
        due = self._monotonic() - self._tried_at >= self._settings.jwks_refresh_seconds
        if found is None and (due or self._flying):
            await self._fetch()
            found = self._keys.get(kid)
        return found

    async def renew(self) -> None:
        """Have the keys fetched when they are due, and drop them when they are too old.

        A call waits for that only where it has to: with steady traffic, and while an issuer is away, the last good
        keys serve meanwhile. Raises `Overloaded` when too many wait already.
        """
        settings, now = self._settings, self._monotonic()
        age = now - self._good_at
        if self._secret is not None or age < settings.jwks_ttl_seconds:
            return
        latest = settings.jwks_ttl_seconds + settings.jwks_stale_seconds
        if self._flying or now - self._tried_at >= min(settings.jwks_refresh_seconds, settings.jwks_ttl_seconds):
            idle = age >= 2 * settings.jwks_ttl_seconds and not self._failed
            if not self._keys or idle or age >= latest:
                await self._fetch()
            else:
                self._begin()
        if self._keys and self._monotonic() - self._good_at >= latest:
            self._keys = {}
            self.generation += 1
            _log.error("issuer `%s`: the last good keys are too old, so nobody gets in by it", settings.issuer)

    async def _fetch(self) -> None:
        if self._waiting >= MAX_WAITING:
            raise Overloaded("the issuer's keys are being fetched", hint="wait as long as Retry-After says")
        self._waiting += 1
        try:
            await asyncio.shield(self._begin())
        finally:
            self._waiting -= 1

    def _begin(self) -> asyncio.Task[None]:
        # One fetch at a time, however many tokens wait for it; who gives up waiting does not end it.
        if self._flight is None or self._flight.done():
            self._flight = asyncio.get_running_loop().create_task(self._renew())
            self._tried_at = self._monotonic()
        return self._flight

    async def _renew(self) -> None:
        began = self._monotonic()
        try:
            found = await asyncio.to_thread(self._load)
        except CRAError as error:
            _log.warning("issuer `%s`: keys cannot be fetched: %s", self._settings.issuer, error.message)
            self._uri, self._failed = None, True
            return
        except Exception:
            # INVARIANT: whatever an issuer answers, its tokens are refused and no call fails by it.
            _log.exception("issuer `%s`: keys cannot be read", self._settings.issuer)
            self._failed = True
            return
        self._good_at, self._failed = began, False
        old, self._keys = self._keys, found
        if _names(old) != _names(found):
            self.generation += 1

    def _load(self) -> dict[str, VerifyKey]:
        settings = self._settings
        if settings.jwks_file is not None:
            return read_keys(_read_file(settings.jwks_file))
        uri = settings.jwks_uri or self._uri or discover(settings.issuer)
        found = read_keys(fetch_json(uri))
        # Asked for again only when it no longer leads to keys.
        self._uri = uri
        return found


def _names(keys: Mapping[str, VerifyKey]) -> dict[str, tuple[str, frozenset[str]]]:
    """Return what tells two sets of keys apart."""
    return {kid: (key.key.thumbprint(), key.algorithms) for kid, key in keys.items()}


def _symmetric(settings: IssuerSettings, secret: Secret) -> VerifyKey:
    try:
        return VerifyKey(OctKey.import_key(secret.reveal()), frozenset(settings.algorithms))
    except (JoseError, ValueError):
        raise ConfigInvalid(
            f"issuer `{settings.issuer}`: secret is a public key, which everybody knows",
            hint="give the key as jwks_file or jwks_uri, with an algorithm of its kind",
        ) from None


def _read_file(path: str) -> Mapping[str, Any]:
    from pathlib import Path

    from cra.protocol.jsontext import decode

    try:
        value = decode(Path(path).read_bytes(), max_depth=MAX_DEPTH)
    except OSError as error:
        raise FetchFailed(f"`{path}` cannot be read: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise FetchFailed(f"`{path}` has a JSON value, expected an object")
    return value
