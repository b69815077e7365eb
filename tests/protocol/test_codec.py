"""A request off the wire is converted the quick way, which knows no request that the schema does not."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra.errors import InvalidRequest
from cra.protocol.carp import Request, Requester
from cra.protocol.codec import _quickly, decode_request, to_struct

WHOLE: dict[str, Any] = {
    "carp_version": "1.0",
    "request_id": "01890000-0000-7000-8000-000000000000",
    "timestamp": "2026-01-31T12:00:00.000000Z",
    "operation": "execute",
    "requester": {
        "agent_id": "a",
        "session_id": "01890000-0000-7000-8000-000000000001",
        "parent_session_id": "01890000-0000-7000-8000-000000000002",
    },
    "task": {"goal": "g", "risk_tier": "high", "context_hints": ["h"], "required_capabilities": ["c"]},
    "execution": {"action_id": "a.b", "parameters": {"p": 1}},
    "atlas_ids": ["a.b"],
    "context": {"k": [1]},
}


def test_every_field_of_a_request_arrives() -> None:
    assert {field.name for field in msgspec.structs.fields(Request)} == WHOLE.keys()
    assert {field.name for field in msgspec.structs.fields(Requester)} == WHOLE["requester"].keys()
    found = _quickly(WHOLE)
    assert type(found) is Request and type(found.requester) is Requester
    assert found == msgspec.convert(WHOLE, Request) == decode_request(json.dumps(WHOLE))
    assert json.loads(msgspec.json.encode(found)) == WHOLE


_UUID_LIKE = st.one_of(
    st.uuids().map(str),
    st.uuids().map(str).map(str.upper),
    st.uuids().map(lambda value: f"{value}\n"),
    st.uuids().map(lambda value: value.hex),
    st.text(max_size=40),
    st.text("0123456789abcdef-", min_size=36, max_size=36),
)
_TIME_LIKE = st.one_of(
    st.datetimes().map(lambda value: f"{value.isoformat()}Z"),
    st.datetimes().map(lambda value: f"{value.isoformat()}+01:00\n"),
    st.sampled_from(["2026-01-31T12:00:00Z", "2026-13-41t25:61:61.123456789-99:99", "2026-01-31 12:00:00Z", ""]),
    st.text("0123456789-T:.Z", max_size=45),
)
_ANY = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}))


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    value = copy.deepcopy(WHOLE)
    parts = [value, value["requester"], value["task"]]
    for _ in range(draw(st.integers(1, 2))):
        where = draw(st.sampled_from(parts))
        name = draw(st.sampled_from([*where, "more"]))
        if draw(st.integers(0, 4)) == 0:
            where.pop(name, None)
        elif name == "timestamp":
            where[name] = draw(_TIME_LIKE | _ANY)
        else:
            where[name] = draw(_UUID_LIKE | _ANY)
    return value


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_the_quick_way_takes_what_the_schema_takes_and_nothing_else(value: dict[str, Any]) -> None:
    try:
        expected = msgspec.convert(value, Request, strict=True)
    except msgspec.ValidationError:
        assert _quickly(value) is None
    else:
        assert _quickly(value) == expected


@pytest.mark.parametrize("name", ["request_id", "timestamp"])
def test_what_the_quick_way_does_not_take_is_refused_in_the_words_of_the_schema(name: str) -> None:
    value = {**WHOLE, name: "x"}
    with pytest.raises(InvalidRequest) as quick:
        decode_request(json.dumps(value))
    with pytest.raises(InvalidRequest) as strict:
        to_struct(value, Request, what="request")
    assert (quick.value.message, quick.value.pointer) == (strict.value.message, f"/{name}")
