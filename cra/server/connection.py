"""Connections: uvicorn's, with bounds on what a caller may send before it is anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from cra.errors import CRAError, InvalidRequest, Overloaded, PayloadTooLarge
from cra.server.call import Call
from cra.server.eager import Eager
from cra.server.problems import problem_of

if TYPE_CHECKING:
    from cra.server.routes import Route
    from cra.server.service import Service

_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 413: b"Content Too Large", 503: b"Service Unavailable"}
# With one of these a request is not answered at once.
_SPECIAL = frozenset((b"transfer-encoding", b"expect", b"upgrade"))
_END, _LAST_END = b"\r\n", b"connection: close\r\n\r\n"


class _Nowhere(list[tuple[bytes, bytes]]):
    """A list that stays empty."""

    def append(self, _: object) -> None:
        """Drop it."""


_NOWHERE = _Nowhere()


class _Defaults:
    """The headers that the server adds to every answer, as lines; another list every second."""

    def __init__(self) -> None:
        self._pairs: list[tuple[bytes, bytes]] = []
        self._lines = b""

    def __call__(self, pairs: list[tuple[bytes, bytes]]) -> bytes:
        if pairs is not self._pairs:
            self._lines = b"".join([b"%b: %b\r\n" % pair for pair in pairs])
            self._pairs = pairs
        return self._lines


_defaults = _Defaults()


def write_whole(send: Any, status: int, headers: bytes, body: bytes) -> bool:
    """Write an answer in one piece, past ASGI; False when `send` is not that of a uvicorn request that allows it.

    PERF: 9 us less a request than two messages whose every header is checked and joined again. `headers` are lines
    that end in CR LF, of names and values that are ours.
    """
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.flow.write_paused or cycle.response_started:
        return False
    if cycle.disconnected:
        return True
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    end = _END if cycle.keep_alive else _LAST_END
    cycle.transport.write(b"".join((STATUS_LINE[status], _defaults(cycle.default_headers), headers, end, body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def whole_body(receive: Any) -> bytes | None:
    """Return a body that has arrived already, past ASGI; None when it has not, or `receive` is not uvicorn's."""
    cycle = getattr(receive, "__self__", None)
    if type(cycle) is not RequestResponseCycle or cycle.more_body or cycle.disconnected:
        return None
    return bytes(cycle.body)


class Waiting:
    """Connections that wait for something of their caller, and since when.

    PERF: 2 us less a request than a timer of the loop for each, which is set and cancelled every time.
    """

    def __init__(self, timeout_seconds: float, end: Callable[[Connection], None]) -> None:
        self.since: dict[Connection, float] = {}
        self._timeout_seconds = timeout_seconds
        self._end = end

    def sweep(self, now: float) -> None:
        """End those that have waited too long."""
        for connection, since in list(self.since.items()):
            if now - since > self._timeout_seconds:
                self.since.pop(connection, None)
                self._end(connection)


class Connection(HttpToolsProtocol):
    """One connection; a head that is too long or too slow ends it, and nothing of it has reached the service.

    NOTE: uvicorn bounds neither, and starts its keep-alive clock only after the first answer.

    A request that arrives whole and alone, on a path that may be answered at once, is; `_prompt` is its route from
    the end of its head until then. Whatever keeps it from being answered at once, it is then begun as any other.
    """

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.service: Service = config.loaded_app.service
        self._heads = self.service.heads.since
        self._kept = self.service.kept.since
        self._longest = self.service.settings.max_header_bytes
        self._head_bytes = 0
        self._in_head = True
        self._broken = False
        # What has just arrived, if it began where a request begins; empty from the end of that request on.
        self._data = b""
        self._open = False
        self._prompt: Route | None = None
        self._fields: dict[bytes, bytes] = {}
        self._body = b""

    @property
    def _latest(self) -> RequestResponseCycle | None:
        return self.cycle

    @property
    def _idle(self) -> bool:
        """Whether no answer is due."""
        latest = self._latest
        return latest is None or latest.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.service.settings.max_connections:
            self._refuse(Overloaded("the service has as many connections as it takes"))
            return
        self._heads[self] = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._heads.pop(self, None)
        self._kept.pop(self, None)
        super().connection_lost(exc)

    def _unset_keepalive_if_required(self) -> None:
        """Leave the clock as it is: what is left of a request that was answered already does not keep a connection."""

    def on_response_complete(self) -> None:
        """Go on with the request that waits, or wait for one; as uvicorn does, but for its timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._kept[self] = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._broken or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        self._data = b"" if self._open else data
        super().data_received(data)
        self._data = b""
        if self._prompt is not None:
            self._answer_at_once(self._prompt)
        elif self._in_head and not self.transport.is_closing():
            if self._head_bytes > self._longest:
                self._refuse(PayloadTooLarge(f"the request's head has more than {self._longest} bytes"))
            elif self._idle:
                self._heads.setdefault(self, self.loop.time())

    def on_message_begin(self) -> None:
        """Expect a head."""
        if self._prompt is not None:
            self._begin_late()  # never, if a head ends where it seems to
        # PERF: uvicorn makes a scope here, which is only needed by requests that are not answered at once.
        self._open = True
        self._kept.pop(self, None)
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Let a request begin whose head is whole and short enough."""
        self._in_head = False
        self._heads.pop(self, None)
        if self._head_bytes > self._longest:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._longest:
                self._refuse(PayloadTooLarge(f"the request's head has {size} bytes, expected at most {self._longest}"))
                return
        self._prompt = self._prompt_route()
        if self._prompt is None:
            self._begin()

    def _begin(self) -> None:
        """Begin a request as uvicorn does; not one whose path or body it would read as another."""
        if b"#" in self.url:
            self._refuse(InvalidRequest("the path has a `#`, expected none: fragments are not sent"))
            return
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            self._refuse(InvalidRequest("Transfer-Encoding is not `chunked`, the only one that is taken"))
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        super().on_headers_complete()

    def _prompt_route(self) -> Route | None:
        """Return the route of a request that may be answered at once; None when there is anything special about it.

        INVARIANT: it is all of what has just arrived, so nothing that was sent before or behind it is near.
        """
        data, service, latest = self._data, self.service, self._latest
        route = service.prompt.get(data[: data.find(b"\r\n")])
        if route is None or service.is_full or self.flow.write_paused:
            return None
        if latest is not None and not latest.response_complete:
            return None
        headers = self._fields = dict(self.headers)
        if len(headers) != len(self.headers) or not _SPECIAL.isdisjoint(headers):
            return None
        size = headers.get(b"content-length")
        if size is None or not self.parser.should_keep_alive():
            return None
        return route if data.find(b"\r\n\r\n") + 4 + int(size) == len(data) else None

    def on_chunk_header(self) -> None:
        """Take no more headers: what follows the last chunk is none of the request, and is not kept."""
        self.headers = _NOWHERE

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        if self._prompt is not None:
            self._body += body
        elif self.cycle:  # type: ignore[truthy-bool]  # as below
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next request."""
        self._in_head = True
        self._head_bytes = 0
        self._data, self._open = b"", False
        # PERF: `cycle` is looked at as it is; uvicorn says that it is never None, and begins with it.
        if self._prompt is None and self.cycle:  # type: ignore[truthy-bool]  # see above
            super().on_message_complete()

    def _answer_at_once(self, route: Route) -> None:
        answer = None
        if self._in_head:
            scope = {
                "type": "http",
                "method": route.method,
                "raw_path": self.url,
                "query_string": b"",
                "headers": self.headers,
                "client": self.client,
                "server": self.server,
            }
            answer = self.service.at_once(route, scope, self._fields, self._body)
        if answer is None:
            self._begin_late()
            return
        self._prompt, self._body = None, b""
        if isinstance(answer, Call):
            self._go_on(answer)
            return
        status, headers, content = answer
        defaults = _defaults(self.server_state.default_headers)
        self.transport.write(b"".join((STATUS_LINE[status], defaults, headers, _END, content)))
        self.on_response_complete()

    def _go_on(self, call: Call) -> None:
        """Begin a request that waits for nothing but the store; it has all that a request has, but for its task."""
        cycle = self.cycle = RequestResponseCycle(
            scope=call.scope,  # type: ignore[arg-type]  # as much of one as is looked at
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        task = Eager(self.loop, self.tasks)
        task.begin(cycle.run_asgi(partial(self.service.go_on, call, task)))

    def _begin_late(self) -> None:
        """Begin a request that is not answered at once after all."""
        body, self._prompt, self._body = self._body, None, b""
        self._begin()
        if body:
            super().on_body(body)
        if self._in_head:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        service = self.service
        if service.is_full and not service.is_urgent(cycle.scope["raw_path"]):
            # PERF: what cannot be worked on is refused before anything is read of it, and its caller is not read again
            # for a moment: three times overloaded, refusing at once whoever comes back at once left room for a tenth
            # of the calls.
            if service.refuse(cycle):
                self.flow.pause_reading()
                service.held.append(self)
                return
            app = service.refuse_slowly
        else:
            # INVARIANT: counted as long as it is worked on. uvicorn's own set of tasks has them a turn of the loop
            # longer, and those that refuse as well, so that one refusal was the reason for the next.
            service.calls += 1
            app = service.counted
        super()._start_asgi_task(cycle, app)

    def go_on(self) -> None:
        """Read again from a caller who was refused."""
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """Finish what was begun and take nothing more."""
        self.service.begin_closing()
        super().shutdown()

    def give_up(self) -> None:
        """End a connection that has not sent a whole head in time."""
        if self.transport.is_closing():
            return
        if self._head_bytes and self._idle:
            self._refuse(InvalidRequest("the request's head did not arrive in time"), status=408)
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Say that what came is not HTTP."""
        self._refuse(InvalidRequest("this is not an HTTP request", hint="see RFC 9112"))

    def _refuse(self, error: CRAError, *, status: int | None = None) -> None:
        self._heads.pop(self, None)
        self._broken = True
        self._prompt = None
        cycle = self._latest
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # INVARIANT: no answer takes the place of another's; those that are due go out, and nothing after them.
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline or cycle.response_started:
                self.transport.close()
                return
        problem = problem_of(error, self.service.new_id())
        code = status or problem.status
        lines = [b"HTTP/1.1 %d %b" % (code, _REASONS.get(code, b"Error"))]
        more = [(b"content-type", problem.media.encode()), (b"content-length", b"%d" % len(problem.body))]
        always = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"), (b"connection", b"close")]
        named = [pair for pair in problem.headers if pair[0] != b"connection"]
        lines += [name + b": " + value for name, value in (*more, *named, *always)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + problem.body)
        self.transport.close()
