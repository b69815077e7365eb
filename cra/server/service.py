"""The service: from an ASGI scope to a handler and back."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cra.errors import (
    CallTimeout,
    CRAError,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    RequestTimeout,
    RouteNotFound,
    StorageError,
    Unauthenticated,
)
from cra.server.access import AccessLog
from cra.server.auth.authenticator import Authenticator
from cra.server.call import Answer, Call, Receive, Response, Scope, Send, Stream
from cra.server.connection import Connection, Waiting, whole_body, write_whole
from cra.server.deadlines import Deadlines
from cra.server.eager import Eager
from cra.server.identity import Identity
from cra.server.incoming import Disconnected, check_origin, check_repeated, choose_media, expect, pieces, take
from cra.server.limits import Gate
from cra.server.metrics import Metrics
from cra.server.problems import PROBLEM, problem_of, unexpected
from cra.server.routes import Route, RouteTable
from cra.server.settings import ServiceSettings
from cra.server.tenancy import Tenancy

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

P = ParamSpec("P")
T = TypeVar("T")

Authenticate = Callable[[Scope], Awaitable[Identity]]

log = logging.getLogger("cra.server")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}\Z")
# An answer without a body, and one that ends the connection.
_ODD = frozenset((204, 408))
# Bodies longer than is usual that are taken at once.
_MOST_LARGE = 8
# Who watches the service gives up after some seconds.
_PROBE_SECONDS = 3
_URGENT = frozenset((b"/v1/health/live", b"/v1/health/ready"))


class Service:
    """What all calls share: the tenants, the limits, the routes."""

    def __init__(
        self, settings: ServiceSettings, tenancy: Tenancy, authenticate: Authenticate, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.tenancy = tenancy
        self.authenticate = authenticate
        self._authenticator = authenticate if isinstance(authenticate, Authenticator) else None
        self.metrics = metrics
        self.table = RouteTable()
        self.prompt = self.table.at_once
        self.gate = Gate(settings.max_concurrency, settings.max_queue)
        self.streams = Gate(settings.max_streams, 0)
        self.large = Gate(_MOST_LARGE, 0)
        self.most_calls = settings.max_concurrency + settings.max_queue
        # The calls that are begun and not over, streams among them.
        self.calls = 0
        # Connections whose callers were refused and are not read from until the next sweep.
        self.held: list[Connection] = []
        self.deadlines = Deadlines()
        self.heads = Waiting(settings.header_timeout_seconds, Connection.give_up)
        self.deadlines.also(self.heads.sweep)
        self.kept = Waiting(settings.keep_alive_seconds, Connection.timeout_keep_alive_handler)
        self.deadlines.also(self.kept.sweep)
        self.deadlines.also(metrics.flush)
        self.deadlines.also(self._release)
        self.access = AccessLog() if settings.access_log == "json" else None
        self.closing = False
        # What waits for something else and has to know when the service closes.
        self.wakers: set[asyncio.Event] = set()
        self.version = _version()
        self._probe: asyncio.Task[None] | None = None
        self._ids = count(1)
        self._prefix = os.urandom(6).hex()
        more = ((b"x-cra-dev", b"no keys are asked for; never expose this"),) if settings.dev else ()
        self._always = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"), *more)
        # The lines that an answer of a media type begins with.
        self._heads_of: dict[str, bytes] = {}
        # The refusal, but for the request's id.
        problem = problem_of(no_room(), "%b")
        lines = (*self._always, *problem.headers, (b"content-type", problem.media.encode()))
        self._no_room_head = b"".join([b"%b: %b\r\n" % line for line in lines])
        self._no_room = problem.body
        self._body_seconds = float(settings.body_timeout_seconds)
        self._work_seconds = float(settings.request_timeout_seconds)

    # What the whole service does

    def begin_closing(self) -> None:
        """Refuse new calls and end the streams; what was begun goes on."""
        self.closing = True
        for wake in list(self.wakers):
            wake.set()

    async def finish(self, seconds: float) -> None:
        """Wait for the calls that are being worked on, but no longer than `seconds`."""
        self.begin_closing()
        own = asyncio.current_task()
        left = [task for task in self.deadlines.tasks if task is not own]
        if left:
            await asyncio.wait(left, timeout=seconds)

    def new_id(self) -> str:
        """Return the id of a request that brings none."""
        return f"{self._prefix}-{next(self._ids):x}"

    async def aside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what takes long in a thread."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def probe(self) -> None:
        """Raise `StorageError` unless the store says soon that it would take events."""
        if self._probe is None or self._probe.done():
            # One question, however many ask.
            self._probe = asyncio.create_task(self.aside(self.tenancy.storage.probe))
        done, _ = await asyncio.wait({self._probe}, timeout=_PROBE_SECONDS)
        if not done:
            raise StorageError(f"the store has not answered for {_PROBE_SECONDS} s")
        self._probe.result()

    @property
    def is_full(self) -> bool:
        """Whether there are as many calls as are worked on and may wait."""
        return self.calls - self.streams.active >= self.most_calls

    def is_urgent(self, path: bytes) -> bool:
        """Say whether a path is answered however busy the service is."""
        return path in _URGENT

    # One request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request."""
        began = monotonic()
        call = self._begin(scope, dict(scope["headers"]), receive)
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a request is one
        await self._see_to(call, self._answer(call, task, began), send, task, began)

    async def _see_to(
        self, call: Call, work: Awaitable[Answer], send: Send, task: asyncio.Task[Any] | Eager, began: float
    ) -> None:
        """Send the answer that `work` comes to; `task` is what this runs in."""
        status = 499
        answer: Answer
        try:
            try:
                answer = await work
            except asyncio.CancelledError:
                answer = self._cancelled(call, task)
            except Disconnected:
                raise
            except Exception as error:
                answer = self._failed(call, error)
            status = answer.status
            if type(answer) is Response:
                if not self._write(call, answer, send):
                    await self._send(call.request_id, answer, send)
            elif isinstance(answer, Stream):
                if answer.live:
                    self.deadlines.clear(task)
                await self._stream(call, answer, send)
        except Disconnected:
            pass
        except asyncio.CancelledError:
            # The answer is on its way, and its reader takes none of it.
            self.deadlines.passed(task)
            task.uncancel()
            self.cut_off(call, send, "stopped")
        finally:
            self.deadlines.clear(task)
            if call.gate is not None:
                call.gate.leave()
            self.count(call, status, monotonic() - began)

    def at_once(
        self, route: Route, scope: Scope, headers: Mapping[bytes, bytes], body: bytes
    ) -> tuple[int, bytes, bytes] | Call | None:
        """Return the status, the header lines and the body of an answer that nothing has to be waited for.

        Where there is the store to wait for, the call is returned, let in and not begun: `go_on` answers it. `headers`
        are the scope's by their names, none of which is there twice; the path has no parameters. Nothing was done and
        nothing counted when it is None: then the request is answered as any other.

        PERF: a task and its turn of the loop are 9 us, and so are the cycle and the messages of ASGI.
        """
        if not self.gate.has_room:
            return None
        began = monotonic()
        call = self._begin(scope, headers, _never)
        try:
            answer = self._answer_at_once(call, route, body)
        except Exception as error:
            answer = self._failed(call, error)
        if answer is None or isinstance(answer, Call):
            return answer
        self.count(call, answer.status, monotonic() - began)
        return answer.status, self._lines(call.request_id, answer), answer.body

    async def go_on(self, call: Call, task: Eager, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call that `at_once` has just let in; `task` is what this runs in."""
        began = monotonic()
        # INVARIANT: there is a place, since nothing was waited for after looking for one.
        self.gate.try_enter()
        call.gate = self.gate
        self.calls += 1
        self.deadlines.set(task, began + self._work_seconds, "work")
        try:
            await self._see_to(call, call.route.handler(call), send, task, began)
        finally:
            self.calls -= 1

    def _begin(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Call:
        call = Call(self, scope, headers, receive)
        given = headers.get(b"x-request-id")
        call.request_id = given.decode() if given is not None and _REQUEST_ID.match(given) else self.new_id()
        return call

    def _failed(self, call: Call, error: Exception) -> Response:
        if isinstance(error, CRAError):
            return problem_of(error, call.request_id)
        log.error("request %s failed", call.request_id, exc_info=error)
        return unexpected(call.request_id)

    def count(self, call: Call, status: int, seconds: float) -> None:
        """Count and log an answered call."""
        identity, route = getattr(call, "identity", None), getattr(call, "route", None)
        if route is None:
            self.metrics.request("none", "other", status, "_none", seconds)
        else:
            tenant = "_none" if identity is None else identity.tenant
            self.metrics.request(route.path, call.scope["method"], status, tenant, seconds)
        if self.access is not None:
            self.access.write(call, status, seconds)

    def cut_off(self, call: Call, send: Send, reason: str) -> None:
        """End a connection whose reader does not read, without waiting for it."""
        self.metrics.cut("stalled" if reason.startswith("took") else reason)
        log.warning("request %s: the answer was cut off, its reader %s", call.request_id, reason)
        # NOTE: ASGI has no way to say so; uvicorn's `close` would wait for the reader.
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()

    async def counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request that was counted in `calls` when it began."""
        try:
            await self(scope, receive, send)
        finally:
            self.calls -= 1

    def refuse(self, cycle: RequestResponseCycle) -> bool:
        """Answer a request that there is no room for, without looking at it; False when that cannot be done at once."""
        if cycle.scope["method"] == "HEAD":
            return False
        request_id = self.new_id().encode()
        body = self._no_room % request_id
        rest = b"%bx-request-id: %b\r\ncontent-length: %d\r\n" % (self._no_room_head, request_id, len(body))
        done = write_whole(cycle.send, 503, rest, body)
        if done:
            self.metrics.request("none", "other", 503, "_none", 0.0)
        return done

    async def refuse_slowly(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do as `refuse`, waiting for a reader who does not take what was sent before."""
        request_id = self.new_id()
        await self._send(request_id, problem_of(no_room(), request_id), send)
        self.metrics.request("none", "other", 503, "_none", 0.0)

    def _release(self, now: float) -> None:
        held, self.held = self.held, []
        for connection in held:
            connection.go_on()

    async def admit(self, call: Call) -> Response | None:
        """Find a call's route and who makes it, or raise why it is not taken; an answer there already is returned."""
        early = self._find(call)
        if early is None:
            self._let_in(call, None if call.route.permission is None else await self.authenticate(call.scope))
        return early

    def _find(self, call: Call) -> Response | None:
        """Find a call's route, or raise why it is not taken; an answer there already is returned."""
        scope, headers = call.scope, call.headers
        if len(headers) != len(scope["headers"]):
            check_repeated(scope["headers"])
        found = self.table.find(scope["raw_path"])
        if found is None:
            raise RouteNotFound("the service has no such path", hint="see /openapi.json for those it has")
        methods, call.path = found
        method = scope["method"]
        route = methods.get(method)
        if route is None:
            if method == "OPTIONS":
                return Response(status=204, headers=[(b"allow", ", ".join(_allowed(methods)).encode())])
            if method != "HEAD" or "GET" not in methods:
                raise MethodNotAllowed(
                    f"method is `{method[:20]}`, expected {' or '.join(_allowed(methods))}",
                    details={"allow": _allowed(methods)},
                )
            route = methods["GET"]
        self._go_to(call, route)
        return None

    def _go_to(self, call: Call, route: Route) -> None:
        """Give a call its route, or raise why it is not taken."""
        call.route = route
        if self.closing and not route.urgent:
            raise Overloaded("the service is shutting down", hint="ask another one, or the same a little later")
        check_origin(call.headers)

    def _let_in(self, call: Call, identity: Identity | None) -> None:
        """Give a call who makes it and its tenant, where its route asks for that; raises `Forbidden`."""
        route = call.route
        if route.permission is not None:
            if identity is None:
                raise Unauthenticated("the call has no credential")
            call.identity = identity
            identity.require(route.permission)
            call.tenant = self.tenancy.get(identity.tenant)
        if call.scope["query_string"] and not route.query:
            raise InvalidRequest("this path takes no query parameters", hint="see this path in /openapi.json")

    async def _answer(self, call: Call, task: asyncio.Task[Any], began: float) -> Answer:
        early = await self.admit(call)
        if early is not None:
            return early
        choose_media(call)
        if not _is_large(call, self.settings.max_body_bytes):
            return await self._take_and_answer(call, task, began)
        # Many small bodies have room in memory at once, or few large ones.
        await self.large.enter()
        try:
            return await self._take_and_answer(call, task, began)
        finally:
            self.large.leave()

    async def _take_and_answer(self, call: Call, task: asyncio.Task[Any], began: float) -> Answer:
        route = call.route
        if route.takes or b"content-length" in call.headers or b"transfer-encoding" in call.headers:
            self.deadlines.set(task, began + self._body_seconds, "body")
            limit = expect(call, self.settings.max_body_bytes)
            body = whole_body(call.receive)
            take(call, await pieces(call.receive, limit) if body is None else body, limit)
        if route.urgent:
            return await route.handler(call)
        gate = self.streams if route.waits else self.gate
        self.deadlines.set(task, began + self._work_seconds, "work")
        if not gate.try_enter():
            await gate.enter()
        call.gate = gate
        return await route.handler(call)

    def _answer_at_once(self, call: Call, route: Route, body: bytes) -> Response | Call | None:
        """Do as `_answer`, where there is nothing to wait for; None, with nothing done, where there may be.

        Where there is only the store, the call is let in and returned.
        """
        authenticator, answer = self._authenticator, route.at_once
        if authenticator is None or answer is None:
            return None
        self._go_to(call, route)
        identity = authenticator.known(call.scope, call.headers)
        tenant = None if identity is None else self.tenancy.known(identity.tenant)
        if identity is None or tenant is None:
            return None
        authenticator.count(identity)
        self._let_in(call, identity)
        choose_media(call)
        take(call, body, expect(call, self.settings.max_body_bytes))
        return call if tenant.waits else answer(call)

    def _cancelled(self, call: Call, task: asyncio.Task[Any] | Eager) -> Response:
        """Return the answer of a call that was cancelled: its time is over, or the service's."""
        phase = self.deadlines.passed(task)
        task.uncancel()
        error: CRAError
        if phase == "body":
            seconds = self.settings.body_timeout_seconds
            error = RequestTimeout(
                f"the body did not arrive within {seconds} s", hint="nothing was done, send it again"
            )
        elif phase == "work":
            seconds = self.settings.request_timeout_seconds
            error = CallTimeout(f"no answer within {seconds} s", hint="the session's trace tells what was done")
        else:
            error = Overloaded(
                "the service stopped before the call ended", hint="the session's trace tells how far it came"
            )
        return problem_of(error, call.request_id)

    def _write(self, call: Call, answer: Response, send: Send) -> bool:
        """Write an answer at once; False when it is not a plain one, or the server underneath is another."""
        # What a problem's headers say is ours; others have to be checked, as ASGI does.
        if call.scope["method"] == "HEAD" or (answer.headers and answer.media != PROBLEM) or answer.status in _ODD:
            return False
        return write_whole(send, answer.status, self._lines(call.request_id, answer), answer.body)

    def _lines(self, request_id: str, answer: Response) -> bytes:
        """Return the lines of an answer's head, for `write_whole`."""
        head = self._heads_of.get(answer.media)
        if head is None:
            lines = (*self._always, (b"content-type", answer.media.encode()))
            head = self._heads_of[answer.media] = b"".join([b"%b: %b\r\n" % line for line in lines])
        if answer.headers:
            head += b"".join([b"%b: %b\r\n" % line for line in answer.headers])
        return b"%bx-request-id: %b\r\ncontent-length: %d\r\n" % (head, request_id.encode(), len(answer.body))

    async def _send(self, request_id: str, answer: Response, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = [*self._always, (b"x-request-id", request_id.encode()), *answer.headers]
        if answer.status != 204:
            headers.append((b"content-type", answer.media.encode()))
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _stream(self, call: Call, answer: Stream, send: Send) -> None:
        headers = [*self._always, (b"x-request-id", call.request_id.encode()), *answer.headers]
        headers.append((b"content-type", answer.media.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            if call.scope["method"] != "HEAD":
                async for piece in answer.pieces:
                    # INVARIANT: the next piece is read when this one has been taken; a slow reader costs one piece.
                    async with asyncio.timeout(self.settings.stream_stall_seconds):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            async with asyncio.timeout(self.settings.stream_stall_seconds):
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            self.cut_off(call, send, f"took nothing for {self.settings.stream_stall_seconds} s")
        except CRAError as error:
            # The answer has begun, so its end has to be missing.
            log.warning("request %s: the answer broke off: %s", call.request_id, error.message)
            self.cut_off(call, send, error.code)
        finally:
            await answer.pieces.aclose()


def _is_large(call: Call, usual: int) -> bool:
    """Say whether a body may be longer than is usual: its route allows it, and its head does not say that it is not."""
    stated = call.headers.get(b"content-length")
    return (call.route.max_bytes or 0) > usual and (stated is None or int(stated) > usual)


async def _never() -> MutableMapping[str, Any]:
    raise AssertionError("all of the request has arrived")


def _allowed(methods: Iterable[str]) -> list[str]:
    found = {*methods, "OPTIONS"}
    return sorted(found | {"HEAD"} if "GET" in found else found)


def no_room() -> Overloaded:
    """Return the error for a call that there is no room for."""
    return Overloaded("the service is working on as many calls as it can", hint="wait as long as Retry-After says")


def _version() -> str:
    try:
        return installed_version("cra-core")
    except PackageNotFoundError:
        return "0"
