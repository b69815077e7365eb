"""What comes in with a request: its headers and its body, checked before a handler sees them."""

from __future__ import annotations

from collections.abc import Mapping

from cra.errors import Forbidden, InvalidRequest, PayloadTooLarge
from cra.server.call import Call, Receive
from cra.server.media import check_content_type, check_encoding, choose

# Headers that must not be there twice: readers on the way could each believe another one.
_ONCE = frozenset(
    (
        b"authorization",
        b"x-api-key",
        b"host",
        b"origin",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"transfer-encoding",
        b"idempotency-key",
        b"last-event-id",
        b"x-request-id",
    )
)


class Disconnected(Exception):
    """The caller has gone before the request was whole; nothing was done, and nobody is to be answered."""


def choose_media(call: Call) -> None:
    """Choose what the answer is written as; raises `NotAcceptable`."""
    call.media = call.route.gives[0]
    accept = call.headers.get(b"accept")
    if accept is not None and accept != b"*/*":
        call.media = choose(accept, call.route.gives)


def check_origin(headers: Mapping[bytes, bytes]) -> None:
    """Raise `Forbidden` for what a browser sends on behalf of another site.

    Where a credential comes by itself (a proxy's certificate, or none at all in development), any page that a
    person looks at could otherwise make calls.
    """
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower():
        raise Forbidden("the request comes from a page of another site", hint="the service is not for browsers")


def expect(call: Call, usual: int) -> int:
    """Return how long the body may be; raises what the headers say already is wrong with it.

    A route that does not say takes as much as is `usual`.
    """
    headers, route = call.headers, call.route
    limit = route.max_bytes or usual
    stated = headers.get(b"content-length")
    if stated is not None and int(stated) > limit:
        raise PayloadTooLarge(f"the body has {int(stated)} bytes, expected at most {limit}")
    if b"content-encoding" in headers:
        check_encoding(headers[b"content-encoding"])
    kind = headers.get(b"content-type")
    if route.takes and kind != b"application/json" and (kind is not None or not route.body_optional):
        call.body_media = check_content_type(kind, route.takes)
    return limit


def take(call: Call, body: bytes, limit: int) -> None:
    """Give a call its body; raises what is wrong with it."""
    if len(body) > limit:
        raise _too_large(limit)
    if body and not call.route.takes:
        raise InvalidRequest("this path takes no body")
    if body and b"content-type" not in call.headers:
        check_content_type(None, call.route.takes)
    call.content = body


async def pieces(receive: Receive, limit: int) -> bytes:
    """Return a body as it arrives; raises `PayloadTooLarge`, `Disconnected`."""
    found: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece: bytes = message.get("body", b"")
        found.append(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return b"".join(found)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has more than {limit} bytes")


def check_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    """Raise `InvalidRequest` for a header that is there twice and must not be."""
    names = [name for name, _ in headers if name in _ONCE]
    for name in set(names):
        if names.count(name) > 1:
            raise InvalidRequest(f"header `{name.decode()}` is there {names.count(name)} times, expected once")
