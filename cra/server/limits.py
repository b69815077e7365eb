"""Limits: how many calls are worked on at once, and how many may wait for that."""

import asyncio
from collections import deque

from cra.errors import Overloaded


class Gate:
    """Let a number of calls in and a number of others wait; whoever comes then is refused at once."""

    __slots__ = ("_size", "_waiting", "active", "queue_size")

    def __init__(self, size: int, queue_size: int) -> None:
        self._size = size
        self.queue_size = queue_size
        self.active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def has_room(self) -> bool:
        """Whether there is a place now."""
        return self.active < self._size and not self._waiting

    def try_enter(self) -> bool:
        """Take a place if there is one now."""
        if self.has_room:
            self.active += 1
            return True
        return False

    async def enter(self) -> None:
        """Take a place, waiting for it if need be; raises `Overloaded` when too many wait already."""
        if self.try_enter():
            return
        if len(self._waiting) >= self.queue_size:
            raise Overloaded(
                "the service is working on as many calls as it can", hint="wait as long as Retry-After says"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place came together with the cancellation
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Give the place back, or straight on to who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.active -= 1
