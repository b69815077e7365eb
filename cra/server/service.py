"""The service: from an ASGI scope to a handler and back."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from itertools import count
from typing import ParamSpec, TypeVar

from cra.errors import CRAError, InvalidRequest, MethodNotAllowed, PayloadTooLarge, RouteNotFound
from cra.server.call import Answer, Call, Receive, Response, Scope, Send, Stream
from cra.server.identity import Identity
from cra.server.limits import Gate
from cra.server.media import check_content_type, choose
from cra.server.problems import problem_of, unexpected
from cra.server.routes import Route, RouteTable
from cra.server.settings import ServiceSettings
from cra.server.tenancy import Tenancy

P = ParamSpec("P")
T = TypeVar("T")

Authenticate = Callable[[Scope], Awaitable[Identity]]

log = logging.getLogger("cra.server")

_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Disconnected(Exception):
    """The caller has gone before the request was whole; nothing was done, and nobody is to be answered."""


class Service:
    """What all calls share: the tenants, the limits, the routes."""

    def __init__(self, settings: ServiceSettings, tenancy: Tenancy, authenticate: Authenticate) -> None:
        self.settings = settings
        self.tenancy = tenancy
        self.authenticate = authenticate
        self.table = RouteTable()
        self.gate = Gate(settings.max_concurrency, settings.max_queue)
        self.streams = Gate(settings.max_streams, 0)
        self.closing = False
        self.version = _version()
        self._ids = count(1)
        self._prefix = os.urandom(8).hex()

    async def aside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what takes long in a thread."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def probe(self) -> None:
        """Raise `StorageError` unless the store would take events."""
        probe = getattr(self.tenancy.storage, "probe", None)
        if probe is not None:
            await self.aside(probe)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request."""
        request_id = f"{self._prefix}-{next(self._ids):x}"
        try:
            answer = await self._answer(scope, receive, request_id)
        except CRAError as error:
            answer = problem_of(error, request_id)
        except Disconnected:
            return
        except Exception:
            log.exception("request %s failed", request_id)
            answer = unexpected(request_id)
        await self._send(answer, request_id, send)

    async def _answer(self, scope: Scope, receive: Receive, request_id: str) -> Answer:
        found = self.table.find(scope["raw_path"])
        if found is None:
            raise RouteNotFound("the service has no such path", hint="see /openapi.json for those it has")
        methods, path = found
        route = methods.get(scope["method"])
        if route is None:
            raise MethodNotAllowed(
                f"method is `{scope['method'][:20]}`, expected {' or '.join(methods)}",
                details={"allow": list(methods)},
            )
        headers = dict(scope["headers"])
        identity = None
        if route.permission is not None:
            identity = await self.authenticate(scope)
            identity.require(route.permission)
        if scope["query_string"] and not route.query:
            raise InvalidRequest("this path takes no query parameters")
        body = await self._body(route, headers, receive)
        call = Call(self, scope, headers, path, body)
        call.request_id = request_id
        call.route = route
        call.media = choose(headers.get(b"accept"), route.gives)
        if identity is not None:
            call.identity = identity
            call.tenant = self.tenancy.get(identity.tenant)
        if route.urgent:
            return await route.handler(call)
        gate = self.streams if route.waits else self.gate
        await gate.enter()
        try:
            return await route.handler(call)
        finally:
            gate.leave()

    async def _body(self, route: Route, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = route.max_bytes or self.settings.max_body_bytes
        stated = headers.get(b"content-length")
        if stated is not None and int(stated) > limit:
            raise PayloadTooLarge(f"the body has {int(stated)} bytes, expected at most {limit}")
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            pieces = [body]
            size = len(body)
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > limit:
                    raise PayloadTooLarge(f"the body has more than {limit} bytes")
            body = b"".join(pieces)
        if body and not route.takes:
            raise InvalidRequest("this path takes no body")
        if route.takes and (body or not route.body_optional):
            check_content_type(headers.get(b"content-type"), route.takes)
        return body

    async def _send(self, answer: Answer, request_id: str, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = [*_ALWAYS, (b"x-request-id", request_id.encode()), *answer.headers]
        if isinstance(answer, Response):
            if answer.status != 204:
                headers.append((b"content-type", answer.media.encode()))
                headers.append((b"content-length", b"%d" % len(answer.body)))
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": answer.body})
            return
        await self._stream(answer, headers, send)

    async def _stream(self, answer: Stream, headers: list[tuple[bytes, bytes]], send: Send) -> None:
        headers.append((b"content-type", answer.media.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for piece in answer.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _version() -> str:
    try:
        return installed_version("cra-core")
    except PackageNotFoundError:
        return "0"
