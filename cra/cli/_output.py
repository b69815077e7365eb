"""Output: results on stdout, everything else on stderr; for people or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

_PLAIN_WIDTH = 120


def shown(text: object, width: int | None = None) -> str:
    """Return text that cannot steer a terminal: controls and invisible characters become escapes."""
    line = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(text))
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


class Output:
    """Where one command writes."""

    def __init__(self, json: bool) -> None:
        self.json = json

    @cached_property
    def console(self) -> Console:
        return _console(sys.stdout)

    @cached_property
    def notes(self) -> Console:
        return _console(sys.stderr)

    def data(self, value: object) -> None:
        """Print a value as one line of canonical JSON."""
        from cra._core.canonical import dumps

        self.raw(dumps(value) + b"\n")

    def raw(self, data: bytes) -> None:
        """Print bytes exactly."""
        sys.stdout.flush()
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:
            sys.stdout.write(data.decode("utf-8", "backslashreplace"))
        else:
            buffer.write(data)
            buffer.flush()

    def line(self, *pieces: object, style: str | None = None) -> None:
        """Print one line for people."""
        self.console.print(" ".join(shown(piece) for piece in pieces), style=style, soft_wrap=True)

    def note(self, *pieces: object) -> None:
        """Say something beside the result, unless it is for a program."""
        if not self.json:
            self.notes.print(" ".join(shown(piece) for piece in pieces), style="dim", soft_wrap=True)

    def fields(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Print names and values, one a line."""
        from rich.text import Text

        kept = [(name, value) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in kept), default=0)
        for name, value in kept:
            self.console.print(Text.assemble((f"{name:<{width}}  ", "bold"), shown(value)), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
        """Print a table; nothing when it has no rows."""
        made = [[shown(cell) if cell is not None else "" for cell in row] for row in rows]
        if made:
            if title:
                self.console.print(title, style="bold")
            table = make_table(self.console, columns, made)
            if self.console.is_terminal:
                self.console.print(table)
                return
            with self.console.capture() as captured:
                self.console.print(table)
            # Columns are filled up with blanks, which nobody needs in a file.
            text = "\n".join(line.rstrip() for line in captured.get().splitlines())
            self.console.print(text, soft_wrap=True)

    def error(
        self,
        code: str,
        message: str,
        hint: str | None = None,
        pointer: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what is wrong and what to do, on stderr."""
        if self.json:
            from cra._core.canonical import dumps

            problem = {
                "code": code,
                "message": message,
                "hint": hint,
                "pointer": pointer,
                "details": dict(details or {}),
            }
            sys.stderr.write(dumps({"error": problem}).decode() + "\n")
            return
        from rich.text import Text

        self.notes.print(Text.assemble(("error: ", "bold red"), shown(message)), soft_wrap=True)
        for problem in (details or {}).get("problems", ()):
            self.notes.print(Text.assemble("  ", problem_text(problem)), soft_wrap=True)
        if hint:
            self.notes.print(Text.assemble(("hint: ", "bold"), shown(hint)), soft_wrap=True)

    def busy(self, words: str) -> AbstractContextManager[object]:
        """Return what shows on a terminal that something is going on."""
        if self.json or not self.notes.is_terminal:
            return nullcontext()
        return self.notes.status(words)

    def progress(self) -> Progress:
        """Return a progress display that shows only on a terminal, and never beside JSON."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.notes,
            transient=True,
            disable=self.json or not self.notes.is_terminal,
        )


def problem_text(problem: Mapping[str, str]) -> str:
    """Return one problem of an atlas as a line."""
    place = problem["file"] + (f"#{problem['pointer']}" if problem["pointer"] else "")
    return shown(f"{place}: {problem['message']} [{problem['code']}]")


def make_table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table that folds rather than cuts, and is bare where no terminal shows it."""
    from rich import box
    from rich.table import Table

    bare = not console.is_terminal
    table = Table(box=None if bare else box.SIMPLE_HEAD, pad_edge=not bare, header_style="bold", padding=(0, 1))
    for number, column in enumerate(columns):
        # An id that is folded cannot be copied.
        table.add_column(column, overflow="fold", no_wrap=number == 0 and console.width >= 100)
    for row in rows:
        table.add_row(*row)
    return table


def _console(stream: TextIO) -> Console:
    from os import environ

    from rich.console import Console

    width = None if stream.isatty() or "COLUMNS" in environ else _PLAIN_WIDTH
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)
