"""The whole answer to a resolve request, with its events; and what the digests are taken over."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from specs.reference import canonical, context, policy
from specs.reference.policy import Asked, Json, NoCondition, Rule


class Settings(NamedTuple):
    """What the runtime's configuration adds to a decision."""

    ttl_seconds: int = 3600
    max_context_tokens: int | None = None
    default_decision: str = "allow"
    capture_full: bool = False


DEFAULTS = Settings()


# --- digests ----------------------------------------------------------------------------------------------------------


def canonical_request(request: Json) -> Json:
    """Return the request with every default filled in; optional fields that are absent stay absent."""
    return {
        "atlas_ids": [],
        "context": {},
        **request,
        "task": {"risk_tier": "low", "context_hints": [], "required_capabilities": [], **request["task"]},
    }


def request_hash(request: Json) -> str:
    """Return the SHA-256 of the canonical request."""
    return canonical.digest(canonical_request(request))


def timestamp(now: int) -> str:
    """Write an instant as `YYYY-MM-DDTHH:MM:SS.ffffffZ`."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now)
    return f"{moment.year:04d}-" + moment.strftime("%m-%dT%H:%M:%S.%fZ")


_DEFAULTS: Json = {
    "": {
        "description": "",
        "authors": [],
        "domains": [],
        "capabilities": [],
        "context_packs": [],
        "policies": [],
        "actions": [],
        "adapters": {},
        "dependencies": {},
        "metadata": {},
    },
    "capabilities": {"description": "", "actions": [], "context_packs": []},
    "context_packs": {"description": "", "files": [], "priority": 100, "conditions": {}},
    "policies": {"name": "", "description": "", "priority": 0, "conditions": {}, "parameters": {}},
    "actions": {
        "description": "",
        "parameters_schema": {},
        "returns_schema": {},
        "risk_tier": "low",
        "idempotent": False,
        "requires_confirmation": False,
        "timeout_seconds": 30,
        "examples": [],
    },
}


def effective_manifest(manifest: Json) -> Json:
    """Return a manifest with every default filled in; optional fields that are absent stay absent."""
    filled: Json = {**_DEFAULTS[""], **manifest}
    for part in ("capabilities", "context_packs", "policies", "actions"):
        filled[part] = [_with_window({**_DEFAULTS[part], **item}) for item in filled[part]]
    return filled


def _with_window(item: Json) -> Json:
    window = item.get("conditions", {}).get("time_window")
    if window is None:
        return item
    window = {"timezone": "UTC", "days": policy.DAYS, **window}
    return {**item, "conditions": {**item["conditions"], "time_window": window}}


def atlas_digest(manifest: Json, files: dict[str, str]) -> str:
    """Return the digest of an atlas: its effective manifest and the digests of the files that its packs name."""
    named = [path for pack in manifest.get("context_packs", []) for path in pack.get("files", [])]
    hashes = {path: hashlib.sha256(files[path].encode("utf-8")).hexdigest() for path in named}
    return canonical.digest({"manifest": effective_manifest(manifest), "files": hashes})


def snapshot_digest(atlases: list[Json], files: context.Files, default_decision: str) -> str:
    """Return the digest of a loaded set: every atlas in load order, and the default decision."""
    loaded = [
        {
            "atlas_id": atlas["atlas_id"],
            "digest": atlas_digest(atlas, files.get(atlas["atlas_id"], {})),
            "version": atlas["version"],
        }
        for atlas in atlases
    ]
    return canonical.digest({"atlases": loaded, "default_decision": default_decision})


# --- the document -----------------------------------------------------------------------------------------------------


def decision(verdicts: list[Json]) -> Json:
    """Return the verdict over the whole: allow, deny, requires_approval or partial."""
    results = [verdict["result"] for verdict in verdicts]
    allowed, waiting = results.count("allow"), results.count("requires_approval")
    kind: str = "partial"
    reason: str | None = "some actions are denied or wait for approval"
    if allowed and allowed == len(results):
        kind, reason = "allow", None
    elif not allowed and waiting:
        kind, reason = "requires_approval", "every offered action waits for approval"
    elif not allowed:
        kind, reason = "deny", "no action is allowed" if results else "no action matches the request"
    return {"type": kind, "reason": reason, "approval_id": None, "expires_at": None}


def allowed_action(action: Json, *, confirm: bool) -> Json:
    """Return an action as it is offered."""
    offered = {
        "action_id": action["action_id"],
        "name": action["name"],
        "description": action.get("description", ""),
        "parameters_schema": action.get("parameters_schema", {}),
        "returns_schema": action.get("returns_schema", {}),
        "risk_tier": action.get("risk_tier", "low"),
        "requires_confirmation": confirm,
        "idempotent": action.get("idempotent", False),
    }
    return {**offered, "rate_limit": action["rate_limit"]} if "rate_limit" in action else offered


def denied_action(verdict: Json) -> Json:
    """Return an action as it is refused; `policy_id` is absent when no policy decided."""
    denied = {"action_id": verdict["action_id"], "reason": verdict["reason"]}
    return {**denied, "policy_id": verdict["policy"]["policy_id"]} if verdict["policy"] else denied


def constraints(verdicts: list[Json], asked: Asked) -> list[Json]:
    """Return what binds the offered actions, one for each policy, in evaluation order."""
    found = []
    for rule in policy.rules(asked.atlases):
        bound = [verdict["action_id"] for verdict in verdicts if _offered(verdict) and _binds(rule, verdict, asked)]
        if bound:
            parameters = {"actions": bound, **_constraint_parameters(rule)}
            found.append({"constraint_id": rule.key, "type": _constraint_type(rule), "parameters": parameters})
    return found


def _offered(verdict: Json) -> bool:
    return verdict["result"] in ("allow", "requires_approval")


def _binds(rule: Rule, verdict: Json, asked: Asked) -> bool:
    """Tell whether a policy is something the agent should know about an action it is offered.

    Limits and scopes that apply; whatever else only the parameters will decide; what asks for approval; and the allow
    that decided, if it holds for some hours or some parameters only.
    """
    offer = next(o for o in policy.offers(asked.atlases) if o.action_id == verdict["action_id"])
    decided = verdict["policy"] == {"atlas_id": rule.atlas_id, "policy_id": rule.policy_id}
    conditional = not isinstance(rule.when, NoCondition)
    if not policy.applies(rule, offer, asked):
        return False
    if rule.phase in ("scope", "rate_limit", "budget"):
        return True
    if rule.phase == "allow":
        return decided and (conditional or "time_window" in rule.conditions)
    return conditional or decided


def _constraint_type(rule: Rule) -> str:
    if rule.phase == "allow" and isinstance(rule.when, NoCondition):
        return "time_window"
    return "scope" if rule.phase in ("deny", "allow") else rule.phase


def _constraint_parameters(rule: Rule) -> Json:
    given = policy.given_reason(rule)
    reason = {} if given is None else {"reason": given}
    when = {} if isinstance(rule.when, NoCondition) else {"when": rule.when}
    if rule.phase in ("rate_limit", "budget"):
        return {"per": "agent", **rule.parameters, **reason, **when}
    if rule.phase == "scope":
        return {**rule.parameters, **reason, **when}
    if rule.phase == "require_approval":
        return {**reason, **when}
    if when:
        return {"effect": rule.phase, **reason, **when}
    return {"timezone": "UTC", "days": policy.DAYS, **rule.conditions["time_window"]}


def resolve(
    atlases: list[Json],
    files: context.Files,
    request: Json,
    now: int,
    usage: Json | None = None,
    *,
    resolution_id: str,
    trace_id: str,
    session_context: Json | None = None,
    settings: Settings = DEFAULTS,
) -> Json:
    """Return the resolution of a request."""
    asked = _asked(atlases, request, now, usage, session_context, settings)
    verdicts = _verdicts(asked)
    kept, _ = context.select(atlases, files, request, now, settings.max_context_tokens, session_context)
    actions = {offer.action_id: offer.action for offer in policy.offers(atlases)}
    return {
        "carp_version": "1.0",
        "resolution_id": resolution_id,
        "request_id": request["request_id"],
        "timestamp": timestamp(now),
        "decision": decision(verdicts),
        "context_blocks": [block.wire() for block in kept],
        "allowed_actions": [
            allowed_action(actions[verdict["action_id"]], confirm=verdict["result"] == "requires_approval")
            for verdict in verdicts
            if _offered(verdict)
        ],
        "denied_actions": [denied_action(verdict) for verdict in verdicts if not _offered(verdict)],
        "constraints": constraints(verdicts, asked),
        "ttl_seconds": settings.ttl_seconds,
        "trace_id": trace_id,
    }


def _asked(
    atlases: list[Json],
    request: Json,
    now: int,
    usage: Json | None,
    session_context: Json | None,
    settings: Settings,
) -> Asked:
    return Asked(
        atlases,
        request,
        now,
        usage or {},
        session_context=session_context,
        default_decision=settings.default_decision,
    )


def _verdicts(asked: Asked) -> list[Json]:
    return policy.evaluate(
        asked.atlases,
        asked.request,
        asked.now,
        asked.usage,
        session_context=asked.session_context,
        default_decision=asked.default_decision,
    )


# --- the record -------------------------------------------------------------------------------------------------------


def events(
    atlases: list[Json],
    files: context.Files,
    request: Json,
    now: int,
    usage: Json | None = None,
    *,
    resolution_id: str,
    trace_id: str,
    session_context: Json | None = None,
    settings: Settings = DEFAULTS,
) -> list[tuple[str, Json]]:
    """Return (event type, payload) of everything a resolve records, in order."""
    asked = _asked(atlases, request, now, usage, session_context, settings)
    kept, skipped = context.select(atlases, files, request, now, settings.max_context_tokens, session_context)
    answer = resolve(
        atlases,
        files,
        request,
        now,
        usage,
        resolution_id=resolution_id,
        trace_id=trace_id,
        session_context=session_context,
        settings=settings,
    )
    return [
        ("carp.request.received", received(request, settings.capture_full)),
        *(("policy.evaluated", evaluated(verdict)) for verdict in _verdicts(asked) if verdict["policy"]),
        *(("context.injected", injected(block)) for block in kept),
        *(("context.redacted", redacted(block)) for block in skipped),
        ("carp.resolution.completed", completed(answer, snapshot_digest(atlases, files, settings.default_decision))),
    ]


def received(request: Json, capture_full: bool) -> Json:
    """Return the payload of carp.request.received: what differs from the default is kept, context perhaps as a hash."""
    filled = canonical_request(request)
    task, given = filled["task"], filled["context"]
    payload: Json = {
        "request_id": filled["request_id"],
        "operation": filled["operation"],
        "goal": task["goal"],
        "atlas_ids": filled["atlas_ids"],
        "request_hash": request_hash(request),
    }
    if task["risk_tier"] != "low":
        payload["risk_tier"] = task["risk_tier"]
    if task["context_hints"]:
        payload["context_hints"] = task["context_hints"]
    if task["required_capabilities"]:
        payload["required_capabilities"] = task["required_capabilities"]
    if given:
        payload |= {"context": given} if capture_full else {"context_hash": canonical.digest(given)}
    return payload


def evaluated(verdict: Json) -> Json:
    """Return the payload of policy.evaluated."""
    payload = {"action_id": verdict["action_id"], **verdict["policy"], "result": verdict["result"]}
    after = verdict["retry_after_seconds"]
    return payload if after is None else {**payload, "retry_after_seconds": after}


def injected(block: context.Block) -> Json:
    """Return the payload of context.injected."""
    wire: dict[str, Any] = block.wire()
    return {
        "block_id": wire["block_id"],
        "source": wire["source"],
        "content_type": wire["content_type"],
        "token_count": wire["token_estimate"],
        "priority": wire["priority"],
        "content_hash": block.content_hash,
    }


def redacted(block: context.Block) -> Json:
    """Return the payload of context.redacted."""
    wire = block.wire()
    return {"block_id": wire["block_id"], "source": wire["source"], "redaction_reason": "token_budget"}


def completed(answer: Json, digest: str) -> Json:
    """Return the payload of carp.resolution.completed."""
    return {
        "resolution_id": answer["resolution_id"],
        "request_id": answer["request_id"],
        "decision_type": answer["decision"]["type"],
        "allowed_count": len(answer["allowed_actions"]),
        "denied_count": len(answer["denied_actions"]),
        "context_block_count": len(answer["context_blocks"]),
        "ttl_seconds": answer["ttl_seconds"],
        "resolution_hash": canonical.digest(answer),
        "snapshot_digest": digest,
    }
