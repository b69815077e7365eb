"""Runtimes to measure, and exactly which bytes their calls hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from bench import data
from bench.harness import Call
from cra import CRARuntime, Event, Resolution, RuntimeConfig, Trace
from cra._core.canonical import dumps
from cra._core.sha256 import hexdigest, sha256
from cra.runtime.engine import canonical_resolution

# Every resolve of a row asks something else, so nothing can be remembered for a goal.
GOALS = tuple(f"Do the thing for customer {number}" for number in range(10_000))


def runtime_of(document: dict[str, Any], files: dict[str, str] | None = None, **settings: Any) -> CRARuntime:
    """Return a runtime in memory with one atlas and an executor that does nothing."""
    runtime = CRARuntime(RuntimeConfig(max_context_tokens=100_000, **settings))
    runtime.load_atlas_from_json(document, files)
    runtime.register_executor("*", nothing, inline=True)
    return runtime


def nothing(parameters: Any) -> dict[str, bool]:
    """Do what an executor of a measured call does."""
    return {"ok": True}


def resolving(runtime: CRARuntime, session_id: str) -> Call:
    """Return a call that resolves another goal each time."""
    resolve, goal = runtime.resolve, cycle(GOALS).__next__
    return lambda: resolve(session_id, goal())


def expect_chain(runtime: CRARuntime, session_id: str, per_call: int, before: int = 1) -> None:
    """Raise unless the session's chain verifies and holds `before` events and `per_call` for each call."""
    verdict = runtime.verify_chain(session_id)
    if not verdict or verdict.events <= before or (verdict.events - before) % per_call:
        raise AssertionError(f"{verdict.events} events, {per_call} a call: {verdict}")


def messages_of_resolve(runtime: CRARuntime, session_id: str) -> list[bytes]:
    """Resolve once and return every message that its hashes cover: request, resolution, and each event's preimage."""
    before = len(runtime.get_trace(session_id))
    resolution = runtime.resolve(session_id, GOALS[0])
    events = list(runtime.get_trace(session_id, before))
    request = _request(runtime, session_id, resolution)
    messages = [request, canonical_resolution(resolution), *map(preimage, events)]
    _same(events[0].payload["request_hash"], hexdigest(messages[0]))
    _same(events[-1].payload["resolution_hash"], hexdigest(messages[1]))
    for event, message in zip(events, messages[2:], strict=True):
        _same(event.event_hash, hexdigest(message))
    return messages


def messages_of_execute(runtime: CRARuntime, session_id: str, action_id: str) -> list[bytes]:
    """Execute once and return every message that its hashes cover."""
    before = len(runtime.get_trace(session_id))
    result = runtime.execute(session_id, action_id, data.CALL)
    events = list(runtime.get_trace(session_id, before))
    messages = [dumps(data.CALL), dumps(result), *map(preimage, events)]
    _same(events[0].payload["parameters_hash"], hexdigest(messages[0]))
    _same(events[-1].payload["result_hash"], hexdigest(messages[1]))
    return messages


def preimage(event: Event) -> bytes:
    """Return the bytes that an event's hash is of."""
    fields = (
        event.trace_version,
        event.event_id,
        event.trace_id,
        event.span_id,
        event.parent_span_id or "",
        event.session_id,
        str(event.sequence),
        event.timestamp,
        event.event_type,
    )
    return "".join(fields).encode() + dumps(event.payload) + event.previous_event_hash.encode()


def preimages(trace: Trace) -> list[bytes]:
    """Return the preimage of every event."""
    return [preimage(event) for event in trace]


def _request(runtime: CRARuntime, session_id: str, resolution: Resolution) -> bytes:
    session = runtime.get_session(session_id)
    return dumps(
        {
            "atlas_ids": [],
            "carp_version": "1.0",
            "context": {},
            "operation": "resolve",
            "request_id": resolution.request_id,
            "requester": {"agent_id": session.agent_id, "session_id": session_id},
            "task": {"context_hints": [], "goal": GOALS[0], "required_capabilities": [], "risk_tier": "low"},
            "timestamp": resolution.timestamp,
        }
    )


def _same(expected: Any, found: str) -> None:
    if expected != found:
        raise AssertionError("the bytes rebuilt from the trace are not the ones that were hashed")


# Floors


def blocks_of(messages: list[bytes]) -> int:
    """Return how many 64-byte blocks SHA-256 compresses for the messages, padding included."""
    return sum((len(message) + 8) // 64 + 1 for message in messages)


def bulk_hash(messages: list[bytes]) -> Call:
    """Return one hash over as many blocks as all the messages have: what the compression alone costs."""
    text = bytes(64 * blocks_of(messages) - 9)
    return lambda: sha256(text)


def each_hash(messages: list[bytes], digest: Callable[[bytes], object] = sha256) -> Call:
    """Return the hash of every message, one after the other."""

    def hash_each() -> None:
        for message in messages:
            digest(message)

    return hash_each


def session_of(runtime: CRARuntime) -> str:
    """Start a session."""
    return runtime.create_session(data.AGENT, "Measure").session_id


def entropy() -> Iterator[bytes]:
    """Yield 16 random bytes at a time, drawn as the runtime draws them."""
    import os

    while True:
        block = os.urandom(4096)
        for at in range(0, 4096, 16):
            yield block[at : at + 16]
