"""Limits: what a rate limit or budget policy counts, for whom, and how much a call costs."""

from typing import Any, NamedTuple

import msgspec
from msgspec import UnsetType

from cra.protocol.atlas import BudgetParameters, Per, RateLimitParameters

MICRO = 1_000_000


class Limit(NamedTuple):
    """One counter's rule; `amount` is calls for a rate, micro-units for a budget; `window_us` 0 never resets."""

    prefix: str
    rate: bool
    amount: int
    window_us: int
    per: Per
    by_session: bool
    cost: tuple[str, ...] | None


def rate_limit(uid: str, parameters: RateLimitParameters) -> Limit:
    """Return the limit of a rate_limit policy."""
    amount, window_us = parameters.max_calls, parameters.window_seconds * MICRO
    return Limit(
        prefix=_prefix(uid, amount, window_us),
        rate=True,
        amount=amount,
        window_us=window_us,
        per=parameters.per,
        by_session=parameters.per is Per.SESSION,
        cost=None,
    )


def budget_limit(uid: str, raw: dict[str, Any]) -> Limit:
    """Return the limit of a budget policy."""
    parameters = msgspec.convert(raw, BudgetParameters)
    endless = isinstance(parameters.window, str)
    # Rounded down, costs are rounded up: rounding never lets a call through.
    amount = _micro(parameters.limit, up=False)
    window_us = 0 if isinstance(parameters.window, str) else parameters.window * MICRO
    return Limit(
        prefix=_prefix(uid, amount, window_us),
        rate=False,
        amount=amount,
        window_us=window_us,
        per=parameters.per,
        by_session=parameters.per is Per.SESSION or endless,
        cost=None if isinstance(parameters.cost, UnsetType) else _steps(parameters.cost),
    )


def cost_of(limit: Limit, parameters: Any) -> int | None:
    """Return what a call takes; None when its cost is missing, negative or not a number."""
    if limit.rate:
        return 1
    return MICRO if limit.cost is None else _cost(limit.cost, parameters)


def least_cost(limit: Limit) -> int:
    """Return the smallest cost that a call could have whose parameters are not known yet."""
    return 1 if limit.rate or limit.cost is not None else MICRO


def counter_key(limit: Limit, agent_id: str, session_id: str) -> str:
    """Return which counter a session's calls go to."""
    key = f"{limit.prefix}{agent_id}" if limit.per is Per.AGENT else limit.prefix
    return f"{key}|{session_id}" if limit.by_session else key


def _prefix(uid: str, amount: int, window_us: int) -> str:
    # The length keeps keys of different policies apart whatever their ids contain. The rule is part of the key:
    # a changed limit starts a new count.
    return f"{len(uid)}:{uid}|{amount}/{window_us}|"


def _steps(pointer: str) -> tuple[str, ...]:
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def _cost(steps: tuple[str, ...], value: Any) -> int | None:
    for step in steps:
        if not isinstance(value, dict) or step not in value:
            return None
        value = value[step]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return _micro(value, up=True)


def _micro(value: float, *, up: bool) -> int:
    if isinstance(value, int):
        return value * MICRO
    import math
    from fractions import Fraction

    # The decimal that was written, not the binary nearest to it: 19.99 costs 19.99. By float's own words: those of
    # NumPy's subclass are no number.
    exact = Fraction(float.__repr__(value)) * MICRO
    return math.ceil(exact) if up else math.floor(exact)
