"""cra serve: the service over HTTP."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cra.cli._exit import UsageError
from cra.cli._options import JsonOption
from cra.cli._output import Output
from cra.errors import MissingExtra

if TYPE_CHECKING:
    from cra.server.settings import Effective

_LOUD = """\
****************************************************************************
*  DEVELOPMENT: anybody on this machine is an administrator, without a key. *
*  Loopback only. Never put it behind a proxy, never let it out.            *
****************************************************************************"""


def command(
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Listen here. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", help="The port; 0 takes a free one. [default: 8420]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Processes that share the port. [default: 1]")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            "-s",
            metavar="URL",
            help="sqlite:///PATH, postgresql://..., file:///PATH of a file with the URL, or memory. "
            "[default: sqlite:///cra.db]",
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="A TOML file with settings. [env: CRA_CONFIG]")
    ] = None,
    atlas: Annotated[
        list[str] | None,
        typer.Option("--atlas", "-a", metavar="PATH", help="An atlas that every tenant has; repeatable."),
    ] = None,
    executors: Annotated[
        str | None,
        typer.Option("--executors", metavar="MODULE:OBJECT", help="Registers executors; or FILE.py."),
    ] = None,
    dev: Annotated[bool, typer.Option("--dev", help="Ask for no keys; on loopback only.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Any other setting of docs/server.md; repeatable."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Print the settings that hold, try them, and end.")] = False,
    json: JsonOption = False,
) -> int:
    """Serve sessions, decisions, traces and approvals over HTTP.

    Flags go before the environment (CRA_HOST, CRA_PORT, ...), and the environment before the file. SIGTERM finishes
    what was begun and ends.

    \b
    Examples:
      cra serve --dev --atlas my-atlas
      cra serve --storage sqlite:////var/lib/cra/cra.db --workers 2
      cra serve --config /etc/cra/cra.toml --check
    """
    try:
        from cra.server.serve import check as try_out
        from cra.server.serve import serve
        from cra.server.settings import load_settings
    except ImportError as error:
        raise MissingExtra(
            f"the service needs the package `{error.name}`", hint="pip install 'cra-core[server]'"
        ) from None

    flags: dict[str, object] = {
        **_options(option),
        "host": host,
        "port": port,
        "workers": workers,
        "storage": storage,
        "atlases": tuple(atlas or ()),
        "executors": executors,
        "dev": dev or None,
    }
    effective = load_settings({name: value for name, value in flags.items() if value is not None}, config=config)
    settings = effective.settings
    if check:
        _print(Output(json), effective)
        try_out(settings)
        return 0
    if settings.dev:
        print(_LOUD, file=sys.stderr, flush=True)
    serve(settings, _started)
    return 0


def _started(url: str) -> None:
    print(f"cra serves on {url}", file=sys.stderr, flush=True)


def _options(words: list[str] | None) -> dict[str, str]:
    found = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--option is `{name[:60]}`, expected NAME=VALUE", hint="such as max_queue=100")
        found[name.replace("-", "_")] = value
    return found


def _print(out: Output, effective: Effective) -> None:
    from cra.server.settings import shown

    rows = shown(effective)
    if out.json:
        out.data(rows)
        return
    from msgspec.json import encode

    for name, row in rows.items():
        print(f"{name:<24} {encode(row['value']).decode():<40} {row['source']}")
