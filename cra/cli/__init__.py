"""The command line: a door to the runtime, one module per command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    app: typer.Typer

__all__ = ["app", "main"]

_UNAVAILABLE = 69


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see docs/cli.md)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # It was closed. What a command opens next must not be taken for it.
            setattr(sys, name, Path(os.devnull).open("r" if name == "stdin" else "w"))  # noqa: SIM115
    try:
        import rich  # noqa: F401  # only to know, before anything is printed, that it is there
        import typer  # noqa: F401
    except ImportError as error:
        return _missing(error, "--json" in words)
    from cra.cli._app import run

    return run(words)


def _missing(error: ImportError, as_json: bool) -> int:
    message, hint = f"the command line needs the package `{error.name}`", "pip install 'cra-core[cli]'"
    if as_json:
        import json

        text = json.dumps({"error": {"code": "missing_extra", "message": message, "hint": hint}})
    else:
        text = f"error: {message}\nhint: {hint}"
    print(text, file=sys.stderr)
    return _UNAVAILABLE


def __getattr__(name: str) -> Any:
    # The whole application costs every module; a command that runs needs only its own.
    if name == "app":
        from cra.cli._app import build

        return build()
    raise AttributeError(name)
