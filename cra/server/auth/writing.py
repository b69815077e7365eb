"""Write a change of keys, roles or tenants, over again when somebody else was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from cra.errors import StaleHead
from cra.server.auth.issuing import Changed, Write

V = TypeVar("V")

_MAX_ATTEMPTS = 20


class Puts(Protocol):
    """What writes at once: `Administration`."""

    def put(self, *args: Any, **kwargs: Any) -> None: ...


class PutsLater(Protocol):
    """What writes when awaited: `AsyncAdministration`."""

    async def put(self, *args: Any, **kwargs: Any) -> None: ...


def write(administration: Puts, actor: str, make: Callable[[], tuple[V, Write | None]]) -> V:
    """Make a change and write it; returns what `make` made beside it."""
    for _ in range(_MAX_ATTEMPTS):
        value, change = make()
        try:
            if change is not None:
                administration.put(*change[:5], actor=actor, check=change.check)
            return value
        except Changed:
            continue
    raise _moving()


async def write_later(
    administration: PutsLater, actor: str, make: Callable[[], Awaitable[tuple[V, Write | None]]]
) -> V:
    """Do as `write` does, awaiting both."""
    for _ in range(_MAX_ATTEMPTS):
        value, change = await make()
        try:
            if change is not None:
                await administration.put(*change[:5], actor=actor, check=change.check)
            return value
        except Changed:
            continue
    raise _moving()


def _moving() -> StaleHead:
    return StaleHead(f"it was changed by somebody else {_MAX_ATTEMPTS} times in a row", hint="try again")
