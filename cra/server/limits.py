"""Limits: how many calls are worked on at once, and how many may wait for that."""

import asyncio
from collections import Counter, deque

from cra.errors import Overloaded
from cra.server.identity import Identity


class Gate:
    """Let a number of calls in and a number of others wait; whoever comes then is refused at once."""

    __slots__ = ("_held", "_holders", "_size", "_waiting", "active", "queue_size")

    def __init__(self, size: int, queue_size: int) -> None:
        self._size = size
        self.queue_size = queue_size
        self.active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held: dict[asyncio.Task[object], tuple[str, ...]] = {}
        self._holders: Counter[str] = Counter()

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

    def claim(self, identity: Identity) -> None:
        """Say for whom the running task keeps its place until it leaves; raises `Overloaded` for who has enough.

        The last quarter of the places is for credentials that have few, and half of that for tenants that have few, so
        that nobody alone takes the places of all.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a call is one
        tenant = identity.tenant
        names = f"{tenant}\x00{identity.credential}\x00{identity.subject}", tenant
        free, few = self._size - self.active, max(1, self._size // 16)
        for name, last in zip(names, (self._size // 4, self._size // 8), strict=True):
            if free < last and self._holders[name] >= few:
                raise Overloaded(
                    "the places that are left are for who has fewer",
                    hint="end a live trace or a wait, or come again later",
                )
        self._held[task] = names
        self._holders.update(names)

    def _unclaim(self) -> None:
        task = asyncio.current_task()
        for name in () if task is None else self._held.pop(task, ()):
            self._holders[name] -= 1
            if not self._holders[name]:
                del self._holders[name]

    def leave(self) -> None:
        """Give the place back, or straight on to who has waited longest."""
        if self._held:
            self._unclaim()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.active -= 1
