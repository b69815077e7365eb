"""Small documents to write cases with."""

from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]

NOW = 1_767_623_400_000_000  # Monday 2026-01-05T14:30:00Z
SESSION = "01920000-0000-7000-8000-00000000000a"
REQUEST = "01920000-0000-7000-8000-00000000000b"
RESOLUTION = "01920000-0000-7000-8000-00000000000c"
TRACE = "01920000-0000-7000-8000-00000000000d"


def at(text: str) -> int:
    """Return the microseconds since 1970 of an instant like `2026-01-05T14:30:00Z`."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def request(
    goal: str = "help a customer",
    *,
    agent_id: str = "agent-1",
    risk_tier: str | None = None,
    hints: list[str] | None = None,
    required: list[str] | None = None,
    atlas_ids: list[str] | None = None,
    context: Json | None = None,
    **more: Any,
) -> Json:
    """Return a resolve request that leaves out whatever is not given."""
    task: Json = {"goal": goal}
    task |= {} if risk_tier is None else {"risk_tier": risk_tier}
    task |= {} if hints is None else {"context_hints": hints}
    task |= {} if required is None else {"required_capabilities": required}
    made: Json = {
        "carp_version": "1.0",
        "request_id": REQUEST,
        "timestamp": "2026-01-05T14:30:00.000000Z",
        "operation": "resolve",
        "requester": {"agent_id": agent_id, "session_id": SESSION},
        "task": task,
    }
    made |= {} if atlas_ids is None else {"atlas_ids": atlas_ids}
    made |= {} if context is None else {"context": context}
    return {**made, **more}


def action(action_id: str, **fields: Any) -> Json:
    """Return an action; its name is its id."""
    return {"action_id": action_id, "name": action_id, **fields}


def rule(policy_id: str, kind: str, *actions: str, **fields: Any) -> Json:
    """Return a policy about the given globs, all actions if there are none."""
    return {"policy_id": policy_id, "type": kind, "actions": list(actions or ("*",)), **fields}


def atlas(atlas_id: str, actions: list[Json | str], policies: list[Json] | None = None, **fields: Any) -> Json:
    """Return a manifest; a string stands for an action that has only an id."""
    made: Json = {
        "atlas_version": "1.0",
        "atlas_id": atlas_id,
        "version": "1.0.0",
        "name": atlas_id,
        "actions": [action(item) if isinstance(item, str) else item for item in actions],
    }
    return {**made, **({} if policies is None else {"policies": policies}), **fields}


def capability(capability_id: str, *actions: str, **fields: Any) -> Json:
    """Return a capability of the given actions."""
    return {"capability_id": capability_id, "name": capability_id, "actions": list(actions), **fields}


def pack(pack_id: str, *files: str, **fields: Any) -> Json:
    """Return a context pack of the given files."""
    return {"pack_id": pack_id, "name": pack_id, "files": list(files), **fields}
