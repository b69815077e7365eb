"""The tests that an atlas brings: how they are read, and how an answer is held against them."""

import json
from typing import Any

import msgspec
import pytest

from cra.atlas.cases import Case, CaseExpectation, call_faults, read_cases, resolution_faults
from cra.atlas.loader import inspect_json, load_json
from cra.protocol.carp import ExecuteStatus, Resolution

ATLAS = {
    "atlas_version": "1.0", "atlas_id": "com.acme.notes", "version": "1.0.0", "name": "Notes",
    "actions": [
        {"action_id": "note.read", "name": "Read"},
        {"action_id": "note.write", "name": "Write", "requires_confirmation": True},
        {"action_id": "note.delete", "name": "Delete"},
    ],
    "policies": [{"policy_id": "deny-delete", "type": "deny", "actions": ["*.delete"]}],
    "context_packs": [{"pack_id": "guide", "name": "Guide", "files": ["a.md"]}],
}  # fmt: skip
CASE = {"name": "reading is fine", "request": {"goal": "Read"}, "expect": {"allowed": ["note.read"]}}
CALL = {
    "name": "a call",
    "request": {"goal": "Read"},
    "call": {"action_id": "note.read"},
    "expect": {"status": "success"},
}


def read(**files: Any) -> tuple[list[Case], list[tuple[str, str, str]]]:
    contents = {
        f"tests/{name}.json": value if isinstance(value, bytes) else json.dumps(value).encode()
        for name, value in files.items()
    }
    manifest = load_json(ATLAS, {"a.md": "text"}).manifest
    cases, problems = read_cases(contents, manifest)
    return cases, [(problem.code, problem.file, problem.pointer) for problem in problems]


def test_a_file_holds_one_case_or_many() -> None:
    cases, problems = read(b={"cases": [{**CASE, "name": "two"}]}, a=CASE, c=[{**CASE, "name": "three"}, CALL])
    assert problems == []
    assert [case.name for case in cases] == ["reading is fine", "two", "three", "a call"]
    assert cases[0].request.agent_id == "test-agent"
    assert cases[0].at == "2026-01-05T12:00:00Z"


@pytest.mark.parametrize(
    ("case", "pointer"),
    [
        ({"name": "x"}, ""),
        ({**CASE, "colour": 1}, ""),
        ({**CASE, "at": "yesterday"}, "/at"),
        ({**CASE, "at": "2026-02-30T00:00:00Z"}, "/at"),
        ({**CASE, "request": {"goal": ""}}, "/request/goal"),
        ({**CASE, "expect": {}}, "/expect"),
        ({**CASE, "expect": {"status": "success"}}, "/expect"),
        ({**CASE, "expect": {"allowed": ["note.raed"]}}, "/expect/allowed"),
        ({**CASE, "expect": {"denied": {"note.read": "no-such-policy"}}}, "/expect"),
        ({**CASE, "expect": {"context": ["guide/b.md"]}}, "/expect/context"),
        ({**CALL, "expect": {}}, "/expect"),
        ({**CALL, "expect": {"status": "success", "allowed": []}}, "/expect/allowed"),
        ({**CALL, "call": {"action_id": "note.raed"}}, "/call/action_id"),
        ({**CALL, "call": {"action_id": "note.read", "times": 0}}, "/call/times"),
        (1, ""),
    ],
)  # fmt: skip
def test_a_case_that_cannot_be_meant_is_told(case: Any, pointer: str) -> None:
    problems = read(a=case if isinstance(case, dict) else [case])[1]
    assert problems[0] == ("invalid_case", "tests/a.json", pointer or ("" if isinstance(case, dict) else "/0"))


def test_implicit_policies_and_unknown_actions_that_must_be_denied_are_fair() -> None:
    implicit = {**CASE, "expect": {"denied": {"note.write": "note.write:requires_confirmation", "note.read": None}}}
    unknown = {**CALL, "call": {"action_id": "no.such"}, "expect": {"status": "denied"}}
    assert read(a=implicit, b=unknown)[1] == []


def test_two_cases_do_not_share_a_name() -> None:
    assert read(a=CASE, b=CASE)[1] == [("invalid_case", "tests/b.json", "/name")]


def test_broken_case_files_are_problems_of_a_careful_look_only() -> None:
    files = {"a.md": "text", "tests/a.json": "{"}
    assert [problem.code for problem in inspect_json(ATLAS, files).problems] == ["invalid_json"]
    assert load_json(ATLAS, files).atlas_id == "com.acme.notes"


RESOLUTION = msgspec.convert(
    {
        "carp_version": "1.0", "resolution_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
        "request_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "timestamp": "2026-01-05T12:00:00Z",
        "decision": {"type": "partial", "reason": None, "approval_id": None, "expires_at": None},
        "context_blocks": [
            {"block_id": "guide/a.md", "source": "com.acme.notes", "content_type": "text/markdown", "content": "text",
             "priority": 1, "token_estimate": 1},
        ],
        "allowed_actions": [
            {"action_id": name, "name": "N", "description": "", "parameters_schema": {}, "returns_schema": {},
             "risk_tier": "low", "requires_confirmation": name == "note.write", "idempotent": False}
            for name in ("note.read", "note.write")
        ],
        "denied_actions": [{"action_id": "note.delete", "reason": "no", "policy_id": "deny-delete"},
                           {"action_id": "note.move", "reason": "no"}],
        "constraints": [], "ttl_seconds": 1, "trace_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
    },
    Resolution,
)  # fmt: skip


def expect(**fields: Any) -> CaseExpectation:
    return msgspec.convert(fields, CaseExpectation)


def test_an_answer_as_expected_has_no_faults() -> None:
    wanted = expect(
        decision="partial",
        allowed=["note.read"],
        requires_approval=["note.write"],
        denied={"note.delete": "deny-delete", "note.move": None},
        context=["guide/a.md"],
        no_context=["guide/b.md"],
    )
    assert resolution_faults(wanted, RESOLUTION) == []


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"decision": "allow"}, "decision is `partial`, expected `allow`"),
        ({"allowed": ["note.write"]}, "`note.write` is waiting for approval, expected allowed"),
        ({"allowed": ["note.delete"]}, "`note.delete` is denied by `deny-delete`, expected allowed"),
        ({"allowed": ["note.gone"]}, "`note.gone` is not offered, expected allowed"),
        ({"requires_approval": ["note.read"]}, "`note.read` is allowed, expected waiting for approval"),
        ({"denied": {"note.read": None}}, "`note.read` is allowed, expected denied by no policy"),
        ({"denied": {"note.move": "p"}}, "`note.move` is denied by no policy, expected denied by `p`"),
        ({"denied": {"note.delete": None}}, "`note.delete` is denied by `deny-delete`, expected denied by no policy"),
        ({"context": ["guide/b.md"]}, "context block `guide/b.md` is not offered"),
        ({"no_context": ["guide/a.md"]}, "context block `guide/a.md` is offered"),
    ],
)
def test_a_fault_says_what_is_and_what_was_expected(fields: dict[str, Any], fault: str) -> None:
    assert resolution_faults(expect(**fields), RESOLUTION) == [fault]


def test_calls_are_held_against_status_and_policy() -> None:
    wanted = expect(status="denied", policy_id="deny-delete")
    assert call_faults(wanted, ExecuteStatus.DENIED, "deny-delete") == []
    assert call_faults(wanted, ExecuteStatus.SUCCESS, None) == [
        "status is `success`, expected `denied`",
        "the deciding policy is `None`, expected `deny-delete`",
    ]
    assert call_faults(expect(status="denied"), ExecuteStatus.DENIED, "any") == []
