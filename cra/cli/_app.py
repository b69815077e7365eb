"""The application: its commands, its global options, and where every error ends."""

import os
import sys
from collections.abc import Collection
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer

from cra.cli._exit import Exit, UsageError, exit_of
from cra.cli._options import AtlasOption, JsonOption, SettingOption, StorageOption, set_globals
from cra.cli._output import Output, shown
from cra.errors import CRAError, InvalidInput

# In the order the help shows them: name, module, and for a group what it is about.
COMMANDS: dict[str, str | None] = {
    "demo": None,
    "init": None,
    "atlas": "Validate, show, test and pack atlases.",
    "session": "Start, look at and end sessions.",
    "resolve": None,
    "execute": None,
    "simulate": None,
    "approvals": "See what waits for a person, and decide.",
    "storage": "Look after the store, and move what is in it to another.",
    "trace": "Show, verify, export and compare what was recorded.",
    "replay": None,
    "serve": None,
    "keys": "Make, list, rotate and revoke the keys of a service.",
    "tenants": "Create, list and close the tenants of a service.",
    "conformance": None,
    "bench": None,
    "doctor": None,
}

_EPILOG = """\b
Examples:
  cra demo
  cra init my-atlas
  cra atlas validate my-atlas
  cra session create support-1 "Help the customer of T-1042" -a my-atlas
  cra resolve "Refund the second charge" --session SESSION -a my-atlas

Exit codes: 0 yes, 1 the answer is no, 2 usage, 3 bad input, 4 not found, 5 storage, 6 waits for approval,
7 something else has to happen first, 8 the action failed, 69 a package or a service is missing, 70 a defect of ours.
"""


def build(only: Collection[str] = ()) -> typer.Typer:
    """Return the application with all commands, or with those named."""
    app = typer.Typer(
        name="cra",
        help="An agent proposes, the runtime decides and records.",
        epilog=_EPILOG,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_globals)
    for name, about in COMMANDS.items():
        if only and name not in only:
            continue
        module = import_module(f"cra.cli.{name}")
        if about is None:
            app.command(name)(module.command)
        else:
            group = typer.Typer(help=about, rich_markup_mode=None)
            for child, function in module.COMMANDS.items():
                group.command(child)(function)
            app.add_typer(group, name=name)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"cra {installed_version('cra-core')}")
        except PackageNotFoundError:
            print("cra, not installed as a package")
        raise typer.Exit()


def _globals(
    storage: StorageOption = None,
    atlas: AtlasOption = None,
    setting: SettingOption = None,
    json: JsonOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    set_globals(storage, atlas, setting, json)


def run(words: list[str]) -> int:
    """Run a command line and return its exit code; whatever goes wrong ends as one clear message."""
    out = Output("--json" in words)
    try:
        return _invoke(words)
    except CRAError as error:
        out.error(
            error.code,
            error.message,
            error.hint,
            error.pointer if isinstance(error, InvalidInput) else None,
            error.details,
        )
        return exit_of(error)
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # What Python still holds must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE
    except OSError as error:
        # Whoever touches a file says so better; this is for the places that nobody thought of.
        place = f"`{shown(error.filename, 200)}`: " if error.filename else ""
        out.error("file_error", f"{place}{(error.strerror or str(error)).lower()}", "name another file or folder")
        return Exit.INPUT
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            # Rich has met it first, and ends with 1.
            return Exit.PIPE
        raise
    except Exception as error:
        if hasattr(error, "format_message"):
            return _usage(out, error)
        if os.environ.get("CRA_DEBUG"):
            raise
        out.error(
            "internal_error",
            f"{type(error).__name__}: {error}",
            "this is a defect, please report it; CRA_DEBUG=1 shows where it happened",
        )
        return Exit.INTERNAL


def _check_words(words: list[str]) -> None:
    for number, word in enumerate(words, 1):
        if not word.isascii() and any("\ud800" <= c <= "\udfff" for c in word):
            raise UsageError(f"argument {number} is not UTF-8: `{shown(word, 60)}`")


def _invoke(words: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # What a terminal cannot show is escaped; it is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    _check_words(words)
    set_globals(None, None, None, False)
    named = [word for word in words if word in COMMANDS]
    whole = not named or words[0].startswith("-") or words[0] not in COMMANDS or "_CRA_COMPLETE" in os.environ
    application = build(() if whole else named[:1])
    code: Any = typer.main.get_command(application)(words, prog_name="cra", standalone_mode=False)
    sys.stdout.flush()
    return code if isinstance(code, int) else Exit.OK


def _usage(out: Output, error: Any) -> int:
    """Show what typer says about a command line."""
    context, message = getattr(error, "ctx", None), error.format_message()
    if message.startswith("Missing command") and context is not None and not out.json:
        # Who types a group's name wants to know what is in it; a script did not mean that.
        print(context.get_help(), file=sys.stderr)
        return Exit.USAGE
    path = context.command_path if context is not None else "cra"
    message = message.replace("\n", " ").replace("'", "`").rstrip(".")
    out.error("usage_error", message[:1].lower() + message[1:], f"see `{path} --help`")
    return Exit.USAGE
