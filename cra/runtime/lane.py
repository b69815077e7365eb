"""Lane: how an event loop works with a store that waits for a disk, without waiting for it itself.

What can be decided from memory is decided on the loop, and its append is queued; whatever has to read the store goes to
a thread, where it waits. A session's lock is never held while a thread is waited for, since all threads may be waiting
for that lock.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar

from cra._core.chain import EventBatch
from cra.errors import AtlasNotFound, CRAError
from cra.runtime.attempt import Attempt, begin_attempt
from cra.runtime.calls import Ending, Order, Permit
from cra.runtime.engine import Ask, Decided
from cra.runtime.execution import UNRECORDED, Execution, Outcome, unrecorded
from cra.runtime.kernel import STALE, Kernel, Live, check_active
from cra.storage.base import AppendSoon, Change, Pending, Storage

P = ParamSpec("P")
T = TypeVar("T")

_STORE_THREADS = 64


class WouldWait(Exception):
    """The store was asked for something by the thread that runs an event loop."""


class OffLoop:
    """A store that an event loop's own thread is kept from: whatever may wait raises `WouldWait` there.

    `append_soon` is the store's own, which does not wait.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.name, self.tenant = inner.name, inner.tenant
        self.durability, self.blocking = inner.durability, inner.blocking
        self.append_soon, self.of_tenant = inner.append_soon, inner.of_tenant

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if _get_running_loop() is not None:
                raise WouldWait
            return method(*args, **kwargs)

        # PERF: found here once, and from then on as an attribute.
        self.__dict__[name] = guarded
        return guarded


class Landing(asyncio.Future[BaseException | None]):
    """What becomes of an append. It cannot be cancelled: what a store was told happens, and who waits hears it."""

    def cancel(self, msg: Any = None) -> bool:
        return False


class Landings:
    """The appends of one loop: the store gets those of a turn together, and wakes the loop once for many.

    PERF: an eighth of a resolve over HTTP, 32 at a time. A writer that is woken by the first of them asks for the
    interpreter's lock at every statement, while the loop is busy deciding the others.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._new: list[tuple[Landing, Callable[[], Pending]]] = []
        # What the store has, and until when; who came first is due first.
        self._due: dict[Landing, tuple[float, Pending]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._over: deque[tuple[Landing, BaseException | None]] = deque()
        self._woken = False

    def begin(self, append_soon: AppendSoon, live: Live, batch: EventBatch, change: Change) -> Landing:
        """Have an append queued, once the loop has done what it has to do already."""
        chain = live.chain
        landing = Landing(loop=self.loop)
        if not self._new:
            self.loop.call_soon(self.hand_over)
        queue = partial(append_soon, chain.session_id, chain.head, batch, change, partial(self._done, landing))
        self._new.append((landing, queue))
        return landing

    def hand_over(self) -> None:
        """Queue what was begun."""
        new, self._new = self._new, []
        now = self.loop.time()
        for landing, queue in new:
            try:
                pending = queue()
            except Exception as error:
                landing.set_result(error)
            else:
                self._due[landing] = now + pending.timeout_seconds, pending
        # PERF: one timer instead of one for each, which is set and cancelled every time.
        if self._timer is None:
            self._watch()

    def _watch(self) -> None:
        """Give up what takes too long."""
        self._timer = None
        while self._due:
            landing = next(iter(self._due))
            due, pending = self._due[landing]
            if due > self.loop.time():
                self._timer = self.loop.call_at(due, self._watch)
                return
            del self._due[landing]
            pending.give_up()

    def _done(self, landing: Landing, error: BaseException | None) -> None:
        self._over.append((landing, error))
        if not self._woken:
            self._woken = True
            # The loop may have ended; then nobody waits.
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        # INVARIANT: before the first is taken, so that whoever adds one later wakes the loop again.
        self._woken = False
        while self._over:
            landing, error = self._over.popleft()
            self._due.pop(landing, None)
            if not landing.done():
                landing.set_result(error)


class Landed(NamedTuple):
    """What became of an append: it is done, or was refused for what can be read again; its caller was cancelled."""

    done: bool = False
    stale: CRAError | None = None
    cancelled: asyncio.CancelledError | None = None


class Lane:
    """Takes calls as far as they go without waiting for a thread, and in threads from there on.

    With a store that does not wait, all of it happens where it is asked for.
    """

    def __init__(self, kernel: Kernel, execution: Execution) -> None:
        self._kernel = kernel
        self._execution = execution
        storage = kernel.storage
        self.waits = storage.blocking
        self._append_soon = storage.append_soon
        if self.waits:
            kernel.storage = OffLoop(storage)
        self._landings: Landings | None = None
        self._threads: ThreadPoolExecutor | None = None

    def hand_over(self) -> None:
        """Queue the appends that were begun."""
        if self._landings is not None and self._landings.loop is asyncio.get_running_loop():
            self._landings.hand_over()

    def close(self) -> None:
        """Let the threads end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    # In a thread

    async def off(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function where it may wait for the store."""
        if not self.waits:
            return function(*args, **kwargs)
        step = self._start(function, *args, **kwargs)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            # Cancelling the caller does not undo what the store has been told, so the step always finishes first.
            await _settled(step)
            raise

    def _start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        # PERF: threads of its own, many: all that wait at once are written at once, and the loop's default has six
        # on a small machine.
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="cra-storage")
        call = partial(copy_context().run, partial(function, *args, **kwargs))
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    # Calls

    async def live(self, session_id: str) -> Live:
        """Do as `Kernel.live`."""
        try:
            return self._kernel.live(session_id)
        except WouldWait:
            return await self.off(self._kernel.live, session_id)

    async def resolve(self, live: Live, ask: Ask) -> Decided:
        """Do as `Kernel.resolve`."""
        kernel, session_id = self._kernel, live.record.session_id
        stale: CRAError | None = None
        if self._takes() and live.lock.acquire(blocking=False):
            try:
                decided, batch, change = kernel.decide(live, ask)
                landed = await self._land(live, batch, change)
            except AtlasNotFound as missing:
                landed = Landed(stale=missing)
            except WouldWait:
                # The atlases have changed just now, and have counters.
                landed = Landed()
            finally:
                live.lock.release()
            if landed.cancelled is not None:
                raise landed.cancelled
            if landed.done:
                return decided
            stale = landed.stale
        return await self.off(kernel.resolve, session_id, ask, stale)

    async def begin(self, order: Order) -> Permit | Ending:
        """Do as `Execution.begin`; of a permit that a cancelled caller does not get, the record says so."""
        execution = self._execution
        if not self.waits:
            return execution.begin(order)
        attempt: Attempt | None = None
        stale: CRAError | None = None
        if self._takes() and not order.simulate:
            call = execution.take(order)
            live = await self.live(order.session_id)
            if live.lock.acquire(blocking=False):
                landed = None
                try:
                    check_active(live.record)
                    attempt = begin_attempt(self._kernel, execution.executors, live, order, call, None)
                    ending = attempt.decide()
                    landed = await self._land(live, attempt.batch, attempt.change)
                except WouldWait:
                    # The attempt goes on in a thread.
                    pass
                finally:
                    live.lock.release()
                if landed is not None:
                    if landed.cancelled is not None:
                        if landed.done:
                            await self._take_back(ending)
                        raise landed.cancelled
                    if landed.done:
                        return ending
                    attempt, stale = None, landed.stale
        step = self._start(execution.begin, order, attempt, stale)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await _settled(step)
            if step.exception() is None:
                await self._take_back(step.result())
            raise

    async def _take_back(self, begun: Permit | Ending) -> None:
        """Record that what was permitted was not run."""
        if isinstance(begun, Permit):
            await self.off(self._execution.fail, begun, "cancelled", "the caller was interrupted before it ran")

    async def finish(self, permit: Permit, outcome: Outcome) -> Ending:
        """Do as `Execution.finish`, also when the caller is cancelled."""
        live, execution = permit.live, self._execution
        if not self.waits:
            return execution.finish(permit, outcome)
        landed = Landed()
        if self._append_soon is not None and live.lock.acquire(blocking=False):
            try:
                ending, batch, change = execution.conclude(permit, outcome)
                landed = await self._land(live, batch, change)
            except UNRECORDED as failure:
                unrecorded(failure)
                raise
            finally:
                live.lock.release()
            if landed.done and landed.cancelled is None:
                return ending
        if landed.cancelled is None or landed.stale is not None:
            ending = await self.off(execution.finish, permit, outcome, landed.stale)
        if landed.cancelled is not None:
            raise landed.cancelled
        return ending

    def _takes(self) -> bool:
        """Say whether a call may be decided here: its append can be queued, and no counters have to be read."""
        return self._append_soon is not None and not self._kernel.snapshot.limits

    async def _land(self, live: Live, batch: EventBatch, change: Change) -> Landed:
        """Do as `Kernel.commit`, while the loop goes on and the session's lock is held."""
        loop = asyncio.get_running_loop()
        if self._landings is None or self._landings.loop is not loop:
            self._landings = Landings(loop)
        assert self._append_soon is not None  # noqa: S101 - asked before
        landing = self._landings.begin(self._append_soon, live, batch, change)
        cancelled = None
        try:
            await landing
        except asyncio.CancelledError as error:
            cancelled = error
        refusal = landing.result()
        if refusal is None:
            self._kernel.landed(live, batch, change)
            return Landed(done=True, cancelled=cancelled)
        if isinstance(refusal, STALE):
            return Landed(stale=refusal, cancelled=cancelled)
        if cancelled is None:
            raise refusal
        return Landed(cancelled=cancelled)


async def _settled(step: asyncio.Future[Any]) -> None:
    """Wait until a step is over, however often the caller is cancelled."""
    while not step.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({step})
