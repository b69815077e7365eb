"""Diff: what differs between two recorded sessions by meaning, ids and times and what follows from them aside."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import Match, SequenceMatcher
from itertools import accumulate
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from cra._core.canonical import dumps
from cra.protocol.trace import Trace
from cra.runtime.past import Recorded, Step, read_session

Grade = Literal["none", "cosmetic", "behaviour", "decision"]
GRADES: tuple[Grade, ...] = ("none", "cosmetic", "behaviour", "decision")

# Ids, times, and digests that follow from them; two runs of one thing never share these, but both have them or neither.
_ASIDE = frozenset(
    (
        "approval_id",
        "duration_ms",
        "execution_id",
        "expires_at",
        "parent_session_id",
        "replay_of",
        "request_hash",
        "request_id",
        "resolution_hash",
        "resolution_id",
    )
)
# Words, and where the rules came from; neither changes what was allowed or done.
_COSMETIC = frozenset(
    ("atlases", "details", "error_message", "metadata", "reason", "retry_after_seconds", "snapshot_digest")
)
_DECISIVE = frozenset(
    (
        "action_id",
        "allowed_count",
        "atlas_id",
        "decision_type",
        "denied_count",
        "policy_id",
        "result",
        "violation_type",
    )
)
_DECIDING = frozenset(
    (
        "policy.evaluated",
        "policy.violated",
        "action.approved",
        "action.denied",
        "approval.requested",
        "approval.granted",
        "approval.rejected",
        "approval.expired",
    )
)
# Where ids and times are put aside inside of a text. Elsewhere they are what somebody said: who an agent is, what is
# wanted.
_WORDS = frozenset(("details", "ended_at", "error_message", "placed_at", "reason", "session_id"))
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z|\bretry in [0-9]+ s\b")

# Looking for what is alike takes about as many steps at most, a second or two. Beyond them what begins and what ends
# alike is paired, and the rest in its order by kind.
_MOST_STEPS = 10_000_000

T = TypeVar("T")


class Difference(Struct, frozen=True, kw_only=True):
    """One difference: an event that only one trace has (the other's index is None), or one field of a common event."""

    grade: Grade
    event_type: str
    before_index: int | None
    after_index: int | None
    pointer: str = ""
    before: Any = UNSET
    after: Any = UNSET


class TraceDiff(Struct, frozen=True, kw_only=True):
    """What differs between two traces; true when anything does.

    `cosmetic`: words, or the atlases behind the same decisions. `behaviour`: other requests, context, calls, results.
    `decision`: something else was allowed, denied, approved or counted, or another policy decided.
    """

    differences: tuple[Difference, ...]
    before_events: int
    after_events: int

    @property
    def grade(self) -> Grade:
        """The gravest grade there is."""
        return max((difference.grade for difference in self.differences), key=GRADES.index, default="none")

    def __bool__(self) -> bool:
        return bool(self.differences)

    def counts(self) -> dict[str, int]:
        """Return how many differences have which grade."""
        return {grade: sum(d.grade == grade for d in self.differences) for grade in GRADES[1:]}

    def as_dict(self) -> dict[str, Any]:
        """Return the diff as JSON values."""
        return {
            "grade": self.grade,
            "counts": self.counts(),
            "before_events": self.before_events,
            "after_events": self.after_events,
            "differences": msgspec.to_builtins(self.differences),
        }


def diff(before: Trace | bytes, after: Trace | bytes) -> TraceDiff:
    """Compare two traces by meaning; raises `InvalidTrace` when a chain is broken.

    Requests are aligned by what they ask, then their events by what they are about. Equal traces, and two runs of one
    thing, have no differences.
    """
    one, other = read_session(before).steps, read_session(after).steps
    found: list[Difference] = []
    effort = _Effort()
    for mine, theirs in _aligned(one, other, _subject, lambda step: _family(step.first), effort):
        found += _steps(mine, theirs, effort)
    return TraceDiff(
        differences=tuple(found),
        before_events=sum(len(step.events) for step in one),
        after_events=sum(len(step.events) for step in other),
    )


def _steps(mine: Step | None, theirs: Step | None, effort: "_Effort") -> Iterator[Difference]:
    one = () if mine is None else mine.events
    other = () if theirs is None else theirs.events
    for event, counterpart in _aligned(one, other, _about, lambda event: event.event_type, effort):
        if event is not None and counterpart is not None:
            yield from _fields(event, counterpart)
        elif event is not None:
            yield _alone(event, before=True)
        elif counterpart is not None:
            yield _alone(counterpart, before=False)


def _alone(event: Recorded, *, before: bool) -> Difference:
    grade: Grade = "decision" if event.event_type in _DECIDING else "behaviour"
    return Difference(
        grade=grade,
        event_type=event.event_type,
        before_index=event.index if before else None,
        after_index=None if before else event.index,
        before=event.payload if before else UNSET,
        after=UNSET if before else event.payload,
    )


def _fields(event: Recorded, other: Recorded) -> Iterator[Difference]:
    if event.raw == other.raw:
        return
    for name in sorted(event.payload.keys() | other.payload.keys()):
        one, two = event.payload.get(name, UNSET), other.payload.get(name, UNSET)
        if _same(name, one, two):
            continue
        yield Difference(
            grade=_grade(event.event_type, name),
            event_type=event.event_type,
            before_index=event.index,
            after_index=other.index,
            pointer=f"/{name.replace('~', '~0').replace('/', '~1')}",
            before=one,
            after=two,
        )


def _grade(event_type: str, name: str) -> Grade:
    if name in _COSMETIC and not (event_type == "session.ended" and name == "reason"):
        return "cosmetic"
    deciding = event_type in _DECIDING or event_type == "carp.resolution.completed"
    return "decision" if deciding and name in _DECISIVE else "behaviour"


def _same(name: str, one: Any, two: Any) -> bool:
    if isinstance(one, UnsetType) or isinstance(two, UnsetType):
        return False
    if name in _ASIDE:
        return True
    if name in _WORDS and isinstance(one, str) and isinstance(two, str):
        return _timeless(one) == _timeless(two)
    return dumps(one) == dumps(two)


def _timeless(text: str) -> str:
    return _TIME.sub("T", _ID.sub("U", text))


# What belongs together


def _family(event: Recorded) -> str:
    """Return what kind of step begins with an event; however a call ended, it is an outcome."""
    if event.event_type in ("action.executed", "action.failed"):
        return "outcome"
    if event.event_type in ("action.requested", "error.occurred"):
        return "call"
    return event.event_type


def _subject(step: Step) -> tuple[str, str, str]:
    payload = step.first.payload
    subject = payload.get("action_id") or (payload.get("goal") if step.first.event_type.startswith("carp.") else "")
    return _family(step.first), str(subject), str(payload.get("parameters_hash", ""))


def _about(event: Recorded) -> tuple[str, str, str]:
    payload = event.payload
    subject = payload.get("action_id") or payload.get("block_id") or ""
    return event.event_type, str(subject), str(payload.get("source", ""))


class _Effort:
    """How many steps are left for all of a comparison."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _MOST_STEPS


class _Matcher(SequenceMatcher[Any]):
    """Match as `SequenceMatcher` does, as long as there is effort left.

    NOTE: its time grows with the cube of what repeats: sessions of two thousand requests took it a minute.
    """

    def __init__(self, one: list[Any], other: list[Any], effort: _Effort) -> None:
        super().__init__(None, one, other, autojunk=False)
        self._one, self._other, self._effort = one, other, effort
        times = Counter(other)
        self._before = [0, *accumulate(1 + times[item] for item in one)]

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        """Return where most in a row is alike; without the effort for that, where the ranges begin or end alike."""
        one, other = self._one, self._other
        ahi = len(one) if ahi is None else ahi
        bhi = len(other) if bhi is None else bhi
        steps = self._before[ahi] - self._before[alo]
        if steps <= self._effort.left:
            self._effort.left -= steps
            return super().find_longest_match(alo, ahi, blo, bhi)
        most, size = min(ahi - alo, bhi - blo), 0
        while size < most and one[alo + size] == other[blo + size]:
            size += 1
        if size:
            return Match(alo, blo, size)
        while size < most and one[ahi - size - 1] == other[bhi - size - 1]:
            size += 1
        return Match(ahi - size, bhi - size, size)


def _aligned(
    one: Sequence[T], other: Sequence[T], key: Callable[[T], Any], kind: Callable[[T], str], effort: _Effort
) -> Iterator[tuple[T | None, T | None]]:
    """Pair what has the same key, in order; in between, what is at least of the same kind."""
    matcher = _Matcher([key(item) for item in one], [key(item) for item in other], effort)
    for tag, i, k, j, m in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(one[i:k], other[j:m], strict=True)
            continue
        places: dict[str, list[int]] = {}
        for at in range(j, m):
            places.setdefault(kind(other[at]), []).append(at)
        for item in one[i:k]:
            same = places.get(kind(item), [])
            place = bisect_left(same, j)
            if place == len(same):
                yield item, None
                continue
            for skipped in other[j : same[place]]:
                yield None, skipped
            yield item, other[same[place]]
            j = same[place] + 1
        for left in other[j:m]:
            yield None, left
