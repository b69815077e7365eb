"""Everything that is measured, running side by side for one run."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import data
from bench.http.process import ROOT, Process, free_port
from bench.http.requests import Door
from bench.machine import version_of
from cra.testing.postgres import Server, programs


class Service(NamedTuple):
    """A running service: its processes and a client."""

    process: Process
    door: Door


class Fleet:
    """What runs; everything is ended when the fleet is left, by its own id."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: list[Process] = []
        self._postgres: Server | None = None
        (ROOT / "build").mkdir(exist_ok=True)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="bench-http-")))
        self.atlas = self.folder / "atlas.json"
        self.atlas.write_text(json.dumps(data.five_actions()), encoding="utf-8")

    def target(self, kind: str, workers: int = 1) -> Process:
        """Start `fixed`, `bare` or `echo`."""
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("127.0.0.1", 0))
            bound.listen(2048)
            arguments = ["-m", "bench.http.targets", kind, str(bound.fileno()), str(workers)]
            process = Process(arguments, bound.getsockname()[1], sockets=[bound.fileno()])
        self._started.append(self._stack.enter_context(process))
        return process

    def service(self, storage: str, workers: int = 1) -> Service:
        """Start a service with a key on a store: as its users do, where the store can have a key beforehand."""
        port = free_port()
        if storage == "memory":
            given = {"port": port, "storage": storage, "atlas": str(self.atlas)}
            process = self._stack.enter_context(Process(["-m", "bench.http.launch", json.dumps(given)], port))
            key = process.line()
        else:
            create = ["-m", "cra", "keys", "create", "--subject", "bench", "--role", "admin", "--storage", storage]
            with Process(create, 0) as made:
                key = made.line()
            serve = ["-m", "cra", "serve", "--port", str(port), "--workers", str(workers), "--storage", storage]
            serve += ["--atlas", str(self.atlas), "--executors", "bench.http.launch:register"]
            process = self._stack.enter_context(Process(serve, port))
        self._started.append(process)
        return Service(process, Door(port, key))

    def wait(self) -> None:
        """Return when all that was started takes connections."""
        for process in self._started:
            process.wait_until_it_listens()

    def sqlite(self, name: str) -> str:
        """Return the URL of a new SQLite store, strict, on the disk of the working tree."""
        return f"sqlite:///{self.folder / name}.db"

    def postgres(self) -> str | None:
        """Start a PostgreSQL of its own, which syncs as it does by itself, and return its URL; None without one."""
        if version_of("psycopg") is None or version_of("psycopg-pool") is None or programs() is None:
            return None
        if self._postgres is None:
            self._postgres = Server()
            self._stack.callback(self._postgres.close)
        return self._postgres.database()


@contextmanager
def fleet() -> Iterator[Fleet]:
    """Have a fleet for a while."""
    with ExitStack() as stack:
        yield Fleet(stack)
