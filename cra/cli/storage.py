"""cra storage: look after the store, and move what is in it to another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cra.cli._exit import FileNotFound, FileTrouble
from cra.cli._options import JsonOption, StorageOption, settings
from cra.cli._output import Output

if TYPE_CHECKING:
    from cra.storage.base import Storage

_MAX_LINE = 96 << 20

TenantOption = Annotated[
    list[str] | None,
    typer.Option("--tenant", "-T", metavar="NAME", help="Only this tenant; repeatable.", show_default=False),
]


@contextmanager
def _opened(url: str, *, create: bool = False) -> Iterator[Storage]:
    from cra.cli._options import Settings
    from cra.cli._runtime import check_lasting, check_store
    from cra.storage.open import open_storage

    check_lasting(url)
    if not create:
        check_store(Settings(url, (), (), False))
    store = open_storage(url, max_sessions=1, max_events=1)
    try:
        yield store
    finally:
        store.close()


def migrate(storage: StorageOption = None, json: JsonOption = False) -> int:
    """Bring the store's schema to this release's version; a store that is new is made.

    Opening a store does the same. By itself it is for a role that may create tables, before processes whose role may
    not.

    \b
    Examples:
      cra storage migrate --storage postgresql://owner@db.internal/cra
    """
    from cra.storage.open import schema_version

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with _opened(chosen.storage, create=True) as store:
        value = {"store": store.name, "schema_version": schema_version(store)}
    if chosen.json:
        out.data(value)
    else:
        out.line(f"{value['store']}: schema version {value['schema_version']}")
    return 0


def status(tenant: TenantOption = None, storage: StorageOption = None, json: JsonOption = False) -> int:
    """Show the store: its durability, its schema, and what each tenant has in it.

    \b
    Examples:
      cra storage status
      cra storage status --storage postgresql://cra@db.internal/cra --json
    """
    from cra.storage.open import schema_version

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with _opened(chosen.storage) as store:
        rows = [_counted(store.of_tenant(name)) for name in _tenants(store, tenant)]
        value: dict[str, Any] = {
            "store": store.name,
            "durability": store.durability,
            "schema_version": schema_version(store),
            "tenants": rows,
        }
    if chosen.json:
        out.data(value)
        return 0
    out.fields([("store", value["store"]), ("durability", value["durability"]), ("schema", value["schema_version"])])
    columns = ("tenant", "sessions", "ended", "events", "documents")
    out.table(columns, [tuple(row[name] for name in columns) for row in rows])
    return 0


def _tenants(store: Storage, wanted: list[str] | None) -> list[str]:
    there = store.tenants()
    for name in wanted or ():
        if name not in there:
            raise FileNotFound(f"the store has no tenant `{name}`", hint="`cra storage status` shows those it has")
    return [name for name in there if not wanted or name in wanted]


def _counted(part: Storage) -> dict[str, Any]:
    sessions = events = 0
    after: str | None = None
    while page := part.sessions(after=after, limit=1000):
        after = page[-1].session_id
        sessions += len(page)
        events += sum(part.load(record.session_id)[1].sequence for record in page)
    return {
        "tenant": part.tenant,
        "sessions": sessions,
        "ended": part.ended_count(),
        "events": events,
        "documents": sum(len(part.documents(kind)) for kind in part.kinds()),
    }


def export(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")
    ] = "-",
    tenant: TenantOption = None,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Write everything the store has as lines of JSON: sessions, events as they were hashed, counters, documents.

    Work may go on meanwhile; each session is of one moment. The file appears once it is whole.

    \b
    Examples:
      cra storage export -o cra.jsonl
      cra storage export --tenant acme | zstd > acme.jsonl.zst
    """
    from cra.storage.transfer import export as lines_of

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    with _opened(chosen.storage) as store:
        lines = lines_of(store, _tenants(store, tenant))
        if output == "-":
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return 0
        with out.busy("exporting"):
            size = _write(output, lines)
    if chosen.json:
        out.data({"path": output, "bytes": size})
    else:
        out.note(f"{size} bytes written to {output}")
    return 0


def _write(path: str, lines: Iterator[bytes]) -> int:
    import os

    part, size = Path(f"{path}.part"), 0
    try:
        part.unlink(missing_ok=True)
        # As the store's own file: for its owner only, from the first byte on, and nobody's link.
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb"
        ) as file:
            for line in lines:
                size += file.write(line)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            part.unlink(missing_ok=True)
        words = getattr(error, "strerror", None) or str(error)
        raise FileTrouble(f"file `{path}` cannot be written: {words.lower()}") from None
    return size


def import_(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="What `cra storage export` wrote; - is standard input.")
    ],
    tenant: TenantOption = None,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> int:
    """Take what an export has into this store, session by session, after its chain has been verified.

    When it was stopped, do it again: sessions that are there already and are the same are left alone. A session that
    is there and is another is an error.

    \b
    Examples:
      cra storage import cra.jsonl --storage postgresql://cra@db.internal/cra
      cra storage import cra.jsonl --tenant acme
    """
    from cra.storage.transfer import import_ as take

    chosen = settings(storage=storage, json=json)
    out = Output(chosen.json)
    wanted = frozenset(tenant) if tenant else None
    with _lines(source) as lines, _opened(chosen.storage, create=True) as store, out.busy("importing"):
        done = take(store, lines, tenants=wanted)
    value = {"tenants": done.tenants, "sessions": done.sessions, "known": done.known}
    if chosen.json:
        out.data(value)
    else:
        out.line(f"{done.sessions} sessions of {done.tenants} tenants imported, {done.known} were there already")
    return 0


@contextmanager
def _lines(source: str) -> Iterator[Iterator[bytes]]:
    if source == "-":
        yield iter(lambda: sys.stdin.buffer.readline(_MAX_LINE), b"")
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise FileNotFound(f"there is no export at `{source}`") from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise FileTrouble(f"export `{source}` cannot be read: {words.lower()}") from None
    with file:
        yield iter(lambda: file.readline(_MAX_LINE), b"")


COMMANDS = {"status": status, "migrate": migrate, "export": export, "import": import_}
