"""The server: uvicorn, as the service needs it, in one process or several."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from cra.errors import ConfigInvalid
from cra.server.connection import Connection
from cra.server.settings import ServiceSettings
from cra.server.websocket import WebSocket
from cra.storage.base import DEFAULT_TENANT


def make_config(app: Any, settings: ServiceSettings, **more: Any) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=Connection,
        ws=WebSocket,
        lifespan="on",
        log_config=None,
        access_log=False,
        # Addresses that a proxy tells are believed only by [auth.proxy].
        proxy_headers=False,
        server_header=False,
        ws_max_size=1 << 12,
        ws_per_message_deflate=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        **more,
    )


def make_server(app: Any, settings: ServiceSettings) -> uvicorn.Server:
    """Return a server that is not running yet."""
    return uvicorn.Server(make_config(app, settings))


def application(settings: ServiceSettings) -> Any:
    """Return the application of a process that does nothing else: its logs and its memory are set up too."""
    from cra.server.app import create_app

    set_up_logs(settings)
    app = create_app(settings)
    # What is wrong with its atlases together, or its executors, is said now and not to the first caller.
    app.service.tenancy.get(DEFAULT_TENANT)
    # PERF: what lives as long as the process is not looked through again; collecting took a fifth of a resolve.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    return app


def set_up_logs(settings: ServiceSettings) -> None:
    """Write warnings, and the access log when it is wanted, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("uvicorn", "cra"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("cra.access")
    access.handlers, access.propagate = [lines], False
    access.setLevel(logging.INFO if settings.access_log == "json" else logging.CRITICAL)
    # Why a credential was refused, beside the line that says that it was.
    logging.getLogger("cra.server.auth").setLevel(logging.INFO if settings.access_log == "json" else logging.NOTSET)


def bind(settings: ServiceSettings) -> socket.socket:
    """Return a socket that listens; raises `ConfigInvalid` when the address is not to be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        # Python adds the address again.
        words = (error.strerror or str(error)).partition(" (while")[0].lower()
        raise ConfigInvalid(
            f"cannot listen on `{settings.host}` port {settings.port}: {words}",
            hint="name another with --host and --port",
        ) from None


def serve(settings: ServiceSettings, started: Callable[[str], None]) -> None:
    """Serve until told to stop by SIGTERM or SIGINT; `started` is told the URL once the port is taken."""
    listening = bind(settings)
    host, port = listening.getsockname()[:2]
    with listening, _calm_signals():
        if settings.workers == 1:
            app = application(settings)
            started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            make_server(app, settings).run(sockets=[listening])
            return
        # A fault in the settings is said once, here, and not by every worker again and again.
        check(settings)
        started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        set_up_logs(settings)
        with tempfile.TemporaryDirectory(prefix="cra-metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            config = make_config(partial(application, settings), settings, factory=True, workers=settings.workers)
            Multiprocess(config, sockets=[listening]).run()


def check(settings: ServiceSettings) -> None:
    """Raise what would keep the service from starting, without starting it."""
    from cra.atlas import loader
    from cra.runtime.config import RuntimeConfig
    from cra.runtime.registrar import registrar
    from cra.server.auth.settings import auth_settings
    from cra.server.tenancy import Tenancy
    from cra.storage.open import open_storage

    auth_settings({**settings.auth, "dev": settings.dev})
    atlases = [loader.load(path) for path in settings.atlases]
    register = None if settings.executors is None else registrar(settings.executors)
    config = RuntimeConfig(**settings.runtime)
    storage = open_storage(settings.storage, max_sessions=config.max_sessions, max_events=config.max_events)
    try:
        storage.probe()
        Tenancy(storage, config, atlases, register).get(DEFAULT_TENANT)
    finally:
        storage.close()


@contextmanager
def _calm_signals() -> Iterator[None]:
    """Have a stop that went well end the process well: uvicorn raises the signal again that it was stopped by."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
