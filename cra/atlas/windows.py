"""Time windows: whether an instant falls into the hours of a policy."""

from datetime import UTC, datetime, timedelta

from cra.protocol.atlas import TimeWindow, Weekday

_DAYS = {day: number for number, day in enumerate(Weekday)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OpenHours:
    """A time window with its zone's rules read in; asking it does no I/O."""

    __slots__ = ("_days", "_end", "_start", "_zone", "window")

    def __init__(self, window: TimeWindow) -> None:
        # PERF: only atlases with time windows pay for the import, 3 ms.
        from zoneinfo import ZoneInfo

        self.window = window
        self._zone = ZoneInfo(window.timezone)
        self._start = _minutes(window.start)
        self._end = _minutes(window.end)
        self._days = frozenset(_DAYS[day] for day in window.days)

    def is_open(self, now_us: int) -> bool:
        """Tell whether the window is open; after midnight it still belongs to the day it started."""
        local = (_EPOCH + timedelta(microseconds=now_us)).astimezone(self._zone)
        minute, day = 60 * local.hour + local.minute, local.weekday()
        if self._start == self._end:
            return day in self._days
        if self._start < self._end:
            return self._start <= minute < self._end and day in self._days
        if minute >= self._start:
            return day in self._days
        return minute < self._end and (day - 1) % 7 in self._days


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return 60 * int(hours) + int(minutes)
