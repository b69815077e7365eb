"""Replay of what nobody decided, and of payloads that are of no kind the protocol has, under a good chain."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from cra import CRAError
from cra.audit.diff import diff
from cra.audit.story import check_story
from cra.errors import InvalidTrace
from cra.runtime.replay import replay
from cra.runtime.whatif import what_if
from specs.reference import chain
from tests.runtime.test_replay import desk, lived, variant

Json = dict[str, Any]
Events = list[Json]

_OWN = "01920000-0000-7000-8000-0000000000ff"
_SPARE = "01920000-0000-7000-8000-0000000000fe"


@pytest.fixture(scope="module")
def events() -> Events:
    runtime, clock = desk()
    with runtime:
        return [json.loads(line) for line in lived(runtime, clock).splitlines()]


def linked(events: Events) -> bytes:
    numbered = [{**event, "sequence": number} for number, event in enumerate(events)]
    return b"".join(chain.line(event) for event in chain.link_all(numbered))


def placed(events: Events, event_type: str, nth: int = 0) -> int:
    return [number for number, event in enumerate(events) if event["event_type"] == event_type][nth]


def later(timestamp: str, hours: int) -> str:
    form = "%Y-%m-%dT%H:%M:%S.%fZ"
    return (datetime.strptime(timestamp, form) + timedelta(hours=hours)).strftime(form)  # noqa: DTZ007


def alone(event_type: str) -> Callable[[Events], Events]:
    """Put an event of this type, taken from elsewhere, into a span of its own."""

    def forge(events: Events) -> Events:
        taken = {**events[placed(events, event_type)], "span_id": _OWN, "event_id": _SPARE}
        place = placed(events, "session.ended")
        return [*events[:place], {**taken, "timestamp": events[place]["timestamp"]}, *events[place:]]

    return forge


def after_the_end(event_type: str) -> Callable[[Events], Events]:
    def forge(events: Events) -> Events:
        ended = events[-1]
        taken = {**events[placed(events, event_type)], "span_id": _OWN, "event_id": _SPARE}
        payload = {**taken["payload"], "request_id": _SPARE}
        return [*events, {**taken, "timestamp": ended["timestamp"], "payload": payload}]

    return forge


def asked_twice(events: Events) -> Events:
    place = placed(events, "error.occurred", 1)
    once = events[placed(events, "error.occurred", 0)]["payload"]["request_id"]
    payload = {**events[place]["payload"], "request_id": once}
    return [*events[:place], {**events[place], "payload": payload}, *events[place + 1 :]]


def decided_by(approver: str) -> Callable[[Events], Events]:
    def forge(events: Events) -> Events:
        place = placed(events, "approval.granted")
        payload = {**events[place]["payload"], "approver": approver}
        return [*events[:place], {**events[place], "payload": payload}]

    return forge


def decided_late(events: Events) -> Events:
    place = placed(events, "approval.granted")
    return [*events[:place], {**events[place], "timestamp": later(events[place]["timestamp"], 2)}]


def expired_early(events: Events) -> Events:
    place = placed(events, "approval.granted")
    payload = {name: events[place]["payload"][name] for name in ("approval_id", "action_id", "parameters_hash")}
    return [*events[:place], {**events[place], "event_type": "approval.expired", "payload": payload}]


FORGERIES: list[tuple[str, Callable[[Events], Events]]] = [
    *[
        (event_type, alone(event_type))
        for event_type in (
            "policy.evaluated",
            "policy.violated",
            "action.approved",
            "action.denied",
            "approval.requested",
            "carp.resolution.completed",
            "session.started",
        )
    ],
    ("carp.request.received", after_the_end("carp.request.received")),
    ("action.requested", after_the_end("action.requested")),
    ("error.occurred", after_the_end("error.occurred")),
    ("session.ended", after_the_end("session.ended")),
    ("error.occurred", asked_twice),
    ("approval.granted", decided_by(" Agent-1")),
    ("approval.granted", decided_late),
    ("approval.expired", expired_early),
]


@pytest.mark.parametrize(("event_type", "forge"), FORGERIES)
def test_what_the_runtime_would_not_have_recorded_is_different(
    event_type: str, forge: Callable[[Events], Events], events: Events
) -> None:
    result = replay(linked(forge(events)), variant("1.0.0"))
    assert not result.ok
    assert [(found.event_type, found.reason) for found in result.differences] == [
        (event_type, "recorded, not decided now")
    ]


def test_what_ran_when_its_session_ended_still_gets_its_outcome() -> None:
    runtime, _ = desk()
    with runtime:
        session = runtime.create_session("agent-1", "help")
        runtime.resolve(session.id, "help")
        runtime.register_executor("ticket.get", lambda parameters: runtime.end_session(session.id).id, inline=True)
        runtime.execute(session.id, "ticket.get", {"id": 1})
        trace = runtime.get_trace(session.id)
        assert [event.event_type for event in trace][-2:] == ["session.ended", "action.executed"]
        assert runtime.replay(trace).ok


# Of each kind that a field may have, and some that it may not.
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    10**30,
    "",
    "x",
    "0000-00-00T00:00:00Z",
    [],
    [1],
    [[]],
    [{}],
    {},
    {"a": [10**30]},
)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_payload_of_any_kind_is_read_or_refused_with_its_event(value: Any, events: Events) -> None:
    other, fields = variant("2.0.0"), set()
    for number, event in enumerate(events):
        for name in event["payload"]:
            if (event["event_type"], name) in fields:
                continue
            fields.add((event["event_type"], name))
            for payload in (
                {**event["payload"], name: value},
                {k: v for k, v in event["payload"].items() if k != name},
            ):
                data = linked([*events[:number], {**event, "payload": payload}, *events[number + 1 :]])
                for read in (
                    lambda data: replay(data, variant("1.0.0")).as_dict(),
                    lambda data: what_if(data, other, recorded=[variant("1.0.0")]).as_dict(),
                    check_story,
                    lambda data: diff(data, data).as_dict(),
                ):
                    try:
                        read(data)
                    except CRAError as error:
                        assert error.message


def test_a_field_of_another_kind_is_named_with_its_event(events: Events) -> None:
    place = placed(events, "action.requested")
    forged = [*events[:place], {**events[place], "payload": {**events[place]["payload"], "action_id": 5}}]
    with pytest.raises(InvalidTrace, match=r"`action.requested` at `/action_id`: expected `str`, got `int`") as refused:
        replay(linked(forged), variant("1.0.0"))
    assert refused.value.details == {"index": place, "reason": "payload"}
