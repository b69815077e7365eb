"""Queue: work for a store that other threads do than those that ask for it."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from cra.errors import StorageError
from cra.storage.base import Done, Pending

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


class Writers:
    """Threads that do queued work, each with a connection that the work takes itself; started as there is need."""

    def __init__(self, most: int, timeout_seconds: float) -> None:
        self._most = most
        self._timeout_seconds = timeout_seconds
        self._queue: SimpleQueue[Queued | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # How many threads there are, less what is queued or being done.
        self._spare = 0
        self._counting = threading.Lock()
        self._closed = False

    def submit(self, work: Work, done: Done) -> Pending:
        """Do the work in a thread, which then calls `done` with what it raised, or None."""
        job = Queued(work, self._timeout_seconds, done)
        with self._counting:
            if self._closed:
                raise StorageError("the store is closed")
            if self._spare < 1 and len(self._threads) < self._most:
                self._threads.append(threading.Thread(target=self._serve, name="cra-storage-writer", daemon=True))
                self._threads[-1].start()
                self._spare += 1
            self._spare -= 1
            self._queue.put(job)
        return job

    def close(self) -> None:
        """Finish what is queued and end the threads; safe to call twice."""
        with self._counting:
            threads, self._threads, self._closed = self._threads, [], True
            for _ in threads:
                self._queue.put(None)
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.abandoned:
                try:
                    job.work(None)
                except BaseException as error:
                    job.error = error
            job.finish()
            # A thread that waits keeps no caller's data alive.
            job = None
            with self._counting:
                self._spare += 1
