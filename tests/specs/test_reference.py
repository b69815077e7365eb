"""The reference against facts that do not come from it, and against the vectors it wrote."""

import base64
import hashlib
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from cra import errors
from specs.conformance import generate
from specs.conformance.cases.make import at
from specs.reference import canonical, chain, context, glob, policy, resolution, windows

SPECS = Path(__file__).parents[2] / "specs"
PROTOCOL = (SPECS / "PROTOCOL.md").read_text(encoding="utf-8")
SCENARIOS = sorted((SPECS / "conformance" / "golden").glob("*/scenario.json"))


def vectors(suite: str) -> list[Any]:
    return list(json.loads((SPECS / "conformance" / "vectors" / f"{suite}.json").read_text())["cases"])


@pytest.fixture(scope="module")
def generated() -> dict[str, Any]:
    return generate.suites()


def test_the_committed_vectors_are_what_the_reference_writes(generated: dict[str, Any]) -> None:
    for name, content in generated.items():
        committed = (SPECS / "conformance" / "vectors" / f"{name}.json").read_text(encoding="utf-8")
        assert committed == generate.rendered(name, content), f"run python -m specs.conformance.generate: {name}"


def test_every_suite_has_cases_with_unique_ids_and_a_reason(generated: dict[str, Any]) -> None:
    for name, content in generated.items():
        assert len(content["cases"]) >= 14, name
        assert all(case["why"] for case in content["cases"]), name


def test_the_reference_imports_nothing_of_cra() -> None:
    for path in (SPECS / "reference").glob("*.py"):
        assert not re.search(r"^\s*(from|import) cra\b", path.read_text(), re.MULTILINE), path.name


# Canonical JSON


def test_doubles_are_written_as_rfc_8785_appendix_b_says() -> None:
    published = {
        "0000000000000001": "5e-324",
        "7fefffffffffffff": "1.7976931348623157e+308",
        "4430000000000000": "295147905179352830000",
        "44b52d02c7e14af6": "1e+23",
        "444b1ae4d6e2ef50": "1e+21",
        "3eb0c6f7a0b5ed8d": "0.000001",
        "becbf647612f3696": "-0.0000033333333333333333",
        "43143ff3c1cb0959": "1424953923781206.2",
    }
    for bits, text in published.items():
        assert canonical.number(struct.unpack(">d", bytes.fromhex(bits))[0]) == text


def test_the_sample_of_rfc_8785_has_its_published_bytes() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    published = (
        "7b 22 6c 69 74 65 72 61 6c 73 22 3a 5b 6e 75 6c 6c 2c 74 72 75 65 2c 66 61 6c 73 65 5d 2c 22 6e 75 6d 62 65 72"
        "73 22 3a 5b 33 33 33 33 33 33 33 33 33 2e 33 33 33 33 33 33 33 2c 31 65 2b 33 30 2c 34 2e 35 2c 30 2e 30 30 32"
        "2c 31 65 2d 32 37 5d 2c 22 73 74 72 69 6e 67 22 3a 22 e2 82 ac 24 5c 75 30 30 30 66 5c 6e 41 27 42 5c 22 5c 5c"
        "5c 5c 5c 22 2f 22 7d"
    )
    assert canonical.dumps(value) == bytes.fromhex(published)


def test_canonical_text_reads_back_as_itself() -> None:
    for case in vectors("canonical-json"):
        if "json" in case and not case.get("refused"):
            text = case["canonical"].encode()
            assert canonical.is_canonical(text)
            assert canonical.dumps(canonical.loads(text)) == text


def test_integers_longer_than_python_prints_are_exact() -> None:
    assert canonical.decimal(-(10**10_000)) == "-1" + "0" * 10_000
    assert canonical.integer("-1" + "0" * 10_000) == -(10**10_000)


def test_refusals_name_the_place() -> None:
    for value, pointer in (
        ({"a": [1, float("nan")]}, "/a/1"),
        ({"a": {1: 2}}, "/a"),
        ({"x/y": {"~": object()}}, "/x~1y/~0"),
    ):
        with pytest.raises(canonical.NotCanonical) as caught:
            canonical.dumps(value)
        assert caught.value.pointer == pointer


# The chain


def test_an_event_hash_is_sha_256_over_the_joined_fields() -> None:
    event = {
        "trace_version": "1.0",
        "event_id": "e" * 8 + "-0000-0000-0000-" + "0" * 12,
        "trace_id": "a" * 8 + "-0000-0000-0000-" + "0" * 12,
        "span_id": "b" * 8 + "-0000-0000-0000-" + "0" * 12,
        "parent_span_id": None,
        "session_id": "c" * 8 + "-0000-0000-0000-" + "0" * 12,
        "sequence": 0,
        "timestamp": "2026-01-05T14:30:00.000000Z",
        "event_type": "session.started",
        "payload": {"b": 1.0, "a": "é"},
        "previous_event_hash": "0" * 64,
    }
    joined = (
        "1.0eeeeeeee-0000-0000-0000-000000000000aaaaaaaa-0000-0000-0000-000000000000"
        "bbbbbbbb-0000-0000-0000-000000000000cccccccc-0000-0000-0000-000000000000"
        '02026-01-05T14:30:00.000000Zsession.started{"a":"é","b":1}' + "0" * 64
    )
    assert chain.event_hash(event) == hashlib.sha256(joined.encode()).hexdigest()


def test_chains_are_judged_as_the_vectors_say() -> None:
    for case in vectors("chains"):
        data = base64.b64decode(case["data_base64"]) if "data_base64" in case else case["data"].encode()
        verdict = chain.verify(data)
        assert {key: verdict[key] for key in case["expected"]} == case["expected"], case["id"]


def test_a_moved_border_keeps_the_hash_and_breaks_the_grammar() -> None:
    good = vectors("chains")[0]["data"].splitlines()[1]
    moved = good.replace('"sequence":1,"timestamp":"2026', '"sequence":12,"timestamp":"026')
    event = json.loads(moved)
    assert chain.event_hash(event) == event["event_hash"]
    assert chain.parse(moved.encode()) is None


def test_a_part_of_a_chain_verifies_from_where_it_starts() -> None:
    lines = vectors("chains")[0]["data"].splitlines(keepends=True)
    head = json.loads(lines[1])["event_hash"]
    assert chain.verify("".join(lines[2:]).encode(), 2, head)["ok"]
    assert chain.verify("".join(lines[2:]).encode(), 2, "0" * 64)["reason"] == "link"


def test_every_single_bit_flip_is_found_at_its_event() -> None:
    data = vectors("chains")[0]["data"].encode()
    ends = [match.end() for match in re.finditer(rb"\n", data)]
    for place in range(0, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        event = sum(1 for end in ends if end <= place)
        verdict = chain.verify(bytes(flipped))
        assert not verdict["ok"], place
        assert verdict["index"] == event, place


# Globs, windows, words


def test_globs_agree_with_a_regular_expression_made_of_them() -> None:
    for case in vectors("globs"):
        if len(case["text"]) > 50:
            continue
        parts = {"*": ".*", "?": "."}
        expression = "".join(parts.get(char, re.escape(char)) for char in case["pattern"])
        assert glob.glob_match(case["pattern"], case["text"]) == bool(
            re.fullmatch(expression, case["text"], re.DOTALL)
        ), case["id"]


def test_costs_are_the_decimals_they_are_written_as() -> None:
    assert [windows.micro_cost(cost) for cost in (0.1, 19.99, 1e-7, 1e21, 3, -0.0)] == [
        100_000,
        19_990_000,
        1,
        10**27,
        3_000_000,
        0,
    ]
    refused: list[Any] = [-1, True, "1", None, []]
    assert [windows.micro_cost(cost) for cost in refused] == [None] * 5
    assert windows.micro_limit(0.1234567) == 123_456


def test_relevance_is_the_bm25_that_floating_point_gives_up_to_rounding() -> None:
    texts = ["alpha beta beta", "beta gamma", "delta", "alpha alpha delta epsilon zeta"]
    documents = [context.words(text) for text in texts]
    average = sum(map(len, documents)) / len(documents)

    def bm25(document: list[str]) -> float:
        total = 0.0
        for word in ("alpha", "delta"):
            having = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            times = document.count(word)
            total += idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(document) / average))
        return total * 1_000_000

    for score, document in zip(context.scores(texts, "Alpha delta!", ["ALPHA"]), documents, strict=True):
        assert abs(score - bm25(document)) < 5


# Deciding


def test_a_time_window_over_midnight_belongs_to_the_day_it_started() -> None:
    window = {"start": "22:00", "end": "06:00", "days": ["fri"]}
    moments = {"2026-01-09T22:00:00Z": True, "2026-01-10T05:59:59Z": True, "2026-01-10T06:00:00Z": False}
    assert {moment: policy.window_holds(window, at(moment)) for moment in moments} == moments


def test_decisions_are_those_of_the_vectors() -> None:
    for suite in ("policy-order", "conditions", "limits"):
        for case in vectors(suite):
            given = {key: case[key] for key in ("usage", "parameters", "approved", "session_context") if key in case}
            default = case.get("default_decision", "allow")
            found = policy.evaluate(case["atlases"], case["request"], case["now_us"], default_decision=default, **given)
            expected = [{k: v for k, v in verdict.items() if k != "consumes"} for verdict in case["expected"]]
            assert found == expected, case["id"]


def test_requests_that_say_the_same_have_one_hash() -> None:
    by_id = {case["id"]: case["sha256"] for case in vectors("hashes") if "sha256" in case}
    assert by_id["request-minimal"] == by_id["request-defaults-written"]
    assert by_id["parameters-empty"] == hashlib.sha256(b"{}").hexdigest()
    assert by_id["result-null"] == hashlib.sha256(b"null").hexdigest()


# The worked example


def block(label: str) -> str:
    found = re.search(rf"^```\w+ {label}\n(.*?)^```$", PROTOCOL, re.DOTALL | re.MULTILINE)
    assert found, label
    return found[1]


def test_the_worked_example_of_the_protocol_is_what_the_reference_computes() -> None:
    atlas, request = json.loads(block("atlas")), json.loads(block("request"))
    trace = block("trace").encode()
    events = [json.loads(line) for line in trace.splitlines()]
    asked: tuple[list[Any], dict[str, Any], Any, int] = ([atlas], {}, request, at("2026-01-05T14:30:00Z"))
    ids = {"resolution_id": "01920000-0000-7000-8000-00000000000c", "trace_id": events[0]["trace_id"]}
    answer = resolution.resolve(*asked, **ids)
    assert block("canonical-request") == canonical.dumps(resolution.canonical_request(request)).decode() + "\n"
    assert block("canonical-resolution") == canonical.dumps(answer).decode() + "\n"
    assert [(event["event_type"], event["payload"]) for event in events[1:]] == resolution.events(*asked, **ids)
    assert block("preimage") == chain.preimage(events[0]).decode() + "\n"
    assert chain.verify(trace)["ok"]
    for digest in (
        resolution.request_hash(request),
        canonical.digest(answer),
        resolution.atlas_digest(atlas, {}),
        resolution.snapshot_digest([atlas], {}, "allow"),
    ):
        assert f"`{digest}`" in PROTOCOL


# The golden scenarios' inputs


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.parent.name)
def test_a_scenario_is_complete(path: Path) -> None:
    scenario = json.loads(path.read_text(encoding="utf-8"))
    assert scenario["description"]
    assert scenario["why"]
    steps = {
        "create_session",
        "resolve",
        "execute",
        "grant",
        "reject",
        "advance_clock",
        "end_session",
        "replay",
        "what_if",
    }
    assert {step["do"] for step in scenario["steps"]} <= steps
    others = [step["atlas"] for step in scenario["steps"] if step["do"] == "what_if"]
    for name in [*scenario["atlases"], *others]:
        manifest = json.loads((path.parent / name).read_text(encoding="utf-8"))
        for pack in manifest.get("context_packs", []):
            assert all((path.parent / file).is_file() for file in pack["files"]), name


def test_there_are_at_least_sixteen_scenarios() -> None:
    assert len(SCENARIOS) >= 16


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.parent.name)
def test_what_a_person_expects_of_a_first_resolve_is_what_the_reference_decides(path: Path) -> None:
    scenario = json.loads(path.read_text(encoding="utf-8"))
    atlases = [json.loads((path.parent / name).read_text(encoding="utf-8")) for name in scenario["atlases"]]
    now, session = scenario["clock_us"], {}
    for step in scenario["steps"]:
        if step["do"] == "create_session":
            session = step
        elif step["do"] == "advance_clock":
            now += step["seconds"] * 1_000_000
        elif step["do"] == "execute" and step["expect"].get("ran"):
            return  # From here on limits have counted something.
        elif step["do"] == "resolve" and "decision" in step.get("expect", {}):
            asked = dict(step["request"])
            request = {
                "atlas_ids": asked.pop("atlas_ids", []),
                "context": asked.pop("context", {}),
                "requester": {"agent_id": session["agent_id"]},
                "task": asked,
            }
            found = policy.evaluate(
                atlases,
                request,
                now,
                session_context=session.get("context"),
                default_decision=scenario["config"].get("default_decision", "allow"),
            )
            _compare(found, step["expect"])


def _compare(found: list[Any], expected: dict[str, Any]) -> None:
    by_result: dict[str, list[str]] = {"allow": [], "requires_approval": []}
    denied = {}
    for verdict in found:
        if verdict["result"] in by_result:
            by_result[verdict["result"]].append(verdict["action_id"])
        else:
            denied[verdict["action_id"]] = verdict["policy"] and verdict["policy"]["policy_id"]
    assert resolution.decision(found)["type"] == expected["decision"]
    assert by_result == {"allow": expected["allowed"], "requires_approval": expected["confirm"]}
    assert denied == expected["denied"]


def test_the_law_gives_every_error_code_its_status() -> None:
    section = PROTOCOL.partition("## 11. HTTP")[2].partition("## 12.")[0]
    told = {
        code: int(status)
        for status, codes in re.findall(r"^\| (\d{3}) \| (.*) \|$", section, re.MULTILINE)
        for code in re.findall(r"`([a-z_]+)`", codes)
    }
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CRAError)]
    assert told == {kind.code: kind.status for kind in kinds}
