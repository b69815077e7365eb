"""Pages of a trace: stored lines in pieces that are never large."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

from cra.runtime.asynchronous import AsyncCRARuntime

_SMALL_BYTES = 256 << 10
_LARGE_BYTES = 1 << 20
_MOST_LINES = 1024
_FIRST_LINES = 64


class Page(NamedTuple):
    """Some lines, and the sequence of the first of them."""

    first: int
    lines: list[bytes]


async def pages(
    runtime: AsyncCRARuntime, session_id: str, first: int = 0, most: int | None = None
) -> AsyncGenerator[Page, None]:
    """Yield up to `most` of a session's lines from sequence `first`; raises `SessionNotFound`.

    How many are read at once follows from how long they are, so that memory does not.
    """
    count = _FIRST_LINES
    left = 1 << 62 if most is None else most
    while left > 0:
        wanted = min(count, left)
        data = (await runtime.get_trace(session_id, first, wanted)).data
        lines = data.splitlines()
        if lines:
            yield Page(first, lines)
        if len(lines) < wanted:
            return
        first += len(lines)
        left -= len(lines)
        if len(data) > _LARGE_BYTES:
            count = max(1, count // 4)
        elif len(data) < _SMALL_BYTES:
            count = min(_MOST_LINES, count * 2)


def event_type(line: bytes) -> str:
    """Return the type of a stored event.

    PERF: without decoding it; no field before `event_type` can hold a quotation mark.
    """
    return line.partition(b'"event_type":"')[2].partition(b'"')[0].decode()
