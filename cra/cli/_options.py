"""Options that commands share, and the settings that come out of them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cra.cli._exit import UsageError

DEFAULT_STORAGE = "sqlite:///cra.db"

StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        "-s",
        metavar="URL",
        help="Where sessions are kept: sqlite:///PATH, postgresql://HOST/DATABASE, or memory for this command only. "
        f"[env: CRA_STORAGE; default: {DEFAULT_STORAGE}]",
        show_default=False,
    ),
]
AtlasOption = Annotated[
    list[str] | None,
    typer.Option(
        "--atlas",
        "-a",
        metavar="PATH",
        help="An atlas to decide with: folder, atlas.json or archive; repeatable. "
        f"[env: CRA_ATLASES, `{os.pathsep}` between]",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and errors as JSON on stderr.")]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A runtime setting, such as capture_parameters=full; repeatable. [env: CRA_SET, spaces between]",
        show_default=False,
    ),
]
SessionOption = Annotated[
    str | None, typer.Option("--session", "-S", metavar="ID", help="The session.", show_default=False)
]


@dataclass(frozen=True)
class Settings:
    """What a command works with: the store, the atlases, the runtime's settings, the form of the output."""

    storage: str
    atlases: tuple[str, ...]
    config: tuple[str, ...]
    json: bool


_globals: Settings = Settings("", (), (), False)


def set_globals(storage: str | None, atlas: list[str] | None, setting: list[str] | None, json: bool) -> None:
    """Keep the options that stood before the command; the command's own go before them."""
    global _globals  # noqa: PLW0603  # one command line, one process
    _globals = Settings(storage or "", tuple(atlas or ()), tuple(setting or ()), json)


def settings(
    *,
    storage: str | None = None,
    atlas: list[str] | None = None,
    setting: list[str] | None = None,
    json: bool = False,
) -> Settings:
    """Return what holds: the command's options, then the global ones, then the environment, then the defaults."""
    place = storage or _globals.storage or os.environ.get("CRA_STORAGE") or DEFAULT_STORAGE
    if place != "memory" and "://" not in place:
        place = sqlite_url(place)
    atlases = tuple(atlas or ()) or _globals.atlases or _listed("CRA_ATLASES", os.pathsep)
    return Settings(
        storage=place,
        atlases=atlases,
        config=(*_listed("CRA_SET", None), *_globals.config, *(setting or ())),
        json=json or _globals.json,
    )


def sqlite_url(path: str) -> str:
    """Return the URL of a SQLite file."""
    return "sqlite:///" + path.replace("%", "%25").replace("?", "%3F")


def sqlite_path(url: str) -> Path | None:
    """Return the file that a storage URL names, None when it names none."""
    if not url.startswith("sqlite:///"):
        return None
    from urllib.parse import unquote

    return Path(unquote(url.removeprefix("sqlite:///").partition("?")[0]))


def _listed(name: str, separator: str | None) -> tuple[str, ...]:
    return tuple(part for part in os.environ.get(name, "").split(separator) if part)


def choose(name: str, value: str, words: tuple[str, ...]) -> str:
    """Return `value` if it is one of the words, or say which there are."""
    if value not in words:
        raise UsageError(f"{name} is `{value}`, expected one of {', '.join(words)}")
    return value
