"""Lists: as much of one as was asked for, as long as it fits into an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from cra._core.canonical import dumps
from cra.server.call import Answer, Response

R = TypeVar("R")

# Callers decide how long a record is, so an answer ends here, whatever its limit; one record it always has.
PAGE_BYTES = 4 << 20
# As many are in memory at once; each can be as long as a body.
_STEP = 32


async def page_of(
    name: str,
    ask: Callable[[str | None, int], Awaitable[Sequence[R]]],
    show: Callable[[R], dict[str, Any] | None],
    id_of: Callable[[R], str],
    *,
    after: str | None,
    limit: int,
) -> Answer:
    """Answer with up to `limit` records after the id `after`, and with `next` when there are more.

    `ask` returns up to so many records after an id; `show` returns None for one that the caller is not to see.
    """
    found: list[bytes] = []
    size, last, full = 0, "", False
    while not full:
        records = await ask(after, _STEP)
        for record in records:
            value = show(record)
            if value is None:
                continue
            text = dumps(value)
            full = len(found) == limit or (bool(found) and size + len(text) > PAGE_BYTES)
            if full:
                break
            found.append(text)
            size += len(text)
            last = id_of(record)
        if len(records) < _STEP:
            break
        after = id_of(records[-1])
    end = b',"next":%b' % dumps(last) if full else b""
    return Response(b'{"%b":[%b]%b}' % (name.encode(), b",".join(found), end))
