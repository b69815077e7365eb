"""The doors of the runtime under bad input: a clear error, a whole trace, and nothing allowed."""

import copy
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cra.errors
from cra.errors import ActionDenied, CRAError, InvalidInput, InvalidJSON, InvalidParameters, InvalidRequest
from cra.protocol.times import format_timestamp
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.testing.clock import FixedClock, SeededIds

SUITE = json.loads((Path(__file__).parents[1] / "data/json-test-suite/parsing.json").read_text(encoding="utf-8"))
OURS = re.compile(rf"\b({'|'.join(cra.errors.__all__)}|Struct|msgspec|cra\.\w+|Traceback)\b")
# No limit of ours: what anything should take far less than, so that nobody can keep the runtime busy.
SECOND = 1.0

ATLAS: dict[str, Any] = {
    "atlas_version": "1.0",
    "atlas_id": "com.acme.desk",
    "version": "1.0.0",
    "name": "Desk",
    "actions": [
        {
            "action_id": "ticket.get",
            "name": "Get",
            "parameters_schema": {
                "type": "object",
                "properties": {"id": {"type": "integer"}, "note": {"type": "string"}},
                "required": ["id"],
                "additionalProperties": False,
            },
        },
        {"action_id": "ticket.delete", "name": "Delete"},
    ],
    "policies": [
        {"policy_id": "read", "type": "allow", "actions": ["ticket.get"]},
        {"policy_id": "never", "type": "deny", "actions": ["ticket.delete"]},
    ],
}


class Desk:
    """A runtime with one session, and a record of what executors were called with."""

    def __init__(self, runtime: CRARuntime, clock: FixedClock) -> None:
        self.runtime = runtime
        self.clock = clock
        self.calls: list[Any] = []
        runtime.load_atlas_from_json(ATLAS)
        runtime.register_executor("*", self._called, inline=True)
        self.session = runtime.create_session("agent-1", "goal").session_id
        self.resolution = runtime.resolve(self.session, "goal").resolution_id
        self.numbers = iter(range(1, 10**6))

    def _called(self, parameters: Any) -> dict[str, Any]:
        self.calls.append(parameters)
        return {}

    def request(self, operation: str = "resolve", **changed: Any) -> dict[str, Any]:
        """Return a good request with a new id, and `changed` in it."""
        made: dict[str, Any] = {
            "carp_version": "1.0",
            "request_id": f"01920000-0000-7000-8000-{next(self.numbers):012x}",
            "timestamp": format_timestamp(self.clock()),
            "operation": operation,
            "requester": {"agent_id": "agent-1", "session_id": self.session},
            "task": {"goal": "goal"},
        }
        if operation != "resolve":
            made["execution"] = {
                "action_id": "ticket.get",
                "parameters": {"id": 1},
                "resolution_id": self.resolution,
            }
        return made | changed

    def state(self) -> tuple[bytes, int]:
        """Return everything that was recorded and done; whatever it is, the record must be whole."""
        data = self.runtime.get_trace(self.session).data
        assert self.runtime.verify_chain(self.session).ok
        return data, len(self.calls)

    def refuses(self, call: Callable[[], object], kind: type[CRAError] = CRAError) -> CRAError:
        """Call, and assert a clear error that left nothing behind."""
        before, started = self.state(), time.perf_counter()
        with pytest.raises(kind) as caught:
            call()
        assert time.perf_counter() - started < SECOND
        assert self.state() == before
        assert_clear(caught.value)
        return caught.value


def assert_clear(error: CRAError) -> None:
    """Assert that an error is one line a person can read, with a code, and free of the names of our classes."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)
    assert error.code != "internal_error"
    assert 100 <= error.status < 600
    for text in (error.message, error.hint or "", str(error)):
        assert not re.search(r"[\r\n\x00-\x1f\x7f\u2028\u2029]", text), repr(text)
        assert not OURS.search(text), text
        assert len(text) <= 1000, text[:2000]
        text.encode()
    pointer = getattr(error, "pointer", None)
    assert pointer is None or pointer == "" or pointer.startswith("/")
    json.dumps(error.details)


@pytest.fixture
def desk() -> Iterator[Desk]:
    clock = FixedClock()
    with CRARuntime(RuntimeConfig(clock=clock, ids=SeededIds(1))) as runtime:
        yield Desk(runtime, clock)


def test_the_desk_answers_good_requests(desk: Desk) -> None:
    answer = json.loads(desk.runtime.handle(json.dumps(desk.request())))
    assert [action["action_id"] for action in answer["allowed_actions"]] == ["ticket.get"]
    assert json.loads(desk.runtime.handle(desk.request("execute")))["status"] == "success"
    assert desk.calls == [{"id": 1}]


# --- text that is no JSON, or no request -----------------------------------------------------------------------------


def test_no_text_of_the_json_test_suite_is_a_request(desk: Desk) -> None:
    for case in SUITE:
        text = case.get("input")
        for data in (text, text.encode("utf-8", "surrogatepass")) if text is not None else ():
            error = desk.refuses(lambda data=data: desk.runtime.handle(data), InvalidInput)  # type: ignore[misc]
            assert isinstance(error, InvalidJSON | InvalidRequest), case["name"]


def test_what_the_json_test_suite_refuses_is_refused_inside_a_request(desk: Desk) -> None:
    whole = json.dumps(desk.request(context={"x": 12345}))
    for case in SUITE:
        if case["name"].startswith("n_") and "input" in case:
            text = whole.replace("12345", case["input"], 1)
            try:
                json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
            except (ValueError, RecursionError):
                desk.refuses(lambda text=text: desk.runtime.handle(text), InvalidInput)  # type: ignore[misc]


BROKEN_BYTES = (
    b"", b" ", b"{", b"null", b"[]", b'"', b"\xff", b"\xef\xbb\xbf{}", b"\x00", b"{}\x00", b"{}{}", b"nul", b"NaN",
    b"-", b"1" * 10_000, b"[" * 100_000, b'{"a":' * 100_000, b"[" * 500 + b"]" * 500, b'{"a":1,"a":1}',
    "{}".encode("utf-16"), "{}".encode("utf-32"), b'{"\\ud800":1}', b"\x80abc", b"{'a':1}", b"// x\n{}", b"{}\n{}",
)  # fmt: skip


@pytest.mark.parametrize("data", BROKEN_BYTES, ids=lambda data: repr(data[:12]))
def test_bytes_that_are_no_request_are_refused(desk: Desk, data: bytes) -> None:
    desk.refuses(lambda: desk.runtime.handle(data), InvalidInput)
    desk.refuses(lambda: desk.runtime.handle(data.decode("utf-8", "surrogateescape")), InvalidInput)


def test_every_prefix_of_a_request_is_refused(desk: Desk) -> None:
    text = json.dumps(desk.request("execute"))
    for size in range(len(text)):
        desk.refuses(lambda size=size: desk.runtime.handle(text[:size]), InvalidJSON)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "pointer"),
    [
        ('"task": {', '"task": {"goal": "x", ', "/task/goal"),
        ('"operation"', '"operation": "execute", "operation"', "/operation"),
        ('"x": 12345', '"x": 1, "x": 1', "/context/x"),
        ("12345", "NaN", "/context/x"),
        ("12345", "-Infinity", "/context/x"),
        ("12345", "1e999", "/context/x"),
        ("12345", "9" * 5000, "/context/x"),
        ("12345", '"\\ud800"', "/context/x"),
        ("12345", '{"\\udc00": 1}', "/context/x"),
        ("12345", "[" * 70 + "]" * 70, None),
        ("12345", '{"a":' * 70 + "1" + "}" * 70, None),
        ("12345", '"' + "a" * (1 << 20) + '"', None),
        ("12345", '"\n"', None),
        ("12345", '"\x7f\x00"', None),
        ("12345", "01", None),
        ("12345", "1.", None),
        ("12345", "0x10", None),
        ("12345", "True", None),
    ],
)  # fmt: skip
def test_what_readers_disagree_about_is_refused_with_its_place(
    desk: Desk, old: str, new: str, pointer: str | None
) -> None:
    text = json.dumps(desk.request(context={"x": 12345}))
    assert text.count(old) == 1
    error = desk.refuses(lambda: desk.runtime.handle(text.replace(old, new)), InvalidInput)
    assert isinstance(error, InvalidInput)
    assert error.pointer == pointer


def test_numbers_keep_every_digit_that_is_accepted(desk: Desk) -> None:
    huge = 10**4000 + 7
    text = json.dumps(desk.request(context={"x": 12345})).replace("12345", str(huge))
    desk.runtime.handle(text)
    assert desk.runtime.verify_chain(desk.session).ok


def test_a_large_number_in_a_context_is_compared_with_every_digit(desk: Desk) -> None:
    runtime, number = desk.runtime, 10**30 + 1
    stop = {"policy_id": "stop", "type": "deny", "actions": ["*"]}
    atlas = {**ATLAS, "atlas_id": "com.acme.stop", "actions": []}
    runtime.load_atlas_from_json(
        {**atlas, "policies": [{**stop, "conditions": {"context_matches": {"n": str(number)}}}]}
    )
    assert runtime.resolve(desk.session, "goal", context={"n": number}).allowed_actions == ()
    assert runtime.resolve(desk.session, "goal", context={"n": number + 1}).allowed_actions != ()
    made = desk.request(context={"n": number})
    for door in (made, json.dumps(made | {"request_id": desk.request()["request_id"]})):
        assert json.loads(runtime.handle(door))["allowed_actions"] == []
    session = runtime.create_session("agent-1", "goal", context={"n": number}).session_id
    assert runtime.resolve(session, "goal", context={"n": 1}).allowed_actions == ()


# --- fields of the wrong type ----------------------------------------------------------------------------------------

WRONG: tuple[Any, ...] = (None, True, 0, -1, 1.5, "", "x", [], ["x"], [None], {}, {"x": 1}, 10**30, "\n", "é" * 20_000)
FIELDS: dict[tuple[str, ...], tuple[Any, ...]] = {
    # Which of the wrong values are right there.
    ("carp_version",): (),
    ("request_id",): (),
    ("timestamp",): (),
    ("operation",): (),
    ("requester",): (),
    ("requester", "agent_id"): (),
    ("requester", "session_id"): (),
    ("requester", "parent_session_id"): (),
    ("task",): (),
    ("task", "goal"): ("x", "\n"),
    ("task", "risk_tier"): (),
    ("task", "context_hints"): ([], ["x"]),
    ("task", "required_capabilities"): ([], ["x"]),
    ("atlas_ids",): ([],),
    ("context",): ({}, {"x": 1}),
    ("execution",): (),
    ("execution", "action_id"): (),
    ("execution", "parameters"): ({}, {"x": 1}),
    ("execution", "resolution_id"): (),
    ("execution", "idempotency_key"): ("x", "\n"),
    ("execution", "approval_id"): (),
    ("unknown",): (),
    ("task", "unknown"): (),
    ("requester", "unknown"): (),
    ("execution", "unknown"): (),
}


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_field_of_the_wrong_type_is_refused_with_its_place(desk: Desk, path: tuple[str, ...]) -> None:
    operation = "execute" if path[0] == "execution" else "resolve"
    for value in WRONG:
        if any(type(value) is type(right) and value == right for right in FIELDS[path]):
            continue
        made = copy.deepcopy(desk.request(operation))
        place = made
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        for door in (json.dumps(made), json.dumps(made).encode(), made):
            error = desk.refuses(lambda door=door: desk.runtime.handle(door), CRAError)  # type: ignore[misc]
            assert isinstance(error, InvalidInput), (path, value)
            if "unknown" not in path:
                assert error.pointer is not None
                assert error.pointer.startswith("/" + "/".join(path)), (value, error.pointer, error.message)


@pytest.mark.parametrize("path", [path for path in FIELDS if len(path) == 2 or path[0] != "execution"], ids=".".join)
def test_a_field_that_is_missing_is_refused_or_has_its_default(desk: Desk, path: tuple[str, ...]) -> None:
    required = {
        ("carp_version",), ("request_id",), ("timestamp",), ("operation",), ("requester",), ("task",),
        ("requester", "agent_id"), ("requester", "session_id"), ("task", "goal"), ("execution", "action_id"),
        ("execution", "parameters"),
    }  # fmt: skip
    made = copy.deepcopy(desk.request("execute" if path[0] == "execution" else "resolve"))
    place = made
    for step in path[:-1]:
        place = place[step]
    place.pop(path[-1], None)
    if path in required:
        desk.refuses(lambda: desk.runtime.handle(made), InvalidInput)
    else:
        assert desk.runtime.handle(made)


def test_a_request_of_another_session_agent_time_or_shape_is_refused(desk: Desk) -> None:
    other = desk.runtime.create_session("agent-2", "goal").session_id
    nobody = "01920000-0000-7000-8000-0000000000ff"
    used = desk.request()
    desk.runtime.handle(used)
    for made in (
        desk.request(requester={"agent_id": "agent-2", "session_id": desk.session}),
        desk.request(requester={"agent_id": "agent-1", "session_id": other}),
        desk.request(requester={"agent_id": "agent-1", "session_id": nobody}),
        desk.request(requester={"agent_id": "agent-1 ", "session_id": desk.session}),
        desk.request(requester={"agent_id": "Agent-1", "session_id": desk.session}),
        desk.request(timestamp="2020-01-01T00:00:00Z"),
        desk.request(timestamp="2026-13-01T00:00:00Z"),
        desk.request(timestamp="2026-01-01T00:00:00"),
        desk.request(timestamp="2026-01-01T00:00:00+99:99"),
        desk.request(timestamp="0000-01-01T00:00:00Z"),
        desk.request(timestamp="9999-12-31T23:59:59-23:59"),
        desk.request(atlas_ids=["com.acme.unknown"]),
        desk.request(atlas_ids=["com.acme.desk\n"]),
        desk.request(execution={"action_id": "ticket.get", "parameters": {}}),
        desk.request("execute", context={"x": 1}),
        desk.request("execute", atlas_ids=["com.acme.desk"]),
        used,
    ):
        desk.refuses(lambda made=made: desk.runtime.handle(made))  # type: ignore[misc]


# --- look-alikes -----------------------------------------------------------------------------------------------------

LOOK_ALIKES = (
    "tickеt.get",  # Cyrillic e
    "ｔｉｃｋｅｔ.get",
    "ticket\u200b.get",
    "ticket.get\u200d",
    "\ufeffticket.get",
    "ticket.get\n",
    "ticket.get\r\n",
    "ticket.get ",
    " ticket.get",
    "ticket.get\x00",
    "ticket\u2024get",
    "ticket．get",
    "Ticket.get",
    "TICKET.GET",
    "ticket..get",
    ".ticket.get",
    "ticket.get.",
    "ticket/get",
    "ticket.*",
    "*",
    "ticket.ge?",
    "ticket.get\u0301",
    "ſicket.get",
    "tıcket.get",
    "ticket.\u202eteg",
    "ticket.get\ud800",
    "ticket.get" * 30,
    "",
    "ticket",
)


@pytest.mark.parametrize("action_id", LOOK_ALIKES, ids=ascii)
def test_an_action_that_only_looks_like_an_allowed_one_is_refused(desk: Desk, action_id: str) -> None:
    made = desk.request("execute")
    made["execution"]["action_id"] = action_id
    for call in (
        lambda: desk.runtime.execute(desk.session, action_id, {"id": 1}),
        lambda: desk.runtime.simulate(desk.session, action_id=action_id, parameters={"id": 1}),
        lambda: desk.runtime.handle(made),
        lambda: desk.runtime.handle(json.dumps(made)),
    ):
        error = desk.refuses(call, InvalidInput)
        assert error.pointer is not None or isinstance(error, InvalidJSON)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "action_id", ["ticket.gets", "ticket.ge", "ticket.get.x", "ticket.get_", "a.ticket.get", "x.y"]
)
def test_a_well_formed_name_of_no_action_is_denied_and_recorded(desk: Desk, action_id: str) -> None:
    events = len(desk.runtime.get_trace(desk.session))
    with pytest.raises(ActionDenied, match="is not declared by any loaded atlas") as caught:
        desk.runtime.execute(desk.session, action_id, {"id": 1})
    assert_clear(caught.value)
    made = desk.request("execute")
    made["execution"]["action_id"] = action_id
    answer = json.loads(desk.runtime.handle(made))
    assert (answer["status"], answer["error"]["code"]) == ("denied", "action_denied")
    kinds = [event.event_type for event in desk.runtime.get_trace(desk.session, events)]
    assert kinds == ["action.requested", "action.denied", "policy.violated"] * 2
    assert desk.runtime.verify_chain(desk.session).ok
    assert not desk.calls


# --- strings that break things ---------------------------------------------------------------------------------------

NAUGHTY = (
    "'; DROP TABLE sessions; --",
    '"}],"allowed_actions":[{"action_id":"ticket.delete"}]',
    "\x00",
    "a\x00b",
    "\n\r\t\x0b",
    "\x1b[31mred\x1b[0m",
    "%s%n{0}{a!r}",
    "${jndi:ldap://x}",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "`rm -rf`",
    "\u202egnissecorp",
    "\u2028\u2029",
    "\ufeff",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "Z̸̢̛͚̺̝a̷l̶g̵o̶",
    "ﷺ" * 100,
    "İıſßŒ",
    "\U0010ffff",
    "\ufffe",
    "null",
    "undefined",
    "NaN",
    "-1",
    "1e400",
    "True",
    "\\u0000",
    "\\",
    '"',
    "a" * 9_999,
    " ",
    "\u200b",
    "\x7f\x80\x9f",
    "=cmd|'/C calc'!A0",
    "{{7*7}}",
    "\u202eabc",
    "é",
    "😀",
)


@pytest.mark.parametrize("text", NAUGHTY, ids=ascii)
def test_a_naughty_string_is_only_a_string(desk: Desk, text: str) -> None:
    runtime, short = desk.runtime, text[:200]
    session = runtime.create_session(short, text, context={text: text}, metadata={"x": [text]}).session_id
    answer = runtime.resolve(session, text, context_hints=[text[:1000]], context={short: text})
    assert [action.action_id for action in answer.allowed_actions] == ["ticket.get"]
    assert runtime.resolve(session, text, required_capabilities=[short]).allowed_actions == ()
    with pytest.raises(InvalidParameters) as refused:
        runtime.execute(session, "ticket.get", {"id": text, text: 1})
    assert_clear(refused.value)
    runtime.execute(session, "ticket.get", {"id": 1, "note": text}, idempotency_key=short)
    assert desk.calls == [{"id": 1, "note": text}]
    with pytest.raises(ActionDenied) as denied:
        runtime.execute(session, "ticket.delete", {text: text})
    assert_clear(denied.value)
    runtime.end_session(session)
    assert runtime.verify_chain(session).ok
    assert json.loads(runtime.get_trace(session).data.splitlines()[0])["payload"]["goal"] == text


SURROGATES = ("\ud800", "a\udfffb", "\udc00\ud800")


@pytest.mark.parametrize("text", SURROGATES, ids=ascii)
def test_a_lone_surrogate_is_refused_at_every_door(desk: Desk, text: str) -> None:
    runtime, session = desk.runtime, desk.session
    sessions = len(runtime.list_sessions())
    for call in (
        lambda: runtime.create_session(text, "goal"),
        lambda: runtime.create_session("agent", text),
        lambda: runtime.create_session("agent", "goal", context={text: 1}),
        lambda: runtime.create_session("agent", "goal", metadata={"x": text}),
        lambda: runtime.create_session("agent", "goal", session_id=text),
        lambda: runtime.resolve(session, text),
        lambda: runtime.resolve(session, "goal", context_hints=[text]),
        lambda: runtime.resolve(session, "goal", required_capabilities=[text]),
        lambda: runtime.resolve(session, "goal", atlas_ids=[text]),
        lambda: runtime.resolve(session, "goal", context={"x": text}),
        lambda: runtime.resolve(session, "goal", risk_tier=text),
        lambda: runtime.resolve(text, "goal"),
        lambda: runtime.execute(session, "ticket.get", {"id": 1, "note": text}),
        lambda: runtime.execute(session, "ticket.get", {text: 1}),
        lambda: runtime.execute(session, text, {}),
        lambda: runtime.execute(session, "ticket.get", {"id": 1}, text),
        lambda: runtime.execute(session, "ticket.get", {"id": 1}, idempotency_key=text),
        lambda: runtime.execute(session, "ticket.get", {"id": 1}, approval_id=text),
        lambda: runtime.get_session(text),
        lambda: runtime.end_session(text),
        lambda: runtime.handle(desk.request(context={"x": text})),
        lambda: runtime.handle(desk.request(task={"goal": text})),
    ):
        desk.refuses(call)
    assert len(runtime.list_sessions()) == sessions


BAD_VALUES: tuple[Any, ...] = (
    float("nan"),
    float("inf"),
    -float("inf"),
    {1: 2},
    {None: 1},
    10**5000,
    {"x": {1, 2}},
    {"x": b"bytes"},
    {"x": object()},
    {"x": 1j},
)


@pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: type(value).__name__)
def test_a_value_that_is_no_json_is_refused_at_every_door(desk: Desk, value: Any) -> None:
    runtime, session = desk.runtime, desk.session
    for call in (
        lambda: runtime.create_session("agent", "goal", context={"x": value}),
        lambda: runtime.create_session("agent", "goal", metadata={"x": value}),
        lambda: runtime.resolve(session, "goal", context={"x": value}),
        lambda: runtime.execute(session, "ticket.get", {"id": value}),
        lambda: runtime.handle(desk.request(context={"x": value})),
        lambda: runtime.simulate(session, action_id="ticket.get", parameters={"id": value}),
    ):
        desk.refuses(call, InvalidInput)


def test_values_that_are_endless_or_too_deep_are_refused(desk: Desk) -> None:
    endless: dict[str, Any] = {}
    endless["x"] = [endless]
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    for value in (endless, {"x": deep}):
        for call in (
            lambda value=value: desk.runtime.create_session("agent", "goal", context=value),
            lambda value=value: desk.runtime.resolve(desk.session, "goal", context=value),
            lambda value=value: desk.runtime.execute(desk.session, "ticket.get", value),
            lambda value=value: desk.runtime.handle(desk.request(context=value)),
        ):
            desk.refuses(call, InvalidInput)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [None, 0, 1.5, True, b"x", [], (), {}, object()], ids=lambda value: type(value).__name__
)
def test_an_argument_of_the_wrong_type_is_refused(desk: Desk, value: Any) -> None:
    runtime, session = desk.runtime, desk.session
    calls: dict[str, Callable[[], object]] = {
        "agent": lambda: runtime.create_session(value, "goal"),
        "goal": lambda: runtime.create_session("agent", value),
        "resolve session": lambda: runtime.resolve(value, "goal"),
        "request": lambda: runtime.resolve(session, value),
        "risk": lambda: runtime.resolve(session, "goal", risk_tier=value),
        "execute session": lambda: runtime.execute(value, "ticket.get", {"id": 1}),
        "action": lambda: runtime.execute(session, value, {"id": 1}),
        "get": lambda: runtime.get_session(value),
        "end": lambda: runtime.end_session(value),
        "end reason": lambda: runtime.end_session(session, value),
        "handle": lambda: runtime.handle(value),
        "trace": lambda: runtime.get_trace(value),
        "verify": lambda: runtime.verify_chain(value),
        "atlas": lambda: runtime.load_atlas_from_json(value),
        "unload": lambda: runtime.unload_atlas(value),
    }
    if value is not None:
        calls |= {
            "session_id": lambda: runtime.create_session("agent", "goal", session_id=value),
            "trace_id": lambda: runtime.create_session("agent", "goal", trace_id=value),
            "parent": lambda: runtime.create_session("agent", "goal", parent_session_id=value),
            "resolution": lambda: runtime.execute(session, "ticket.get", {"id": 1}, value),
            "key": lambda: runtime.execute(session, "ticket.get", {"id": 1}, idempotency_key=value),
            "approval": lambda: runtime.execute(session, "ticket.get", {"id": 1}, approval_id=value),
        }
    if value != {}:
        calls["parameters"] = lambda: runtime.execute(session, "ticket.get", value)
        if value is not None:
            calls |= {
                "context": lambda: runtime.create_session("agent", "goal", context=value),
                "metadata": lambda: runtime.create_session("agent", "goal", metadata=value),
                "resolve context": lambda: runtime.resolve(session, "goal", context=value),
            }
    if value:
        calls |= {
            "hints": lambda: runtime.resolve(session, "goal", context_hints=value),
            "capabilities": lambda: runtime.resolve(session, "goal", required_capabilities=value),
            "atlases": lambda: runtime.resolve(session, "goal", atlas_ids=value),
        }
    for name, call in calls.items():
        try:
            desk.refuses(call)
        except (TypeError, AttributeError, AssertionError, ValueError, KeyError) as error:
            pytest.fail(f"{name}: {type(error).__name__}: {error}")
    assert not desk.calls


def test_large_input_is_refused_fast(desk: Desk) -> None:
    runtime, session = desk.runtime, desk.session
    for call in (
        lambda: runtime.create_session("a" * 256, "goal"),
        lambda: runtime.resolve(session, "a" * 10_001),
        lambda: runtime.resolve(session, "goal", context_hints=["a"] * 101),
        lambda: runtime.resolve(session, "goal", context_hints=["a" * 1001]),
        lambda: runtime.execute(session, "ticket.get", {"id": 1, "note": "a" * (1 << 20)}),
        lambda: runtime.execute(session, "ticket.get", {"id": 1}, idempotency_key="a" * 256),
        lambda: runtime.handle(b" " * (2 << 20) + b"{}"),
        lambda: runtime.handle(json.dumps(desk.request(context={"x": "a" * (1 << 20)}))),
        lambda: runtime.handle(desk.request(context={"x": "a" * (1 << 20)})),
    ):
        desk.refuses(call, InvalidInput)
