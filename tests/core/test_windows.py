"""Rate and budget windows against a log that remembers everything."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra._core.windows import BudgetWindow, RateWindow

STEPS = st.lists(st.integers(-3, 12), max_size=150)


@given(st.integers(1, 30), st.integers(1, 40), STEPS)
def test_a_rate_window_agrees_with_a_log_of_all_calls(max_calls: int, window_us: int, steps: list[int]) -> None:
    window = RateWindow(max_calls, window_us)
    log: list[int] = []
    now = 10
    for step in steps:
        now = max(0, now + step)
        at = max([now, *log[-1:]])
        live = [t for t in log if t <= at < t + window_us]
        wait = 0 if len(live) < max_calls else live[-max_calls] + window_us - at
        assert window.used(now) == len(live)
        assert window.peek(now) == wait
        assert window.take(now) is (wait == 0)
        if wait == 0:
            log.append(at)


@given(
    st.integers(0, 30), st.integers(0, 40), st.lists(st.tuples(st.integers(-3, 12), st.integers(0, 35)), max_size=80)
)
def test_a_budget_window_agrees_with_plain_sums(limit: int, window_us: int, spending: list[tuple[int, int]]) -> None:
    window = BudgetWindow(limit, window_us)
    since = spent = newest = 0
    now = 10
    for step, cost in spending:
        now = max(0, now + step)
        at = max(now, newest)
        now_spent = 0 if window_us and at >= since + window_us else spent
        if cost > limit:
            wait = -1
        elif now_spent + cost <= limit:
            wait = 0
        else:
            wait = since + window_us - at if window_us else -1
        assert window.used(now) == now_spent
        assert window.peek(cost, now) == wait
        assert window.take(cost, now) is (wait == 0)
        if wait == 0 and cost:
            since = since if now_spent else at
            spent = now_spent + cost
            newest = at


def test_a_call_counts_until_just_before_the_window_has_passed() -> None:
    window = RateWindow(1, 1_000_000)
    assert window.take(5)
    assert window.peek(1_000_004) == 1
    assert not window.take(1_000_004)
    assert window.peek(1_000_005) == 0
    assert window.take(1_000_005)


def test_the_wait_is_for_the_oldest_call_that_still_counts() -> None:
    window = RateWindow(2, 100)
    assert window.take(0)
    assert window.take(60)
    assert window.peek(70) == 30
    assert window.take(100)
    assert window.peek(101) == 59


def test_peeking_at_a_later_time_changes_nothing() -> None:
    rate, budget = RateWindow(1, 100), BudgetWindow(10, 100)
    assert rate.take(0)
    assert budget.take(10, 0)
    assert rate.peek(10_000) == 0
    assert budget.peek(10, 10_000) == 0
    assert rate.used(50) == 1
    assert budget.used(50) == 10
    assert not rate.take(50)
    assert not budget.take(1, 50)


def test_a_clock_that_goes_back_gives_no_room() -> None:
    rate, budget = RateWindow(2, 100), BudgetWindow(10, 100)
    assert rate.take(1000)
    assert budget.take(5, 1000)
    assert rate.take(0)
    assert not rate.take(0)
    assert rate.peek(0) == 100
    assert not budget.take(6, 0)
    assert budget.peek(6, 0) == 100


def test_a_budget_without_a_window_never_comes_back() -> None:
    window = BudgetWindow(10, 0)
    assert window.take(10, 1)
    assert window.peek(1, 2**60) == -1
    assert window.used(2**60) == 10
    assert window.take(0, 5)


def test_a_cost_above_the_limit_never_fits_however_large() -> None:
    window = BudgetWindow(10, 100)
    for cost in (11, 2**61, 2**61 + 1, 2**63, 10**40):
        assert window.peek(cost, 0) == -1
        assert not window.take(cost, 0)
    unbounded = BudgetWindow(10**40, 100)
    assert unbounded.limit == 2**61
    assert unbounded.peek(10**40, 0) == -1
    assert unbounded.take(2**61, 0)
    assert unbounded.peek(1, 0) == 100


def test_a_window_that_is_large_grows_and_shrinks_and_stays_exact() -> None:
    window = RateWindow(5000, 1_000_000)
    for t in range(5000):
        assert window.take(t)
    assert window.peek(5000) == 995_000
    assert not window.take(5000)
    for t in range(3_000_000, 3_000_100):
        assert window.take(t)
        assert window.used(t) == t - 2_999_999


@pytest.mark.parametrize(
    "make",
    [
        lambda: RateWindow(0, 1),
        lambda: RateWindow(1, 0),
        lambda: RateWindow(-1, 1),
        lambda: RateWindow(1, 2**62),
        lambda: BudgetWindow(-1, 1),
        lambda: BudgetWindow(1, -1),
        lambda: BudgetWindow(-(10**40), 1),
        lambda: BudgetWindow(1, 1).take(-1, 0),
        lambda: BudgetWindow(1, 1).take(1, -1),
        lambda: RateWindow(1, 1).take(-1),
        lambda: RateWindow(1, 1).peek(2**62),
    ],
)
def test_numbers_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()  # type: ignore[operator]


def test_a_cost_that_is_not_an_int_is_refused() -> None:
    for cost in (1.5, None, "1"):
        with pytest.raises(TypeError, match="cost has type"):
            BudgetWindow(1, 1).take(cost, 0)  # type: ignore[arg-type]


@pytest.mark.untraced("the tracer lets other threads in between two steps")
def test_threads_together_take_exactly_the_limit() -> None:
    rate, budget = RateWindow(1000, 10**9), BudgetWindow(1000, 0)
    taken: list[int] = []

    def work() -> None:
        taken.append(sum(rate.take(7) + budget.take(1, 7) for _ in range(700)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 2000
    assert rate.used(7) == budget.used(7) == 1000
