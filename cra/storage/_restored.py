"""Restored: a session from a dump, checked before a store takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct, json

from cra._core.verifier import Verifier
from cra.errors import InvalidTrace, StorageError
from cra.protocol.times import parse_timestamp
from cra.storage.base import CounterRecord, Document, Head, SessionDump

# What one piece of a restored session has at least, so that reading a part of it stays cheap.
_PIECE_BYTES = 16_384


class _Line(Struct):
    timestamp: str


class Restored(NamedTuple):
    """A session that verifies: its head, and its lines in pieces with the sequence of their first event."""

    head: Head
    pieces: list[tuple[int, bytes]]


def check(dump: SessionDump) -> Restored:
    """Verify a dump; raises `InvalidTrace` for a chain that is not valid, or not the record's."""
    record = dump.record
    verifier = Verifier(session_id=record.session_id)
    pieces: list[tuple[int, bytes]] = []
    first = 0
    for piece in _pieces(dump.events):
        if not verifier.feed(piece):
            break
        pieces.append((first, piece))
        first += piece.count(b"\n")
    verdict = verifier.finish()
    if not verdict.ok:
        raise InvalidTrace(
            f"the dump of session `{record.session_id}` does not verify: {verdict.message}",
            details={"index": verdict.index, "reason": verdict.reason},
        )
    if not pieces or verdict.events != first:
        raise InvalidTrace(f"the dump of session `{record.session_id}` has no whole event")
    if verdict.trace_id != record.trace_id:
        raise InvalidTrace(
            f"the dump of session `{record.session_id}` has trace_id `{verdict.trace_id}`, its record {record.trace_id}"
        )
    if any(approval.session_id != record.session_id for approval in dump.approvals):
        raise InvalidTrace(f"the dump of session `{record.session_id}` has an approval of another session")
    last = pieces[-1][1].rstrip(b"\n").rpartition(b"\n")[2]
    last_us = parse_timestamp(json.decode(last, type=_Line).timestamp)
    return Restored(Head(verdict.events, verdict.head, last_us), pieces)


def _pieces(data: Iterable[bytes]) -> Iterator[bytes]:
    """Cut pieces of any size into whole lines of some size together."""
    held: list[bytes] = []
    size = 0
    for part in data:
        held.append(part)
        size += len(part)
        if size >= _PIECE_BYTES and b"\n" in part:
            joined = b"".join(held)
            end = joined.rindex(b"\n") + 1
            start = 0
            while end - start > 2 * _PIECE_BYTES:
                cut = joined.find(b"\n", start + _PIECE_BYTES, end) + 1
                yield joined[start:cut]
                start = cut
            if start < end:
                yield joined[start:end]
            held, size = [joined[end:]], len(joined) - end
    if size:
        yield b"".join(held)


def new_kinds(
    tenant: str,
    documents: Iterable[Document],
    revisions: Mapping[str, int],
    known: Callable[[str], tuple[int, list[Document]]],
) -> dict[str, list[Document]]:
    """Return the documents to add by kind; raises `StorageError` when `known`, what is there of a kind, is another."""
    wanted: dict[str, list[Document]] = {kind: [] for kind in revisions}
    for document in documents:
        wanted[document.kind].append(document)
    for kind in sorted(wanted):
        revision, there = known(kind)
        if revision:
            if (revision, there) != (revisions[kind], wanted[kind]):
                raise StorageError(f"tenant `{tenant}` has other documents of kind `{kind}` already")
            del wanted[kind]
    return wanted


def stricter(one: CounterRecord, other: CounterRecord) -> CounterRecord:
    """Return a counter with at most the room that either of two has, with the bounds of the first."""
    newest_us = max(one.newest_us, other.newest_us)
    if one.rate:
        kept = sorted((one.calls_us, other.calls_us), key=len)
        # Counted from the newest, each call is the later of the two in its place.
        short, long = kept[0][::-1], kept[1][::-1]
        calls = [max(pair) for pair in zip(short, long, strict=False)]
        calls += long[len(short) :]
        calls_us = tuple(calls[: one.amount][::-1])
        return CounterRecord(
            key=one.key,
            rate=True,
            amount=one.amount,
            window_us=one.window_us,
            newest_us=newest_us,
            calls_us=calls_us,
        )
    spent = min(max(one.spent, other.spent), one.amount)
    since_us = max(counter.since_us for counter in (one, other))
    return CounterRecord(
        key=one.key,
        rate=False,
        amount=one.amount,
        window_us=one.window_us,
        newest_us=max(newest_us, since_us),
        spent=spent,
        since_us=since_us,
    )
