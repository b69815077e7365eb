"""A small atlas, and requests about it."""

from __future__ import annotations

import uuid
from typing import Any

from cra.atlas import loader
from cra.atlas.package import Atlas
from cra.protocol.times import format_timestamp
from cra.runtime.config import system_clock

MANIFEST: dict[str, Any] = {
    "atlas_version": "1.0",
    "atlas_id": "test.desk",
    "version": "1.0.0",
    "name": "desk",
    "description": "A help desk.",
    "actions": [
        {
            "action_id": f"desk.{name}",
            "name": name,
            "description": name,
            "parameters_schema": {"type": "object"},
            "returns_schema": {},
        }
        for name in ("look", "pay", "burn", "wait")
    ],
    "policies": [
        {"policy_id": "no-fire", "name": "n", "type": "deny", "actions": ["desk.burn"], "reason": "never"},
        {"policy_id": "ask", "name": "n", "type": "require_approval", "actions": ["desk.pay"]},
    ],
}


def desk() -> Atlas:
    """Return the atlas."""
    return loader.load_json(MANIFEST)


def other(atlas_id: str = "test.other") -> dict[str, Any]:
    """Return the manifest of another atlas, whose actions nobody else has."""
    word = atlas_id.partition(".")[2]
    action = {**MANIFEST["actions"][0], "action_id": f"{word}.look"}
    return {**MANIFEST, "atlas_id": atlas_id, "actions": [action], "policies": []}


def request(session: dict[str, Any], operation: str = "resolve", **more: Any) -> dict[str, Any]:
    """Return a CARP request of a session."""
    return {
        "carp_version": "1.0",
        "request_id": str(uuid.uuid4()),
        "timestamp": format_timestamp(system_clock()),
        "operation": operation,
        "requester": {"agent_id": session["agent_id"], "session_id": session["session_id"]},
        "task": {"goal": "help"},
        **more,
    }
