"""What the service is measured beside: the same server with next to nothing behind it."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cra.server.serve import make_config
from cra.server.settings import ServiceSettings

_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'


async def _echo(request: Request) -> JSONResponse:
    return JSONResponse(await request.json())


async def _echo_fast(request: Request) -> Response:
    value = msgspec.json.decode(await request.body())
    return Response(msgspec.json.encode(value), media_type="application/json")


# As Starlette's documentation writes it, and with the fastest parser.
app = Starlette(routes=[Route("/v1/resolve", _echo, methods=["POST"]), Route("/fast", _echo_fast, methods=["POST"])])


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Echo without a framework: what uvicorn itself leaves of the machine."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    text = msgspec.json.encode(msgspec.json.decode(body))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


class Fixed(asyncio.Protocol):
    """The same answer to whatever comes: as much as the generator can drive."""

    def connection_made(self, transport: Any) -> None:
        """Keep the connection."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.transport.write(_ANSWER)


async def _fixed(bound: socket.socket) -> None:
    server = await asyncio.get_running_loop().create_server(Fixed, sock=bound)
    await server.serve_forever()


def main() -> None:
    """Serve `echo`, `bare` or `fixed` on the socket whose descriptor is given, with as many workers."""
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    kind, descriptor, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    bound = socket.socket(fileno=descriptor)
    if kind == "fixed":
        uvloop.run(_fixed(bound))
        return
    # INVARIANT: the flags of the service, but for its own protocol class, which only bounds what is sent to it.
    name = {"echo": "bench.http.targets:app", "bare": "bench.http.targets:bare"}[kind]
    config = make_config(name, ServiceSettings(), workers=workers)
    config.http = "httptools"
    config.lifespan = "off"
    server = uvicorn.Server(config)
    if workers == 1:
        server.run([bound])
    else:
        Multiprocess(config, sockets=[bound]).run()


if __name__ == "__main__":
    main()
