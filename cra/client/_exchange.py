"""One call until its answer: what is tried again, how long is waited, and what is given up."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import msgspec

from cra.client._calls import Call
from cra.client._problems import problem_of
from cra.client._settings import Settings
from cra.errors import (
    DuplicateRequest,
    InvalidInput,
    ServiceError,
    ServiceUnreachable,
)

T = TypeVar("T")

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
CONNECT_S = 10.0
MAX_ANSWER_BYTES = 256 << 20

# The service, or what stands before it, did not take the call now: too much to do, restarting, no one there.
_LATER = frozenset({429, 502, 503, 504})
# What says that nothing was done, whatever the call.
_NOT_DONE = frozenset({"overloaded", "rate_limited", "request_timeout"})


class Late(Exception):
    """The answer did not arrive whole before the deadline."""


class Again:
    """The call is to be sent again, after a wait."""

    __slots__ = ("wait_s",)

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s


class Exchange(Generic[T]):
    """A call with its attempts, its deadline, and what is known of it; a driver sends, waits and tells."""

    def __init__(
        self, call: Call[T], settings: Settings, clock: Callable[[], float], chance: Callable[[], float] = random.random
    ) -> None:
        self.call = call
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._attempts = 0
        # Whether an attempt may have been taken although no answer to it arrived.
        self._doubt = False
        budget = settings.execute_timeout_s if call.executes else settings.timeout_s
        self._deadline = clock() + budget + call.long_s

    @property
    def left_s(self) -> float:
        """The seconds until the deadline."""
        return self._deadline - self._clock()

    def begin(self) -> dict[str, float]:
        """Begin an attempt; returns how long each of its parts may take."""
        self._attempts += 1
        left = max(self.left_s, 0.001)
        near = min(left, CONNECT_S)
        return {"connect": near, "pool": left, "write": left, "read": left}

    def lost(self, error: Exception, *, sent: bool) -> Again:
        """Take note of an attempt without an answer; raises `ServiceUnreachable` when it was the last."""
        self._doubt = self._doubt or sent
        words = _words(error)
        if not sent or self.call.repeatable:
            again = self._again(None)
            if again is not None:
                return again
        raise self._unreachable(words) from error

    def answered(self, status: int, headers: Mapping[str, str], body: bytes) -> T | Again:
        """Return what the answer says, or that the call is to be sent again; raises what it says instead."""
        if 200 <= status < 300:
            return self._read(body)
        error = problem_of(status, body, action_id=self.call.action_id)
        if error is None:
            return self._foreign(status, headers)
        if self._doubt and isinstance(error, DuplicateRequest):
            raise self._unreachable("an attempt was taken by the service and its answer lost") from error
        not_done = error.code in _NOT_DONE
        if status in _LATER and (not_done or self.call.repeatable):
            again = self._again(_seconds(headers.get("retry-after")))
            if again is not None:
                # What could not be recorded may still have been executed.
                self._doubt = self._doubt or not not_done
                return again
        raise error

    def _read(self, body: bytes) -> T | Again:
        try:
            value = self.call.read(body)
        except (InvalidInput, msgspec.ValidationError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise ServiceError(
                f"{self._named} was answered with what the protocol does not know: {type(error).__name__}",
                hint="is the address that of a CRA service of this version?",
            ) from error
        if self._doubt and self.call.unfinished is not None and self.call.unfinished(value):
            # An attempt whose answer was lost is still being executed; its outcome will be this call's.
            return self._again(None, counted=False) or value
        return value

    def _foreign(self, status: int, headers: Mapping[str, str]) -> Again:
        """Judge an answer that is no problem document, so not the service's own."""
        if status in _LATER:
            # A proxy's: it may have passed the call on.
            self._doubt = self._doubt or status != 429
            if self.call.repeatable or status == 429:
                again = self._again(_seconds(headers.get("retry-after")))
                if again is not None:
                    return again
            raise self._unreachable(f"something before the service answered with status {status}")
        where = headers.get("location")
        hint = (
            f"it points to `{where[:200]}`: name the service itself"
            if where
            else "is the address that of a CRA service?"
        )
        raise ServiceError(
            f"{self._named} was answered with status {status} and no problem document",
            hint=hint,
            details={"status": status},
        )

    def _again(self, told_s: float | None, *, counted: bool = True) -> Again | None:
        """Return the wait before the next attempt, None when there is none."""
        if counted and self._attempts >= self._settings.max_attempts:
            return None
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self._attempts - 1, 16))
        wait_s = longest * self._chance() + (told_s or 0.0)
        return Again(wait_s) if wait_s < self.left_s else None

    def _unreachable(self, words: str) -> ServiceUnreachable:
        known = "whether it took effect is unknown" if self._doubt else "it was never sent"
        return ServiceUnreachable(
            f"{self._named} has no answer after {self._attempts} attempt{'s' * (self._attempts > 1)}: {words}; {known}",
            hint="the session's trace says what became of it" if self._doubt else "is the service running there?",
            details={"sent": self._doubt, "attempts": self._attempts},
        )

    @property
    def _named(self) -> str:
        return f"{self.call.method} `{self._settings.base_url}{self.call.path}`"


class Gathered:
    """An answer's bytes as they arrive, bounded in size and, with an exchange, in time."""

    def __init__(self, exchange: Exchange[Any] | None) -> None:
        self._exchange = exchange
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    def add(self, piece: bytes) -> None:
        """Add a piece; raises `ServiceError` when it is too much, `Late` when it is too late."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > MAX_ANSWER_BYTES:
            raise ServiceError(f"an answer has more than {MAX_ANSWER_BYTES} bytes")
        if self._exchange is not None and self._exchange.left_s <= 0:
            raise Late("the answer did not arrive in time")


def _words(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}{text and ': '}{text}"[:300]


def _seconds(value: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for; None for what is neither a number nor a date."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    from datetime import datetime

    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
