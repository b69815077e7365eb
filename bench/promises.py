"""Promises: the bounds of the two `ceilings.toml`, held against what was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.table import Row, Section, number

CEILINGS = Path(__file__).with_name("ceilings.toml")
# The service has a run of its own.
SERVICE = Path(__file__).with_name("http") / "ceilings.toml"

Verdict = Literal["met", "met when quiet", "missed", "not measured"]


class Kept(NamedTuple):
    """A promise and what became of it; `ceiling` is a floor where it says `at_least`."""

    says: str
    verdict: Verdict
    found: float | None
    quiet: float | None
    ceiling: float
    at_least: bool = False

    @property
    def bound(self) -> str:
        """The bound as the table shows it."""
        return ("≥ " if self.at_least else "") + number(self.ceiling)


def read(file: Path = CEILINGS) -> list[dict[str, Any]]:
    """Return the promises as they are written."""
    promises: list[dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8"))["promise"]
    return promises


def judge(sections: Sequence[Section], file: Path = CEILINGS) -> list[Kept]:
    """Return what became of every promise."""
    by_key = {section.key: section for section in sections}
    return [_judge(promise, by_key) for promise in read(file)]


def _judge(promise: dict[str, Any], sections: dict[str, Section]) -> Kept:
    says, (key, *name) = promise["says"], promise["row"]
    section = sections.get(key)
    ceiling = float(promise.get("slope", promise.get("at_most", 0.0)))
    if section is None:
        return Kept(says, "not measured", None, None, ceiling)
    if "slope" in promise:
        found = max(row.ratio or 0.0 for row in section.rows)
        quiet = max((row.quiet or row.value) / (section.rows[0].quiet or section.rows[0].value) for row in section.rows)
        return _kept(says, found, quiet, ceiling)
    row = named(section, name[0])
    if "at_least" in promise:
        found = getattr(row, promise.get("figure", "value"))
        floor = float(promise["at_least"])
        return Kept(says, "met" if found >= floor else "missed", found, None, floor, at_least=True)
    if "beside" not in promise:
        return _kept(says, row.value, row.quiet, ceiling)
    try:
        other = named(section, promise["beside"])
    except KeyError:
        return Kept(says, "not measured", None, None, ceiling)
    if row.timing and other.timing:
        ratio = row.timing.times(other.timing)
    else:
        # The median of the rounds' ratios where the section has it.
        ratio = row.ratio if row.ratio and other is section.rows[0] else row.value / other.value
    return _kept(says, ratio, row.quiet / other.quiet if row.quiet and other.quiet else None, ceiling)


def _kept(says: str, found: float, quiet: float | None, ceiling: float) -> Kept:
    if found <= ceiling:
        return Kept(says, "met", found, quiet, ceiling)
    return Kept(says, "met when quiet" if quiet is not None and quiet <= ceiling else "missed", found, quiet, ceiling)


def named(section: Section, start: str) -> Row:
    """Return the first row whose name begins so."""
    for row in section.rows:
        if row.name.startswith(start):
            return row
    raise KeyError(f"{section.key} has no row that begins with `{start}`")


def text(kept: Sequence[Kept]) -> str:
    """Return the promises for a terminal."""
    width = max((len(promise.says) for promise in kept), default=0) + 2
    lines = [f"{'promise':<{width}}{'at most':>10}{'found':>10}{'quiet':>10}"]
    for promise in kept:
        figures = (promise.bound, number(promise.found), number(promise.quiet))
        lines.append(f"{promise.says:<{width}}" + "".join(f"{one:>10}" for one in figures) + f"  {promise.verdict}")
    return "\n".join(lines)


def markdown(kept: Sequence[Kept]) -> str:
    """Return the promises for a document."""
    lines = ["| promise | at most | found | quiet | |", "| --- | --: | --: | --: | --- |"]
    for promise in kept:
        figures = (promise.bound, number(promise.found), number(promise.quiet))
        verdict = f"**{promise.verdict}**" if promise.verdict == "missed" else promise.verdict
        lines.append(f"| {promise.says} | " + " | ".join(figures) + f" | {verdict} |")
    return "\n".join(lines)
