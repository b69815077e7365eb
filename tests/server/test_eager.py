"""A coroutine that is begun where it is made ends as it would in a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cra.runtime.lane import Landing
from cra.server.eager import Eager

Work = Coroutine[Any, None, None]
Make = Callable[[list[str], asyncio.Event], Work]


async def turns() -> None:
    """Let the loop do whatever there is to do."""
    for _ in range(10):
        await asyncio.sleep(0)


async def left(make: Make, cancel: int, *, eager: bool) -> tuple[list[str], str]:
    """Run some work, cancel it so many times while it waits, and return what it noted and how it ended."""
    loop, notes, go, among = asyncio.get_running_loop(), list[str](), asyncio.Event(), set[Any]()
    task: asyncio.Future[None]
    if eager:
        task = Eager(loop, among)
        task.begin(make(notes, go))
        assert among == (set() if task.done() else {task})
    else:
        task = loop.create_task(make(notes, go))
    await turns()
    for _ in range(cancel):
        task.cancel()
        await turns()
    go.set()
    await asyncio.wait([task])
    assert not among
    assert not task.cancel()
    if task.cancelled() or isinstance(task.exception(), asyncio.CancelledError):
        return notes, "cancelled"
    return notes, repr(task.exception())


async def plain(notes: list[str], go: asyncio.Event) -> None:
    notes.append("done")


async def failing(notes: list[str], go: asyncio.Event) -> None:
    await asyncio.shield(asyncio.ensure_future(go.wait()))
    raise ValueError("no")


async def patient(notes: list[str], go: asyncio.Event) -> None:
    try:
        await go.wait()
    except asyncio.CancelledError:
        notes.append("cancelled")
        await go.wait()
        notes.append("after")
        raise
    notes.append("waited")


async def polite(notes: list[str], go: asyncio.Event) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    notes.append("its turn")
    await go.wait()


async def stubborn(notes: list[str], go: asyncio.Event) -> None:
    landing = Landing(loop=asyncio.get_running_loop())
    asyncio.ensure_future(go.wait()).add_done_callback(lambda _: landing.set_result(None))
    try:
        await landing
    except asyncio.CancelledError:
        notes.append(f"cancelled when it was {'over' if landing.done() else 'under way'}")
    notes.append("went on")


@pytest.mark.parametrize("cancel", [0, 1, 2])
@pytest.mark.parametrize("make", [plain, failing, patient, polite, stubborn])
def test_work_ends_as_it_would_in_a_task(make: Make, cancel: int) -> None:
    async def compare() -> tuple[list[str], str]:
        found = await left(make, cancel, eager=True)
        assert found == await left(make, cancel, eager=False)
        return found

    notes, _ = asyncio.run(compare())
    assert notes or make is failing


def test_work_is_begun_where_it_is_made() -> None:
    async def begin() -> None:
        notes: list[str] = []
        Eager(asyncio.get_running_loop(), set()).begin(plain(notes, asyncio.Event()))
        assert notes == ["done"]

    asyncio.run(begin())
