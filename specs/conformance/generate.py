"""Write the conformance vectors: `python -m specs.conformance.generate`, from the repository's root.

Cases come from `specs.conformance.cases`. What a person expects is written there by hand and checked here against the
reference; what only a machine can say (hashes, canonical bytes, words) is computed by the reference. Same cases, same
bytes: a test generates them anew and compares.
"""

import base64
import hashlib
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

from specs.conformance.cases import (
    choosing,
    counting,
    deciding,
    differing,
    documents,
    encoding,
    globs,
    make,
    replaying,
    validating,
)
from specs.conformance.cases.make import Json
from specs.reference import canonical, chain, context, glob, policy, resolution, windows

HERE = Path(__file__).parent
VECTORS = HERE / "vectors"
SCHEMAS = HERE.parent / "schemas"

# kind of document -> (its schema, the level it belongs to)
KINDS = {
    "request": ("carp-request", "CARP-Core"),
    "resolution": ("carp-resolution", "CARP-Core"),
    "execute-response": ("execute-response", "CARP-Core"),
    "event": ("trace-event", "TRACE-Core"),
    "manifest": ("atlas-manifest", "Atlas-Core"),
}


def suites() -> dict[str, Json]:
    """Return every suite by the name of its file."""
    return {
        "schema-validity": suite("CRA-Minimal", "wire documents and the place of what is wrong", schema_validity()),
        "canonical-json": suite("TRACE-Core", "canonical text and what has none", canonical_json()),
        "hashes": suite("TRACE-Core", "event hashes with their preimages, and document digests", hashes()),
        "chains": suite("TRACE-Core", "stored lines, and the first bad event of each", chains()),
        "globs": suite("CARP-Core", "patterns and texts", glob_cases()),
        "policy-order": suite("CARP-Core", "which policy decides", decisions(deciding.ORDER)),
        "conditions": suite("CARP-Core", "when a policy applies", decisions(deciding.CONDITIONS)),
        "limits": suite("CARP-Core", "limits in decisions and costs", decisions(deciding.LIMITS)),
        "windows": suite("CARP-Core", "calls over time, and which are admitted", window_cases()),
        "resolutions": suite("CARP-Core", "whole resolutions with their events", resolutions()),
        "context-ordering": suite("CARP-Core", "which documents, in which order", context_ordering()),
        "atlas-validation": suite("Atlas-Core", "atlases and all their problems", validating.ATLAS_VALIDATION),
        "diffs": suite("CRA-Full", "pairs of traces and what differs between them by meaning", diffs()),
        "replay": suite("CRA-Full", "recorded sessions decided again, and against other atlases", replays()),
    }


def expect(holds: bool, about: object) -> None:
    """Stop where what a person wrote and what the reference says differ."""
    if not holds:
        raise SystemExit(f"the case and the reference differ: {about}")


def suite(level: str, description: str, cases: list[Json]) -> Json:
    """Return a suite; its name is that of its file, and a test id is `<suite>/<case id>`."""
    ids = [case["id"] for case in cases]
    expect(len(set(ids)) == len(ids), [name for name in ids if ids.count(name) > 1])
    return {"level": level, "description": description, "cases": cases}


# --- documents --------------------------------------------------------------------------------------------------------


def schema_validity() -> list[Json]:
    """Check every expectation against the committed schemas."""
    cases = []
    for name, kind, why, document in documents.VALID:
        expect(not _locations(kind, document), name)
        cases.append(_document(name, kind, why, document, None))
    for name, kind, why, document, pointer in documents.INVALID:
        expect(pointer in _locations(kind, document), (name, _locations(kind, document)))
        cases.append(_document(f"bad-{name}", kind, why, document, pointer))
    return cases


def _document(name: str, kind: str, why: str, document: Json, pointer: str | None) -> Json:
    return {
        "id": name,
        "why": why,
        "level": KINDS[kind][1],
        "kind": kind,
        "document": document,
        "valid": pointer is None,
        "pointer": pointer,
    }


def _locations(kind: str, document: Json) -> set[str]:
    schema = json.loads((SCHEMAS / f"{KINDS[kind][0]}.json").read_text(encoding="utf-8"))
    return {_location(error) for error in jsonschema.Draft202012Validator(schema).iter_errors(document)}


def _location(error: jsonschema.ValidationError) -> str:
    steps = list(error.absolute_path)
    if error.schema is False:
        # NOTE: jsonschema names no place where a property's schema is `false`; ours has one such property.
        steps.append("execution")
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


# --- encoding ---------------------------------------------------------------------------------------------------------


def canonical_json() -> list[Json]:
    """Cases of three shapes: `json` with `canonical`, `json` that is refused, and `ieee754` bits of a double."""
    cases = []
    for name, why, text, expected in encoding.CANONICAL:
        value = canonical.loads(text.encode())
        expect(canonical.dumps(value).decode() == expected, name)
        cases.append(_canonical_case(name, why, text, expected))
    for name, why, text in encoding.NOT_CANONICAL:
        raw = text.encode()
        expect(not canonical.is_canonical(raw), name)
        if name == "duplicate":
            continue
        cases.append(_canonical_case(f"not-{name}", why, text, canonical.dumps(canonical.loads(raw)).decode()))
    for name, why, text, pointer in encoding.REFUSED:
        expect(_refused_at(text) == pointer, (name, _refused_at(text)))
        cases.append({"id": f"refused-{name}", "why": why, "json": text, "refused": True, "pointer": pointer})
    for bits, written in encoding.DOUBLES:
        expect(_double(bits) == written, (bits, _double(bits)))
        cases.append({"id": f"double-{bits}", "why": "RFC 8785, appendix B", "ieee754": bits, "canonical": written})
    return cases


def _canonical_case(name: str, why: str, text: str, expected: str) -> Json:
    return {
        "id": name,
        "why": why,
        "json": text,
        "is_canonical": text == expected,
        "canonical": expected,
        "sha256": hashlib.sha256(expected.encode()).hexdigest(),
    }


def _refused_at(text: str) -> str | None:
    try:
        canonical.loads(text.encode())
    except canonical.NotCanonical as error:
        return error.pointer
    except ValueError:
        return None
    raise AssertionError(text)


def _double(bits: str) -> str | None:
    try:
        return canonical.number(struct.unpack(">d", bytes.fromhex(bits))[0])
    except canonical.NotCanonical:
        return None


def hashes() -> list[Json]:
    """Cases by `kind`: event, request, atlas, snapshot, or any other value."""
    cases: list[Json] = []
    for name, why, event in encoding.EVENTS:
        for previous in (chain.FIRST_HEAD, "ab" * 32):
            linked = chain.link(event, previous)
            cases.append(
                {
                    "id": f"event-{name}-{previous[:2]}",
                    "why": why,
                    "kind": "event",
                    "event": {**event, "previous_event_hash": previous},
                    "preimage": chain.preimage(linked).decode(),
                    "event_hash": linked["event_hash"],
                    "line": chain.line(linked).decode(),
                }
            )
    for name, why, request in encoding.EXTERNAL_REQUESTS:
        digest = resolution.request_hash(request)
        cases.append({"id": name, "why": why, "kind": "request", "document": request, "sha256": digest})
    for name, why, manifest, files in encoding.ATLASES:
        digest = resolution.atlas_digest(manifest, files)
        cases.append({"id": name, "why": why, "kind": "atlas", "document": manifest, "files": files, "sha256": digest})
    loaded = [encoding.ATLASES[1][2], make.atlas("com.acme.two", ["order.get"])]
    files_of = {"com.acme.one": encoding.ATLASES[1][3]}
    for default_decision in ("allow", "deny"):
        for order, atlases in (("loaded", loaded), ("swapped", loaded[::-1])):
            cases.append(
                {
                    "id": f"snapshot-{default_decision}-{order}",
                    "why": "the load order and the default decision are under the digest",
                    "kind": "snapshot",
                    "atlases": atlases,
                    "files": files_of,
                    "default_decision": default_decision,
                    "sha256": resolution.snapshot_digest(atlases, files_of, default_decision),
                }
            )
    for name, why, value in (
        ("parameters-empty", "no parameters are an empty object", {}),
        ("parameters-numbers", "1.0 and 1 are the same number", {"amount": 1.0, "big": 2**64}),
        ("result-null", "a result may be null", None),
        ("result-text", "a result may be any JSON value", "fertig ✓"),
    ):
        cases.append({"id": name, "why": why, "kind": "value", "document": value, "sha256": canonical.digest(value)})
    return cases


def chains() -> list[Json]:
    """Cases of bytes: `data` as text, or `data_base64` where they are not UTF-8."""
    cases = []
    for name, why, edit, expected in encoding.CHAINS:
        data = edit(encoding.sample_chain())
        verdict = chain.verify(data)
        found = None if verdict["ok"] else (verdict["index"], verdict["reason"])
        expect(found == expected, (name, found))
        kept = ("ok", "events", "index", "reason", "offset", "head")
        cases.append({"id": name, "why": why, **_bytes(data), "expected": {key: verdict[key] for key in kept}})
    return cases


def _bytes(data: bytes) -> Json:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def glob_cases() -> list[Json]:
    """Check every expectation."""
    for name, _, pattern, text, expected in globs.GLOBS:
        expect(glob.glob_match(pattern, text) == expected, name)
    return [
        {"id": name, "why": why, "pattern": pattern, "text": text, "match": expected}
        for name, why, pattern, text, expected in globs.GLOBS
    ]


def diffs() -> list[Json]:
    """Check that every chain is good."""
    for case in differing.DIFFS:
        for name in ("before", "after"):
            expect(chain.verify(case[name].encode())["ok"], (case["id"], name))
    return differing.DIFFS


def replays() -> list[Json]:
    """Check that every recorded chain is good: what is wrong with them is what they say."""
    for case in replaying.REPLAY:
        expect(chain.verify(case["trace"].encode())["ok"], case["id"])
    return replaying.REPLAY


# --- deciding ---------------------------------------------------------------------------------------------------------


def decisions(cases: list[Json]) -> list[Json]:
    """Fill in the reasons, and what an allowed call takes from which limit."""
    return [{**case, "expected": _decided(case)} for case in cases]


def _decided(case: Json) -> list[Json]:
    given = {
        "usage": case.get("usage"),
        "approved": case.get("approved", False),
        "session_context": case.get("session_context"),
        "default_decision": case.get("default_decision", "allow"),
    }
    if "parameters" in case:
        given["parameters"] = case["parameters"]
    verdicts = policy.evaluate(case["atlases"], case["request"], case["now_us"], **given)
    short = {v["action_id"]: v["result"] + (f" by {v['policy']['policy_id']}" if v["policy"] else "") for v in verdicts}
    expect(short == case["expected"], (case["id"], short))
    if "parameters" not in case:
        return verdicts
    given.pop("parameters")
    return [
        policy.evaluate_call(
            case["atlases"], case["request"], case["now_us"], v["action_id"], case["parameters"], **given
        )
        for v in verdicts
    ]


def window_cases() -> list[Json]:
    """Fill in how long each call would have to wait, and how much is used when it comes."""
    return [{**case, "calls": (_rate if case["kind"] == "rate" else _budget)(case)} for case in counting.WINDOWS]


def _rate(case: Json) -> list[Json]:
    taken: list[int] = []
    calls = []
    for call in case["calls"]:
        wait = windows.rate_wait(taken, call["at_us"], case["max_calls"], case["window_us"])
        used = windows.rate_used(taken, call["at_us"], case["window_us"])
        after = windows.rate_take(taken, call["at_us"], case["max_calls"], case["window_us"])
        expect((after is not None) == call["admitted"], (case["id"], call))
        taken = taken if after is None else after
        calls.append({**call, "wait_us": wait, "used": used})
    return calls


def _budget(case: Json) -> list[Json]:
    taken: list[tuple[int, int]] = []
    calls = []
    for call in case["calls"]:
        now, cost = call["at_us"], call["cost"]
        wait = windows.budget_wait(taken, now, cost, case["limit"], case["window_us"])
        used, _ = windows.budget_spent(taken, now, case["window_us"])
        after = windows.budget_take(taken, now, cost, case["limit"], case["window_us"])
        expect((after is not None) == call["admitted"], (case["id"], call))
        taken = taken if after is None else after
        calls.append({**call, "wait_us": wait, "used": used})
    return calls


def resolutions() -> list[Json]:
    """Turn the cases of deciding and choosing into whole resolutions with the payloads of their events."""
    cases: list[Json] = []
    for prefix, sources in (
        ("order", deciding.ORDER),
        ("conditions", deciding.CONDITIONS),
        ("limits", deciding.LIMITS),
        ("context", choosing.CONTEXT),
    ):
        cases += [
            {**source, "id": f"{prefix}-{source['id']}", "expected": _resolved(source)}
            for source in sources
            if "parameters" not in source
        ]
    return cases


def _resolved(case: Json) -> Json:
    given: dict[str, Any] = {
        "resolution_id": make.RESOLUTION,
        "trace_id": make.TRACE,
        "session_context": case.get("session_context"),
        "settings": resolution.Settings(
            max_context_tokens=case.get("max_tokens"), default_decision=case.get("default_decision", "allow")
        ),
    }
    asked = (case["atlases"], case.get("files", {}), case["request"], case["now_us"], case.get("usage"))
    events = resolution.events(*asked, **given)
    return {
        "resolution": resolution.resolve(*asked, **given),
        "events": [{"event_type": event_type, "payload": payload} for event_type, payload in events],
    }


def context_ordering() -> list[Json]:
    """Fill in each block's relevance."""
    cases = []
    for case in choosing.CONTEXT:
        kept, skipped = context.select(
            case["atlases"],
            case["files"],
            case["request"],
            case["now_us"],
            case["max_tokens"],
            case.get("session_context"),
        )
        found = {"blocks": [_short(block) for block in kept], "redacted": [_short(block) for block in skipped]}
        expect(found == case["expected"], (case["id"], found))
        cases.append(
            {**case, "expected": {"blocks": _named(kept), "redacted": _named(skipped)}, "scores": _scores(case)}
        )
    return cases


def _short(block: context.Block) -> str:
    return f"{block.atlas['atlas_id'].rpartition('.')[2]}:{block.wire()['block_id']}"


def _named(blocks: list[context.Block]) -> list[Json]:
    return [{"source": block.atlas["atlas_id"], "block_id": block.wire()["block_id"]} for block in blocks]


def _scores(case: Json) -> Json:
    task = case["request"]["task"]
    scores: Json = {}
    for atlas in case["atlases"]:
        blocks = context.blocks_of(atlas, case["files"])
        found = context.scores([block.text for block in blocks], task["goal"], task.get("context_hints", []))
        scores[atlas["atlas_id"]] = {
            block.wire()["block_id"]: score for block, score in zip(blocks, found, strict=True)
        }
    return scores


# --- writing ----------------------------------------------------------------------------------------------------------


def rendered(name: str, content: Json) -> str:
    """Return the text of a suite's file: one line a case, so that a change shows as one."""
    head = {"suite": name, "level": content["level"], "description": content["description"]}
    lines = ",\n".join("  " + _line(case) for case in content["cases"])
    return (
        "{\n"
        + "".join(f' "{key}": {_line(value)},\n' for key, value in head.items())
        + f' "cases": [\n{lines}\n ]\n}}\n'
    )


def _line(value: Any) -> str:
    # ASCII: look-alikes, control characters and combining marks are visible in review.
    return json.dumps(value, ensure_ascii=True, separators=(", ", ": "))


def write(report: Callable[[str], object] = print) -> None:
    """Write every file that is generated."""
    VECTORS.mkdir(exist_ok=True)
    for name, content in suites().items():
        (VECTORS / f"{name}.json").write_text(rendered(name, content), encoding="utf-8")
        report(f"{name}: {len(content['cases'])} cases")


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    write()
