"""cra conformance: does an implementation do what the protocol says?"""

from __future__ import annotations

from typing import Annotated

import typer

from cra.cli._options import JsonOption, settings
from cra.errors import MissingExtra


def command(
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="URL", help="A service; this installation, if absent.", show_default=False),
    ] = None,
    level: Annotated[
        str | None, typer.Option("--level", metavar="NAME", help="Only the tests of this level.", show_default=False)
    ] = None,
    match: Annotated[
        str | None, typer.Option("--match", "-k", metavar="GLOB", help="Only tests of such an id.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> int:
    """Run the conformance suite and report the level that is reached. Exit code 1 when a test fails.

    \b
    Examples:
      cra conformance
      cra conformance --against http://localhost:8420 --json
    """
    chosen = settings(json=json)
    raise MissingExtra("not wired yet")
