"""A small JSON document from whom the settings name: no redirects, bounded in size and time."""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import time
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cra.errors import ConfigInvalid, CRAError
from cra.protocol.jsontext import decode

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
TIMEOUT_S = 5.0
_PIECE_BYTES = 1 << 16


class _Incoming(io.RawIOBase):
    """What comes in on a socket until a deadline: the clock runs for all of it, and not anew for each piece.

    NOTE: `http.client` reads on as long as anything comes, be it an endless head, one interim answer after the other,
    or what follows the last chunk; the time-out of a socket is for one read.
    """

    def __init__(self, line: socket.socket, deadline: float) -> None:
        self._line = line
        self._deadline = deadline
        # It keeps the socket open until it is closed itself, also when the connection lets go of it.
        self._raw = line.makefile("rb", buffering=0)

    def makefile(self, *_: Any) -> io.BufferedReader:
        """Return what an answer is read from, as a socket does."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what there is; raises `TimeoutError` when the time is over."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._line.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class FetchFailed(CRAError):
    """A document could not be fetched; the words are for the log."""

    code = "unauthenticated"
    status = 401


def check_url(url: str, *, what: str, loopback: bool = True) -> SplitResult:
    """Return the parts of an https URL; http is for this machine itself. Raises `ConfigInvalid`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigInvalid(f"{what} is `{url[:200]}`, expected an https URL") from None
    if "@" in parts.netloc:
        # Not shown: what stands there is a password.
        raise ConfigInvalid(f"{what} has a user or a password in it, expected an https URL")
    plain = not url.isascii() or any(c <= " " for c in url) or parts.fragment
    good = parts.scheme == "https" or (parts.scheme == "http" and loopback and is_loopback(host or ""))
    if plain or not host or not good:
        raise ConfigInvalid(
            f"{what} is `{url[:200]}`, expected an https URL", hint="http is taken for 127.0.0.1 and localhost only"
        )
    return parts


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine by its name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def fetch_json(url: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Return the JSON object at a URL; raises `FetchFailed`. Blocks."""
    deadline = time.monotonic() + timeout_s
    parts = check_url(url, what="url")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # The system's authorities; what they have not signed is not fetched.
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout_s, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)

    def answer(line: Any, **more: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Incoming(line, deadline), **more)  # type: ignore[arg-type]  # it reads as one

    connection.response_class = answer  # type: ignore[assignment]  # it is only ever called
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", path, headers={"Accept": "application/json", "Accept-Encoding": "identity"})
        response = connection.getresponse()
        if response.status != 200:
            raise FetchFailed(f"`{url}` answers {response.status}, expected 200")
        data = b""
        while piece := response.read1(_PIECE_BYTES):
            data += piece
            if len(data) > MAX_BYTES:
                raise FetchFailed(f"`{url}` answers more than {MAX_BYTES} bytes")
    except TimeoutError:
        raise FetchFailed(f"`{url}` takes more than {timeout_s:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise FetchFailed(f"`{url}` cannot be fetched: {type(error).__name__}") from error
    finally:
        connection.close()
    try:
        value = decode(data, max_depth=MAX_DEPTH)
    except CRAError as error:
        raise FetchFailed(f"`{url}` answers no strict JSON: {error.message}") from None
    if type(value) is not dict:
        raise FetchFailed(f"`{url}` answers a JSON value, expected an object")
    return value
