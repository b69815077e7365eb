"""Failures: how often an address may fail to say who it is before it is not listened to for a while."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, MutableMapping
from typing import Any

from cra.errors import RateLimited
from cra.server.auth.settings import Network, ThrottleSettings
from cra.server.throttle import limiter

# Who has an IPv6 address usually has all of its /64.
_IPV6_PREFIX = 64


class Failures:
    """Count refused credentials by the address they came from, and shut out the addresses that have too many.

    While an address is shut out its credentials are not looked at, good ones neither, so that there is nothing to learn
    from trying. What is remembered is bounded.
    """

    def __init__(
        self, settings: ThrottleSettings, proxies: tuple[Network, ...], monotonic: Callable[[], float]
    ) -> None:
        self._limiter = limiter(settings.failures_per_second, settings.failure_burst, settings.max_tracked)
        self._max_tracked = settings.max_tracked
        self._seconds = 1 / (settings.failures_per_second or 1)
        self._proxies = (*settings.networks(), *proxies)
        header = settings.address_header
        self._header = None if header is None else header.lower().encode()
        self._monotonic = monotonic
        # When each address is listened to again, soonest first: they are all shut out for about as long.
        self.shut: dict[str, float] = {}

    def check(self, scope: MutableMapping[str, Any]) -> None:
        """Raise `RateLimited` for a call from an address that is shut out.

        PERF: to be called only while there is one in `shut`.
        """
        now = self._monotonic()
        while self.shut and next(iter(self.shut.values())) <= now:
            del self.shut[next(iter(self.shut))]
        if self.shut and (address := self._address(scope)) is not None:
            until = self.shut.get(address)
            if until is not None and until > now:
                raise _shut_out(until - now)

    def count(self, scope: MutableMapping[str, Any]) -> None:
        """Count a refused credential; raises `RateLimited` when the address has none left."""
        address = self._address(scope)
        if self._limiter is None or address is None:
            return
        result = self._limiter.limit(address)
        if result.limited or result.state.remaining == 0:
            while len(self.shut) >= self._max_tracked:
                del self.shut[next(iter(self.shut))]
            self.shut.pop(address, None)
            self.shut[address] = self._monotonic() + self._seconds
        if result.limited:
            raise _shut_out(self._seconds)

    def _address(self, scope: MutableMapping[str, Any]) -> str | None:
        """Return whom a failure is counted for; None for a proxy that does not say for whom it speaks."""
        client = scope.get("client")
        # Without an address it came through a Unix socket, from a proxy: the socket's mode says who may connect.
        if client is not None:
            address = _parsed(client[0])
            if address is None:
                return str(client[0])
            if not any(address in network for network in self._proxies):
                return _name(address)
        if self._header is None:
            return None
        # What the proxy has added is last; what stands before it, its own caller may have written.
        told = [value for name, value in scope["headers"] if name == self._header]
        parsed = _parsed(told[-1].decode("latin-1").rpartition(",")[2].strip()) if told else None
        return None if parsed is None else _name(parsed)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parsed(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _name(address: Address) -> str:
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


def _shut_out(seconds: float) -> RateLimited:
    return RateLimited(
        "too many credentials from this address were refused",
        hint="wait as long as Retry-After says, and look at what your programs send",
        details={"retry_after_seconds": max(1, -int(-seconds // 1))},
    )
