"""What the synchronous and the asynchronous client have in common."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from cra.atlas.package import Atlas
from cra.client._calls import Call
from cra.client._exchange import Exchange
from cra.client._settings import Credential, Settings, http_options, http_package, settings_of
from cra.client._stream import Follower

if TYPE_CHECKING:
    import ssl


class ClientBase:
    """Everything of a client that neither sends nor waits."""

    def __init__(
        self,
        base_url: str,
        api_key: Credential | None = None,
        *,
        timeout_s: float = 30.0,
        execute_timeout_s: float = 330.0,
        max_attempts: int = 5,
        max_connections: int = 100,
        allow_plain_http: bool = False,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._settings: Settings = settings_of(
            base_url,
            api_key,
            timeout_s=timeout_s,
            execute_timeout_s=execute_timeout_s,
            max_attempts=max_attempts,
            max_connections=max_connections,
            allow_plain_http=allow_plain_http,
        )
        self._httpx = http_package()
        self._options: dict[str, Any] = http_options(self._settings, verify)
        # Nothing of the call has left this machine, or the other has not taken its connection.
        self._unsent: tuple[type[Exception], ...] = (
            self._httpx.ConnectError,
            self._httpx.ConnectTimeout,
            self._httpx.PoolTimeout,
            self._httpx.ProxyError,
            self._httpx.UnsupportedProtocol,
        )
        # The atlases that were loaded when last asked, by digest.
        self._known: dict[str, Atlas] = {}
        self._clock, self._chance = time.monotonic, random.random

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._settings.base_url}>"

    def _exchange(self, call: Call[Any]) -> Exchange[Any]:
        return Exchange(call, self._settings, self._clock, self._chance)

    def _follower(self, session_id: str, first: int) -> Follower:
        return Follower(session_id, first, self._settings, self._clock, self._chance)

    def _sent(self, error: Exception) -> bool:
        """Say whether a call that failed so may have been taken by the service."""
        return not isinstance(error, self._unsent)

    def _parts(self, call: Call[Any], timeouts: dict[str, float]) -> dict[str, Any]:
        """Return a call as httpx takes it."""
        headers = {"accept": call.accept}
        if call.body is not None:
            headers["content-type"] = call.media
        return {
            "method": call.method,
            "url": self._settings.base_url + call.path,
            "params": call.query or None,
            "content": call.body,
            "headers": headers,
            "timeout": self._httpx.Timeout(**timeouts),
        }
