"""Upkeep: what falls due without anybody calling, seen to from time to time."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING

from cra.errors import CRAError

if TYPE_CHECKING:
    from cra.server.service import Service

log = logging.getLogger("cra.server")

# In one turn for one tenant; what is left waits for the next.
_MOST_PURGED = 1000


class Upkeep:
    """Applies each tenant's retention policy, and records the approvals whose time is over.

    Several processes on one store may do it at once: each change is decided on the head that it lands on.
    """

    def __init__(self, service: Service, seconds: int) -> None:
        self._service = service
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, unless the settings say never."""
        if self._seconds:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Let no more turn begin; one that is under way ends where it is, between two appends."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        # Processes that were started together take turns at different times.
        await asyncio.sleep(self._seconds * (1 + random.random()) / 2)  # noqa: S311 - a delay is no secret
        while True:
            await self.turn()
            await asyncio.sleep(self._seconds)

    async def turn(self) -> None:
        """See to every tenant once; what goes wrong with one is no reason to leave the others."""
        tenancy = self._service.tenancy
        try:
            names = await self._service.aside(tenancy.storage.tenants)
        except CRAError as error:
            log.warning("upkeep: the tenants cannot be read: %s", error.message)
            return
        for name in names:
            try:
                # A store has tenants of its own making too, whom no service can serve, or whose atlases cannot be.
                runtime = tenancy.get(name).runtime
                purged = await runtime.administration.purge(limit=_MOST_PURGED)
                await runtime.approvals.expire()
            except CRAError as error:
                log.warning("upkeep: tenant `%s`: %s", name, error.message)
            except Exception:
                log.exception("upkeep: tenant `%s`", name)
            else:
                if purged:
                    log.info("upkeep: tenant `%s`: %d sessions purged", name, len(purged))
