"""Prepared requests: everything is written before the clock runs, but for the numbers that make an id unique."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any

from bench import data
from cra.protocol.times import format_timestamp

# A place for a number that no other request has, and one for a number that no other lap of a script has.
NUMBER = "01890000-0000-7000-8000-@n@"
LAP = "01890000-0000-7000-9000-@lap@"


def request(method: str, path: str, key: str, body: Any = None) -> str:
    """Return a whole request, as text with a byte for each character."""
    text = "" if body is None else json.dumps(body, separators=(",", ":"))
    size = len(text.replace("@n@", "0" * 12).replace("@lap@", "0" * 12))
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: 127.0.0.1",
        "user-agent: bench",
        "accept: */*",
        f"authorization: Bearer {key}",
    ]
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {size}"]
    whole = "\r\n".join(lines) + "\r\n\r\n" + text
    if "%" in whole:
        raise ValueError("a request with a percent sign")
    return whole.replace("@n@", "%(n)012x").replace("@lap@", "%(lap)012x")


def carp(operation: str, session_id: str, now_us: int, **more: Any) -> dict[str, Any]:
    """Return a CARP request with an id of its own each time."""
    return {
        "carp_version": "1.0",
        "request_id": NUMBER,
        "timestamp": format_timestamp(now_us),
        "operation": operation,
        "requester": {"agent_id": data.AGENT, "session_id": session_id},
        "task": {"goal": "Do the thing for customer 38", "risk_tier": "low"},
        **more,
    }


class Door:
    """A plain client, for what is not measured."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call and return its JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"authorization": f"Bearer {self.key}"}
        text = None
        if body is not None:
            text, headers["content-type"] = json.dumps(body), "application/json"
        try:
            connection.request(method, path, text, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:500]!r}")
        return json.loads(content)

    def session(self) -> str:
        """Start a session."""
        made = self.ask("POST", "/v1/sessions", {"agent_id": data.AGENT, "goal": "Measure"})
        session_id: str = made["session_id"]
        return session_id

    def expect_events(self, session_id: str, count: int) -> None:
        """Raise unless the session's chain verifies and is that long."""
        found = self.ask("GET", f"/v1/sessions/{session_id}/trace/verify")
        if not found["ok"] or found["events"] != count:
            raise AssertionError(f"session {session_id}: expected {count} events, the service says {found}")
