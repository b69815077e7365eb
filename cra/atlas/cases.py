"""Test cases that an atlas brings along in its `tests/` folder."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from cra.atlas._parts import Piece, json_type
from cra.atlas._tree import shown
from cra.errors import InvalidInput, InvalidJSON, Problem
from cra.protocol.atlas import Manifest
from cra.protocol.carp import AgentId, DecisionType, ExecuteStatus, Goal, Hint, Resolution
from cra.protocol.explain import explain
from cra.protocol.fields import ActionId, Identifier, JsonObject, Record, RiskTier, Timestamp
from cra.protocol.jsontext import decode
from cra.protocol.times import parse_timestamp

__all__ = ["Case", "CaseCall", "CaseExpectation", "CaseRequest", "call_faults", "read_cases", "resolution_faults"]

# A Monday at noon, UTC: inside most business hours.
DEFAULT_TIME = "2026-01-05T12:00:00Z"
_MAX_CASE_BYTES = 1 << 20
_MAX_CASE_DEPTH = 64


class CaseRequest(Record, frozen=True):
    """What the agent of a case asks for."""

    goal: Goal
    agent_id: AgentId = "test-agent"
    risk_tier: RiskTier = RiskTier.LOW
    context: JsonObject = field(default_factory=dict)
    context_hints: tuple[Hint, ...] = ()
    required_capabilities: tuple[Identifier, ...] = ()


class CaseCall(Record, frozen=True):
    """A call made after resolving; with `times` it is made that often at one moment, and the last one is judged."""

    action_id: ActionId
    parameters: JsonObject = field(default_factory=dict)
    times: Annotated[int, Meta(ge=1, le=1000)] = 1


class CaseExpectation(Record, frozen=True):
    """What must come out; of the lists and maps, what is named must be there, and more may be.

    Without a call: the decision, the actions allowed outright, those denied with the policy that decided (null when
    none did), those that need approval, and the context blocks (`<pack_id>/<file>`) that are and are not offered.
    With a call: its status, and the policy that decided.
    """

    decision: DecisionType | UnsetType = UNSET
    allowed: tuple[ActionId, ...] | UnsetType = UNSET
    denied: dict[ActionId, str | None] | UnsetType = UNSET
    requires_approval: tuple[ActionId, ...] | UnsetType = UNSET
    context: tuple[str, ...] | UnsetType = UNSET
    no_context: tuple[str, ...] | UnsetType = UNSET
    status: ExecuteStatus | UnsetType = UNSET
    policy_id: str | UnsetType | None = UNSET


class Case(Record, frozen=True):
    """One test of an atlas: at the time `at`, this request (and call) must come out like this."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    request: CaseRequest
    expect: CaseExpectation
    description: Annotated[str, Meta(max_length=1000)] = ""
    at: Timestamp = DEFAULT_TIME
    call: CaseCall | UnsetType = UNSET


def read_cases(files: Mapping[str, bytes], manifest: Manifest | None = None) -> tuple[list[Case], list[Problem]]:
    """Read every `tests/*.json` among `files`: one case each, an array, or an object with `cases`.

    With a manifest, cases that name actions, policies or blocks it does not have are problems too.
    """
    cases: list[Case] = []
    problems: list[Problem] = []
    names: dict[str, str] = {}
    known = _Known(manifest) if manifest is not None else None
    for path in sorted(files):
        if not path.startswith("tests/") or not path.endswith(".json"):
            continue
        for piece in _pieces(path, files[path], problems):
            case = _case(piece, problems)
            if case is None:
                continue
            place = f"{shown(path)}#{piece.pointer}"
            first = names.setdefault(case.name, place)
            if first is not place:
                problems.append(_problem(piece, f"a case `{shown(case.name)}` is at `{first}` already", "/name"))
            problems += [_problem(piece, words, pointer) for pointer, words in _faults(case, known)]
            cases.append(case)
    return cases, problems


def _problem(piece: Piece, words: str, pointer: str = "") -> Problem:
    return Problem("invalid_case", words, file=shown(piece.file), pointer=piece.pointer + pointer)


def _pieces(path: str, content: bytes, problems: list[Problem]) -> list[Piece]:
    try:
        value = decode(content, max_bytes=_MAX_CASE_BYTES, max_depth=_MAX_CASE_DEPTH)
    except InvalidJSON as error:
        problems.append(Problem("invalid_json", error.message, file=shown(path), pointer=error.pointer or ""))
        return []
    if isinstance(value, dict) and value.keys() == {"cases"}:
        pointer, items = "/cases", value["cases"]
    elif isinstance(value, dict):
        return [Piece(path, "", value)]
    else:
        pointer, items = "", value
    if not isinstance(items, list):
        words = f"{json_type(items)} found, expected one case or an array of them"
        problems.append(Problem("invalid_case", words, file=shown(path), pointer=pointer))
        return []
    return [Piece(path, f"{pointer}/{index}", item) for index, item in enumerate(items)]


def _case(piece: Piece, problems: list[Problem]) -> Case | None:
    try:
        return msgspec.convert(piece.value, Case, strict=True)
    except msgspec.ValidationError as error:
        words, pointer = explain(error, Case)
        problems.append(_problem(piece, words, pointer))
        return None


class _Known:
    """The names that a manifest gives a case to use."""

    def __init__(self, manifest: Manifest) -> None:
        self.actions = {action.action_id for action in manifest.actions}
        self.policies = {policy.policy_id for policy in manifest.policies}
        for action in manifest.actions:
            if action.requires_confirmation:
                self.policies.add(f"{action.action_id}:requires_confirmation")
            if not isinstance(action.rate_limit, UnsetType):
                self.policies.add(f"{action.action_id}:rate_limit")
        self.blocks = {f"{pack.pack_id}/{path}" for pack in manifest.context_packs for path in pack.files}


def _faults(case: Case, known: _Known | None) -> Iterator[tuple[str, str]]:
    expect = case.expect
    of_call = {"status", "policy_id"}
    given = {name for name in expect.__struct_fields__ if not isinstance(getattr(expect, name), UnsetType)}
    try:
        parse_timestamp(case.at)
    except InvalidInput as error:
        yield "/at", str(error)
    if isinstance(case.call, UnsetType):
        if not given - of_call:
            yield "/expect", "nothing is expected of the resolution, so the case cannot fail"
        for name in sorted(given & of_call):
            yield f"/expect/{name}", f"`{name}` is about a call, and the case makes none"
    else:
        if "status" not in given:
            yield "/expect", "`status` is missing, what should come out of the call"
        for name in sorted(given - of_call):
            yield f"/expect/{name}", f"`{name}` is about a resolution, and the case judges a call"
    if known is not None:
        yield from _unknown(case, known)


def _unknown(case: Case, known: _Known) -> Iterator[tuple[str, str]]:
    expect = case.expect
    if not isinstance(case.call, UnsetType) and case.call.action_id not in known.actions:
        # Calling what does not exist is a fair test: it must be denied.
        if expect.status is not ExecuteStatus.DENIED:
            yield "/call/action_id", f"action `{case.call.action_id}` is not declared"
    denied = {} if isinstance(expect.denied, UnsetType) else expect.denied
    lists = {"allowed": _given(expect.allowed), "requires_approval": _given(expect.requires_approval)}
    for name, actions in {**lists, "denied": tuple(denied)}.items():
        for action in actions:
            if action not in known.actions:
                yield f"/expect/{name}", f"action `{shown(action)}` is not declared"
    policies = [*denied.values(), None if isinstance(expect.policy_id, UnsetType) else expect.policy_id]
    for policy in policies:
        if policy is not None and policy not in known.policies:
            yield "/expect", f"policy `{shown(policy)}` is not declared"
    for name, blocks in (("context", _given(expect.context)), ("no_context", _given(expect.no_context))):
        for block in blocks:
            if block not in known.blocks:
                yield f"/expect/{name}", f"block `{shown(block)}` is not made by any pack"


def resolution_faults(expect: CaseExpectation, resolution: Resolution) -> list[str]:
    """Return in which ways a resolution is not what a case expects; empty when it is."""
    confirmed = {a.action_id for a in resolution.allowed_actions if a.requires_confirmation}
    allowed = {a.action_id for a in resolution.allowed_actions} - confirmed
    denied = {a.action_id: a.policy_id for a in resolution.denied_actions}
    blocks = {block.block_id for block in resolution.context_blocks}

    def verdict(action: str) -> str:
        if action in denied:
            policy = denied[action]
            return "denied by no policy" if isinstance(policy, UnsetType) else f"denied by `{policy}`"
        return "allowed" if action in allowed else "waiting for approval" if action in confirmed else "not offered"

    faults = []
    if not isinstance(expect.decision, UnsetType) and resolution.decision.type is not expect.decision:
        faults.append(f"decision is `{resolution.decision.type}`, expected `{expect.decision}`")
    expected = [(action, "allowed") for action in _given(expect.allowed)]
    expected += [(action, "waiting for approval") for action in _given(expect.requires_approval)]
    for action, policy in () if isinstance(expect.denied, UnsetType) else expect.denied.items():
        expected.append((action, "denied by no policy" if policy is None else f"denied by `{policy}`"))
    faults += [
        f"`{action}` is {found}, expected {wanted}"
        for action, wanted in expected
        if (found := verdict(action)) != wanted
    ]
    faults += [f"context block `{block}` is not offered" for block in _given(expect.context) if block not in blocks]
    faults += [f"context block `{block}` is offered" for block in _given(expect.no_context) if block in blocks]
    return faults


def _given(names: tuple[str, ...] | UnsetType) -> tuple[str, ...]:
    return () if isinstance(names, UnsetType) else names


def call_faults(expect: CaseExpectation, status: ExecuteStatus, policy_id: str | None) -> list[str]:
    """Return in which ways the outcome of a call is not what a case expects; empty when it is."""
    faults = []
    if not isinstance(expect.status, UnsetType) and status is not expect.status:
        faults.append(f"status is `{status}`, expected `{expect.status}`")
    if not isinstance(expect.policy_id, UnsetType) and policy_id != expect.policy_id:
        faults.append(f"the deciding policy is `{policy_id}`, expected `{expect.policy_id}`")
    return faults
