"""A tenant's part of a store, for the commands that administer it without a service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cra.cli._options import Settings

if TYPE_CHECKING:
    from cra.runtime.sync import CRARuntime
    from cra.server.auth.issuing import Write
    from cra.storage.base import Storage

V = TypeVar("V")

TenantOption = Annotated[str, typer.Option("--tenant", "-t", metavar="NAME", help="Whose keys.")]
ActorOption = Annotated[
    str, typer.Option("--actor", metavar="NAME", envvar="CRA_ACTOR", help="Who does this; it is recorded.")
]


class TenantStore:
    """One tenant's part of an open store, and the runtime that records what is changed in it."""

    def __init__(self, storage: Storage, runtime: CRARuntime) -> None:
        self.storage = storage
        self.runtime = runtime

    @property
    def now_us(self) -> int:
        """The runtime's time."""
        return self.runtime.config.clock()

    def change(self, actor: str, make: Callable[[], tuple[V, Write | None]]) -> V:
        """Make and write a change; return what `make` made beside it."""
        from cra.server.auth.writing import write

        return write(self.runtime.administration, actor, make)


@contextmanager
def open_tenant(settings: Settings, tenant: str, *, create: bool = False) -> Iterator[TenantStore]:
    """Open a tenant's part of the store; raises `TenantNotFound`."""
    from msgspec import structs

    from cra.cli._runtime import check_lasting, check_store, make_config
    from cra.runtime.sync import CRARuntime
    from cra.server.auth.directory import BUILT_IN_TENANTS
    from cra.server.auth.issuing import read_tenant
    from cra.server.identity import SYSTEM_TENANT
    from cra.storage.open import open_storage

    check_lasting(settings.storage)
    if not create:
        check_store(settings)
    config = make_config(settings)
    storage = open_storage(config.storage, max_sessions=config.max_sessions, max_events=config.max_events)
    try:
        if tenant not in BUILT_IN_TENANTS:
            read_tenant(storage.of_tenant(SYSTEM_TENANT), tenant)
        part = storage.of_tenant(tenant)
        with CRARuntime(structs.replace(config, storage=part)) as runtime:
            yield TenantStore(part, runtime)
    finally:
        storage.close()
