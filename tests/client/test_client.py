"""The client at a real service: what it is told once, what it shows, and what the corpus of the doors leaves out."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra import errors
from cra.atlas import loader
from cra.client import AsyncCRAClient, CRAClient, _plans
from cra.client._problems import problem_of as error_in
from cra.client._settings import Secret
from cra.client._stream import Messages
from cra.errors import (
    AtlasConflict,
    AtlasInvalid,
    AtlasNotFound,
    ConfigInvalid,
    CRAError,
    InvalidRequest,
    InvalidTrace,
    MissingExtra,
    Problem,
    Unauthenticated,
)
from cra.runtime.config import RuntimeConfig
from cra.runtime.sync import CRARuntime
from cra.server.problems import problem_of
from tests.client.between import Between, answer
from tests.runtime.desk import ATLAS
from tests.server.running import Running, running

SECRET = "cra_default_abcdefgh12345678_0123456789012345678901234567890123456789012"
OTHER = {"atlas_version": "1.0", "atlas_id": "com.example.other", "version": "1.0.0", "name": "Other"}

# What it is told once


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("localhost:8420", "expected http"),
        ("ftp://localhost", "expected http"),
        ("http://", "expected http"),
        ("http://host:0", "expected http"),
        ("http://host:99999", "no address"),
        ("http://[::1", "no address"),
        ("http://host/?a=b", "expected http"),
        ("http://host/#a", "expected http"),
        ("http://ho st/", "a space"),
        ("http://host\\x", "a space"),
        (None, "expected text"),
    ],
)
def test_what_is_no_address_is_refused(address: Any, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        CRAClient(address)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        CRAClient("https://dana:hunter2@cra.example.com")
    assert "hunter2" not in str(refused.value) + str(refused.value.hint)


@pytest.mark.parametrize("address", ["http://cra.example.com", "http://10.0.0.1:8420", "http://localhost.example.com"])
def test_a_credential_crosses_no_network_in_plain_text_unless_told(address: str) -> None:
    with pytest.raises(ConfigInvalid, match="plain text"):
        CRAClient(address, SECRET)
    CRAClient(address, SECRET, allow_plain_http=True).close()
    CRAClient(address).close()
    CRAClient(address.replace("http:", "https:"), SECRET).close()


@pytest.mark.parametrize("address", ["http://localhost:8420", "http://127.0.0.7", "http://[::1]:8420"])
def test_a_credential_may_stay_on_this_machine(address: str) -> None:
    CRAClient(address, SECRET).close()


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_s": 0}, {"execute_timeout_s": "x"}, {"max_attempts": 0}, {"max_connections": 0}, {"timeout_s": True}],
)
def test_a_setting_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid, match=f"{next(iter(wrong))} is"):
        CRAClient("http://localhost", **wrong)


@pytest.mark.parametrize("key", ["", "with space", "line\nbreak", "ключ", 5, "x" * 16385])
def test_what_can_be_no_credential_is_refused_without_being_shown(key: Any) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        CRAClient("http://localhost", key)
    assert not (isinstance(key, str) and key and key in str(refused.value))


def test_a_credential_is_shown_nowhere(caplog: pytest.LogCaptureFixture, between: Between) -> None:
    caplog.set_level(logging.DEBUG)
    with CRAClient(between.url, SECRET) as client:
        between.todo.append("cut")
        client._sleep = lambda seconds: None
        with pytest.raises(Unauthenticated) as refused:
            client.list_sessions()
        shown = [repr(client), repr(client._settings), repr(vars(client)), repr(client._http), caplog.text]
        assert SECRET not in "".join(shown) + str(refused.value) + repr(refused.value.__dict__)
        with pytest.raises(TypeError, match="not written down"):
            pickle.dumps(Secret(SECRET))
    assert between.heads[-1].lower().count(b"authorization: bearer " + SECRET.encode()) == 1


def test_the_environment_has_a_credential_unless_one_is_given(
    between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRA_API_KEY", "from-the-environment")
    for given_key, sent in ((None, b"from-the-environment"), ("given", b"given")):
        with CRAClient(between.url, given_key) as client, pytest.raises(Unauthenticated):
            client.list_sessions()
        assert b"Bearer " + sent in between.heads[-1]


def test_a_token_that_is_renewed_is_asked_for_each_time(between: Between) -> None:
    tokens = iter(["first", "second"])
    with CRAClient(between.url, lambda: next(tokens)) as client:
        for word in (b"first", b"second"):
            with pytest.raises(Unauthenticated):
                client.list_sessions()
            assert b"Bearer " + word in between.heads[-1]


def test_a_proxy_of_the_environment_does_not_get_what_stays_here(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with CRAClient(service.url) as client:
        client.list_sessions()


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(MissingExtra) as missing:
        CRAClient("http://localhost")
    assert "cra-core[client]" in str(missing.value.hint)


# Errors


def _examples() -> list[CRAError]:
    made: list[CRAError] = []
    own = {
        errors.ActionDenied: {"action_id": "a.b", "policy_id": "p"},
        errors.InvalidParameters: {"action_id": "a.b", "pointer": "/x"},
        errors.LimitExceeded: {"action_id": "a.b", "policy_id": "p", "retry_after_s": 7},
        errors.ApprovalRequired: {"action_id": "a.b", "approval_id": "i", "policy_id": "p", "expires_at": "t"},
        errors.ActionFailed: {"action_id": "a.b", "execution_id": "e", "error_code": "invalid_result"},
        errors.ActionTimeout: {"action_id": "a.b", "execution_id": "e", "error_code": "timeout"},
        errors.AtlasInvalid: {"problems": [Problem("c", "m", pointer="/p", file="f")], "hint": "h"},
    }
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, CRAError):
            more = own.get(kind, {"hint": "do this", "details": {"n": 1}})
            made.append(kind("words", **more))
    return made


@pytest.mark.parametrize("error", _examples(), ids=lambda error: error.code)
def test_an_error_of_the_service_is_the_error_of_the_runtime(error: CRAError) -> None:
    document = problem_of(error, "request-1").body
    found = error_in(error.status, document, action_id="a.b")
    assert type(found) is type(error)
    given_values, found_values = vars(error), vars(found)
    assert found_values == given_values


# Pages, atlases, the past


def test_long_lists_are_read_in_pages(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plans, "PAGE", 2)
    with CRAClient(service.url) as client:
        made = [client.create_session("pages", f"session {number}") for number in range(5)]
        found = client.list_sessions(agent_id="pages")
        assert sorted(found, key=lambda record: record.id) == sorted(made, key=lambda record: record.id)
        assert client.list_sessions(agent_id="pages", limit=3) == found[:3]
        assert client.list_sessions(agent_id="pages", after=found[3].id) == found[4:]
        client.resolve(made[0].id, "help")
        whole = client.get_trace(made[0].id)
        assert client.get_trace(made[0].id, 1, 3).lines == whole.lines[1:4]
        assert client.get_trace(made[0].id, len(whole)).data == b""
        asked = [_asked_for(client, made[0].id, amount) for amount in range(501, 506)]
        assert [one.approval_id for one in client.approvals.list(session_id=made[0].id)] == asked
        assert [one.approval_id for one in client.approvals.list(session_id=made[0].id, limit=3)] == asked[:3]


def _asked_for(client: CRAClient, session_id: str, amount: int) -> str:
    with pytest.raises(errors.ApprovalRequired) as waits:
        client.execute(session_id, "refund.create", {"amount": amount})
    return waits.value.approval_id


def test_an_atlas_goes_to_the_service_and_comes_back_the_same() -> None:
    pack = {"pack_id": "p", "name": "P", "files": ["context/rules.md"]}
    atlas = loader.load_json({**ATLAS, "context_packs": [pack]}, {"context/rules.md": "Be polite. \N{SNOWMAN}"})
    with running() as service, CRAClient(service.url) as client:
        assert client.load_atlas(atlas) is atlas
        (listed,) = client.list_atlases()
        assert (listed.digest, dict(listed.files)) == (atlas.digest, dict(atlas.files))
        assert client.list_atlases() == [listed]
        with pytest.raises(AtlasConflict):
            client.load_atlas(atlas)
        assert client.load_atlas_from_json({**ATLAS, "version": "2.0.0"}, replace=True).version == "2.0.0"
        assert [one.version for one in client.list_atlases()] == ["2.0.0"]
        with pytest.raises(AtlasInvalid) as invalid:
            client.load_atlas_from_json({**OTHER, "version": "x"})
        assert invalid.value.problems
        client.unload_atlas("com.example.desk")
        assert client.list_atlases() == []
        for unknown in ("com.example.desk", "../keys", "", "x" * 300):
            with pytest.raises(AtlasNotFound):
                client.unload_atlas(unknown)


def test_the_past_is_decided_again_with_the_services_atlases(service: Running) -> None:
    with CRAClient(service.url) as client:
        made = client.create_session("agent-1", "past")
        client.resolve(made.id, "help")
        trace = client.get_trace(made.id)
        assert client.replay(trace).ok
        assert client.replay(trace).counts()["same"] > 3
        assert client.replay(trace, client.list_atlases()) == client.replay(trace)
        open_desk = loader.load_json({**ATLAS, "version": "3.0.0", "policies": []})
        assert {c.action_id for v in client.what_if(trace, open_desk).verdicts for c in v.changes} >= {"ticket.delete"}
        with pytest.raises(InvalidTrace):
            client.replay(trace.data.replace(b"help", b"harm"))


def test_both_clients_give_what_the_other_gives(service: Running) -> None:
    async def other(session_id: str) -> list[Any]:
        async with AsyncCRAClient(service.url) as client:
            trace = await client.get_trace(session_id)
            return [
                await client.get_session(session_id),
                trace,
                await client.verify_chain(session_id),
                await client.verify_chain(session_id, locally=True),
                await client.replay(trace),
                [atlas.digest for atlas in await client.list_atlases()],
                await client.call("GET", "/v1/health/live"),
            ]

    with CRAClient(service.url) as client:
        made = client.create_session("agent-1", "both")
        client.resolve(made.id, "help")
        trace = client.get_trace(made.id)
        assert asyncio.run(other(made.id)) == [
            client.get_session(made.id),
            trace,
            client.verify_chain(made.id),
            client.verify_chain(made.id, locally=True),
            client.replay(trace),
            [atlas.digest for atlas in client.list_atlases()],
            client.call("GET", "/v1/health/live"),
        ]


def test_one_line_moves_a_program_to_the_service(service: Running) -> None:
    def program(runtime: CRARuntime | CRAClient) -> tuple[Any, ...]:
        with runtime:
            session = runtime.create_session("agent-1", "help a customer")
            offered = runtime.resolve(session.id, "refund", risk_tier="high").allowed_actions
            with pytest.raises(errors.ActionDenied, match="deleting is for people") as denied:
                runtime.execute(session.id, "ticket.delete", {})
            return offered, denied.value.policy_id, runtime.end_session(session.id).status

    embedded = CRARuntime(RuntimeConfig())
    embedded.load_atlas_from_json(ATLAS)
    assert program(embedded) == program(CRAClient(service.url))


def test_a_call_without_a_method_has_its_path_checked(service: Running) -> None:
    with CRAClient(service.url) as client:
        assert "roles" in client.call("GET", "/v1/roles")
        for method, path in (("PATCH", "/v1/keys"), ("GET", "v1/keys"), ("GET", "/v1/../keys"), ("GET", "/v1/a b")):
            with pytest.raises(InvalidRequest, match="expected GET, POST"):
                client.call(method, path)


# Waiting and following


def test_an_approval_is_waited_for(service: Running) -> None:
    with CRAClient(service.url) as client:
        made = client.create_session("agent-1", "wait")
        client.resolve(made.id, "refund")
        approval_id = _asked_for(client, made.id, 700)
        assert client.approvals.wait(approval_id, 0).status == "pending"
        # A second person, by a key of their own.
        key = client.call("POST", "/v1/keys", {"subject": "dana", "roles": ["admin"]})["key"]
        with CRAClient(service.url, key) as dana:
            waiting: list[Any] = []
            thread = threading.Thread(target=lambda: waiting.append(client.approvals.wait(approval_id, 60)))
            thread.start()
            granted = dana.approvals.grant(approval_id, approver="who is not sent", reason="fine")
            thread.join(30)
        assert (granted.status, granted.approver, granted.reason) == ("granted", "dana", "fine")
        assert waiting == [granted]
        with pytest.raises(InvalidRequest, match="seconds is"):
            client.approvals.wait(approval_id, -1)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_trace_is_followed_through_breaks_until_its_session_ends(between: Between, asynchronous: bool) -> None:
    with CRAClient(between.url) as client:
        session_id = client.create_session("agent-1", "follow").id
        between.todo.append("cut")
        client._sleep = lambda seconds: None
        seen: list[Any] = []

        def at(event: Any) -> None:
            seen.append(event)
            if event.event_type == "session.started":
                client.resolve(session_id, "one")
            elif event.event_type == "carp.resolution.completed" and not done:
                done.append(True)
                between.break_all()
                client.resolve(session_id, "two")
                client.end_session(session_id)

        done: list[bool] = []
        if asynchronous:

            async def follow() -> None:
                async with AsyncCRAClient(between.url) as other:

                    async def sleep(seconds: float) -> None: ...

                    other._sleep = sleep
                    async for event in other.follow(session_id):
                        await asyncio.to_thread(at, event)

            asyncio.run(follow())
        else:
            for event in client.follow(session_id):
                at(event)
        assert seen == list(client.get_trace(session_id))
        assert seen[-1].event_type == "session.ended"
        assert [e.sequence for e in client.follow(session_id, 3)] == [e.sequence for e in seen[3:]]
        assert list(client.follow(session_id, len(seen))) == []
        with pytest.raises(errors.SessionNotFound):
            next(client.follow("01920000-0000-7000-8000-00000000000a"))


@settings(max_examples=200)
@given(st.data())
def test_messages_are_the_same_however_they_arrive_in_pieces(data: st.DataObject) -> None:
    ends = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    wanted = data.draw(st.lists(st.tuples(st.integers(0, 999), st.binary(max_size=20)), max_size=5))
    wanted = [(number, text.replace(b"\r", b"").replace(b"\n", b"")) for number, text in wanted]
    stream = b": a comment" + ends + ends
    for number, text in wanted:
        stream += ends.join([b"id: %d" % number, b"event: x", b"data: " + text, b"", b""])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    messages, found = Messages(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += messages.feed(stream[start:end])
    assert found == [(str(number), text) for number, text in wanted]


def test_a_live_trace_with_a_hole_is_refused(between: Between) -> None:
    with CRAClient(between.url) as client:
        session_id = client.create_session("agent-1", "hole").id
        client.resolve(session_id, "one")
        lines = client.get_trace(session_id).lines
        stream = b"".join(b"id: %d\ndata: %b\n\n" % (number, lines[number]) for number in (0, 2))
        between.todo.append(answer(200, stream, media="text/event-stream"))
        with pytest.raises(InvalidTrace, match="goes on with event 2, expected 1"):
            list(client.follow(session_id))
