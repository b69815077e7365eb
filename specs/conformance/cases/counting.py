"""Cases of windows: calls made one after the other, and which of them are admitted.

A step is (time, admitted) for a rate, (time, cost, admitted) for a budget; times and costs are bare units.
"""

from specs.conformance.cases.make import Json

RateSteps = list[tuple[int, bool]]
BudgetSteps = list[tuple[int, int, bool]]


def rate(case_id: str, why: str, max_calls: int, window_us: int, steps: RateSteps) -> Json:
    """Return a case of a sliding window."""
    calls = [{"at_us": at, "admitted": admitted} for at, admitted in steps]
    return {"id": case_id, "why": why, "kind": "rate", "max_calls": max_calls, "window_us": window_us, "calls": calls}


def budget(case_id: str, why: str, limit: int, window_us: int, steps: BudgetSteps) -> Json:
    """Return a case of a budget window; a window of 0 never ends."""
    calls = [{"at_us": at, "cost": cost, "admitted": admitted} for at, cost, admitted in steps]
    return {"id": case_id, "why": why, "kind": "budget", "limit": limit, "window_us": window_us, "calls": calls}


WINDOWS = [
    rate("rate-boundary", "a call at t counts until just before t + window", 1, 10,
         [(0, True), (9, False), (10, True), (19, False), (20, True)]),
    rate("rate-slides", "the window slides with each call; it does not reset as a whole", 2, 10,
         [(0, True), (6, True), (9, False), (10, True), (15, False), (16, True)]),
    rate("rate-refused-calls-do-not-count", "a refused call takes nothing", 1, 10,
         [(0, True), (5, False), (9, False), (10, True)]),
    rate("rate-same-instant", "calls at one instant are counted one by one", 3, 10,
         [(5, True), (5, True), (5, True), (5, False), (15, True)]),
    rate("rate-clock-goes-back", "time never goes back behind the last admitted call", 1, 10,
         [(100, True), (50, False), (109, False), (110, True)]),
    rate("rate-clock-goes-back-with-room", "a call with an earlier time is counted at the last one's", 2, 10,
         [(100, True), (0, True), (109, False), (110, True), (110, True), (110, False)]),
    rate("rate-one-microsecond", "the shortest window there is", 1, 1, [(0, True), (0, False), (1, True)]),
    budget("budget-fixed-window", "the window starts with the first spending and ends as a whole", 10, 100,
           [(50, 6, True), (149, 5, False), (149, 4, True), (150, 10, True)]),
    budget("budget-next-window-starts-late", "the next window starts with the next spending, not on a grid", 10, 100,
           [(0, 10, True), (170, 10, True), (250, 1, False), (270, 1, True)]),
    budget("budget-never-resets", "a window of 0 never ends", 10, 0, [(0, 10, True), (10**15, 1, False)]),
    budget("budget-over-limit", "a cost above the limit never fits, even in a new window", 10, 100,
           [(0, 11, False), (0, 10, True)]),
    budget("budget-smaller-cost-still-fits", "a refused cost takes nothing; a smaller one may fit", 10, 100,
           [(0, 8, True), (1, 3, False), (2, 2, True)]),
    budget("budget-zero-cost", "a call that costs nothing is admitted and starts no window", 10, 100,
           [(0, 0, True), (50, 10, True), (100, 0, True), (149, 1, False), (150, 1, True)]),
    budget("budget-clock-goes-back", "time never goes back behind the last spending", 10, 100,
           [(200, 5, True), (0, 5, True), (250, 1, False), (300, 1, True)]),
]  # fmt: skip
