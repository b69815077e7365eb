"""Queue: work for a store that other threads do than those that ask for it."""

import threading
from collections.abc import Callable
from typing import Any

from cra.errors import StorageError
from cra.storage.base import Done

# What is done with a connection.
Work = Callable[[Any], None]


class Job:
    """One caller's work; whoever waits in `wait` is woken by `finish`."""

    __slots__ = ("_done", "abandoned", "error", "timeout_seconds", "work")

    def __init__(self, work: Work, timeout_seconds: float) -> None:
        self.work = work
        self.timeout_seconds = timeout_seconds
        self.error: BaseException | None = None
        # Nobody waits any more: if it was not begun, it does not happen.
        self.abandoned = False
        self._done = threading.Lock()
        self._done.acquire()

    def finish(self) -> None:
        """Tell that it is over."""
        self._done.release()

    def wait(self) -> None:
        """Return when it is over; raises `StorageError` when that takes too long."""
        try:
            if not self._done.acquire(timeout=self.timeout_seconds):
                raise self._overdue()
        except BaseException:
            self.abandoned = True
            raise

    def _overdue(self) -> StorageError:
        return StorageError(
            f"the store has not answered within {self.timeout_seconds:g} s; whether the record was written is unknown",
            hint="read the session again to learn it",
        )


class Queued(Job):
    """Work that nobody waits for: `done` is called, once, when it is over or given up."""

    __slots__ = ("_tell",)

    def __init__(self, work: Work, timeout_seconds: float, done: Done) -> None:
        super().__init__(work, timeout_seconds)
        self._tell = done
        self._done.release()

    def run(self) -> None:
        """Do the work, which takes a connection itself, unless it was given up; tell that it is over."""
        if not self.abandoned:
            try:
                self.work(None)
            except BaseException as error:
                self.error = error
        self.finish()

    def finish(self) -> None:
        """Tell that it is over, unless it was given up."""
        self._end(self.error)

    def give_up(self) -> None:
        """Tell that it takes too long, unless it is over."""
        self.abandoned = True
        self._end(self._overdue())

    def _end(self, error: BaseException | None) -> None:
        # Never released again: who is second finds it taken.
        if self._done.acquire(blocking=False):
            self._tell(error)
