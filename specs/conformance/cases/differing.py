"""Cases of diffs: two recorded sessions, and what differs between them by meaning."""

# ruff: noqa: E501 - a case reads best on few lines

from specs.conformance.cases.encoding import event, text, uuid
from specs.conformance.cases.make import REQUEST, RESOLUTION, Json
from specs.reference import chain

Told = list[list[tuple[str, Json]]]  # spans of (event type, payload)

DIGEST = "1" * 64
OTHER = "2" * 64


def started(**more: Json | str) -> list[tuple[str, Json]]:
    """Return the first span."""
    atlases = [{"atlas_id": "com.acme.one", "version": "1.0.0", "digest": DIGEST}]
    return [("session.started", {"agent_id": "agent-1", "goal": "help customers", "atlases": atlases, **more})]


def resolve(
    goal: str, *rulings: tuple[str, str, str], blocks: tuple[tuple[str, str], ...] = ()
) -> list[tuple[str, Json]]:
    """Return the events of a resolve; rulings are (action, result, policy), blocks (id, digest)."""
    allowed = sum(result == "allow" for _, result, _ in rulings)
    return [
        ("carp.request.received", {"request_id": REQUEST, "operation": "resolve", "goal": goal, "atlas_ids": [], "request_hash": DIGEST}),
        *(("policy.evaluated", {"action_id": name, "atlas_id": "com.acme.one", "policy_id": policy, "result": result})
          for name, result, policy in rulings),
        *(("context.injected", {"block_id": block, "source": "com.acme.one", "content_type": "text/markdown", "token_count": 1, "priority": 100, "content_hash": content})
          for block, content in blocks),
        ("carp.resolution.completed", {
            "resolution_id": RESOLUTION, "request_id": REQUEST, "ttl_seconds": 3600, "resolution_hash": DIGEST, "snapshot_digest": DIGEST,
            "decision_type": "allow" if allowed == len(rulings) else "partial" if allowed else "deny",
            "allowed_count": allowed, "denied_count": len(rulings) - allowed, "context_block_count": len(blocks)}),
    ]  # fmt: skip


def requested(action_id: str, parameters_hash: str = DIGEST) -> tuple[str, Json]:
    """Return a call's first event."""
    return (
        "action.requested",
        {
            "action_id": action_id,
            "parameters_hash": parameters_hash,
            "request_id": uuid(0x900),
            "resolution_id": RESOLUTION,
            "snapshot_digest": DIGEST,
        },
    )


def allowed(action_id: str, parameters_hash: str = DIGEST) -> list[tuple[str, Json]]:
    """Return the events of a call that was allowed by default."""
    return [
        requested(action_id, parameters_hash),
        ("action.approved", {"action_id": action_id, "execution_id": uuid(0x901), "resolution_id": RESOLUTION}),
    ]


def denied(action_id: str, policy_id: str = "p", reason: str = "ask the desk") -> list[tuple[str, Json]]:
    """Return the events of a call that a policy denied."""
    return [
        requested(action_id),
        ("policy.evaluated", {"action_id": action_id, "atlas_id": "com.acme.one", "policy_id": policy_id, "result": "deny"}),
        ("action.denied", {"action_id": action_id, "reason": reason, "policy_id": policy_id}),
        ("policy.violated", {"action_id": action_id, "details": reason, "policy_id": policy_id, "violation_type": "denied_action"}),
    ]  # fmt: skip


def executed(action_id: str, result_hash: str = DIGEST, duration_ms: int = 1) -> list[tuple[str, Json]]:
    """Return the outcome of a call that went well."""
    return [
        (
            "action.executed",
            {
                "action_id": action_id,
                "execution_id": uuid(0x901),
                "resolution_id": RESOLUTION,
                "duration_ms": duration_ms,
                "result_hash": result_hash,
            },
        )
    ]


def failed(action_id: str, message: str = "gone") -> list[tuple[str, Json]]:
    """Return the outcome of a call that did not."""
    return [
        (
            "action.failed",
            {
                "action_id": action_id,
                "execution_id": uuid(0x901),
                "duration_ms": 1,
                "error_code": "executor_error",
                "error_message": message,
            },
        )
    ]


def trace(*spans: list[tuple[str, Json]], other_ids: bool = False, later: bool = False) -> str:
    """Return the text of a trace; with `other_ids` of the same thing run another time, and `later` than that."""
    events: list[Json] = []
    offset = 0x5000 if other_ids else 0
    for number, span in enumerate(spans):
        for event_type, payload in span:
            told = {
                name: uuid(0x7000 + number) if other_ids and name.endswith("_id") and _is_id(value) else value
                for name, value in payload.items()
            }
            events.append(event(len(events), event_type, told, span_id=uuid(0x300 + offset + number), event_id=uuid(0x100 + offset + len(events)),
                                timestamp=f"2026-{'07' if later else '01'}-05T14:30:00.{len(events):03d}000Z"))  # fmt: skip
    return text(chain.link_all(events)).decode()


def _is_id(value: object) -> bool:
    return isinstance(value, str) and len(value) == 36


def case(
    case_id: str,
    why: str,
    before: str,
    after: str,
    grade: str,
    *differences: tuple[str, str, int | None, int | None, str],
) -> Json:
    """Return a case; a difference is (grade, event type, index before, index after, pointer)."""
    names = ("grade", "event_type", "before_index", "after_index", "pointer")
    found = [dict(zip(names, difference, strict=True)) for difference in differences]
    return {
        "id": case_id,
        "why": why,
        "before": before,
        "after": after,
        "expected": {"grade": grade, "differences": found},
    }


READ = resolve("read tickets", ("ticket.get", "allow", "reads"))
BOTH = resolve("read tickets", ("ticket.get", "allow", "reads"), ("ticket.close", "deny", "closed"))
RUN = trace(started(), READ, allowed("ticket.get"), executed("ticket.get"))

DIFFS = [
    case("equal", "a trace differs in nothing from itself", RUN, RUN, "none"),
    case("other-run", "ids, times, durations and what follows from them do not count", RUN,
         trace(started(), READ, allowed("ticket.get"), executed("ticket.get", duration_ms=900), other_ids=True, later=True), "none"),
    case("result-changed", "the same call had another result", RUN,
         trace(started(), READ, allowed("ticket.get"), executed("ticket.get", OTHER)), "behaviour",
         ("behaviour", "action.executed", 6, 6, "/result_hash")),
    case("failed-instead", "a call that had succeeded failed: one event is gone, another came", RUN,
         trace(started(), READ, allowed("ticket.get"), failed("ticket.get")), "behaviour",
         ("behaviour", "action.executed", 6, None, ""), ("behaviour", "action.failed", None, 6, "")),
    case("message-changed", "the words of a failure are words", trace(started(), READ, allowed("ticket.get"), failed("ticket.get")),
         trace(started(), READ, allowed("ticket.get"), failed("ticket.get", "away")), "cosmetic",
         ("cosmetic", "action.failed", 6, 6, "/error_message")),
    case("parameters-changed", "the same action with other parameters is another call", RUN,
         trace(started(), READ, allowed("ticket.get", OTHER), executed("ticket.get")), "behaviour",
         ("behaviour", "action.requested", 4, 4, "/parameters_hash")),
    case("call-added", "a call more", trace(started(), READ), trace(started(), READ, denied("ticket.close")), "decision",
         ("behaviour", "action.requested", None, 4, ""), ("decision", "policy.evaluated", None, 5, ""),
         ("decision", "action.denied", None, 6, ""), ("decision", "policy.violated", None, 7, "")),
    case("denied-instead", "what was allowed is denied", RUN, trace(started(), READ, denied("ticket.get")), "decision",
         ("decision", "action.approved", 5, None, ""), ("decision", "policy.evaluated", None, 5, ""),
         ("decision", "action.denied", None, 6, ""), ("decision", "policy.violated", None, 7, ""),
         ("behaviour", "action.executed", 6, None, "")),
    case("ruling-changed", "another result, and the counts that follow", trace(started(), READ),
         trace(started(), resolve("read tickets", ("ticket.get", "deny", "reads"))), "decision",
         ("decision", "policy.evaluated", 2, 2, "/result"), ("decision", "carp.resolution.completed", 3, 3, "/allowed_count"),
         ("decision", "carp.resolution.completed", 3, 3, "/decision_type"), ("decision", "carp.resolution.completed", 3, 3, "/denied_count")),
    case("policy-changed", "the same result by another policy", trace(started(), READ),
         trace(started(), resolve("read tickets", ("ticket.get", "allow", "all"))), "decision",
         ("decision", "policy.evaluated", 2, 2, "/policy_id")),
    case("action-considered", "an action more is decided about", trace(started(), READ), trace(started(), BOTH), "decision",
         ("decision", "policy.evaluated", None, 3, ""), ("decision", "carp.resolution.completed", 3, 4, "/decision_type"),
         ("decision", "carp.resolution.completed", 3, 4, "/denied_count")),
    case("reason-changed", "a better reason is only words", trace(started(), READ, denied("ticket.close")),
         trace(started(), READ, denied("ticket.close", reason="ask dana")), "cosmetic",
         ("cosmetic", "action.denied", 6, 6, "/reason"), ("cosmetic", "policy.violated", 7, 7, "/details")),
    case("reason-with-other-id", "an id or a time inside a reason does not count",
         trace(started(), READ, denied("ticket.close", reason=f"resolution `{uuid(1)}` expired at 2026-01-05T14:30:00.000000Z; retry in 5 s")),
         trace(started(), READ, denied("ticket.close", reason=f"resolution `{uuid(2)}` expired at 2027-01-05T14:30:00.000000Z; retry in 7 s")), "none"),
    case("block-added", "context decides nothing, and changes what the agent knows", trace(started(), READ),
         trace(started(), resolve("read tickets", ("ticket.get", "allow", "reads"), blocks=(("guide/a.md", DIGEST),))), "behaviour",
         ("behaviour", "context.injected", None, 3, ""), ("behaviour", "carp.resolution.completed", 3, 4, "/context_block_count")),
    case("block-changed", "the same block with other content",
         trace(started(), resolve("read tickets", blocks=(("guide/a.md", DIGEST),))),
         trace(started(), resolve("read tickets", blocks=(("guide/a.md", OTHER),))), "behaviour",
         ("behaviour", "context.injected", 2, 2, "/content_hash")),
    case("goal-changed", "requests of the same kind are compared with each other", trace(started(), READ),
         trace(started(), resolve("close tickets", ("ticket.get", "allow", "reads"))), "behaviour",
         ("behaviour", "carp.request.received", 1, 1, "/goal")),
    case("resolve-inserted", "a request in between does not shift the others", RUN,
         trace(started(), resolve("close tickets"), READ, allowed("ticket.get"), executed("ticket.get")), "behaviour",
         ("behaviour", "carp.request.received", None, 1, ""), ("behaviour", "carp.resolution.completed", None, 2, "")),
    case("atlas-version", "other atlases that decide the same", trace(started(), READ),
         trace(started(atlases=[{"atlas_id": "com.acme.one", "version": "1.0.1", "digest": OTHER}]), READ), "cosmetic",  # type: ignore[arg-type]  # a list is JSON too
         ("cosmetic", "session.started", 0, 0, "/atlases")),
    case("agent-changed", "somebody else's session", trace(started(), READ), trace(started(agent_id="agent-2"), READ), "behaviour",
         ("behaviour", "session.started", 0, 0, "/agent_id")),
    case("agent-of-other-id", "an agent that is called by an id is somebody else under another one",
         trace(started(agent_id=uuid(0x801)), READ), trace(started(agent_id=uuid(0x802)), READ), "behaviour",
         ("behaviour", "session.started", 0, 0, "/agent_id")),
    case("goal-with-other-id", "an id or a time inside of a goal is what was asked",
         trace(started(), resolve(f"read {uuid(0x801)}")), trace(started(), resolve(f"read {uuid(0x802)}")), "behaviour",
         ("behaviour", "carp.request.received", 1, 1, "/goal")),
    case("parent-gone", "which parent it was does not count, that there was one does",
         trace(started(parent_session_id=uuid(0x801)), READ), trace(started(), READ), "behaviour",
         ("behaviour", "session.started", 0, 0, "/parent_session_id")),
]  # fmt: skip
