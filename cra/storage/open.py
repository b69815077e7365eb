"""Open a store by name or URL."""

from cra.errors import ConfigInvalid, MissingExtra
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage


def open_storage(target: str | Storage, *, max_sessions: int, max_events: int) -> Storage:
    """Return the store that a setting names: `memory`, `sqlite:///path`, or a store itself.

    The bounds are those of the memory store; a store on disk is bounded by its disk.
    """
    if not isinstance(target, str):
        return target
    if target in ("memory", "memory:"):
        return MemoryStorage(max_sessions=max_sessions, max_events=max_events)
    if target.startswith("sqlite:///"):
        try:
            from cra.storage.sqlite import SQLiteStorage
        except ImportError as error:
            raise MissingExtra(
                "storage `sqlite` needs the package apsw", hint="pip install 'cra-core[sqlite]'"
            ) from error
        return SQLiteStorage(target.removeprefix("sqlite:///"))
    raise ConfigInvalid(f"storage is `{target.split('://')[0]}`, expected memory or sqlite:///path", pointer="/storage")
