"""The service over HTTP, beside an echo on the same stack."""

from __future__ import annotations

from bench.effort import FULL, QUICK, Effort
from bench.table import Section


def http(effort: Effort) -> list[Section]:
    """Measure the service; nothing where its packages are not installed or sockets are not Linux's."""
    from bench.http import measure, sections

    plans = {FULL: measure.FULL, QUICK: measure.QUICK}
    return sections.http(plans.get(effort, measure.TINY))
