"""Cases of replay: recorded sessions of one resolve each, and which events come out how.

`different` names the events whose payload comes out otherwise, with the first pointer; `not_retained` those that could not
be decided because only a digest of an input was kept. All others come out the same.
"""

# ruff: noqa: E501 - a case reads best on few lines

from typing import Any

from specs.conformance.cases.encoding import event, text, uuid
from specs.conformance.cases.make import NOW, RESOLUTION, TRACE, Json, action, atlas, pack, request, rule
from specs.reference import canonical, chain, context, resolution

ONE = "com.acme.one"
OPEN = atlas(ONE, ["ticket.get", "ticket.close"])
ALLOWING = atlas(ONE, ["ticket.get", "ticket.close"], [rule("all", "allow")])
DENYING = atlas(ONE, ["ticket.get", "ticket.close"], [rule("p", "deny", "ticket.close")])
LOOKING = atlas(ONE, ["ticket.get", "ticket.close"],
                [rule("p", "deny", "ticket.close", conditions={"context_matches": {"env": "prod"}})])  # fmt: skip
LIMITED = atlas(ONE, [action("ticket.get", rate_limit={"max_calls": 1, "window_seconds": 60})])
GUIDED = atlas(ONE, ["ticket.get"], context_packs=[pack("guide", "a.md", "b.md")])


def record(
    atlases: list[Json],
    ask: Json,
    *,
    files: context.Files | None = None,
    usage: Json | None = None,
    capture_full: bool = False,
    session_context: Json | None = None,
) -> list[Json]:
    """Return the events of a session with one resolve, as the reference decides it."""
    files = files or {}
    refs = [
        {
            "atlas_id": manifest["atlas_id"],
            "version": manifest["version"],
            "digest": resolution.atlas_digest(manifest, files.get(manifest["atlas_id"], {})),
        }
        for manifest in atlases
    ]
    started: Json = {"agent_id": "agent-1", "goal": "help customers", "atlases": refs}
    if session_context:
        kept = session_context if capture_full else canonical.digest(session_context)
        started["context" if capture_full else "context_hash"] = kept
    decided = resolution.events(
        atlases,
        files,
        ask,
        NOW,
        usage,
        resolution_id=RESOLUTION,
        trace_id=TRACE,
        session_context=session_context,
        settings=resolution.Settings(capture_full=capture_full, max_context_tokens=8000),
    )
    ended = {"reason": "completed", "duration_ms": 0, "action_count": 0}
    told = [("session.started", started), *decided, ("session.ended", ended)]
    return [
        event(
            number,
            event_type,
            payload,
            timestamp=resolution.timestamp(NOW),
            span_id=uuid(0x50 + (number > 0) + (number == len(told) - 1)),
        )
        for number, (event_type, payload) in enumerate(told)
    ]


def changed(events: list[Json], index: int, **fields: Any) -> list[Json]:
    """Return the events with fields of one payload changed."""
    return [{**e, "payload": {**e["payload"], **fields}} if n == index else e for n, e in enumerate(events)]


def with_span(events: list[Json], index: int, event_type: str, payload: Json) -> list[Json]:
    """Return the events with one more at this place, in a span of its own."""
    more = event(0x70, event_type, payload, timestamp=resolution.timestamp(NOW), span_id=uuid(0x5F))
    return [{**e, "sequence": n} for n, e in enumerate([*events[:index], more, *events[index:]])]


def case(
    case_id: str,
    why: str,
    events: list[Json],
    atlases: list[Json],
    *,
    files: context.Files | None = None,
    different: dict[int, str] | None = None,
    not_retained: list[int] | None = None,
    changes: list[Json] | None = None,
) -> Json:
    """Return a case; `changes` make it a what-if."""
    expected: Json = {"changes": sorted(changes, key=lambda change: str(change["action_id"]))} if changes is not None else {
        "different": [{"index": index, "pointer": pointer} for index, pointer in (different or {}).items()],
        "not_retained": not_retained or [],
    }  # fmt: skip
    return {
        "id": case_id,
        "why": why,
        "mode": "replay" if changes is None else "what_if",
        "trace": text(chain.link_all(events)).decode(),
        "atlases": atlases,
        "files": files or {},
        "default_decision": "allow",
        "expected": expected,
    }


PROD = request(context={"env": "prod"})
TEXTS = {ONE: {"a.md": "refunds", "b.md": "shipping"}}
USED = {f"{ONE}:ticket.get:rate_limit": {"wait_us": 30_000_000}}

REPLAY = [
    case("same", "every payload comes out again", record([OPEN], request()), [OPEN]),
    case("same-denied", "a denial comes out again", record([DENYING], request()), [DENYING]),
    case("same-context-blocks", "context blocks and their order come out again",
         record([GUIDED], request("shipping"), files=TEXTS), [GUIDED], files=TEXTS),
    case("same-limit", "an exhausted limit is an observation, taken from the record",
         record([LIMITED], request(), usage=USED), [LIMITED]),
    case("same-narrowed", "what the agent supplied is in the record",
         record([OPEN], request(risk_tier="high", hints=["x"], atlas_ids=[ONE])), [OPEN]),
    case("same-context-kept", "a context that was kept in full decides again", record([LOOKING], PROD, capture_full=True),
         [LOOKING]),
    case("same-context-not-looked-at", "a context that was not kept does not matter where no condition looks at it",
         record([DENYING], PROD), [DENYING]),
    case("context-not-retained", "of the context only the digest was kept, and a condition looks at it",
         record([LOOKING], PROD), [LOOKING], not_retained=[2, 3]),
    case("session-context-not-retained", "the same for the session's context",
         record([LOOKING], request(), session_context={"env": "prod"}), [LOOKING], not_retained=[2, 3]),
    case("result-changed", "a forged verdict under a good chain is found by deciding again",
         changed(record([DENYING], request()), 2, result="allow"), [DENYING], different={2: "/result"}),
    case("policy-changed", "a forged policy id", changed(record([DENYING], request()), 2, policy_id="q"), [DENYING],
         different={2: "/policy_id"}),
    case("count-changed", "a forged count", changed(record([OPEN], request()), 2, allowed_count=1), [OPEN],
         different={2: "/allowed_count"}),
    case("resolution-hash-changed", "a forged digest of the resolution",
         changed(record([OPEN], request()), 2, resolution_hash="0" * 64), [OPEN], different={2: "/resolution_hash"}),
    case("content-hash-changed", "a forged digest of a document",
         changed(record([GUIDED], request("shipping"), files=TEXTS), 2, content_hash="0" * 64), [GUIDED], files=TEXTS,
         different={2: "/content_hash"}),
    case("decision-without-request", "a verdict in a span of its own is no input: nobody asked for it",
         with_span(record([DENYING], request()), 4, "policy.evaluated",
                   {"action_id": "ticket.close", "atlas_id": ONE, "policy_id": "p", "result": "allow"}),
         [DENYING], different={4: ""}),
    case("approval-without-request", "an approved call that was never requested",
         with_span(record([OPEN], request()), 3, "action.approved",
                   {"action_id": "ticket.get", "execution_id": uuid(0x901), "resolution_id": RESOLUTION}),
         [OPEN], different={3: ""}),
    case("started-twice", "a session starts once",
         with_span(record([OPEN], request()), 3, "session.started", {"agent_id": "agent-1", "goal": "x", "atlases": []}),
         [OPEN], different={3: ""}),
    case("ended-twice", "after its end a session has only the outcomes of what was running",
         with_span(record([OPEN], request()), 4, "session.ended", {"reason": "error", "duration_ms": 0, "action_count": 0}),
         [OPEN], different={4: ""}),
    case("what-if-denied", "a stricter version denies what was allowed", record([ALLOWING], request()),
         [{**ALLOWING, "version": "2.0.0", "policies": [*ALLOWING["policies"], rule("p", "deny", "ticket.close")]}],
         changes=[{"action_id": "ticket.close", "before": "allow", "after": "deny"}]),
    case("what-if-allowed", "a laxer version allows what was denied", record([DENYING], request()),
         [{**ALLOWING, "version": "2.0.0"}],
         changes=[{"action_id": "ticket.get", "before": "unknown", "after": "allow"},
                  {"action_id": "ticket.close", "before": "deny", "after": "allow"}]),
    case("what-if-nothing", "a version that decides the same", record([ALLOWING], request()),
         [{**ALLOWING, "version": "1.0.1", "description": "better words"}], changes=[]),
    case("what-if-unknown", "what no policy decided is not an event, so what was decided before is not guessed",
         record([OPEN], request()), [{**OPEN, "version": "1.0.1", "description": "better words"}],
         changes=[{"action_id": "ticket.get", "before": "unknown", "after": "allow"},
                  {"action_id": "ticket.close", "before": "unknown", "after": "allow"}]),
]  # fmt: skip
