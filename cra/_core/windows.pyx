"""Rate and budget windows, exact to the microsecond."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1

cdef enum:
    FIRST_CAPACITY = 8

# INVARIANT: times and lengths stay below 2**61, so that their sums never overflow.
cdef int64_t LARGEST = 1LL << 61
cdef int64_t NEVER = -1


cdef int64_t _time(int64_t now_us) except -1:
    if not 0 <= now_us <= LARGEST:
        raise ValueError(f"time is `{now_us}` microseconds, expected 0 to {LARGEST}")
    return now_us


@cython.final
cdef class RateWindow:
    """Admit at most `max_calls` calls in any `window_us` microseconds.

    A call at `t` counts for `t <= x < t + window_us`. The calls are kept in a ring that grows as needed, at most to
    `max_calls` entries of eight bytes.
    """

    cdef readonly int64_t max_calls
    cdef readonly int64_t window_us
    cdef int64_t *ring
    cdef int64_t capacity
    cdef int64_t first  # index of the oldest call
    cdef int64_t count
    cdef int64_t newest

    def __cinit__(self, int64_t max_calls, int64_t window_us):
        if not 1 <= max_calls <= LARGEST >> 4:
            raise ValueError(f"max_calls is `{max_calls}`, expected 1 or more")
        if not 1 <= window_us <= LARGEST:
            raise ValueError(f"window_us is `{window_us}`, expected 1 to {LARGEST}")
        self.max_calls = max_calls
        self.window_us = window_us

    def __dealloc__(self):
        PyMem_Free(self.ring)

    cdef int resize(self, int64_t capacity) except -1:
        """Move the calls to a ring of `capacity`, oldest first."""
        cdef int64_t i
        cdef int64_t *ring = <int64_t *> PyMem_Realloc(NULL, <size_t> capacity * sizeof(int64_t))
        if ring == NULL:
            raise MemoryError
        for i in range(self.count):
            ring[i] = self.at(i)
        PyMem_Free(self.ring)
        self.ring = ring
        self.capacity = capacity
        self.first = 0
        return 0

    cdef inline int64_t at(self, int64_t i) noexcept nogil:
        i += self.first
        return self.ring[i - self.capacity if i >= self.capacity else i]

    cdef int64_t expired(self, int64_t now_us) noexcept nogil:
        """Return how many of the calls, oldest first, no longer count."""
        cdef int64_t low = 0
        cdef int64_t high = self.count
        cdef int64_t middle
        while low < high:
            middle = (low + high) // 2
            if self.at(middle) + self.window_us <= now_us:
                low = middle + 1
            else:
                high = middle
        return low

    cdef int64_t wait(self, int64_t now_us) noexcept nogil:
        if self.count - self.expired(now_us) < self.max_calls:
            return 0
        # The calls that count are the newest ones; room comes when the oldest of the last `max_calls` stops counting.
        return self.at(self.count - self.max_calls) + self.window_us - now_us

    def peek(self, int64_t now_us) -> int:
        """Return 0 if a call would be admitted now, else the microseconds until one would be. Changes nothing."""
        _time(now_us)
        with cython.critical_section(self):
            return self.wait(max(now_us, self.newest))

    def take(self, int64_t now_us) -> bool:
        """Count a call if there is room; a time before the newest call's is raised to it."""
        cdef int64_t gone
        _time(now_us)
        with cython.critical_section(self):
            now_us = max(now_us, self.newest)
            if self.wait(now_us) > 0:
                return False
            gone = self.expired(now_us)
            self.count -= gone
            self.first += gone
            if self.first >= self.capacity:
                self.first -= self.capacity
            if self.count == self.capacity:
                self.resize(min(max(2 * self.capacity, FIRST_CAPACITY), self.max_calls))
            elif self.capacity > FIRST_CAPACITY and 8 * self.count < self.capacity:
                self.resize(max(self.capacity // 4, FIRST_CAPACITY))
            gone = self.first + self.count
            self.ring[gone - self.capacity if gone >= self.capacity else gone] = now_us
            self.count += 1
            self.newest = now_us
            return True

    def used(self, int64_t now_us) -> int:
        """Return how many calls count now."""
        _time(now_us)
        with cython.critical_section(self):
            return self.count - self.expired(max(now_us, self.newest))

    def calls(self) -> tuple:
        """Return the times of the calls that are kept, oldest first; taken again, they make the same window."""
        cdef int64_t i
        with cython.critical_section(self):
            return tuple([self.at(i) for i in range(self.count)])


@cython.final
cdef class BudgetWindow:
    """Admit spending up to `limit` in each window of `window_us` microseconds, or for good when that is 0.

    A window begins with its first spending. A limit above 2**61 counts as 2**61, and no cost above that ever fits.
    """

    cdef readonly int64_t limit
    cdef readonly int64_t window_us
    cdef int64_t spent
    cdef int64_t since  # when the window began; counts only while something is spent
    cdef int64_t newest

    def __cinit__(self, object limit, int64_t window_us):
        self.limit = min(_amount(limit, "limit"), LARGEST)
        if not 0 <= window_us <= LARGEST:
            raise ValueError(f"window_us is `{window_us}`, expected 0 to {LARGEST}")
        self.window_us = window_us

    cdef int64_t spent_at(self, int64_t now_us) noexcept nogil:
        if self.window_us and self.since + self.window_us <= now_us:
            return 0
        return self.spent

    cdef int64_t wait(self, int64_t cost, int64_t now_us) noexcept nogil:
        if cost > self.limit:
            return NEVER
        if cost <= self.limit - self.spent_at(now_us):
            return 0
        return self.since + self.window_us - now_us if self.window_us else NEVER

    def peek(self, object cost, int64_t now_us) -> int:
        """Return 0 if `cost` fits now, -1 if it never will, else the microseconds until it will. Changes nothing."""
        cdef int64_t amount = _amount(cost, "cost")
        _time(now_us)
        with cython.critical_section(self):
            return self.wait(amount, max(now_us, self.newest))

    def take(self, object cost, int64_t now_us) -> bool:
        """Spend `cost` if it fits; a time before the newest spending's is raised to it."""
        cdef int64_t amount = _amount(cost, "cost")
        _time(now_us)
        with cython.critical_section(self):
            now_us = max(now_us, self.newest)
            if self.wait(amount, now_us) != 0:
                return False
            if amount:
                self.spent = self.spent_at(now_us)
                if not self.spent:
                    self.since = now_us
                self.spent += amount
                self.newest = now_us
            return True

    def used(self, int64_t now_us) -> int:
        """Return what is spent of the window that holds now."""
        _time(now_us)
        with cython.critical_section(self):
            return self.spent_at(max(now_us, self.newest))

    def state(self) -> tuple:
        """Return what was spent in the newest window, when that began, and when something was last spent."""
        with cython.critical_section(self):
            return self.spent, self.since, self.newest


cdef int64_t _amount(object value, str name) except -1:
    """Return a non-negative int; one too large for the arithmetic becomes the smallest that is."""
    cdef int overflow = 0
    if not isinstance(value, int):
        raise TypeError(f"{name} has type `{type(value).__name__}`, expected int")
    cdef long long amount = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow < 0 or (not overflow and amount < 0):
        raise ValueError(f"{name} is `{value}`, expected 0 or more")
    return LARGEST + 1 if overflow or amount > LARGEST else amount
