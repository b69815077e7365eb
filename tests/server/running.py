"""The real service, in a thread, under a real server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from cra.server.app import Application, create_app
from cra.server.serve import make_server
from cra.server.settings import ServiceSettings


class Running:
    """A service that answers at `url`; `app` is its application, `stop` ends it as a signal would."""

    def __init__(self, app: Application, settings: ServiceSettings) -> None:
        self.app = app
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self.socket.getsockname()[:2]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = make_server(app, settings)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="service", daemon=True)

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            startup = self.server.startup

            async def started(sockets: Any = None) -> None:
                await startup(sockets)
                self._started.set()

            self.server.startup = started  # type: ignore[method-assign]
            await self.server.serve(sockets=[self.socket])

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as error:
            self.error = error
        finally:
            self._started.set()

    def start(self) -> None:
        """Start, and return when connections are taken."""
        self.thread.start()
        self._started.wait(30)
        if self.error is not None:
            raise self.error

    def ask_to_stop(self) -> None:
        """Begin to shut down, as SIGTERM does."""
        self.server.should_exit = True

    def stop(self) -> None:
        """Shut down and wait for it."""
        self.ask_to_stop()
        self.thread.join(30)
        self.socket.close()
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error


@contextmanager
def running(settings: ServiceSettings | None = None, **options: Any) -> Iterator[Running]:
    """Run the service for as long as the block; `options` are those of `create_app`.

    Without settings there are no keys, and the store is memory.
    """
    settings = settings or ServiceSettings(storage="memory", dev=True, shutdown_seconds=5)
    service = Running(create_app(settings, **options), settings)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def read(line: socket.socket) -> bytes:
    """Return the whole answer that comes next on a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = line.recv(65536)
        assert piece, f"the service has closed the connection after {data!r}"
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < size:
        body += line.recv(65536)
    return head + b"\r\n\r\n" + body
