"""The application: a service put together from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from cra.atlas import loader
from cra.atlas.package import Atlas
from cra.runtime.config import Clock, Ids, RuntimeConfig
from cra.runtime.registrar import registrar
from cra.server.auth.authenticator import Authenticator
from cra.server.auth.settings import auth_settings
from cra.server.live import LiveSocket
from cra.server.metrics import MeteredStorage, Metrics
from cra.server.service import Authenticate, Service
from cra.server.settings import ServiceSettings
from cra.server.tenancy import Tenancy
from cra.server.upkeep import Upkeep
from cra.storage.base import Storage
from cra.storage.open import open_storage

# How long calls that were cancelled have to record how they ended.
_LAST_SECONDS = 5.0


class Application(Starlette):
    """The ASGI application; `service` is what answers."""

    def __init__(self, service: Service, storage: Storage) -> None:
        self.service = service
        self._live = LiveSocket(service)

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            service.deadlines.start()
            upkeep = Upkeep(service, service.settings.upkeep_seconds)
            upkeep.start()
            try:
                yield
            finally:
                await upkeep.stop()
                # Calls that were cancelled because the time for shutting down was over still record how they ended.
                await service.finish(_LAST_SECONDS)
                service.deadlines.stop()
                for tenant in service.tenancy:
                    await tenant.runtime.close()
                await service.aside(storage.close)

        super().__init__(lifespan=lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take every scope. PERF: a request goes straight to the service, without a layer around it."""
        if scope["type"] == "http":
            await self.service(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._live(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(
    settings: ServiceSettings | None = None,
    *,
    storage: Storage | None = None,
    clock: Clock | None = None,
    ids: Ids | None = None,
    atlases: tuple[Atlas, ...] = (),
    register: Callable[[Any], None] | None = None,
    authenticate: Authenticate | None = None,
) -> Application:
    """Return the application for some settings.

    `storage`, `clock`, `ids`, `atlases`, `register` and `authenticate` are for tests, and stand in for what the
    settings name.
    """
    settings = settings or ServiceSettings()
    more: dict[str, Any] = {name: value for name, value in (("clock", clock), ("ids", ids)) if value is not None}
    config = RuntimeConfig(**{**settings.runtime, "stored_atlases": True, **more})
    if storage is None:
        storage = open_storage(settings.storage, max_sessions=config.max_sessions, max_events=config.max_events)
    baseline = [*(loader.load(path) for path in settings.atlases), *atlases]
    if register is None and settings.executors is not None:
        register = registrar(settings.executors)
    metrics = Metrics()
    metered = cast(Storage, MeteredStorage(storage, metrics))
    tenancy = Tenancy(metered, config, baseline, register)
    if authenticate is None:
        auth = auth_settings({**settings.auth, "dev": settings.dev})
        authenticate = Authenticator(auth, metered, now_us=config.clock)
    return Application(Service(settings, tenancy, authenticate, metrics), storage)
