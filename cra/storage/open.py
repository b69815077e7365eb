"""Open a store by name or URL."""

from cra.errors import ConfigInvalid
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage

_MAX_FILE = 8192
_SUCH_AS = "such as sqlite:///cra.db, sqlite:////var/lib/cra/cra.db or postgresql://cra@db/cra"


def open_storage(target: str | Storage, *, max_sessions: int, max_events: int) -> Storage:
    """Return the store that a setting names: `memory`, `sqlite:///path`, `postgresql://host/db`, or a store itself.

    `file:///path` is a file that has the setting in it, for a URL with a password: a secret that a container is given.
    `?durability=batched` does not wait for the disk. The bounds are those of the memory store; a store on disk is
    bounded by its disk.
    """
    if not isinstance(target, str):
        if not hasattr(target, "of_tenant"):
            raise ConfigInvalid(
                f"storage is `{type(target).__name__}`, expected a name, a URL or a Storage",
                pointer="/storage",
                hint=_SUCH_AS,
            )
        return target
    target = url_of(target)
    if target in ("memory", "memory:"):
        return MemoryStorage(max_sessions=max_sessions, max_events=max_events)
    if target.startswith("sqlite:///"):
        return _sqlite(target.removeprefix("sqlite:///"))
    if target.startswith(("postgresql://", "postgres://")):
        return _postgres(target)
    # Only the scheme: whatever comes after it may have a password in it.
    scheme = target.partition(":")[0] if ":" in target else target
    raise ConfigInvalid(
        f"storage is `{scheme}`, expected memory, sqlite:///path or postgresql://host/database",
        pointer="/storage",
        hint=_SUCH_AS,
    )


def schema_version(store: Storage) -> int:
    """Return the version of an open store's schema: that of this release, which opening it has brought it to."""
    from pathlib import Path

    return len(list((Path(__file__).parent / "migrations" / store.name).glob("[0-9]*.sql")))


def url_of(target: str) -> str:
    """Return what a setting says, or the file that `file:///path` names: a password is no argument."""
    if not target.startswith("file://"):
        return target
    from pathlib import Path

    place = target.removeprefix("file://")
    try:
        with Path(place).open(encoding="utf-8") as file:
            text = file.read(_MAX_FILE).strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigInvalid(f"`{place}` cannot be read, where the URL of the storage is expected") from None
    if not text or "\n" in text or text.startswith("file:"):
        # What is in it stays out of the message.
        raise ConfigInvalid(f"`{place}` has no URL of a storage in it, expected one line with nothing else")
    return text


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


def _postgres(url: str) -> Storage:
    from urllib.parse import unquote

    from cra.storage.postgres import PostgresStorage

    place, _, query = url.partition("?")
    ours = {"durability": "strict", "schema": "cra", "pool": "16"}
    others = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name in ours:
            ours[name] = unquote(value)
        elif part:
            others.append(part)
    if not ours["pool"].isascii() or not ours["pool"].isdecimal() or len(ours["pool"]) > 4:
        raise ConfigInvalid(f"pool is `{ours['pool']}`, expected 1 to 1000", pointer="/storage")
    # What is not ours is libpq's, such as sslmode, and is checked there.
    return PostgresStorage(
        f"{place}?{'&'.join(others)}" if others else place,
        durability=ours["durability"],  # type: ignore[arg-type] # checked there
        schema=ours["schema"],
        pool=int(ours["pool"]),
    )
