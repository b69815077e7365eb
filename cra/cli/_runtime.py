"""A runtime for one command, and the traces that commands read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from cra.cli._exit import FileNotFound, UsageError
from cra.cli._input import read_file
from cra.cli._options import Settings, sqlite_path
from cra.errors import ConfigInvalid

if TYPE_CHECKING:
    from cra.atlas.package import Atlas
    from cra.protocol.carp import Request
    from cra.runtime.config import RuntimeConfig
    from cra.runtime.sync import CRARuntime
    from cra.storage.base import SessionRecord

_OURS = {"storage", "clock", "ids"}


def make_config(settings: Settings, **more: Any) -> RuntimeConfig:
    """Return the configuration that `--storage` and `--set` ask for."""
    from msgspec.structs import fields

    from cra.runtime.config import RuntimeConfig

    known = {field.name: field for field in fields(RuntimeConfig) if field.name not in _OURS}
    values: dict[str, Any] = {"storage": settings.storage}
    for word in settings.config:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            raise ConfigInvalid(
                f"setting is `{word}`, expected NAME=VALUE with one of {', '.join(known)}", hint="see docs/cli.md"
            )
        default = known[name].default
        if isinstance(default, bool):
            # What is neither is said with the setting's own words.
            values[name] = {"true": True, "false": False}.get(text, text)
        else:
            values[name] = text if isinstance(default, str) else _number(name, text)
    return RuntimeConfig(**(values | more))


def _number(name: str, text: str) -> int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigInvalid(f"{name} is `{text}`, expected a whole number", pointer=f"/{name}") from None


@contextmanager
def open_runtime(settings: Settings, *, create: bool = False, atlases: bool = False) -> Iterator[CRARuntime]:
    """Open the store, and load the atlases when they are needed.

    Without `create` the store has to be there already: looking for a session must not leave an empty file behind.
    """
    from cra.runtime.sync import CRARuntime

    if not create:
        check_store(settings)
    with CRARuntime(make_config(settings)) as runtime:
        if atlases:
            for path in settings.atlases:
                runtime.load_atlas(path)
        yield runtime


def check_lasting(storage: str) -> None:
    """Raise `UsageError` for a store that ends with the command."""
    if storage in ("memory", "memory:"):
        raise UsageError("the memory store ends with the command", hint="name another with --storage or CRA_STORAGE")


def check_store(settings: Settings) -> None:
    """Raise `FileNotFound` when the store is a file that does not exist."""
    place = sqlite_path(settings.storage)
    if place is not None and not place.is_file():
        raise FileNotFound(
            f"there is no store at `{place}`",
            hint="`cra session create` makes one; name another with --storage or CRA_STORAGE",
        )


def load_atlases(paths: tuple[str, ...]) -> list[Atlas]:
    """Read atlases without a runtime."""
    from cra.atlas.loader import load

    return [load(path) for path in paths]


def need_atlases(settings: Settings, what: str) -> None:
    """Raise `UsageError` when no atlas was given to a command that can do nothing without one."""
    if not settings.atlases:
        raise UsageError(f"{what} needs an atlas", hint="give --atlas PATH, or set CRA_ATLASES")


def make_request(runtime: CRARuntime, session: SessionRecord, operation: str, goal: str, **more: Any) -> Request:
    """Return a CARP request of a session, stamped now; `task` and the top-level fields come from `more`."""
    from cra.protocol.carp import Request
    from cra.protocol.codec import to_struct
    from cra.protocol.times import format_timestamp

    task = {"goal": goal, **more.pop("task", {})}
    value = {
        "carp_version": "1.0",
        "request_id": str(uuid4()),
        "timestamp": format_timestamp(runtime.config.clock()),
        "operation": operation,
        "requester": {"agent_id": session.agent_id, "session_id": session.session_id},
        "task": task,
        **more,
    }
    return to_struct(value, Request, what="request")


def read_trace(source: str, settings: Settings) -> bytes:
    """Return the bytes of a trace: a file, standard input (`-`), or a session of the store."""
    place = Path(source)
    # Also what a shell's <(command) names, which is no regular file.
    if source == "-" or place.is_file() or place.is_fifo():
        return read_file(source, what="trace")
    if not _is_uuid(source):
        raise FileNotFound(
            f"`{source}` is neither a trace file nor a session id",
            hint="`cra session list` shows the sessions of the store",
        )
    with open_runtime(settings) as runtime:
        return runtime.get_trace(source).data


def _is_uuid(text: str) -> bool:
    return len(text) == 36 and [len(part) for part in text.split("-")] == [8, 4, 4, 4, 12]
