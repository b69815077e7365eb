"""A story told in a terminal, of claims that are checked as they are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cra.cli._output import Output, shown

_WIDTH = 110


class ClaimFailed(Exception):
    """The story claimed something that is not so."""


class Story:
    """Scenes, what is said in them, and the claims that held."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._quiet = out.json
        self._scene = ""
        self.claims: list[dict[str, Any]] = []
        self.scenes = 0
        if not self._quiet:
            out.console.width = min(out.console.width, _WIDTH)

    def scene(self, title: str, *words: str) -> None:
        """Begin a scene."""
        self.scenes += 1
        self._scene = title
        if self._quiet:
            return
        from rich.panel import Panel

        console = self._out.console
        console.print()
        heading = f"{self.scenes}  {title}"
        if console.is_terminal:
            console.print(Panel("\n".join(words) if words else "", title=heading, title_align="left", style="cyan"))
        else:
            console.print(heading)
            console.print("=" * len(heading))
            for line in words:
                console.print(shown(line))
        console.print()

    def say(self, *words: str) -> None:
        """Tell what happens."""
        self._print(" ".join(words))

    def agent(self, words: str) -> None:
        """Tell what the agent thinks."""
        self._print(f"agent: {words}", style="italic magenta")

    def call(self, action_id: str, parameters: object) -> None:
        """Tell what the agent calls."""
        from cra.cli._show import compact

        self._print(f"  -> {action_id} {compact(parameters, 300)}", style="bold")

    def answer(self, words: str, style: str = "green") -> None:
        """Tell what came back."""
        self._print(f"  <- {words}", style=style)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Show a table."""
        if not self._quiet:
            self._out.table(columns, rows)

    def claim(self, holds: bool, words: str) -> None:
        """State something that has been checked; raises `ClaimFailed` when it does not hold."""
        self.claims.append({"scene": self._scene, "claim": words, "holds": bool(holds)})
        self._print(f"  {'ok' if holds else 'NOT SO'}: {words}", style="green" if holds else "bold red")
        if not holds:
            raise ClaimFailed(words)

    def _print(self, text: str, style: str | None = None) -> None:
        if not self._quiet:
            self._out.console.print(shown(text), style=style)
