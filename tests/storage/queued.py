"""A store whose appends are queued, as an event loop has them done."""

from __future__ import annotations

from threading import Event
from typing import Any

from cra.storage.base import Storage


class Queued:
    """A store whose appends are queued for its writer."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def of_tenant(self, tenant: str) -> Storage:
        return Queued(self._inner.of_tenant(tenant))

    def append(self, *arguments: Any) -> None:
        over, errors = Event(), list[BaseException | None]()

        def done(error: BaseException | None) -> None:
            errors.append(error)
            over.set()

        assert self._inner.append_soon is not None
        pending = self._inner.append_soon(*arguments, done)
        assert over.wait(pending.timeout_seconds)
        pending.give_up()
        assert len(errors) == 1
        if errors[0] is not None:
            raise errors[0]
