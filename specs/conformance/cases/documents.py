"""Cases of wire documents: valid ones, and invalid ones with the place of the one thing that is wrong.

The pointer is JSON Schema's instance location: the value that breaks a rule; for a missing or an unknown field the
object that lacks or has it.
"""

# ruff: noqa: E501 - a case reads best on few lines

from typing import Any

from specs.conformance.cases.make import REQUEST, RESOLUTION, SESSION, TRACE, Json, action, atlas, pack, request, rule

GONE = object()

RESOLVED: Json = {
    "carp_version": "1.0",
    "resolution_id": RESOLUTION,
    "request_id": REQUEST,
    "timestamp": "2026-01-05T14:30:00.000000Z",
    "decision": {"type": "partial", "reason": "some", "approval_id": None, "expires_at": None},
    "context_blocks": [
        {
            "block_id": "guide/a.md",
            "source": "com.acme.one",
            "content_type": "text/markdown",
            "content": "",
            "priority": 100,
            "token_estimate": 0,
        }
    ],
    "allowed_actions": [
        {
            "action_id": "ticket.get",
            "name": "Get",
            "description": "",
            "parameters_schema": {},
            "returns_schema": {},
            "risk_tier": "low",
            "requires_confirmation": False,
            "idempotent": True,
            "rate_limit": {"max_calls": 1, "window_seconds": 60},
        }
    ],
    "denied_actions": [{"action_id": "ticket.delete", "reason": "no"}],
    "constraints": [{"constraint_id": "com.acme.one:p", "type": "scope", "parameters": {"actions": ["ticket.get"]}}],
    "ttl_seconds": 3600,
    "trace_id": TRACE,
}
EXECUTED: Json = {
    "carp_version": "1.0",
    "execution_id": "01920000-0000-7000-8000-00000000000e",
    "request_id": REQUEST,
    "resolution_id": RESOLUTION,
    "timestamp": "2026-01-05T14:30:00.000000Z",
    "status": "success",
    "result": {"any": ["value"]},
    "error": None,
    "trace_id": TRACE,
}
EVENT: Json = {
    "trace_version": "1.0",
    "event_id": "01920000-0000-7000-8000-000000000100",
    "trace_id": TRACE,
    "span_id": "01920000-0000-7000-8000-000000000050",
    "parent_span_id": None,
    "session_id": SESSION,
    "sequence": 0,
    "timestamp": "2026-01-05T14:30:00.000000Z",
    "event_type": "session.started",
    "payload": {},
    "event_hash": "ab" * 32,
    "previous_event_hash": "0" * 64,
}
CALL: Json = {"action_id": "ticket.get", "parameters": {}}
MANIFEST = atlas(
    "com.acme.one",
    [action("ticket.get", parameters_schema={"type": "object"})],
    [rule("deny-delete", "deny", "*.delete", conditions={"time_window": {"start": "09:00", "end": "17:00"}})],
    context_packs=[pack("guide", "context/a.md", max_tokens=10)],
    capabilities=[{"capability_id": "read", "name": "Read", "actions": ["ticket.*"]}],
    dependencies={"com.acme.two": "^1.0"},
)


def edited(document: Json, pointer: str, value: Any) -> Json:
    """Return the document with one place set, or taken away."""
    copy: Any = {**document}
    place: Any = copy
    *path, last = [int(step) if step.isdigit() else step.replace("~1", "/") for step in pointer.split("/")[1:]]
    for step in path:
        inner = place[step]
        place[step] = inner.copy()
        place = place[step]
    if value is GONE:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    result: Json = copy
    return result


def _execute(**fields: Any) -> Json:
    return request(operation="execute", execution={**CALL, **fields})


# (id, kind, why, document)
VALID: list[tuple[str, str, str, Json]] = [
    ("request-minimal", "request", "what is optional may be left out", request()),
    ("request-full", "request", "everything given",
     request("x" * 10_000, risk_tier="critical", hints=["a"], required=["b"], atlas_ids=["com.acme.one"],
             context={"deep": {"any": [1, None]}})),
    ("request-execute", "request", "an execute without resolution and key", _execute()),
    ("request-execute-full", "request", "an execute with everything",
     _execute(resolution_id=RESOLUTION, idempotency_key="k" * 255, approval_id=REQUEST)),
    ("request-validate", "request", "validate carries a call too", request(operation="validate", execution=CALL)),
    ("request-offset", "request", "any RFC 3339 time is accepted", request(timestamp="2026-01-05t14:30:00+05:30")),
    ("request-uuid-v4", "request", "any UUID is accepted", request(request_id="f47ac10b-58cc-4372-a567-0e02b2c3d479")),
    ("request-agent-255", "request", "the longest agent id", request(agent_id="a" * 255)),
    ("request-astral-goal", "request", "lengths count code points", request("😀" * 10_000)),
    ("resolution", "resolution", "a whole resolution", RESOLVED),
    ("resolution-empty", "resolution", "nothing offered",
     {**RESOLVED, "context_blocks": [], "allowed_actions": [], "denied_actions": [], "constraints": [], "ttl_seconds": 0}),
    ("execute-response", "execute-response", "a success", EXECUTED),
    ("execute-response-null-result", "execute-response", "a result may be null", {**EXECUTED, "result": None}),
    ("execute-response-denied", "execute-response", "a denial",
     {**EXECUTED, "status": "denied", "result": None, "resolution_id": None,
      "error": {"code": "action_denied", "message": "no", "details": {}}}),
    ("execute-response-simulated", "execute-response", "a simulation says so", {**EXECUTED, "simulated": True}),
    ("event", "event", "an event", EVENT),
    ("event-unknown-type", "event", "an event type that is not known yet", {**EVENT, "event_type": "custom.thing_done"}),
    ("manifest", "manifest", "an atlas", MANIFEST),
    ("manifest-minimal", "manifest", "an atlas of nothing but its identity",
     {"atlas_version": "1.0", "atlas_id": "a.b", "version": "0.0.0", "name": "x"}),
    ("manifest-semver", "manifest", "a full SemVer version", {**MANIFEST, "version": "1.0.0-rc.1+build.5"}),
]  # fmt: skip

# (id, kind, why, document, pointer)
INVALID: list[tuple[str, str, str, Json, str]] = [
    ("request-version", "request", "another version", request(carp_version="2.0"), "/carp_version"),
    ("request-version-number", "request", "a number is not the text", request(carp_version=1.0), "/carp_version"),
    ("request-id-missing", "request", "a missing field", edited(request(), "/request_id", GONE), ""),
    ("request-id-upper-case", "request", "UUIDs are lower-case", request(request_id=REQUEST.replace("b", "B")),
     "/request_id"),
    ("request-id-short", "request", "a UUID has 36 characters", request(request_id=REQUEST[:-1]), "/request_id"),
    ("request-id-newline", "request", "and nothing after them", request(request_id=REQUEST + "\n"), "/request_id"),
    ("request-unknown-field", "request", "unknown fields are refused", request(priority=1), ""),
    ("request-unknown-inner-field", "request", "also inside", edited(request(), "/task/budget", 1), "/task"),
    ("request-operation", "request", "an unknown operation", request(operation="run"), "/operation"),
    ("request-timestamp", "request", "a date is not a time", request(timestamp="2026-01-05"), "/timestamp"),
    ("request-timestamp-no-zone", "request", "a time without a zone", request(timestamp="2026-01-05T14:30:00"), "/timestamp"),
    ("request-timestamp-number", "request", "a time is text", request(timestamp=1767623400), "/timestamp"),
    ("request-agent-empty", "request", "an empty agent id", request(agent_id=""), "/requester/agent_id"),
    ("request-agent-256", "request", "an agent id that is too long", request(agent_id="a" * 256), "/requester/agent_id"),
    ("request-session-missing", "request", "a request is of a session", edited(request(), "/requester/session_id", GONE),
     "/requester"),
    ("request-parent-null", "request", "optional means absent, not null",
     edited(request(), "/requester/parent_session_id", None), "/requester/parent_session_id"),
    ("request-goal-empty", "request", "an empty goal", request(""), "/task/goal"),
    ("request-goal-10001", "request", "a goal that is too long", request("x" * 10_001), "/task/goal"),
    ("request-risk", "request", "an unknown tier", request(risk_tier="extreme"), "/task/risk_tier"),
    ("request-risk-case", "request", "letter case counts", request(risk_tier="LOW"), "/task/risk_tier"),
    ("request-hint-type", "request", "the place in an array", edited(request(hints=["a", "b"]), "/task/context_hints/1", 2),
     "/task/context_hints/1"),
    ("request-hints-101", "request", "too many hints", request(hints=["a"] * 101), "/task/context_hints"),
    ("request-atlas-id", "request", "an atlas id has at least two parts", request(atlas_ids=["acme"]), "/atlas_ids/0"),
    ("request-context-array", "request", "the context is an object", edited(request(), "/context", []), "/context"),
    ("request-execute-without-call", "request", "an execute without execution", request(operation="execute"), ""),
    ("request-resolve-with-call", "request", "a resolve with execution", request(execution=CALL), "/execution"),
    ("request-call-action", "request", "a look-alike action id", _execute(action_id="ticket.g\u0435t"), "/execution/action_id"),
    ("request-call-action-glob", "request", "a glob is not an action", _execute(action_id="ticket.*"), "/execution/action_id"),
    ("request-call-parameters-missing", "request", "a call has parameters",
     edited(_execute(), "/execution/parameters", GONE), "/execution"),
    ("request-call-parameters-null", "request", "and they are an object", _execute(parameters=None), "/execution/parameters"),
    ("request-call-key-256", "request", "a key that is too long", _execute(idempotency_key="k" * 256),
     "/execution/idempotency_key"),
    ("request-call-key-empty", "request", "an empty key", _execute(idempotency_key=""), "/execution/idempotency_key"),
    ("resolution-decision", "resolution", "an unknown decision", edited(RESOLVED, "/decision/type", "maybe"),
     "/decision/type"),
    ("resolution-decision-reason-missing", "resolution", "null is written, not left out",
     edited(RESOLVED, "/decision/reason", GONE), "/decision"),
    ("resolution-ttl", "resolution", "longer than a day", {**RESOLVED, "ttl_seconds": 86_401}, "/ttl_seconds"),
    ("resolution-ttl-negative", "resolution", "negative", {**RESOLVED, "ttl_seconds": -1}, "/ttl_seconds"),
    ("resolution-content-type", "resolution", "an unknown content type",
     edited(RESOLVED, "/context_blocks/0/content_type", "text/html"), "/context_blocks/0/content_type"),
    ("resolution-priority", "resolution", "priority is at most 1000",
     edited(RESOLVED, "/context_blocks/0/priority", 1001), "/context_blocks/0/priority"),
    ("resolution-rate-limit", "resolution", "at least one call",
     edited(RESOLVED, "/allowed_actions/0/rate_limit/max_calls", 0), "/allowed_actions/0/rate_limit/max_calls"),
    ("resolution-confirmation", "resolution", "a flag is a boolean",
     edited(RESOLVED, "/allowed_actions/0/requires_confirmation", "no"), "/allowed_actions/0/requires_confirmation"),
    ("resolution-denied-policy-null", "resolution", "no policy means absent, not null",
     edited(RESOLVED, "/denied_actions/0/policy_id", None), "/denied_actions/0/policy_id"),
    ("resolution-constraint-type", "resolution", "an unknown constraint type", edited(RESOLVED, "/constraints/0/type", "deny"),
     "/constraints/0/type"),
    ("execute-response-status", "execute-response", "an unknown status", {**EXECUTED, "status": "ok"}, "/status"),
    ("execute-response-result-missing", "execute-response", "a result is there, if only null",
     edited(EXECUTED, "/result", GONE), ""),
    ("execute-response-error-text", "execute-response", "an error is an object", {**EXECUTED, "error": "no"}, "/error"),
    ("event-sequence", "event", "negative", {**EVENT, "sequence": -1}, "/sequence"),
    ("event-sequence-fraction", "event", "a fraction", {**EVENT, "sequence": 1.5}, "/sequence"),
    ("event-type", "event", "one word", {**EVENT, "event_type": "session"}, "/event_type"),
    ("event-parent-missing", "event", "no parent is null, not absent", edited(EVENT, "/parent_span_id", GONE), ""),
    ("event-hash", "event", "63 digits", {**EVENT, "event_hash": "a" * 63}, "/event_hash"),
    ("event-hash-upper-case", "event", "capital digits", {**EVENT, "event_hash": "AB" * 32}, "/event_hash"),
    ("event-payload", "event", "a payload is an object", {**EVENT, "payload": []}, "/payload"),
    ("manifest-version", "manifest", "another version of the format", {**MANIFEST, "atlas_version": "1"}, "/atlas_version"),
    ("manifest-id", "manifest", "an id of one part", {**MANIFEST, "atlas_id": "acme"}, "/atlas_id"),
    ("manifest-id-upper-case", "manifest", "capital letters", {**MANIFEST, "atlas_id": "com.Acme"}, "/atlas_id"),
    ("manifest-semver", "manifest", "two numbers", {**MANIFEST, "version": "1.0"}, "/version"),
    ("manifest-semver-leading-zero", "manifest", "a leading zero", {**MANIFEST, "version": "1.02.0"}, "/version"),
    ("manifest-name", "manifest", "a name that is too long", {**MANIFEST, "name": "x" * 101}, "/name"),
    ("manifest-unknown-field", "manifest", "unknown fields are refused", {**MANIFEST, "policy": []}, ""),
    ("manifest-action-id", "manifest", "a dash in an action id", edited(MANIFEST, "/actions/0/action_id", "ticket.get-all"),
     "/actions/0/action_id"),
    ("manifest-timeout", "manifest", "longer than five minutes", edited(MANIFEST, "/actions/0/timeout_seconds", 301),
     "/actions/0/timeout_seconds"),
    ("manifest-policy-type", "manifest", "an unknown policy type", edited(MANIFEST, "/policies/0/type", "forbid"),
     "/policies/0/type"),
    ("manifest-policy-actions", "manifest", "a policy says what it is about", edited(MANIFEST, "/policies/0/actions", GONE),
     "/policies/0"),
    ("manifest-window", "manifest", "an hour that does not exist",
     edited(MANIFEST, "/policies/0/conditions/time_window/start", "24:00"), "/policies/0/conditions/time_window/start"),
    ("manifest-window-end-missing", "manifest", "a window has an end",
     edited(MANIFEST, "/policies/0/conditions/time_window/end", GONE), "/policies/0/conditions/time_window"),
    ("manifest-condition-unknown", "manifest", "a misspelt condition is not ignored",
     edited(MANIFEST, "/policies/0/conditions/agent", ["x"]), "/policies/0/conditions"),
    ("manifest-pack-priority", "manifest", "priority is at most 1000", edited(MANIFEST, "/context_packs/0/priority", 1001),
     "/context_packs/0/priority"),
    ("manifest-pack-max-tokens", "manifest", "a pack of no tokens", edited(MANIFEST, "/context_packs/0/max_tokens", 0),
     "/context_packs/0/max_tokens"),
    ("manifest-conditions-null", "manifest", "optional means absent, not null",
     edited(MANIFEST, "/policies/0/conditions", None), "/policies/0/conditions"),
]  # fmt: skip
