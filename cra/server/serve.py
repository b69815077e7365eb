"""The server: uvicorn, as the service needs it."""

from typing import Any

import uvicorn

from cra.server.connection import Connection
from cra.server.settings import ServiceSettings


def make_config(app: Any, settings: ServiceSettings, **more: Any) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Connection,
        ws="websockets-sansio",
        lifespan="on",
        log_config=None,
        access_log=False,
        ws_max_size=1 << 12,
        ws_per_message_deflate=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        **more,
    )


def make_server(app: Any, settings: ServiceSettings) -> uvicorn.Server:
    """Return a server that is not running yet."""
    return uvicorn.Server(make_config(app, settings))
