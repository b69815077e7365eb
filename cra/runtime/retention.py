"""Retention: which ended sessions a policy lets go."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from cra._core.canonical import dumps
from cra.errors import InvalidRequest, StorageCorrupt
from cra.storage.base import Document, SessionRecord, Storage

T = TypeVar("T")

DAY_US = 86_400 * 1_000_000
_PAGE = 200
_LONGEST_DAYS = 36_500
_MOST_KEPT = 1 << 40


class RetentionPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of ended sessions; None is without end.

    A session goes when it ended more than `ended_days` days ago, or when `keep_ended` others ended after it.
    """

    ended_days: int | None = None
    keep_ended: int | None = None

    def as_dict(self) -> dict[str, int | None]:
        """Return the policy as JSON values."""
        return {"ended_days": self.ended_days, "keep_ended": self.keep_ended}


class Hold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session that is not purged before it is released, whatever the policy says."""

    session_id: str
    actor: str
    reason: str
    placed_at: str


def policy_of(given: RetentionPolicy | Mapping[str, Any]) -> RetentionPolicy:
    """Return a policy that was handed in; raises `InvalidRequest`."""
    if not isinstance(given, RetentionPolicy):
        if not isinstance(given, Mapping):
            raise InvalidRequest(f"policy is `{type(given).__name__}`, expected an object", pointer="")
        try:
            given = msgspec.convert(dict(given), RetentionPolicy, strict=True)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"retention policy: {error}", hint="see docs/administration.md") from None
    for name, most in (("ended_days", _LONGEST_DAYS), ("keep_ended", _MOST_KEPT)):
        value: object = getattr(given, name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise InvalidRequest(
                f"{name} is `{value}`, expected a whole number from 0 to {most}, or null", pointer=f"/{name}"
            )
    return given


def body_of(value: Struct) -> bytes:
    """Return a policy or hold as its document has it."""
    return dumps(msgspec.to_builtins(value))


def read_policy(document: Document) -> RetentionPolicy:
    """Return the policy of a document; raises `StorageCorrupt`."""
    return _read(document, RetentionPolicy)


def read_hold(document: Document) -> Hold:
    """Return the hold of a document; raises `StorageCorrupt`."""
    return _read(document, Hold)


def _read(document: Document, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(document.body, type=kind)
    except msgspec.DecodeError as error:
        raise StorageCorrupt(f"stored {document.kind} `{document.name}` cannot be read: {error}") from error


class Due(Struct, frozen=True, kw_only=True):
    """A session that a policy lets go, and the rule of it that does."""

    record: SessionRecord
    rule: str


def due(storage: Storage, policy: RetentionPolicy, held: frozenset[str], now_us: int, limit: int) -> list[Due]:
    """Return up to `limit` sessions to purge, the one that ended first before all others."""
    excess = 0 if policy.keep_ended is None else max(0, storage.ended_count() - policy.keep_ended)
    before_us = None if policy.ended_days is None else now_us - policy.ended_days * DAY_US
    found: list[Due] = []
    if not excess and before_us is None:
        return found
    for place, record in enumerate(_ended(storage, min(_PAGE, limit))):
        if before_us is not None and (record.ended_us or 0) < before_us:
            rule = "ended_days"
        elif place < excess:
            rule = "keep_ended"
        else:
            break
        # INVARIANT: what is held is passed by, and nothing goes in its place.
        if record.session_id not in held:
            found.append(Due(record=record, rule=rule))
            if len(found) == limit:
                break
    return found


def _ended(storage: Storage, page: int) -> Iterator[SessionRecord]:
    """Yield ended sessions in the order in which they ended."""
    after: str | None = None
    while True:
        records = storage.ended(after=after, limit=page)
        yield from records
        if len(records) < page:
            return
        after = records[-1].session_id
