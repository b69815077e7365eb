"""Executors of the golden scenarios, for a service under test: `--executors cra.testing.executors:register`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import cache
from hashlib import sha256
from threading import Lock
from typing import Any, Protocol

from cra._core.canonical import dumps
from cra.runtime.executors import ExecutionContext

# Longer than any deadline of a scenario.
_HANG_SECONDS = 3600
_MAX_CALLS = 10_000
_MARK = 12

Json = dict[str, Any]


class _Runtime(Protocol):
    def register_executor(self, glob: str, function: Any, *, inline: bool = ...) -> None: ...


def register(runtime: _Runtime) -> None:
    """Register for every action what the steps of the golden scenarios say that its executor does."""
    runtime.register_executor("*", Steps())


def mark_of(name: str) -> str:
    """Return the twelve hexadecimal digits that the ids of a scenario's sessions begin with."""
    return sha256(name.encode()).hexdigest()[:_MARK]


class Steps:
    """What an executor does: a session's id names its scenario, and the scenario's steps are taken in order."""

    def __init__(self) -> None:
        self._lock = Lock()
        # How often an action was called so in a session, the oldest first.
        self._calls: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    async def __call__(self, parameters: Json, context: ExecutionContext) -> Any:
        mark = context.session_id.replace("-", "")[:_MARK]
        call = dumps([context.action_id, parameters])
        told = _steps().get((mark, call))
        if not told:
            raise LookupError("no golden scenario executes this call")
        number = self._next((context.session_id, call))
        step = told[min(number, len(told) - 1)]
        if "raises" in step:
            raise RuntimeError(step["raises"])
        if step.get("hangs"):
            await asyncio.sleep(_HANG_SECONDS)
        return step.get("returns")

    def _next(self, key: tuple[str, bytes]) -> int:
        with self._lock:
            number = self._calls.get(key, 0)
            self._calls[key] = number + 1
            if len(self._calls) > _MAX_CALLS:
                self._calls.popitem(last=False)
            return number


@cache
def _steps() -> dict[tuple[str, bytes], list[Json]]:
    """Return for each scenario and call what the executors of its steps do, without the steps that run none."""
    from cra.testing import conformance
    from cra.testing._golden import Scenario

    found: dict[tuple[str, bytes], list[Json]] = {}
    for place in conformance.scenarios(conformance.data_folder()):
        scenario = Scenario(place)
        for step in scenario.document["steps"]:
            if step["do"] == "execute" and step.get("expect", {}).get("ran", True):
                key = mark_of(scenario.name), dumps([step["action_id"], step["parameters"]])
                found.setdefault(key, []).append(step.get("executor", {}))
    return found
