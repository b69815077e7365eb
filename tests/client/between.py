"""What stands between a client and a service, and what can go wrong there: a proxy that is told what to do."""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress


class Between:
    """Passes each call on to the service, unless it is told to do something else with the next ones.

    `cut` closes the connection before anything is passed on; `lose` passes the call on and loses the answer; `leave`
    passes it on and does not even wait for the answer; bytes are answered as they are; `stall` says nothing.
    """

    def __init__(self, url: str, *, prefix: str = "") -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._service = (host, int(port))
        self._prefix = prefix.encode()
        self.todo: deque[str | bytes] = deque()
        self.heads: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}{prefix}"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, name="between", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.break_all()
        self._thread.join(10)

    def break_all(self) -> None:
        """Break every connection that is open now."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = self._read(connection)
            if not request:
                return
            do = self.todo.popleft() if self.todo else "pass"
            if isinstance(do, bytes):
                connection.sendall(do)
            elif do == "stall":
                connection.recv(1)
            elif do != "cut":
                self._forward(connection, request, do)

    def _read(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        self.heads.append(head)
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
        while left > 0:
            piece = connection.recv(65536)
            body += piece
            left -= len(piece)
        # One call a connection, so that each has its own fate.
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        lines[0] = lines[0].replace(b" " + self._prefix + b"/", b" /", 1)
        return b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body

    def _forward(self, connection: socket.socket, request: bytes, do: str) -> None:
        with socket.create_connection(self._service) as service:
            self._open.append(service)
            service.sendall(request)
            if do == "leave":
                connection.shutdown(socket.SHUT_RDWR)
            while piece := service.recv(65536):
                if do == "pass":
                    connection.sendall(piece)


def answer(status: int, body: bytes = b"", *headers: str, media: str = "text/html") -> bytes:
    """Return an HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", f"Content-Type: {media}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
