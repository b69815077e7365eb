"""What a client is told once: where the service is, who calls, and how long anything may take."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct

from cra.errors import ConfigInvalid, MissingExtra

if TYPE_CHECKING:
    import ssl
    from types import ModuleType

# Text, or what returns it for each call: a token that is renewed.
Credential = str | Callable[[], str]

_VISIBLE = re.compile(r"[\x21-\x7e]{1,16384}\Z")


class Secret:
    """A credential that nothing shows: it is read where a request is signed, and nowhere else."""

    __slots__ = ("_value",)

    def __init__(self, value: Credential) -> None:
        if isinstance(value, str):
            _check(value)
        elif not callable(value):
            raise ConfigInvalid(f"api_key is `{type(value).__name__}`, expected text or a function that returns it")
        self._value = value

    def text(self) -> str:
        """Return the credential."""
        return self._value if isinstance(self._value, str) else _check(self._value())

    def __repr__(self) -> str:
        return "<a credential>"

    def __reduce__(self) -> Any:
        raise TypeError("a credential is not written down")


def _check(value: object) -> str:
    if not isinstance(value, str) or not _VISIBLE.match(value):
        # Whatever it is, it may be a secret with a typing error.
        raise ConfigInvalid(
            "api_key is not 1 to 16384 visible ASCII characters", hint="is there a space or a line break in it?"
        )
    return value


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of a client, checked."""

    base_url: str
    secret: Secret | None
    timeout_s: float
    execute_timeout_s: float
    max_attempts: int
    max_connections: int
    trust_env: bool


def settings_of(
    base_url: str,
    api_key: Credential | None,
    *,
    timeout_s: float,
    execute_timeout_s: float,
    max_attempts: int,
    max_connections: int,
    allow_plain_http: bool,
) -> Settings:
    """Return checked settings; raises `ConfigInvalid`.

    Without `api_key` the environment's CRA_API_KEY counts. A credential goes over plain HTTP only to this machine,
    or when told.
    """
    url, loopback = _address(base_url)
    key = api_key if api_key is not None else os.environ.get("CRA_API_KEY") or None
    plain = url.startswith("http://")
    if plain and not loopback and key is not None and not allow_plain_http:
        raise ConfigInvalid(
            f"base_url is `{url}`: a credential would cross the network in plain text",
            hint="use https, or allow_plain_http=True where something else encrypts the way",
            pointer="/base_url",
        )
    for name, value, low, high in (
        ("timeout_s", timeout_s, 0.001, 86_400),
        ("execute_timeout_s", execute_timeout_s, 0.001, 86_400),
        ("max_attempts", max_attempts, 1, 100),
        ("max_connections", max_connections, 1, 10_000),
    ):
        given: object = value
        if not isinstance(given, int | float) or isinstance(given, bool) or not low <= given <= high:
            raise ConfigInvalid(f"{name} is `{given}`, expected a number from {low} to {high}", pointer=f"/{name}")
    return Settings(
        base_url=url,
        secret=None if key is None else Secret(key),
        timeout_s=timeout_s,
        execute_timeout_s=execute_timeout_s,
        max_attempts=max_attempts,
        max_connections=max_connections,
        # A proxy from the environment would get what is meant for this machine, in plain text.
        trust_env=not (plain and loopback),
    )


def _address(base_url: object) -> tuple[str, bool]:
    """Return the address without a slash at its end, and whether it is this machine's."""
    if not isinstance(base_url, str):
        raise ConfigInvalid(f"base_url is `{type(base_url).__name__}`, expected text", pointer="/base_url")
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigInvalid(f"base_url is no address: {error}", pointer="/base_url") from None
    if "@" in parts.netloc:
        # Not shown: what stands there is a password.
        raise ConfigInvalid("base_url has a user or a password in it", hint="give api_key", pointer="/base_url")
    if parts.scheme not in ("http", "https") or not host or port == 0 or parts.query or parts.fragment:
        raise ConfigInvalid(
            f"base_url is `{base_url[:200]}`, expected http(s)://host[:port][/prefix]",
            hint="such as https://cra.example.com or http://127.0.0.1:8420",
            pointer="/base_url",
        )
    if any(character <= " " or character in "\x7f\\" for character in base_url):
        raise ConfigInvalid("base_url has a space, a backslash or a control character in it", pointer="/base_url")
    return base_url.rstrip("/"), _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def http_package() -> ModuleType:
    """Return httpx, or raise `MissingExtra`."""
    try:
        import httpx
    except ImportError:
        raise MissingExtra("the client needs the package httpx", hint="pip install 'cra-core[client]'") from None
    return httpx


def http_options(settings: Settings, verify: ssl.SSLContext | bool) -> dict[str, Any]:
    """Return what both of httpx's clients are made with."""
    httpx = http_package()
    return {
        "auth": None if settings.secret is None else _bearer(httpx, settings.secret),
        # PERF: a TLS context takes 20 ms to make, and nothing that stays on this machine uses one.
        "verify": verify if settings.trust_env else False,
        "trust_env": settings.trust_env,
        "follow_redirects": False,
        "limits": httpx.Limits(
            max_connections=settings.max_connections,
            max_keepalive_connections=settings.max_connections,
            keepalive_expiry=30.0,
        ),
        # What is answered is bounded by its size, so it must not be one thing on the wire and another here.
        "headers": {"user-agent": "cra-client", "accept-encoding": "identity"},
    }


def _bearer(httpx: ModuleType, secret: Secret) -> Any:
    class Bearer(httpx.Auth):  # type: ignore[misc, name-defined]  # httpx is a value here, not a module of types
        """Sign a request when it is sent, so that the credential stands in no collection of headers before."""

        def auth_flow(self, request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer {secret.text()}"
            yield request

    return Bearer()
