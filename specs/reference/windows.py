"""Rate and budget windows, by brute force over the list of calls so far. All times are microseconds."""

from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from specs.reference import canonical

NEVER = -1


def rate_used(taken: list[int], now: int, window: int) -> int:
    """Count the calls that still count: one made at t counts for t <= now < t + window."""
    now = clamp(taken, now)
    return sum(1 for t in taken if t <= now < t + window)


def rate_wait(taken: list[int], now: int, max_calls: int, window: int) -> int:
    """Return 0 if one more call fits now, else how long to wait until it does."""
    now = clamp(taken, now)
    moments = sorted({now, *(t + window for t in taken if t + window > now)})
    return next(moment - now for moment in moments if rate_used(taken, moment, window) < max_calls)


def rate_take(taken: list[int], now: int, max_calls: int, window: int) -> list[int] | None:
    """Return the list of calls with one more in it, or None when there is no room."""
    if rate_wait(taken, now, max_calls, window) > 0:
        return None
    return [*taken, clamp(taken, now)]


def clamp(taken: list[int], now: int) -> int:
    """Never let time go back behind the last call that was admitted."""
    return max([now, *taken])


def budget_spent(taken: list[tuple[int, int]], now: int, window: int) -> tuple[int, int | None]:
    """Return what is spent in the window open at `now`, and how long until it ends (None: no end, or none is open).

    A window starts with the first spending (t, cost) after the one before it ended, and lasts `window`; a `window` of 0
    never ends. A call that costs nothing spends nothing, so it starts nothing.
    """
    spending = [(t, cost) for t, cost in taken if cost > 0]
    now = clamp([t for t, _ in spending], now)
    start: int | None = None
    spent = 0
    for t, cost in spending:
        if start is None or (window and t >= start + window):
            start, spent = t, 0
        spent += cost
    if start is None or (window and now >= start + window):
        return 0, None
    return spent, start + window - now if window else None


def budget_wait(taken: list[tuple[int, int]], now: int, cost: int, limit: int, window: int) -> int:
    """Return 0 if `cost` fits now, NEVER if no waiting helps, else how long to wait."""
    spent, left = budget_spent(taken, now, window)
    if spent + cost <= limit:
        return 0
    if cost > limit or left is None:
        return NEVER
    return left


def budget_take(
    taken: list[tuple[int, int]], now: int, cost: int, limit: int, window: int
) -> list[tuple[int, int]] | None:
    """Return the list of calls with one more in it, or None when it does not fit."""
    if budget_wait(taken, now, cost, limit, window) != 0:
        return None
    return [*taken, (clamp([t for t, spent in taken if spent > 0], now), cost)]


def micro_cost(value: Any) -> int | None:
    """Return a cost in whole micro-units, rounded up; None where it is no number or below 0.

    A number is the decimal number it is written as, so 0.1 is 100,000 micro-units and not the double next to it.
    """
    exact = _exact(value)
    return None if exact is None or exact < 0 else ceil(exact * 1_000_000)


def micro_limit(value: Any) -> int:
    """Return a budget's limit in whole micro-units, rounded down."""
    exact = _exact(value)
    assert exact is not None
    return floor(exact * 1_000_000)


def _exact(value: Any) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return Fraction(value) if isinstance(value, int) else Fraction(Decimal(canonical.number(value)))


def seconds(wait: int) -> int:
    """Return a wait in whole seconds, rounded up."""
    return ceil(Fraction(wait, 1_000_000))
