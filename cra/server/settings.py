"""ServiceSettings: everything that can be set about the service, in one table."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import fields

from cra.errors import ConfigInvalid
from cra.protocol.explain import explain
from cra.runtime.config import RuntimeConfig
from cra.server.auth.settings import auth_settings
from cra.storage.open import url_of

_Size = Meta(ge=1024, le=1 << 30)
_Count = Meta(ge=1, le=1_000_000)
_Seconds = Meta(ge=1, le=86_400)
_Pause = Meta(ge=0, le=86_400)

PREFIX = "CRA_"
# What of a runtime the service decides itself.
_NOT_RUNTIME = {"storage", "clock", "ids", "stored_atlases"}


class ServiceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a service; see `docs/server.md`.

    This is the table: flags, the environment, the file and the documentation all go by these fields.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255, description="the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="the port; 0 takes a free one")] = 8420
    workers: Annotated[int, Meta(ge=1, le=256, description="processes that share the port")] = 1
    storage: Annotated[str, Meta(description="the store: sqlite, postgresql, memory, or a file with its URL")] = (
        "sqlite:///cra.db"
    )
    atlases: Annotated[tuple[str, ...], Meta(description="baseline atlases, which every tenant has")] = ()
    executors: Annotated[str | None, Meta(description="what registers executors: MODULE:OBJECT or FILE.py")] = None
    dev: Annotated[bool, Meta(description="no keys, on loopback only, for a first run")] = False
    access_log: Annotated[Literal["none", "json"], Meta(description="a JSON line for each request")] = "none"
    max_body_bytes: Annotated[int, _Size, Meta(description="the largest body; an atlas may have 16 MiB")] = 1 << 20
    max_header_bytes: Annotated[int, _Size, Meta(description="the longest request line with its headers")] = 32 << 10
    max_connections: Annotated[int, _Count, Meta(description="connections of one process")] = 4096
    max_concurrency: Annotated[int, _Count, Meta(description="calls that a process works on at once")] = 64
    max_queue: Annotated[int, Meta(ge=0, le=1_000_000, description="calls that wait; any more get 503 at once")] = 256
    max_streams: Annotated[int, _Count, Meta(description="live traces and waits for approval of a process")] = 256
    header_timeout_seconds: Annotated[int, _Seconds, Meta(description="how long a request's head may take")] = 10
    body_timeout_seconds: Annotated[int, _Seconds, Meta(description="how long a body may take")] = 20
    request_timeout_seconds: Annotated[int, _Seconds, Meta(description="how long a call may take")] = 330
    stream_stall_seconds: Annotated[int, _Seconds, Meta(description="how long a reader may take nothing")] = 30
    heartbeat_seconds: Annotated[int, _Seconds, Meta(description="how often a quiet live trace says so")] = 15
    keep_alive_seconds: Annotated[int, _Seconds, Meta(description="how long a connection may be idle")] = 75
    shutdown_seconds: Annotated[int, _Seconds, Meta(description="how long begun calls have when stopped")] = 30
    upkeep_seconds: Annotated[int, _Pause, Meta(description="how often retention is applied; 0 is never")] = 300
    runtime: Annotated[dict[str, Any], Meta(description="settings of the runtimes, as in docs/configuration.md")] = (
        field(default_factory=dict)
    )
    auth: Annotated[dict[str, Any], Meta(description="who may call, as in docs/identity.md")] = field(
        default_factory=dict
    )


class Setting(NamedTuple):
    """One row of the table."""

    name: str
    kind: Any
    default: Any
    meaning: str
    plain: bool

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return PREFIX + self.name.upper()


def _table() -> dict[str, Setting]:
    hints = get_type_hints(ServiceSettings, include_extras=True)
    found = {}
    for one in fields(ServiceSettings):
        hint = hints[one.name]
        meaning = next(m.description for m in hint.__metadata__ if m.description is not None)
        default = {} if one.name in ("runtime", "auth") else one.default
        found[one.name] = Setting(one.name, hint, default, meaning, one.name not in ("runtime", "auth"))
    return found


TABLE: Mapping[str, Setting] = _table()
RUNTIME: Mapping[str, Any] = {one.name: one for one in fields(RuntimeConfig) if one.name not in _NOT_RUNTIME}


class Effective(NamedTuple):
    """The settings that hold, and where each came from: `flag`, `environment`, `file` or `default`."""

    settings: ServiceSettings
    sources: Mapping[str, str]


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> Effective:
    """Return the settings: flags go before the environment, the environment before the file.

    `flags` are strings or values by name; None is not given. Raises `ConfigInvalid` for what is unknown, of another
    kind or out of range, and never repeats a value that may be secret.
    """
    environ = os.environ if environ is None else environ
    config = config or environ.get(f"{PREFIX}CONFIG") or None
    values: dict[str, Any] = {}
    sources = dict.fromkeys(TABLE, "default")

    def take(name: str, value: Any, source: str, where: str) -> None:
        values[name] = _converted(TABLE[name], value, where)
        sources[name] = source

    for name, value in (_read_file(Path(config)) if config is not None else {}).items():
        take(name, value, "file", f"{config}: {name}")
    for setting in TABLE.values():
        if setting.plain and environ.get(setting.variable):
            take(setting.name, environ[setting.variable], "environment", setting.variable)
    for name, value in (flags or {}).items():
        check_known(name, TABLE, "setting")
        if value is not None and value != ():
            take(name, value, "flag", name)
    values["storage"] = _storage(values.get("storage", TABLE["storage"].default))
    settings = ServiceSettings(**values)
    _check(settings)
    for name, check in (("runtime", _check_runtime), ("auth", _check_auth)):
        where = f"{config}: " if sources[name] == "file" else ""
        try:
            check(settings)
        except ConfigInvalid as error:
            raise ConfigInvalid(where + error.message, pointer=error.pointer, hint=error.hint) from None
    return Effective(settings, sources)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"settings file `{path}` cannot be read: {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"settings file `{path}` is not TOML: byte {error.start} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        # The parser quotes no text of the file, only the place.
        raise ConfigInvalid(f"settings file `{path}` is not TOML: {str(error).lower()}") from None
    for name in values:
        check_known(name, TABLE, f"{path}: setting")
    return values


def check_known(name: str, known: Mapping[str, Any], what: str) -> None:
    """Raise `ConfigInvalid` for a name that is not in `known`, with the nearest that is."""
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
        raise ConfigInvalid(f"{what} `{name[:60]}` does not exist", pointer=f"/{name}", hint=hint)


def _converted(setting: Setting, value: Any, where: str) -> Any:
    if setting.name == "atlases" and isinstance(value, str):
        value = [part for part in value.split(os.pathsep) if part]
    try:
        return msgspec.convert(value, setting.kind, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        words, _ = explain(error, setting.kind)
        raise ConfigInvalid(f"{where}: {words}", pointer=f"/{setting.name}", hint="see docs/server.md") from None


def _storage(target: str) -> str:
    """Return the store's URL; a path alone is a file of SQLite."""
    url = url_of(target)
    if "://" not in url and url not in ("memory", "memory:"):
        url = "sqlite:///" + url.replace("%", "%25").replace("?", "%3F")
    return url


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _check_runtime(settings: ServiceSettings) -> None:
    for name in settings.runtime:
        check_known(name, RUNTIME, "runtime setting")
    RuntimeConfig(**settings.runtime)


def _check_auth(settings: ServiceSettings) -> None:
    auth_settings({**settings.auth, "dev": settings.dev})


def _check(settings: ServiceSettings) -> None:
    if settings.dev and settings.host not in _LOOPBACK:
        raise ConfigInvalid(
            f"host is `{settings.host}`, and dev takes calls without keys",
            pointer="/host",
            hint="dev listens on 127.0.0.1 only; make keys with `cra keys create` for anything else",
        )
    if settings.workers > 1 and settings.storage in ("memory", "memory:"):
        raise ConfigInvalid(
            f"workers is {settings.workers}, and the memory store is not shared between processes",
            pointer="/workers",
            hint="use sqlite:///cra.db or postgresql://..., or one worker",
        )


# To the last `@` there is: who has written a password as it is, with a `/` or an `@` in it, is not to see it either.
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):.*@")
_SECRET_PARAMETER = re.compile(r"((?:password|secret|passfile|sslpassword)=)[^&]*", re.IGNORECASE)
_SECRET_NAME = re.compile(r"secret|password|token|credential|private", re.IGNORECASE)


def redacted_url(url: str) -> str:
    """Return a URL without its password."""
    return _SECRET_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def shown(effective: Effective) -> dict[str, dict[str, Any]]:
    """Return the settings for people to read: each value and where it came from, and no secret."""
    found: dict[str, dict[str, Any]] = {}
    for name, source in effective.sources.items():
        value = getattr(effective.settings, name)
        value = redacted_url(value) if name == "storage" else _redacted(name, value)
        found[name] = {"value": value, "source": source}
    return found


def _redacted(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _redacted(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(name, item) for item in value]
    if isinstance(value, str) and _SECRET_NAME.search(name) and not name.endswith(("_header", "_claim")):
        return "***"
    return value
