"""Processes that are measured: started, watched by what the system says of them, and ended by their id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_START_S = 30.0
_STOP_S = 20.0


def free_port() -> int:
    """Return a port of this machine that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A server and its workers: a process group of its own."""

    def __init__(self, arguments: Sequence[str], port: int, *, sockets: Sequence[int] = ()) -> None:
        self.port = port
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            pass_fds=sockets,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline().decode().strip()
        if not text:
            raise RuntimeError(f"it says nothing and has logged: {self.logged()}")
        return text

    def logged(self) -> str:
        """Return the end of what it has logged."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:]

    def wait_until_it_listens(self) -> None:
        """Return when it takes connections."""
        end = time.monotonic() + _START_S
        while True:
            self.expect_alive()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > end:
                    raise RuntimeError(f"it does not listen: {self.logged()}") from None
                time.sleep(0.02)

    def expect_alive(self) -> None:
        """Raise unless it still runs."""
        if self.process.poll() is not None:
            raise RuntimeError(f"it ended with {self.process.returncode}: {self.logged()}")

    def pids(self) -> list[int]:
        """Return the ids of the process and its workers."""
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                fields = _stat(int(entry.name))
                if fields is not None and int(fields[2]) == self.process.pid:
                    found.append(int(entry.name))
        return found

    def processor_s(self) -> float:
        """Return the processor time that it and its workers have used."""
        return sum(
            (int(fields[11]) + int(fields[12])) * _TICK_S for pid in self.pids() if (fields := _stat(pid)) is not None
        )

    def memory_bytes(self) -> int:
        """Return the resident memory of it and its workers that is not of files."""
        total = 0
        for pid in self.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self) -> None:
        """End it as an operator does; by force what is still there after a while."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_S)
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                stream.close()


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat behind the name, beginning with the state."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


class Generator:
    """The load generator's process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.http.generator"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Request ids are never used twice.
        self._number = 0
        self._lap = 0

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def run(self, port: int, scripts: list[list[str]], **job: Any) -> dict[str, Any]:
        """Run one job and return what was seen."""
        import json

        assert self._process.stdin is not None and self._process.stdout is not None
        job |= {"host": "127.0.0.1", "port": port, "scripts": scripts}
        job |= {"first_number": self._number, "first_lap": self._lap}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator has died")
        found: dict[str, Any] = json.loads(line)
        self._number = found["next_number"]
        self._lap += found["laps"]
        return found
