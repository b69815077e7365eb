"""The load generator: a process that sends prepared requests over kept connections and says how they were answered.

It reads jobs as JSON lines and answers each with one. Sockets, epoll and bytes are all it has: a request costs it less
than the smallest server here takes for one, which `bench/http` measures in every run.
"""

from __future__ import annotations

import array
import ctypes
import json
import random
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

_RECEIVE = 1 << 16
# Answers that are under way when the time is over may take this long.
_LAST_S = 10.0
# The kernel may let a sleeper sleep this much longer, unless it is told otherwise.
_PR_SET_TIMERSLACK = 29


class Connection:
    """One kept connection, with the requests that it sends in turn."""

    __slots__ = ("answered", "at", "due", "lap", "parts", "socket", "steps", "wanted")

    def __init__(self, steps: list[bytes]) -> None:
        self.steps = steps
        self.at = 0
        self.lap = 0
        # When the request under way should have been sent.
        self.due = 0.0
        self.parts = b""
        self.wanted = 0
        self.answered = 0
        self.socket: socket.socket | None = None


class Load:
    """A job: closed, where each connection sends as soon as it is answered, or open, at a rate of its own.

    At a rate, arrivals are a Poisson process, and a request's time runs from the moment it was due: what waits for a
    connection waits as a caller would (no coordinated omission). With `queue` 0 callers without a connection give up.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.address = (job["host"], int(job["port"]))
        self.rate: float = job.get("rate") or 0.0
        self.seconds = float(job["seconds"])
        self.warm_s = float(job.get("warm_seconds", 0.0))
        self.most: int = job.get("most") or 0
        self.queue = int(job.get("queue", 100_000))
        self.number = int(job["first_number"])
        self.lap_base = int(job.get("first_lap", 0))
        scripts = [[step.encode("latin-1") for step in script] for script in job["scripts"]]
        self.connections = [Connection(scripts[at % len(scripts)]) for at in range(int(job["connections"]))]
        self.poll = select.epoll()
        self.by_fd: dict[int, Connection] = {}
        self.laps = 0
        self.samples: dict[str, str] = {}
        self.statuses: dict[bytes, int] = {}
        self.times = array.array("d")
        self.lost = 0
        # Requests that were not answered when there was no more waiting for them.
        self.late = 0
        self.given_up = 0
        self.arrived = 0

    def run(self) -> dict[str, Any]:
        """Do it, and return what was seen."""
        for connection in self.connections:
            self._connect(connection)
        for connection in self.connections:
            # The server has taken a connection when it has answered on it; how fast it takes them is another matter.
            self._send(connection, time.perf_counter())
            while not any(self._receive(self.by_fd[fd]) for fd, _ in self.poll.poll(_LAST_S)):
                pass
        self.times = array.array("d")
        self.statuses.clear()
        random_ = random.Random(38)
        processor = time.process_time()
        start = time.perf_counter()
        if self.rate:
            end = self._open(start, random_)
        else:
            end = self._closed(start)
        processor = time.process_time() - processor
        for connection in self.connections:
            if connection.socket is not None:
                connection.socket.close()
        self.poll.close()
        times = sorted(self.times)
        count = len(times)
        seconds = max(end - start - self.warm_s, 1e-9)
        return {
            "seconds": seconds,
            "answers": count,
            "good": sum(n for status, n in self.statuses.items() if status[:1] == b"2"),
            "statuses": {status.decode(): n for status, n in self.statuses.items()},
            "p50_us": times[count // 2] * 1e6 if count else None,
            "p99_us": times[count * 99 // 100] * 1e6 if count else None,
            "p999_us": times[count * 999 // 1000] * 1e6 if count else None,
            "most_us": times[-1] * 1e6 if count else None,
            "busy": processor / max(end - start, 1e-9),
            "lost": self.lost,
            "late": self.late,
            "given_up": self.given_up,
            "arrived": self.arrived,
            "answered": [connection.answered for connection in self.connections],
            "samples": self.samples,
            "next_number": self.number,
            "laps": self.laps,
        }

    def _connect(self, connection: Connection) -> None:
        made = socket.create_connection(self.address, timeout=10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        connection.socket = made
        connection.parts = b""
        connection.wanted = 0
        self.by_fd[made.fileno()] = connection
        self.poll.register(made.fileno(), select.EPOLLIN)

    def _send(self, connection: Connection, due: float) -> None:
        connection.due = due
        step = connection.steps[connection.at]
        if b"%(" in step:
            if not connection.at:
                self.laps += 1
                connection.lap = self.lap_base + self.laps
            self.number += 1
            step = step % {b"n": self.number, b"lap": connection.lap}
        assert connection.socket is not None
        try:
            sent = connection.socket.send(step)
        except OSError:
            self._lose(connection)
            return
        if sent != len(step):
            raise AssertionError("a socket does not take a whole request")

    def _lose(self, connection: Connection) -> None:
        self.lost += 1
        assert connection.socket is not None
        del self.by_fd[connection.socket.fileno()]
        connection.socket.close()
        self._connect(connection)

    def _receive(self, connection: Connection) -> bool:
        """Take what has come; say whether the answer is whole (or lost with its connection)."""
        assert connection.socket is not None
        try:
            data = connection.socket.recv(_RECEIVE)
        except OSError:
            data = b""
        if not data:
            self._lose(connection)
            return True
        if connection.parts:
            data = connection.parts + data
        if not connection.wanted:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                connection.parts = data
                return False
            length = data.find(b"content-length: ", 0, head)
            if length < 0:
                raise AssertionError(f"an answer without a length: {data[:300]!r}")
            connection.wanted = head + 4 + int(data[length + 16 : data.find(b"\r", length)])
        if len(data) < connection.wanted:
            connection.parts = data
            return False
        if len(data) > connection.wanted:
            raise AssertionError(f"more than one answer: {data[-300:]!r}")
        connection.wanted = 0
        connection.parts = b""
        status = data[9:12]
        if status[:1] == b"2":
            connection.answered += 1
        now = time.perf_counter()
        if self.counting:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status[:1] == b"2":
                self.times.append(now - connection.due)
        key = f"{connection.at} {status.decode()}"
        if key not in self.samples:
            self.samples[key] = data.decode("latin-1")
        connection.at += 1
        if connection.at == len(connection.steps):
            connection.at = 0
        return True

    counting = True

    def _closed(self, start: float) -> float:
        clock, poll, by_fd = time.perf_counter, self.poll.poll, self.by_fd
        warm, stop = start + self.warm_s, start + self.warm_s + self.seconds
        self.counting = not self.warm_s
        for connection in self.connections:
            self._send(connection, clock())
        under_way = len(self.connections)
        end = 0.0
        while under_way:
            for fd, _ in poll(1.0):
                connection = by_fd[fd]
                if not self._receive(connection):
                    continue
                now = clock()
                if not self.counting and now >= warm:
                    self.counting = True
                # A connection stops between two laps of its script, so that what it began is also ended.
                if now >= stop and (not connection.at or now >= stop + _LAST_S):
                    if self.counting and now >= stop:
                        self.counting, end = False, now
                    under_way -= 1
                    continue
                if self.most and self.number >= self.most:
                    under_way -= 1
                    continue
                self._send(connection, now)
            if clock() > stop + 2 * _LAST_S:
                break
        self.late = under_way
        return end or clock()

    def _open(self, start: float, random_: random.Random) -> float:
        clock, poll, by_fd = time.perf_counter, self.poll.poll, self.by_fd
        mean, wait = 1.0 / self.rate, [self.poll.fileno()]
        draw = random_.expovariate
        warm, stop = start + self.warm_s, start + self.warm_s + self.seconds
        self.counting = not self.warm_s
        free = deque(self.connections)
        waiting: deque[float] = deque()
        due = start
        while True:
            now = clock()
            if not self.counting and now >= warm:
                self.counting = True
            while due <= now and due < stop:
                if self.counting:
                    self.arrived += 1
                if free:
                    self._send(free.popleft(), due)
                elif len(waiting) < self.queue:
                    waiting.append(due)
                elif self.counting:
                    self.given_up += 1
                due += draw(1.0) * mean
            if now >= stop and (len(free) == len(self.connections) or now >= stop + _LAST_S):
                break
            left = min(due, stop) - clock() if now < stop else 0.2
            if left > 0:
                # NOTE: epoll sleeps for whole milliseconds, select for microseconds.
                select.select(wait, (), (), left)
            for fd, _ in poll(0):
                connection = by_fd[fd]
                if self._receive(connection):
                    if waiting and clock() < stop + _LAST_S:
                        self._send(connection, waiting.popleft())
                    else:
                        free.append(connection)
        self.late = len(self.connections) - len(free)
        return stop


def main() -> None:
    """Answer jobs until there are no more."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    for line in sys.stdin:
        result = Load(json.loads(line)).run()
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
