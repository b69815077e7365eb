"""Tenants: each has a runtime of its own over its part of the one store."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs

from cra.atlas.package import Atlas
from cra.errors import TenantNotFound
from cra.runtime.asynchronous import AsyncCRARuntime
from cra.runtime.config import RuntimeConfig
from cra.storage.base import Storage

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")

Register = Callable[[Any], None]


class Tenant:
    """A tenant that this process works for; `waits` says whether its store may make callers wait."""

    __slots__ = ("name", "runtime", "waits")

    def __init__(self, name: str, runtime: AsyncCRARuntime) -> None:
        self.name = name
        self.runtime = runtime
        self.waits = runtime._waits


class Tenancy:
    """The tenants of a service; their runtimes are made when first used, and kept."""

    def __init__(
        self, storage: Storage, config: RuntimeConfig, atlases: Sequence[Atlas], register: Register | None = None
    ) -> None:
        self.storage = storage
        self._config = config
        self._atlases = tuple(atlases)
        self._register = register
        self._tenants: dict[str, Tenant] = {}

    def get(self, name: str) -> Tenant:
        """Return a tenant; who calls has made sure that it exists. Raises `TenantNotFound` for what is no name."""
        found = self._tenants.get(name)
        if found is None:
            if not _NAME.match(name):
                raise TenantNotFound("no tenant can have that name")
            runtime = AsyncCRARuntime(structs.replace(self._config, storage=self.storage.of_tenant(name)))
            for atlas in self._atlases:
                runtime.load_atlas(atlas)
            if self._register is not None:
                self._register(runtime)
            found = self._tenants[name] = Tenant(name, runtime)
        return found

    def known(self, name: str) -> Tenant | None:
        """Return a tenant that has been used already."""
        return self._tenants.get(name)

    def forget(self, name: str) -> None:
        """Drop the runtime of a tenant that has been removed."""
        self._tenants.pop(name, None)

    def __iter__(self) -> Any:
        return iter(list(self._tenants.values()))
