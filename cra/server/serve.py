"""The server: uvicorn, as the service needs it."""

from typing import Any

import uvicorn

from cra.server.settings import ServiceSettings


def make_config(app: Any, settings: ServiceSettings, **more: Any) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        **more,
    )


def make_server(app: Any, settings: ServiceSettings) -> uvicorn.Server:
    """Return a server that is not running yet."""
    return uvicorn.Server(make_config(app, settings))
