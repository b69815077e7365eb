"""Vectors: each suite's cases, put to this implementation."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from cra._core.canonical import digest, dumps
from cra._core.chain import Chain, verify
from cra._core.glob import glob_match
from cra._core.sha256 import hexdigest
from cra._core.windows import BudgetWindow, RateWindow
from cra.atlas import loader
from cra.atlas.limits import cost_of, least_cost
from cra.atlas.package import Atlas
from cra.atlas.schema_check import ParameterSchema
from cra.atlas.snapshot import RISK_RANK, Snapshot
from cra.audit.diff import diff
from cra.errors import AtlasInvalid, InvalidInput, NotCanonical
from cra.protocol import atlas, carp, jsontext, trace
from cra.protocol.codec import check_request, decode_request
from cra.protocol.schema import schemas
from cra.runtime import engine
from cra.runtime.engine import Rules
from cra.runtime.replay import replay
from cra.runtime.whatif import WhatIf, what_if
from cra.storage.base import SessionRecord

Json = dict[str, Any]

# No bound: more tokens than any case has.
_UNBOUNDED = 1 << 30
_NEVER = -1


class Mismatch(Exception):
    """What came out is not what a case expects."""

    def __init__(self, expected: Any, found: Any, message: str = "") -> None:
        super().__init__(message or "the outcome differs")
        self.expected = expected
        self.found = found


class Skip(Exception):
    """A test that cannot be put to this implementation; the words say why."""


def same(expected: Any, found: Any, message: str = "") -> None:
    """Raise `Mismatch` unless two values are the same JSON."""
    if found is expected:
        return
    try:
        equal = dumps(expected) == dumps(found)
    except NotCanonical:
        equal = expected == found
    if not equal:
        raise Mismatch(expected, found, message)


def check(suite: str, case: Json) -> None:
    """Put one case to this implementation; raises `Mismatch`, or whatever broke."""
    SUITES[suite](case)


# Documents

_KINDS: dict[str, tuple[str, type[msgspec.Struct]]] = {
    "request": ("carp-request", carp.Request),
    "resolution": ("carp-resolution", carp.Resolution),
    "execute-response": ("execute-response", carp.ExecuteResponse),
    "event": ("trace-event", trace.Event),
    "manifest": ("atlas-manifest", atlas.Manifest),
}


def _schema_validity(case: Json) -> None:
    name, kind = _KINDS[case["kind"]]
    errors = ParameterSchema(schemas()[name]).errors(case["document"])
    same(case["valid"], not errors, "what the schema says")
    if not case["valid"]:
        places = {pointer for pointer, _ in errors}
        # Where a property is not expected, JSON Schema may name its place or the object's.
        places |= {pointer.rpartition("/")[0] for pointer, words in errors if "not expected here" in words}
        if case["pointer"] not in places:
            raise Mismatch(case["pointer"], sorted(places), "where the schema says it")
    if case["kind"] == "manifest" and not case["valid"]:
        # A policy's parameters are judged with its type, when the atlas is loaded.
        taken = _loads(case["document"])
    else:
        taken = _reads(case["document"], kind)
    same(case["valid"], taken, "what reading the document says")


def _reads(document: Json, kind: type[msgspec.Struct]) -> bool:
    try:
        value = msgspec.convert(document, kind, strict=True)
        if isinstance(value, carp.Request):
            check_request(value)
    except (msgspec.ValidationError, InvalidInput):
        return False
    return True


def _loads(manifest: Json) -> bool:
    try:
        loader.load_json(manifest)
    except AtlasInvalid:
        return False
    return True


# Encoding


def _canonical_json(case: Json) -> None:
    if "ieee754" in case:
        _double(case)
    elif case.get("refused"):
        _refused(case)
    else:
        text = case["json"]
        # Some cases show integers that a strict reader may refuse for their length.
        written = dumps(json.loads(text, parse_int=_long_integer)).decode()
        same(case["canonical"], written)
        same(case["sha256"], hexdigest(written.encode()))
        same(case["is_canonical"], text == written)
        if text.startswith("{"):
            # The reader of traces judges payloads by itself.
            same(case["is_canonical"], _is_canonical_payload(text), "as a payload")


def _long_integer(digits: str) -> int:
    value = 0
    for place in range(0, len(digits.lstrip("-")), 1000):
        piece = digits.lstrip("-")[place : place + 1000]
        value = value * 10 ** len(piece) + int(piece)
    return -value if digits.startswith("-") else value


def _is_canonical_payload(text: str) -> bool:
    batch = Chain(_SESSION, _SESSION).begin(0, bytes(16))
    batch.add_canonical("error.occurred", text.encode())
    return verify(batch.data).ok


def _double(case: Json) -> None:
    value = struct.unpack(">d", bytes.fromhex(case["ieee754"]))[0]
    try:
        written = dumps(value).decode()
    except NotCanonical:
        written = None
    same(case["canonical"], written)


def _refused(case: Json) -> None:
    try:
        jsontext.decode(case["json"])
    except InvalidInput:
        pass
    else:
        raise Mismatch("refused", "read", "the strict reader takes it")
    if case["pointer"] is None:
        return
    try:
        dumps(json.loads(case["json"]))
    except NotCanonical as error:
        same(case["pointer"], error.pointer)
    else:
        raise Mismatch(case["pointer"], None, "the writer takes it")


def _hashes(case: Json) -> None:
    match case["kind"]:
        case "event":
            event, line = case["event"], case["line"].encode()
            same(case["event_hash"], hexdigest(case["preimage"].encode()))
            verdict = verify(line, event["sequence"], event["previous_event_hash"])
            same(None, verdict.reason, verdict.message or "")
            same(case["event_hash"], verdict.head)
        case "request":
            request = decode_request(dumps(case["document"]))
            same(case["sha256"], hexdigest(engine.canonical_request(request)))
        case "atlas":
            same(case["sha256"], loader.load_json(case["document"], case["files"]).digest)
        case "snapshot":
            same(case["sha256"], _snapshot(case).digest)
        case _:
            same(case["sha256"], digest(case["document"]))


def _chains(case: Json) -> None:
    data = case["data"].encode() if "data" in case else base64.b64decode(case["data_base64"])
    verdict = verify(data)
    same(case["expected"], {name: getattr(verdict, name) for name in case["expected"]}, verdict.message or "")


def _globs(case: Json) -> None:
    same(case["match"], glob_match(case["pattern"], case["text"]))


# Deciding

_SESSION = "01920000-0000-7000-8000-00000000000a"
_RESOLUTION = "01920000-0000-7000-8000-00000000000c"
_TRACE = "01920000-0000-7000-8000-00000000000d"


def _atlases(case: Json) -> list[Atlas]:
    files = case.get("files", {})
    return [loader.load_json(manifest, files.get(manifest["atlas_id"], {})) for manifest in case["atlases"]]


def _snapshot(case: Json) -> Snapshot:
    return Snapshot(_atlases(case), case.get("default_decision", "allow"))


def _session(case: Json) -> SessionRecord:
    request = case["request"]
    return SessionRecord(
        session_id=request["requester"]["session_id"],
        agent_id=request["requester"]["agent_id"],
        goal=request["task"]["goal"],
        trace_id=_TRACE,
        started_us=case["now_us"],
        context=case.get("session_context") or {},
    )


def _usage(case: Json, snapshot: Snapshot, parameters: Any = None) -> dict[int, int]:
    """Return what limits have counted as the engine wants to know it: the microseconds to wait."""
    waits: dict[int, int] = {}
    for number, limit in snapshot.limits.items():
        policy = snapshot.policies[number]
        counted = (case.get("usage") or {}).get(f"{policy.atlas_id}:{policy.policy_id}", {})
        cost = least_cost(limit) if parameters is None else cost_of(limit, parameters)
        if limit.rate:
            wait = int(counted.get("wait_us", 0))
        elif cost is None:
            wait = engine.NO_COST
        elif counted.get("spent", 0) + cost <= limit.amount:
            wait = 0
        else:
            left = counted.get("left_us")
            wait = _NEVER if cost > limit.amount or left is None else int(left)
        if wait:
            waits[number] = wait
    return waits


def _decisions(case: Json) -> None:
    snapshot, session = _snapshot(case), _session(case)
    ask = engine.ask_of(decode_request(dumps(case["request"])))
    context = engine.merged_context(session, ask.context)
    windows = snapshot.open_windows(case["now_us"])
    considered = snapshot.considered(ask.atlas_ids, ask.capabilities)
    called = "parameters" in case
    parameters = case.get("parameters")
    usage = _usage(case, snapshot, parameters if called else None)
    outcome = snapshot.table.evaluate(session.agent_id, ask.risk, context, windows, usage, considered)
    found = []
    for number in range(len(snapshot.actions)):
        if considered is not None and not considered[number]:
            continue
        if called:
            decided = snapshot.table.decide(
                number,
                session.agent_id,
                ask.risk,
                context,
                windows,
                usage,
                parameters,
                case.get("approved", False),
            )
        else:
            decided = outcome.decision(number) or ("deny", -1)
        verdict = _verdict(snapshot, number, *decided, usage)
        if called:
            taken = decided[0] == "allow"
            verdict["consumes"] = _consumed(snapshot, session, number, ask.risk, context, parameters, windows, taken)
        found.append(verdict)
    same(case["expected"], found)


def _verdict(snapshot: Snapshot, action: int, decision: str, policy: int, usage: dict[int, int]) -> Json:
    bound = snapshot.actions[action]
    wait_us = usage.get(policy, 0)
    decided = snapshot.policies[policy] if policy >= 0 else None
    reason = None
    if decided is not None or decision != "allow":
        reason = engine.why(snapshot, engine.Verdict(action, decision, policy, wait_us))
    return {
        "atlas_id": bound.atlas_id,
        "action_id": bound.action.action_id,
        "result": decision,
        "policy": None if decided is None else {"atlas_id": decided.atlas_id, "policy_id": decided.policy_id},
        "reason": reason,
        "retry_after_seconds": engine.seconds(wait_us) if wait_us > 0 else None,
    }


def _consumed(
    snapshot: Snapshot,
    session: SessionRecord,
    action: int,
    risk: int,
    context: Json,
    parameters: Any,
    windows: bytes | None,
    taken: bool,
) -> dict[str, int]:
    if not taken:
        return {}
    policies, claims, _ = engine.claims_of(snapshot, session, action, risk, context, parameters, windows)
    names = [f"{snapshot.policies[number].atlas_id}:{snapshot.policies[number].policy_id}" for number in policies]
    return {name: claim.cost for name, claim in zip(names, claims, strict=True)}


def _windows(case: Json) -> None:
    found = []
    rate = RateWindow(case["max_calls"], case["window_us"]) if case["kind"] == "rate" else None
    budget = BudgetWindow(case["limit"], case["window_us"]) if case["kind"] == "budget" else None
    for call in case["calls"]:
        now = call["at_us"]
        if rate is not None:
            wait, used, admitted = rate.peek(now), rate.used(now), rate.take(now)
        elif budget is not None:
            wait, used, admitted = budget.peek(call["cost"], now), budget.used(now), budget.take(call["cost"], now)
        found.append({**call, "admitted": admitted, "wait_us": wait, "used": used})
    same(case["calls"], found)


def _resolutions(case: Json) -> None:
    snapshot, session = _snapshot(case), _session(case)
    ask = engine.ask_of(decode_request(dumps(case["request"])))
    tokens = case.get("max_tokens")
    rules = Rules(3600, _UNBOUNDED if tokens is None else tokens, False)
    batch = Chain(session.session_id, session.trace_id).begin(case["now_us"], bytes(16))
    decided = engine.resolve(snapshot, session, ask, batch, _usage(case, snapshot), rules)
    same(decided.canonical.decode(), engine.canonical_resolution(decided.resolution).decode(), "bytes and struct")
    own = decided.resolution.resolution_id
    answer = decided.canonical.replace(own.encode(), _RESOLUTION.encode())
    same(case["expected"]["resolution"], json.loads(answer), "the resolution")
    lines = [json.loads(line) for line in batch.data.splitlines()]
    events = [{"event_type": line["event_type"], "payload": line["payload"]} for line in lines]
    same(events[-1]["payload"]["resolution_hash"], hexdigest(decided.canonical), "the resolution's digest")
    events[-1]["payload"].update(resolution_id=_RESOLUTION, resolution_hash=hexdigest(answer))
    same(case["expected"]["events"], events, "the events")


def _context_ordering(case: Json) -> None:
    snapshot, session = _snapshot(case), _session(case)
    ask = engine.ask_of(decode_request(dumps(case["request"])))
    chosen: list[int] = []
    skipped: list[int] = []
    if snapshot.context is not None:
        context = engine.merged_context(session, ask.context)
        windows = snapshot.open_windows(case["now_us"])
        risk = RISK_RANK[case["request"]["task"].get("risk_tier", "low")]
        packs = snapshot.open_packs(session.agent_id, risk, context, windows, ask.atlas_ids, ask.capabilities)
        tokens = _UNBOUNDED if case["max_tokens"] is None else case["max_tokens"]
        chosen, skipped = snapshot.context.select(ask.goal, ask.hints, packs, tokens)
    named = [[{"source": b.source, "block_id": b.block_id} for b in map(snapshot.blocks.__getitem__, numbers)]
             for numbers in (chosen, skipped)]  # fmt: skip
    same(case["expected"], {"blocks": named[0], "redacted": named[1]})


# Atlases and the record


def _atlas_validation(case: Json) -> None:
    try:
        loader.load_json(case["manifest"], case["files"])
        problems = []
    except AtlasInvalid as error:
        problems = [{"file": one.file, "pointer": one.pointer, "code": one.code} for one in error.problems]
    order = ("file", "pointer", "code")
    found = sorted(problems, key=lambda one: [one[name] for name in order])
    same(sorted(case["expected"], key=lambda one: [one[name] for name in order]), found)


def _replay(case: Json) -> None:
    atlases, data = _atlases(case), case["trace"].encode()
    default: Any = case["default_decision"]
    if case["mode"] == "what_if":
        same(case["expected"], {"changes": changes_of(what_if(data, atlases, default_decision=default))})
        return
    result = replay(data, atlases, default_decision=default)
    found = {
        "different": [{"index": event.index, "pointer": event.pointer} for event in result.differences],
        "not_retained": [event.index for event in result.not_retained],
    }
    same(case["expected"], found)


def changes_of(found: WhatIf) -> list[Json]:
    """Return the distinct changes of a what-if that could be told, sorted by action."""
    changes = {
        (change.action_id, change.before.decision, change.after.decision)
        for verdict in found.verdicts
        for change in verdict.changes
        if change.after.decision != "unknown"
    }
    return [{"action_id": action, "before": before, "after": after} for action, before, after in sorted(changes)]


def _diffs(case: Json) -> None:
    found = diff(case["before"].encode(), case["after"].encode())
    shown = [
        {name: getattr(one, name) for name in ("grade", "event_type", "before_index", "after_index", "pointer")}
        for one in found.differences
    ]
    same(case["expected"], {"grade": found.grade, "differences": shown})


SUITES: dict[str, Callable[[Json], None]] = {
    "schema-validity": _schema_validity,
    "canonical-json": _canonical_json,
    "hashes": _hashes,
    "chains": _chains,
    "globs": _globs,
    "policy-order": _decisions,
    "conditions": _decisions,
    "limits": _decisions,
    "windows": _windows,
    "resolutions": _resolutions,
    "context-ordering": _context_ordering,
    "atlas-validation": _atlas_validation,
    "replay": _replay,
    "diffs": _diffs,
}
