"""Open a store by name or URL."""

from cra.errors import ConfigInvalid
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage


def open_storage(target: str | Storage, *, max_sessions: int, max_events: int) -> Storage:
    """Return the store that a setting names: `memory`, `sqlite:///path`, or a store itself.

    `sqlite:///path?durability=batched` does not wait for the disk. The bounds are those of the memory store; a store
    on disk is bounded by its disk.
    """
    if not isinstance(target, str):
        return target
    if target in ("memory", "memory:"):
        return MemoryStorage(max_sessions=max_sessions, max_events=max_events)
    if target.startswith("sqlite:///"):
        return _sqlite(target.removeprefix("sqlite:///"))
    raise ConfigInvalid(f"storage is `{target.split('://')[0]}`, expected memory or sqlite:///path", pointer="/storage")


def _sqlite(rest: str) -> Storage:
    # PERF: urllib.parse takes 14 ms to import.
    from urllib.parse import parse_qsl, unquote

    from cra.storage.sqlite import SQLiteStorage

    path, _, query = rest.partition("?")
    durability = "strict"
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "durability":
            raise ConfigInvalid(f"storage option is `{name}`, expected durability", pointer="/storage")
        durability = value
    return SQLiteStorage(unquote(path), durability=durability)  # type: ignore[arg-type] # checked there
