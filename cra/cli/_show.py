"""How resolutions, responses, sessions, approvals and events look to people."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import UnsetType

from cra.cli._exit import Exit, exit_of_code
from cra.cli._output import Output, shown

if TYPE_CHECKING:
    from cra.protocol.carp import ExecuteResponse, Resolution
    from cra.protocol.trace import Event
    from cra.storage.base import ApprovalRecord, SessionRecord

COLOURS = {
    "allow": "green",
    "success": "green",
    "granted": "green",
    "active": "green",
    "partial": "yellow",
    "requires_approval": "yellow",
    "pending_approval": "yellow",
    "pending": "yellow",
    "deny": "red",
    "denied": "red",
    "error": "red",
    "rejected": "red",
}


def compact(value: object, width: int = 100) -> str:
    """Return a value as short JSON on one line."""
    return shown(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")), width)


def pretty(value: object) -> str:
    """Return a value as indented JSON, safe to show."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return "\n".join(shown(line) for line in text.split("\n"))


def duration(seconds: float) -> str:
    """Return a span of time in the unit that reads best."""
    for limit, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= limit and seconds % limit == 0:
            return f"{int(seconds // limit)} {unit}"
    return f"{seconds:g} s"


def _each(seconds: float) -> str:
    return {86_400: "day", 3_600: "hour", 60: "minute", 1: "second"}.get(int(seconds)) or duration(seconds)


def show_resolution(out: Output, resolution: Resolution, *, content: bool = False) -> int:
    """Print a resolution and return the exit code that goes with its decision."""
    decision = resolution.decision
    out.line(
        f"decision: {decision.type}" + (f" ({decision.reason})" if decision.reason else ""),
        style=f"bold {COLOURS[decision.type]}",
    )
    show_offer(out, resolution)
    if content:
        for block in resolution.context_blocks:
            out.line()
            out.line(f"── {block.block_id} ({block.source}) ──", style="bold")
            for line in block.content.split("\n"):
                out.line(line)
    out.line()
    out.fields([("resolution", resolution.resolution_id), ("valid for", duration(resolution.ttl_seconds))])
    return Exit.VERDICT if decision.type == "deny" else Exit.OK


def show_offer(out: Output, resolution: Resolution) -> None:
    """Print what a resolution offers and refuses, as tables."""
    notes = constraint_notes(resolution)
    out.line()
    out.table(
        ("allowed", "risk", "limits"),
        [(a.action_id, a.risk_tier, "; ".join(notes.get(a.action_id, ()))) for a in resolution.allowed_actions],
    )
    if resolution.denied_actions:
        out.line()
    out.table(
        ("denied", "policy", "reason"),
        [
            (d.action_id, "-" if isinstance(d.policy_id, UnsetType) else d.policy_id, d.reason)
            for d in resolution.denied_actions
        ],
    )
    if resolution.context_blocks:
        out.line()
    out.table(
        ("context", "tokens", "priority", "from"),
        [(b.block_id, b.token_estimate, b.priority, b.source) for b in resolution.context_blocks],
    )


def constraint_notes(resolution: Resolution) -> dict[str, list[str]]:
    """Return for each action the limits that bind it, in words."""
    notes: dict[str, list[str]] = {}
    for constraint in resolution.constraints:
        words = _constraint_words(constraint.type, constraint.parameters)
        for action_id in constraint.parameters.get("actions", ()):
            notes.setdefault(action_id, []).append(words)
    return notes


def _constraint_words(kind: str, values: dict[str, Any]) -> str:
    if kind == "rate_limit":
        return f"{values['max_calls']} per {_each(values['window_seconds'])} and {values['per']}"
    if kind == "budget":
        window = values["window"]
        span = "session" if window == "session" else _each(window)
        return f"at most {values['limit']:g} {values['unit']} per {span}"
    if kind == "require_approval":
        return "some parameters need approval" if "when" in values else "needs approval"
    if kind == "time_window":
        return f"only {values.get('start')} to {values.get('end')} {values.get('timezone', '')}".rstrip()
    if "effect" in values:
        return "some parameters are denied" if values["effect"] == "deny" else "only for some parameters"
    return "parameters are restricted"


def show_response(out: Output, response: ExecuteResponse) -> int:
    """Print how an execute ended and return its exit code."""
    error = response.error
    out.line(
        f"{'would be: ' if response.simulated is True else ''}{response.status}",
        style=f"bold {COLOURS[response.status]}",
    )
    if error is not None:
        details = error.details
        out.fields(
            [
                ("why", error.message),
                ("code", error.code),
                ("policy", details.get("policy_id")),
                ("retry after", _seconds(details.get("retry_after_seconds"))),
                ("approval", details.get("approval_id")),
                ("expires", details.get("expires_at")),
                ("hint", details.get("hint")),
            ]
        )
    elif response.simulated is not True:
        out.console.print(pretty(response.result), soft_wrap=True)
    out.fields([("execution", response.execution_id)])
    return response_exit(response)


def _seconds(value: object) -> str | None:
    return None if value is None else f"{value} s"


def response_exit(response: ExecuteResponse) -> int:
    """Return the exit code for an execute response."""
    if response.status == "success":
        return Exit.OK
    if response.status == "denied":
        return Exit.VERDICT
    if response.status == "pending_approval":
        return Exit.PENDING
    return exit_of_code(response.error.code) if response.error is not None else Exit.INTERNAL


def session_value(record: SessionRecord) -> dict[str, Any]:
    """Return a session as JSON."""
    import msgspec

    from cra.protocol.times import format_timestamp

    value: dict[str, Any] = msgspec.to_builtins(record)
    started, ended = value.pop("started_us"), value.pop("ended_us")
    value["started_at"] = format_timestamp(started)
    value["ended_at"] = None if ended is None else format_timestamp(ended)
    return value


def approval_value(record: ApprovalRecord) -> dict[str, Any]:
    """Return an approval as JSON."""
    import msgspec

    from cra.protocol.times import format_timestamp

    value: dict[str, Any] = msgspec.to_builtins(record)
    value["requested_at"] = format_timestamp(value.pop("requested_us"))
    value["expires_at"] = format_timestamp(value.pop("expires_us"))
    return value


def event_words(event: Event) -> str:
    """Return what an event says, in one line."""
    make = _EVENT_WORDS.get(event.event_type, _any)
    return make(event.payload)


def _any(payload: dict[str, Any]) -> str:
    return compact(payload)


def _policy_words(p: dict[str, Any]) -> str:
    return f"{p.get('action_id')}: {p.get('result')} by {p.get('policy_id')}"


def _completed_words(p: dict[str, Any]) -> str:
    return (
        f"{p.get('decision_type')}: {p.get('allowed_count')} allowed, {p.get('denied_count')} denied, "
        f"{p.get('context_block_count')} blocks"
    )


def _requested_words(p: dict[str, Any]) -> str:
    parameters = p.get("parameters")
    return f"{p.get('action_id')} {compact(parameters) if parameters is not None else ''}".rstrip()


def _approval_words(p: dict[str, Any]) -> str:
    return f"{p.get('action_id')} {p.get('approval_id')}" + (f" by {p['approver']}" if p.get("approver") else "")


_EVENT_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "session.started": lambda p: f"{p.get('agent_id')}: {shown(p.get('goal'), 100)}",
    "session.ended": lambda p: f"{p.get('reason')}, {p.get('action_count')} actions in {p.get('duration_ms')} ms",
    "carp.request.received": lambda p: f"{p.get('operation')}: {shown(p.get('goal'), 100)}",
    "policy.evaluated": _policy_words,
    "context.injected": lambda p: f"{p.get('block_id')}, {p.get('token_count')} tokens",
    "context.redacted": lambda p: f"{p.get('block_id')}: {p.get('redaction_reason')}",
    "carp.resolution.completed": _completed_words,
    "action.requested": _requested_words,
    "action.approved": lambda p: (
        str(p.get("action_id")) + (f", approved by {p['approver']}" if p.get("approver") else "")
    ),
    "action.denied": lambda p: f"{shown(p.get('reason'), 140)}",
    "action.executed": lambda p: f"{p.get('action_id')} in {p.get('duration_ms')} ms",
    "action.failed": lambda p: f"{p.get('action_id')}: {p.get('error_code')}",
    "policy.violated": lambda p: (
        f"{p.get('action_id')}: {p.get('violation_type')}" + (f" ({p['policy_id']})" if p.get("policy_id") else "")
    ),
    "approval.requested": _approval_words,
    "approval.granted": _approval_words,
    "approval.rejected": _approval_words,
    "approval.expired": _approval_words,
    "error.occurred": lambda p: f"{p.get('error_code')}: {shown(p.get('error_message'), 120)}",
}


def event_row(event: Event) -> tuple[str, str, str, str]:
    """Return an event as a row: number, time of day, type, words."""
    return str(event.sequence), event.timestamp[11:23], event.event_type, event_words(event)
