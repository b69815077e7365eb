"""Executors: the functions that do what an action says, found by glob and called with a deadline."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from cra._core.glob import glob_match
from cra.errors import ConfigInvalid

# PERF: asyncio, inspect and concurrent.futures take 25 ms to import, more than the rest of the package; they are
# imported where an executor first needs them.
if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future
    from queue import SimpleQueue

_IDLE_SECONDS = 30.0


class Late(Exception):
    """An executor has not ended before its deadline."""


class ExecutionContext(Struct, frozen=True, kw_only=True):
    """What an executor may know of the call it serves, beside its parameters."""

    session_id: str
    agent_id: str
    action_id: str
    execution_id: str
    resolution_id: str
    timeout_seconds: int


class Executor(Struct, frozen=True, kw_only=True):
    """A registered callable and how to call it."""

    glob: str
    function: Callable[..., Any]
    is_async: bool
    inline: bool
    wants_context: bool
    # PERF: inline and neither of the others, asked as one.
    plain: bool


class ExecutorTable:
    """Executors by name: an exact one first, then globs in the order they were registered."""

    def __init__(self) -> None:
        self._exact: dict[str, Executor] = {}
        self._globs: list[Executor] = []
        self._found: dict[str, Executor | None] = {}

    def register(self, glob: str, function: Callable[..., Any], *, inline: bool) -> None:
        """Register `function` for the actions whose executor name matches `glob`."""
        import inspect

        named: object = glob
        if not isinstance(named, str) or not named:
            raise ConfigInvalid(f"executor is registered for `{named!r}`, expected an action's id or a glob")
        if not callable(function):
            raise ConfigInvalid(f"executor for `{glob}` is `{type(function).__name__}`, expected a callable")
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - its kind, not whether it is one
        )
        wants_context = _wants_context(function, glob)
        executor = Executor(
            glob=glob,
            function=function,
            is_async=is_async,
            inline=inline,
            wants_context=wants_context,
            plain=inline and not is_async and not wants_context,
        )
        if "*" in glob or "?" in glob:
            self._globs.append(executor)
        elif glob in self._exact:
            raise ConfigInvalid(f"executor for `{glob}` is registered already", hint="register each action once")
        else:
            self._exact[glob] = executor
        # Another one, so that whoever looks one up meanwhile keeps what was found before to themselves.
        self._found = {}

    def find(self, name: str) -> Executor | None:
        """Return the executor for a name, or None."""
        known = self._found
        try:
            return known[name]
        except KeyError:
            found = self._exact.get(name) or next((e for e in self._globs if glob_match(e.glob, name)), None)
            known[name] = found
            return found


def _wants_context(function: Callable[..., Any], glob: str) -> bool:
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some builtins have no signature
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters) or len(required) > 2:
        raise ConfigInvalid(
            f"executor for `{glob}` takes other arguments than expected",
            hint="define it as function(parameters) or function(parameters, context)",
        )
    if not positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ConfigInvalid(
            f"executor for `{glob}` takes no positional argument",
            hint="define it as function(parameters) or function(parameters, context)",
        )
    return len(required) == 2 or (len(positional) >= 2 and positional[1].name == "context")


class WorkerThreads:
    """Daemon threads that run executors, so that a caller can stop waiting for one that hangs.

    A hung executor keeps its thread; when all `limit` threads hang, further calls fail instead of queueing.
    """

    def __init__(self, limit: int) -> None:
        from queue import SimpleQueue

        self._limit = limit
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[Future[Any], contextvars.Context, Callable[..., Any], tuple[Any, ...]]] = (
            SimpleQueue()
        )
        self._idle = 0
        self._threads = 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run `function` in a worker, in a copy of the caller's context; raises `RuntimeError` when all are busy."""
        from concurrent.futures import Future

        future: Future[Any] = Future()
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._run, name="cra-executor", daemon=True).start()
            else:
                raise RuntimeError(f"all {self._limit} executor threads are busy")
        self._work.put((future, contextvars.copy_context(), function, arguments))
        return future

    def _run(self) -> None:
        from queue import Empty

        while True:
            try:
                future, context, function, arguments = self._work.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    # A submit that counted on this thread has put its work, or is about to: stay for it.
                    if self._idle > 0:
                        self._idle -= 1
                        self._threads -= 1
                        return
                continue
            if future.set_running_or_notify_cancel():
                try:
                    result = context.run(function, *arguments)
                except StopIteration as error:
                    # What waits on an event loop never hears of one.
                    future.set_exception(_stopped(error))
                except Exception as error:
                    future.set_exception(error)
                except BaseException as error:
                    # `sys.exit` in an executor fails its call; it does not end whoever waits for it.
                    future.set_exception(_stopped(error))
                else:
                    future.set_result(result)
            # Dropped before waiting, so that an idle thread keeps no call alive.
            del future, context, function, arguments
            with self._lock:
                self._idle += 1


class LoopThread:
    """An event loop in a daemon thread, for async executors called from synchronous code."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, awaitable: Awaitable[Any]) -> Future[Any]:
        """Run a coroutine on the loop; started when it is first needed."""
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="cra-executor-loop", daemon=True).start()
            loop = self._loop
        return asyncio.run_coroutine_threadsafe(_as_coroutine(awaitable), loop)

    def close(self) -> None:
        """Stop the loop."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except (SystemExit, KeyboardInterrupt) as error:
        # These would end the loop, and with it the executors of every other call.
        raise _stopped(error) from error


def _stopped(error: BaseException) -> RuntimeError:
    stopped = RuntimeError(f"the executor raised {type(error).__name__}")
    stopped.__cause__ = error
    return stopped
