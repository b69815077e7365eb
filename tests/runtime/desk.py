"""A desk for the tests of the runtime: an atlas with a rule of every kind, executors that count, and a clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any

from cra.protocol.times import format_timestamp
from cra.runtime.asynchronous import AsyncCRARuntime
from cra.runtime.config import RuntimeConfig
from cra.runtime.executors import ExecutionContext
from cra.runtime.sync import CRARuntime
from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage
from cra.storage.sqlite import SQLiteStorage
from cra.testing.clock import FixedClock, SeededIds

STORES = ("memory", "sqlite")


def _action(action_id: str, **more: Any) -> dict[str, Any]:
    return {
        "action_id": action_id,
        "name": action_id,
        "description": f"Does {action_id}.",
        "parameters_schema": {"type": "object"},
        "returns_schema": {},
        **more,
    }


ATLAS: dict[str, Any] = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.desk",
    "version": "1.0.0",
    "name": "Desk",
    "capabilities": [
        {"capability_id": "tickets", "name": "Tickets", "actions": ["ticket.*"]},
        {"capability_id": "money", "name": "Money", "actions": ["refund.*"]},
    ],
    "policies": [
        {"policy_id": "no-delete", "type": "deny", "actions": ["*.delete"], "reason": "deleting is for people"},
        {
            "policy_id": "large-refunds",
            "type": "require_approval",
            "actions": ["refund.*"],
            "conditions": {"parameters": {"properties": {"amount": {"exclusiveMinimum": 500}}, "required": ["amount"]}},
            "reason": "a person agrees to refunds over 500",
        },
        {
            "policy_id": "closings",
            "type": "rate_limit",
            "actions": ["ticket.close"],
            "parameters": {"max_calls": 3, "window_seconds": 60},
        },
        {
            "policy_id": "refunded",
            "type": "budget",
            "actions": ["refund.*"],
            "parameters": {"limit": 2000, "unit": "EUR", "window": 86400, "cost": "/amount"},
        },
        {"policy_id": "everything", "type": "allow", "actions": ["*"]},
    ],
    "actions": [
        _action("ticket.get", parameters_schema={"type": "object", "properties": {"id": {"type": "string"}}}),
        _action("ticket.close"),
        _action("ticket.delete"),
        _action("refund.create", parameters_schema={"type": "object", "required": ["amount"]}),
        _action("mail.send", requires_confirmation=True),
        _action(
            "note.add",
            returns_schema={"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}},
        ),
        _action("slow.run", timeout_seconds=1),
        _action("nobody.home"),
    ],
}
# The same without counters, which have to be read before a call is decided.
UNLIMITED: dict[str, Any] = {
    **ATLAS,
    "policies": [policy for policy in ATLAS["policies"] if policy["type"] not in ("rate_limit", "budget")],
}
EXECUTED = ("ticket.*", "refund.*", "mail.*", "note.*")


class Desk:
    """A runtime over the desk's atlas, with everything about it that a test decides or looks at."""

    def __init__(
        self,
        store: Storage,
        *,
        asynchronous: bool = False,
        seed: int = 1,
        atlas: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.store = store
        self.clock = FixedClock()
        config = RuntimeConfig(storage=store, clock=self.clock, ids=SeededIds(seed), **settings)
        self.runtime: Any = (AsyncCRARuntime if asynchronous else CRARuntime)(config)
        self.runtime.load_atlas_from_json(atlas or ATLAS)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        # What an action does: a value to return, or something to call with the parameters.
        self.does: dict[str, Any] = {"note.add": {"id": 1}}
        self._lock = Lock()
        self.runtime.executor(*EXECUTED, inline=True)(self._run)

    def _run(self, parameters: dict[str, Any], context: ExecutionContext) -> Any:
        with self._lock:
            self.calls.append((context.action_id, parameters))
        done = self.does.get(context.action_id, {"ok": True})
        return done(parameters) if callable(done) else done

    def begin(self, goal: str = "help a customer", **more: Any) -> str:
        """Start a session that has a resolution, and return its id."""
        session = self.runtime.create_session("agent-1", goal, **more)
        self.runtime.resolve(session.id, goal)
        return str(session.id)

    def events(self, session_id: str) -> list[tuple[str, dict[str, Any]]]:
        """Return (type, payload) of every event in the store."""
        lines = self.store.events(session_id).splitlines()
        return [(event["event_type"], event["payload"]) for event in map(json.loads, lines)]

    def types(self, session_id: str) -> list[str]:
        """Return the types of the events in the store."""
        return [kind for kind, _ in self.events(session_id)]

    def last(self, session_id: str) -> tuple[str, dict[str, Any]]:
        """Return (type, payload) of the newest event."""
        return self.events(session_id)[-1]

    def request(self, session_id: str, operation: str = "resolve", **more: Any) -> dict[str, Any]:
        """Return a CARP request of this session's agent."""
        made: dict[str, Any] = {
            "carp_version": "1.0",
            "request_id": _uuid(SeededIds(hash_of(session_id, operation, more))),
            "timestamp": format_timestamp(self.clock.now_us),
            "operation": operation,
            "requester": {"agent_id": "agent-1", "session_id": session_id},
            "task": {"goal": "help a customer"},
        }
        made.update(more)
        return made


def hash_of(*values: Any) -> int:
    """Return a number that is the same in every run for the same values."""
    return int.from_bytes(json.dumps(values, sort_keys=True, default=str).encode()[-64:], "big")


def _uuid(ids: Callable[[int], bytes]) -> str:
    text = ids(16).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def open_store(kind: str, directory: Path) -> Storage:
    """Return a store of its own."""
    if kind == "memory":
        return MemoryStorage()
    return SQLiteStorage(directory / "cra.db", durability="batched")


def dense(store: Storage, session_ids: Iterable[str]) -> None:
    """Assert that each session is one valid chain without gaps, and that its head is where it ends."""
    from cra._core.chain import verify

    for session_id in session_ids:
        verdict = verify(store.events(session_id))
        assert verdict.ok, verdict.message
        head = store.load(session_id)[1]
        assert (head.sequence, head.hash) == (verdict.events, verdict.head)
