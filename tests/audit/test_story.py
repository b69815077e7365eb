"""A trace whose chain is good may still tell what cannot have happened."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cra import ApprovalRequired, CRARuntime, RuntimeConfig
from cra.audit.story import check_story
from cra.testing import conformance
from cra.testing._golden import Scenario
from cra.testing.clock import FixedClock, SeededIds
from specs.reference import chain

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.acme.desk",
    "version": "1.0.0",
    "name": "desk",
    "actions": [
        {"action_id": "ticket.get", "name": "Get"},
        {"action_id": "refund.create", "name": "Refund", "requires_confirmation": True},
    ],
}
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def events() -> Events:
    clock = FixedClock()
    config = RuntimeConfig(clock=clock, ids=SeededIds(3), capture_parameters="full")
    with CRARuntime(config) as runtime:
        runtime.load_atlas_from_json(json.dumps(ATLAS))
        runtime.register_executor("*", lambda parameters: None, inline=True)
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help")
        runtime.execute(session.id, "ticket.get", {"id": 1})
        with pytest.raises(ApprovalRequired) as asked:
            runtime.execute(session.id, "refund.create", {"amount": 5})
        clock.advance(1)
        runtime.approvals.grant(asked.value.approval_id, approver="dana")
        clock.advance(1)
        runtime.execute(session.id, "refund.create", {"amount": 5})
        runtime.end_session(session.id)
        return [json.loads(line) for line in runtime.get_trace(session.id).lines]


def told(events: Events) -> bytes:
    """Return forged events under a good chain."""
    numbered = [{**event, "sequence": number} for number, event in enumerate(events)]
    return b"".join(chain.line(event) for event in chain.link_all(numbered))


def find(events: Events, event_type: str, nth: int = 0) -> int:
    return [number for number, event in enumerate(events) if event["event_type"] == event_type][nth]


def without(event_type: str, nth: int = 0) -> Callable[[Events], Events]:
    return lambda events: [e for n, e in enumerate(events) if n != find(events, event_type, nth)]


def twice(event_type: str, nth: int = 0) -> Callable[[Events], Events]:
    def forge(events: Events) -> Events:
        place = find(events, event_type, nth)
        again = {**events[place], "span_id": "01920000-0000-7000-8000-0000000000ff"}
        return [*events[: place + 1], again, *events[place + 1 :]]

    return forge


def changed(event_type: str, nth: int = 0, **fields: Any) -> Callable[[Events], Events]:
    def forge(events: Events) -> Events:
        place = find(events, event_type, nth)
        payload = {**events[place]["payload"], **fields}
        return [{**e, "payload": payload} if n == place else e for n, e in enumerate(events)]

    return forge


def test_a_true_story_has_no_findings(events: Events) -> None:
    assert check_story(told(events)) == []


@pytest.mark.parametrize("place", conformance.scenarios(conformance.data_folder()), ids=lambda place: place.name)
def test_every_golden_scenario_tells_a_true_story(place: Any) -> None:
    for trace in Scenario(place).run(proving=False).traces:
        assert check_story(trace) == []


@pytest.mark.parametrize(
    ("code", "forge"),
    [
        ("no_permit", without("action.approved")),
        ("outcome_twice", twice("action.executed")),
        ("not_granted", without("approval.granted")),
        ("own_approver", changed("approval.granted", approver="Agent-1 ")),
        ("no_request", without("approval.requested")),
        ("decided_twice", twice("approval.granted")),
        ("other_call", changed("approval.granted", parameters_hash="0" * 64)),
        ("no_resolution", changed("action.requested", resolution_id="01920000-0000-7000-8000-0000000000aa")),
        ("expired_resolution", changed("carp.resolution.completed", ttl_seconds=0)),
        ("parameters_hash", changed("action.requested", parameters={"id": 2})),
        ("other_action", changed("action.approved", action_id="refund.create")),
        ("block_count", changed("carp.resolution.completed", context_block_count=1)),
        ("action_count", changed("session.ended", action_count=1)),
        ("action_count", changed("carp.resolution.completed", allowed_count=0)),
        ("approved_and_denied", changed("policy.evaluated", 2, result="deny")),
        ("no_answer", without("carp.resolution.completed")),
        ("request_twice", twice("action.requested")),
        ("started_twice", twice("session.started")),
        ("after_end", twice("session.ended")),
        ("expired_approval", changed("approval.requested", expires_at="2026-01-01T00:00:00.500000Z")),
    ],
)
def test_what_cannot_have_happened_is_found(code: str, forge: Callable[[Events], Events], events: Events) -> None:
    assert code in {finding.code for finding in check_story(told(forge(events)))}
