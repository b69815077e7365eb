"""One call to the service, as its handler sees it, and what the handler answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from cra._core.canonical import dumps
from cra.errors import InvalidRequest
from cra.protocol.codec import to_struct
from cra.protocol.explain import explain
from cra.protocol.jsontext import decode

if TYPE_CHECKING:
    from cra.server.identity import Identity
    from cra.server.limits import Gate
    from cra.server.routes import Route
    from cra.server.service import Service
    from cra.server.tenancy import Tenant

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

JSON = "application/json"
MAX_BODY_DEPTH = 64
_SEE = "see this path in /openapi.json"


class Response:
    """A whole answer; `media` is its content type, `headers` are added to those that every answer has."""

    __slots__ = ("body", "headers", "media", "status")

    def __init__(
        self,
        body: bytes = b"",
        status: int = 200,
        *,
        media: str = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.body = body
        self.status = status
        self.media = media
        self.headers = headers


class Stream:
    """An answer in pieces, each sent when the reader has room for it; `headers` as in `Response`.

    A `live` one lasts as long as its reader likes; any other is cut off when the call's time is over.
    """

    __slots__ = ("headers", "live", "media", "pieces", "status")

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        media: str,
        live: bool = False,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self.pieces = pieces
        self.live = live
        self.status = 200
        self.media = media
        self.headers = headers


Answer = Response | Stream
Handler = Callable[["Call"], Awaitable[Answer]]
Prompt = Callable[["Call"], Response]


def json_response(value: Any, status: int = 200, *, headers: Sequence[tuple[bytes, bytes]] = ()) -> Response:
    """Answer with a JSON value, written canonically; structs are written as their fields."""
    # NOTE: not msgspec's encoder, which refuses integers above 64 bits.
    return Response(dumps(msgspec.to_builtins(value)), status, headers=headers)


class Call:
    """A call that has a route and an identity that may take it."""

    __slots__ = (
        "body_media",
        "content",
        "gate",
        "headers",
        "identity",
        "media",
        "path",
        "receive",
        "request_id",
        "route",
        "scope",
        "service",
        "tenant",
    )

    # Set before a handler sees the call, and not before they are known; a route without a permission has neither
    # identity nor tenant.
    identity: Identity
    tenant: Tenant
    route: Route

    def __init__(self, service: Service, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> None:
        self.service = service
        self.scope = scope
        # Names are in lower case; none that matters is there twice.
        self.headers = headers
        self.receive = receive
        self.request_id = ""
        self.path: Mapping[str, str] = {}
        self.content = b""
        self.body_media = JSON
        # What the answer is to be written as: the caller's choice among `route.gives`.
        self.media = JSON
        self.gate: Gate | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's parameters, each with its values; raises `InvalidRequest` for what is not UTF-8."""
        return parse_query(self.scope["query_string"])

    def parameters(self, kind: type[T]) -> T:
        """Return the query as a struct; raises `InvalidRequest` for one that is unknown, repeated or out of range."""
        lists = {
            field.encode_name
            for field in msgspec.structs.fields(kind)  # type: ignore[arg-type]  # a struct, as the caller says
            if isinstance(msgspec.inspect.type_info(field.type), msgspec.inspect.VarTupleType)
        }
        values: dict[str, Any] = {}
        for name, given in self.query.items():
            if len(given) > 1 and name not in lists:
                raise InvalidRequest(f"query parameter `{name}` is given {len(given)} times, expected once")
            values[name] = given if name in lists else given[0]
        try:
            return msgspec.convert(values, kind, strict=False)
        except msgspec.ValidationError as error:
            words, pointer = explain(error, kind)
            where = f" `{pointer[1:]}`" if pointer else ""
            raise InvalidRequest(f"query parameter{where}: {words}", hint=_SEE) from None

    async def body(self) -> bytes:
        """Return the body; it has arrived whole before the handler began."""
        return self.content

    async def json(self, kind: type[T]) -> T:
        """Return the body as a struct; raises `InvalidJSON`, or `InvalidRequest` with the pointer of the place."""
        return self.struct(decode(self.content, max_depth=MAX_BODY_DEPTH), kind)

    def struct(self, value: Any, kind: type[T]) -> T:
        """Return decoded JSON as a struct, as `json` does."""
        return to_struct(value, kind, what="body", hint=_SEE)

    def header(self, name: bytes) -> str | None:
        """Return a header as text, None when it is absent; raises `InvalidRequest` for what is not ASCII."""
        value = self.headers.get(name)
        if value is None:
            return None
        if not value.isascii():
            raise InvalidRequest(f"header `{name.decode()}` is not ASCII")
        return value.decode("ascii")


def parse_query(query: bytes) -> dict[str, list[str]]:
    """Return the parameters of a query string; raises `InvalidRequest` for what is not UTF-8."""
    found: dict[str, list[str]] = {}
    if not query:
        return found
    for pair in query.split(b"&"):
        if not pair:
            continue
        name, _, value = pair.partition(b"=")
        try:
            found.setdefault(_text(name), []).append(_text(value))
        except UnicodeDecodeError:
            raise InvalidRequest("the query is not UTF-8") from None
    return found


def _text(piece: bytes) -> str:
    return unquote_to_bytes(piece.replace(b"+", b" ")).decode("utf-8")
