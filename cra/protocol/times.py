"""Timestamps: text on the wire, integer microseconds since the epoch inside."""

import re
from datetime import UTC, datetime, timedelta, timezone

from cra.errors import InvalidInput

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def parse_timestamp(text: str, *, pointer: str | None = None) -> int:
    """Return the microseconds since 1970 of an RFC 3339 date-time; digits past the sixth are dropped."""
    # PERF: 0.6 us instead of 2 for the form that CRA writes; what `fromisoformat` takes beyond it has other marks, or
    # an hour 24.
    if len(text) == 27 and text[4:20:3] == "--T::." and text.endswith("Z") and text[11:13] != "24":
        try:
            return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND
        except ValueError:
            pass
    match = _RFC3339.fullmatch(text)
    if match is not None:
        year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = match.groups()
        try:
            zone = UTC
            if sign is not None:
                if int(zone_hours) > 23 or int(zone_minutes) > 59:
                    raise ValueError
                offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
                zone = timezone(-offset if sign == "-" else offset)
            micros = int((fraction or "0")[:6].ljust(6, "0"))
            moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), micros, tzinfo=zone)
            return (moment - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError):
            pass
    raise InvalidInput(
        f"timestamp is `{text[:60]}`, expected an RFC 3339 date-time",
        pointer=pointer,
        hint="2026-01-31T12:00:00.000000Z",
    )


def format_timestamp(us: int) -> str:
    """Return `YYYY-MM-DDTHH:MM:SS.ffffffZ`, the form CRA writes."""
    return (_EPOCH + us * _MICROSECOND).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
