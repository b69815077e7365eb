"""Versions (SemVer 2.0.0) and the ranges that name them."""

import re
from typing import Literal

import msgspec

from cra.errors import InvalidInput
from cra.protocol.atlas import SEMVER_PATTERN

__all__ = ["Range", "Version", "parse_range", "parse_version"]

_MAX_LENGTH = 255
_NUMBER = "(?:0|[1-9][0-9]*)"
_LABEL = "(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(SEMVER_PATTERN)
# A version of which the end may be missing or `x`, with an operator before it.
_COMPARATOR = re.compile(
    f"(\\^|~|>=|<=|>|<|=|) *v?({_NUMBER}|[xX*])(?:\\.({_NUMBER}|[xX*])(?:\\.({_NUMBER}|[xX*])"
    f"(?:-({_LABEL}(?:\\.{_LABEL})*))?(?:\\+[0-9a-zA-Z-]+(?:\\.[0-9a-zA-Z-]+)*)?)?)?(?= |$)"
)
_HYPHEN = re.compile("([^ ]+) +- +([^ ]+)")

_Rank = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


class Version(msgspec.Struct, frozen=True, eq=False):
    """A version; order and equality are SemVer's precedence, which leaves the build out."""

    major: int
    minor: int
    patch: int
    pre: tuple[int | str, ...] = ()
    build: str = ""

    @property
    def rank(self) -> _Rank:
        """A key that sorts by precedence: a release after its pre-releases, numbers before words."""
        pre = tuple((True, 0, label) if isinstance(label, str) else (False, label, "") for label in self.pre)
        return self.major, self.minor, self.patch, not self.pre, pre

    def __str__(self) -> str:
        pre = "-" + ".".join(map(str, self.pre)) if self.pre else ""
        return f"{self.major}.{self.minor}.{self.patch}{pre}{self.build and '+' + self.build}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.rank == other.rank

    def __hash__(self) -> int:
        return hash(self.rank)

    def __lt__(self, other: "Version") -> bool:
        return self.rank < other.rank

    def __le__(self, other: "Version") -> bool:
        return self.rank <= other.rank

    def __gt__(self, other: "Version") -> bool:
        return self.rank > other.rank

    def __ge__(self, other: "Version") -> bool:
        return self.rank >= other.rank


def parse_version(text: str) -> Version:
    """Parse one exact version, or raise `InvalidInput`."""
    match = _VERSION.match(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise InvalidInput(
            f"version `{text[:80]}` is not SemVer 2.0.0", hint="write three numbers, as in `1.4.0` or `2.0.0-rc.1`"
        )
    major, minor, patch, pre, build = match.groups()
    return Version(int(major), int(minor), int(patch), _labels(pre), build or "")


def _labels(pre: str | None) -> tuple[int | str, ...]:
    return tuple(int(label) if label.isdigit() else label for label in pre.split(".")) if pre else ()


class _Bound(msgspec.Struct, frozen=True):
    """One comparison of a range."""

    operator: Literal[">=", ">", "<", "<=", "="]
    version: Version

    def holds(self, version: Version) -> bool:
        match self.operator:
            case ">=":
                return version >= self.version
            case ">":
                return version > self.version
            case "<":
                return version < self.version
            case "<=":
                return version <= self.version
            case "=":
                return version == self.version


class Range(msgspec.Struct, frozen=True):
    """Alternatives of bounds; a version is inside when it keeps all bounds of one alternative.

    A pre-release is inside only when one of those bounds names a pre-release of the same three numbers: `^1.2.3-rc.1`
    takes `1.2.3-rc.2`, but not `1.3.0-rc.1`.
    """

    text: str
    alternatives: tuple[tuple[_Bound, ...], ...]

    def __contains__(self, version: Version) -> bool:
        return any(_inside(version, bounds) for bounds in self.alternatives)

    def __str__(self) -> str:
        return self.text

    @property
    def empty(self) -> bool:
        """Whether no version at all can be inside."""
        return not any(_possible(bounds) for bounds in self.alternatives)


def _inside(version: Version, bounds: tuple[_Bound, ...]) -> bool:
    if not all(bound.holds(version) for bound in bounds):
        return False
    named = (bound.version for bound in bounds if bound.version.pre not in ((), _LOWEST))
    return not version.pre or any(version.rank[:3] == other.rank[:3] for other in named)


def _possible(bounds: tuple[_Bound, ...]) -> bool:
    """Try what could be the least version inside: each lower bound itself, and the least one above it."""
    zero = Version(0, 0, 0)
    candidates = [zero]
    for bound in bounds:
        low = bound.version
        candidates += [
            low,
            Version(low.major, low.minor, low.patch, (*low.pre, 0) if low.pre else ()),
            Version(low.major, low.minor, low.patch + (not low.pre)),
        ]
    return any(_inside(candidate, bounds) for candidate in candidates)


# Below every pre-release a range can name: `<2.0.0` that stands for `^1` must not let `2.0.0-rc.1` in.
_LOWEST: tuple[int | str, ...] = (-1,)


def parse_range(text: str) -> Range:
    """Parse a range as npm writes them, or raise `InvalidInput`.

    `^1.2` `~1.2.3` `>=1 <3` `1.x` `*` `1.2.3 - 1.9` and alternatives with `||`.
    """
    alternatives = text.split("||")
    if len(text) > _MAX_LENGTH or len(alternatives) > 16:
        raise InvalidInput(f"range `{text[:80]}` is too long", hint="name at most 16 alternatives in 255 characters")
    try:
        return Range(text, tuple(_alternative(alternative.strip(" ")) for alternative in alternatives))
    except ValueError as error:
        raise InvalidInput(
            f"range `{text}`: `{error}` is not a comparison",
            hint="write ranges as in `^1.2.0`, `>=1.0.0 <3.0.0` or `1.x`",
        ) from None


def _alternative(text: str) -> tuple[_Bound, ...]:
    if text == "":
        return _bounds("", "*", None, None, None)
    if hyphen := _HYPHEN.fullmatch(text):
        low, high = (_COMPARATOR.fullmatch(side) for side in hyphen.groups())
        if not low or not high or low[1] or high[1]:
            raise ValueError(text)
        return (*_bounds(">=", *low.groups()[1:]), *_bounds("<=", *high.groups()[1:]))
    bounds: list[_Bound] = []
    at = 0
    while at < len(text):
        match = _COMPARATOR.match(text, at)
        if match is None:
            raise ValueError(text[at:])
        bounds += _bounds(*match.groups())
        at = match.end()
        while text[at : at + 1] == " ":
            at += 1
    return tuple(bounds)


def _bounds(operator: str | None, *parts: str | None) -> tuple[_Bound, ...]:
    """Return the bounds of one comparator; an `x` ends the version, and what follows it does not count."""
    numbers: list[int] = []
    for part in parts[:3]:
        if part is None or not part.isdigit():
            break
        numbers.append(int(part))
    known = len(numbers)
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    pre = _labels(parts[3]) if known == 3 else ()
    low = Version(major, minor, patch, pre)
    if known == 0:
        # Nothing is above or below everything; all else means any version.
        return (_Bound("<", Version(0, 0, 0, _LOWEST)),) if operator in (">", "<") else (_Bound(">=", low),)
    after = _next(major, minor, patch, known)
    match operator:
        case "^":
            significant = next((i + 1 for i, number in enumerate(numbers) if number), known)
            return _Bound(">=", low), _Bound("<", _next(major, minor, patch, significant))
        case "~":
            return _Bound(">=", low), _Bound("<", _next(major, minor, patch, min(known, 2)))
        case ">=":
            return (_Bound(">=", low),)
        case "<":
            return (_Bound("<", low if known == 3 else Version(major, minor, patch, _LOWEST)),)
        case ">":
            return (_Bound(">", low) if known == 3 else _Bound(">=", Version(after.major, after.minor, after.patch)),)
        case "<=":
            return (_Bound("<=", low) if known == 3 else _Bound("<", after),)
        case _:
            return (_Bound("=", low),) if known == 3 else (_Bound(">=", low), _Bound("<", after))


def _next(major: int, minor: int, patch: int, significant: int) -> Version:
    """Return what comes after every version that shares the first `significant` numbers."""
    match significant:
        case 1:
            return Version(major + 1, 0, 0, _LOWEST)
        case 2:
            return Version(major, minor + 1, 0, _LOWEST)
        case _:
            return Version(major, minor, patch + 1, _LOWEST)
