"""Live traces: events as they are written, by server-sent events and by WebSocket."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from cra.errors import CRAError, InvalidRequest, Overloaded
from cra.server.auth.authenticator import Authenticator
from cra.server.call import Answer, Call, Receive, Scope, Send, Stream
from cra.server.media import EVENTS
from cra.server.pages import Page, event_type, pages
from cra.server.problems import problem_of
from cra.server.sessions import visible

if TYPE_CHECKING:
    from cra.server.service import Service

log = logging.getLogger("cra.server")

_EVENT_ID = re.compile(r"[0-9]{1,15}\Z")
# This process's events are told at once; those of others are looked for, ever less often while there are none.
_FIRST_POLL_SECONDS = 0.1
_LAST_POLL_SECONDS = 1.0
# How often a stream's credential is looked at again.
_CHECK_SECONDS = 10.0


class FollowQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to begin."""

    first: Annotated[int, Meta(ge=0, le=1 << 53)] = 0


class Follower:
    """Reads a session from some sequence on, and waits where it ends.

    INVARIANT: nothing is kept for a reader; the store has the events until it comes for them.
    """

    def __init__(self, call: Call, session_id: str, first: int) -> None:
        self._call = call
        self._session_id = session_id
        self._next = first
        self._wake = asyncio.Event()
        self._gone = False
        self._checked = monotonic()

    async def follow(self) -> AsyncGenerator[Page | None, None]:
        """Yield pages as they come, and None when there was nothing for as long as a heartbeat.

        Ends after session.ended, and when the reader has gone; raises `Overloaded` when the service closes,
        `Unauthenticated` when the credential is no longer good.
        """
        service, runtime = self._call.service, self._call.tenant.runtime
        loop = asyncio.get_running_loop()
        watch = loop.create_task(self._watch())
        service.wakers.add(self._wake)
        try:
            with runtime.subscribe(self._session_id, lambda: loop.call_soon_threadsafe(self._wake.set)):
                poll, quiet = _FIRST_POLL_SECONDS, monotonic()
                while True:
                    self._wake.clear()
                    found = False
                    async for page in pages(runtime, self._session_id, self._next):
                        found = True
                        yield page
                        self._next = page.first + len(page.lines)
                        if event_type(page.lines[-1]) == "session.ended":
                            return
                        await self._check()
                    now = monotonic()
                    if found:
                        poll, quiet = _FIRST_POLL_SECONDS, now
                    elif await self._over():
                        return
                    if now - quiet >= service.settings.heartbeat_seconds:
                        quiet = now
                        yield None
                    await self._check()
                    if self._gone:
                        return
                    with suppress(TimeoutError):
                        async with asyncio.timeout(min(poll, service.settings.heartbeat_seconds)):
                            await self._wake.wait()
                    poll = min(_LAST_POLL_SECONDS, poll * 1.5)
        finally:
            service.wakers.discard(self._wake)
            watch.cancel()

    async def _over(self) -> bool:
        """Say whether nothing can come any more: the session has ended, and it is all before what is wanted."""
        record = await self._call.tenant.runtime.get_session(self._session_id)
        if record.status == "active":
            return False
        # It may have ended since the store was asked for events.
        async for _ in pages(self._call.tenant.runtime, self._session_id, self._next, 1):
            self._wake.set()
            return False
        return True

    async def _check(self) -> None:
        service = self._call.service
        if service.closing:
            raise Overloaded("the service is shutting down", hint="follow again from the last sequence")
        if monotonic() - self._checked >= _CHECK_SECONDS:
            self._checked = monotonic()
            ask = service.authenticate
            # Who was let in is not shut out by what others at the same address try, and has called once.
            identity = await (ask.again if isinstance(ask, Authenticator) else ask)(self._call.scope)
            identity.require("traces.read")

    async def _watch(self) -> None:
        """Notice that the reader has gone."""
        while True:
            message = await self._call.receive()
            if message["type"].endswith("disconnect"):
                self._gone = True
                self._wake.set()
                return
            if message["type"] == "websocket.receive":
                # A reader has nothing to say; it is not read any faster than it is looked at.
                await asyncio.sleep(_FIRST_POLL_SECONDS)


async def follow(call: Call) -> Answer:
    """Follow a session by server-sent events."""
    first = call.parameters(FollowQuery).first
    last = call.header(b"last-event-id")
    if last:
        if not _EVENT_ID.match(last):
            raise InvalidRequest(f"Last-Event-ID is `{last[:40]}`, expected the sequence of an event")
        first = int(last) + 1
    session_id = call.path["session_id"]
    await visible(call, session_id)
    call.service.streams.claim(call.identity)
    return Stream(_sse(call, Follower(call, session_id, first)), media=EVENTS, live=True)


async def _sse(call: Call, follower: Follower) -> AsyncGenerator[bytes, None]:
    # A first comment makes the answer's head go out, so that a reader of a quiet session knows that it is followed.
    yield b": following\n\n"
    try:
        async for page in follower.follow():
            if page is None:
                yield b": nothing new\n\n"
                continue
            yield b"".join([b"id: %d\ndata: %b\n\n" % (page.first + at, line) for at, line in enumerate(page.lines)])
    except CRAError as error:
        yield b"event: error\ndata: %b\n\n" % problem_of(error, call.request_id).body


class LiveSocket:
    """The same by WebSocket: one stored line a message, closed with a code and a reason."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follow a session by WebSocket."""
        service = self._service
        headers: dict[bytes, bytes] = dict(scope["headers"])
        scope["method"] = "GET"
        call = Call(service, scope, headers, receive)
        call.request_id = service.new_id()
        await receive()
        status = 101
        began = monotonic()
        try:
            follower = await self._open(call)
        except CRAError as error:
            status = error.status
            await _deny(call, error, send)
        except Exception:
            status = 500
            log.exception("request %s failed", call.request_id)
            await _deny(call, CRAError("the service failed"), send)
        else:
            await send({"type": "websocket.accept", "headers": [(b"x-request-id", call.request_id.encode())]})
            await self._pump(call, follower, send)
        finally:
            if call.gate is not None:
                call.gate.leave()
            service.count(call, status, monotonic() - began)

    async def _open(self, call: Call) -> Follower:
        service = self._service
        await service.admit(call)
        if call.route.handler is not follow:
            raise InvalidRequest("this path takes no WebSocket")
        query = call.parameters(FollowQuery)
        session_id = call.path["session_id"]
        await visible(call, session_id)
        await service.streams.enter()
        call.gate = service.streams
        service.streams.claim(call.identity)
        return Follower(call, session_id, query.first)

    async def _pump(self, call: Call, follower: Follower, send: Send) -> None:
        stall = self._service.settings.stream_stall_seconds
        pages_ = follower.follow()
        code, reason = 1000, "the session has ended"
        try:
            async for page in pages_:
                for line in page.lines if page is not None else ():
                    async with asyncio.timeout(stall):
                        await send({"type": "websocket.send", "text": line.decode()})
        except CRAError as error:
            code = {401: 1008, 403: 1008, 503: 1012}.get(error.status, 1011)
            reason = f"{error.code}: {error.message}"
        except TimeoutError:
            self._service.cut_off(call, send, f"took nothing for {stall} s")
            return
        except Exception as error:
            if not _has_left(error):
                log.exception("request %s failed", call.request_id)
            return
        finally:
            await pages_.aclose()
        with suppress(Exception):  # whoever has left needs no goodbye
            # A close frame has room for 123 bytes.
            await send(
                {"type": "websocket.close", "code": code, "reason": reason.encode()[:120].decode("utf-8", "ignore")}
            )


def _has_left(error: Exception) -> bool:
    return type(error).__name__ in ("ClientDisconnected", "RuntimeError")


async def _deny(call: Call, error: CRAError, send: Send) -> None:
    problem = problem_of(error, call.request_id)
    more: list[tuple[bytes, bytes]] = [
        (b"content-type", problem.media.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *problem.headers,
    ]
    with suppress(Exception):
        await send({"type": "websocket.http.response.start", "status": problem.status, "headers": more})
        await send({"type": "websocket.http.response.body", "body": problem.body})
