"""The one table: sections of rows, as text, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bench.harness import Timing


class Row(NamedTuple):
    """One measurement. `value` has the section's unit; `ratio` is to the section's first row unless it says."""

    name: str
    value: float
    ours: bool = False
    p99: float | None = None
    quiet: float | None = None
    block: float | None = None
    ratio: float | None = None
    timing: Timing | None = None


HEADS = ("p50", "p99", "quiet", "block", "ratio")


class Section(NamedTuple):
    """Rows that belong together; `key` stays, for ceilings and for comparing runs.

    `heads` are the words over a row's value, p99, quiet, block and ratio, where they are something else than that.
    """

    key: str
    title: str
    rows: list[Row]
    unit: str = "us"
    note: str = ""
    heads: tuple[str, ...] = HEADS

    def row(self, name: str) -> Row:
        """Return a row by its name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{self.key} has no row `{name}`")


def timed(
    key: str,
    title: str,
    timings: Iterable[Timing],
    *,
    ours: Sequence[str] = (),
    note: str = "",
    scale: float = 1.0,
    unit: str = "us",
) -> Section:
    """Return a section of timings, each as a ratio to the first."""
    listed = list(timings)
    rows = [
        Row(
            name=timing.name,
            value=timing.us * scale,
            ours=timing.name in ours,
            p99=None if timing.p99 is None else timing.p99 * scale,
            quiet=timing.quiet * scale,
            block=None if timing.block is None else timing.block * scale,
            ratio=timing.times(listed[0]),
            timing=timing,
        )
        for timing in listed
    ]
    return Section(key, title, rows, unit, note)


def number(value: float | None) -> str:
    """Return a figure with three significant digits."""
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or not value else f"{value:.2g}"


def _figures(row: Row) -> tuple[float | None, ...]:
    return row.value, row.p99, row.quiet, row.block, row.ratio


def _names(section: Section) -> tuple[str, ...]:
    return ("value", *HEADS[1:]) if section.heads == HEADS else section.heads


def _cells(row: Row) -> tuple[str, ...]:
    return tuple(map(number, _figures(row)))


def text(section: Section) -> str:
    """Return a section for a terminal."""
    width = max(58, *(len(row.name) for row in section.rows)) + 2
    lines = ["", f"{section.title:<{width}}" + "".join(f"{head:>10}" for head in section.heads) + f"  {section.unit}"]
    for row in section.rows:
        mark = "* " if row.ours else "  "
        lines.append(f"{mark + row.name:<{width}}" + "".join(f"{cell:>10}" for cell in _cells(row)))
    return "\n".join(lines)


def markdown(section: Section) -> str:
    """Return a section for a document; our own rows are bold."""
    lines = [f"### {section.title}", ""]
    if section.note:
        lines += [section.note, ""]
    lines += [f"| {section.unit} | " + " | ".join(section.heads) + " |", "| --- |" + " --: |" * len(HEADS)]
    for row in section.rows:
        name = f"**{row.name}**" if row.ours else row.name
        lines.append(f"| {name} | " + " | ".join(_cells(row)) + " |")
    return "\n".join(lines)


def as_json(section: Section) -> dict[str, Any]:
    """Return a section with every figure and the rounds they come from."""
    return {
        "key": section.key,
        "title": section.title,
        "unit": section.unit,
        "note": section.note,
        "rows": [
            {
                "name": row.name,
                "ours": row.ours,
                **{name: figure for name, figure in zip(_names(section), _figures(row), strict=True) if name},
                **({"calls": row.timing.calls, "rounds": row.timing.rounds} if row.timing else {}),
            }
            for row in section.rows
        ],
    }
