"""cra conformance: does an implementation do what the protocol says?"""

from __future__ import annotations

import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

from cra.cli._exit import Exit
from cra.cli._options import JsonOption, settings
from cra.cli._output import Output
from cra.errors import NotCanonical

if TYPE_CHECKING:
    from cra.testing.conformance import Report, Result


def command(
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="URL", help="A service; this installation, if absent.", show_default=False),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="The credential for --against; others on this machine can see a command line, so better "
            "[env: CRA_API_KEY].",
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "--level", metavar="NAME", help="Only up to CARP-Core, TRACE-Core, ... CRA-Full.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Run the conformance suite and report the level that is reached. Exit code 1 when a test fails.

    A service is tested in a tenant that has no atlases, and started with --executors cra.testing.executors:register;
    what cannot be asked over HTTP is skipped, and a level with a skipped test is not reached.

    \b
    Examples:
      cra conformance
      cra conformance --level CRA-Minimal --json
      cra conformance --against http://localhost:8420
    """
    from cra.testing import conformance

    chosen = settings(json=json)
    out = Output(chosen.json)
    with out.progress() as progress:
        task = progress.add_task("conformance", total=conformance.count(level))

        def told(result: Result) -> None:
            progress.update(task, advance=1, description=result.id.partition("/")[0])

        report = conformance.run(level=level, against=against, progress=told, api_key=api_key)
    if chosen.json:
        _print_json(out, report)
    else:
        _print(out, report)
    return Exit.OK if report.ok else Exit.VERDICT


def _print_json(out: Output, report: Report) -> None:
    try:
        out.data(report.as_dict())
    except NotCanonical:
        # A vector that failed may be about text that has no canonical form.
        out.raw(json_.dumps(report.as_dict(), sort_keys=True, separators=(",", ":")).encode() + b"\n")


def _print(out: Output, report: Report) -> None:
    from collections import Counter

    from msgspec import UnsetType

    from cra.cli._show import compact

    for result in report.failures:
        out.line(f"FAIL {result.id}", style="bold red")
        out.fields(
            (name, value if isinstance(value, str) else compact(value, 300))
            for name in ("why", "message", "expected", "found")
            if not isinstance(value := getattr(result, name), UnsetType)
        )
    out.table(
        ("level", "passed", "failed", "skipped"),
        [(name, counts["passed"], counts["failed"], counts["skipped"]) for name, counts in report.levels.items()],
    )
    skipped = Counter(result.message for result in report.results if result.outcome == "skipped")
    if skipped:
        out.line()
        out.table(("skipped", "because"), [(number, words) for words, number in skipped.most_common()])
    out.line()
    style = "bold green" if report.ok else "bold red"
    out.line(f"level reached: {report.level or 'none'}; {report.totals['passed']} tests passed", style=style)
