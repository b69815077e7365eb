"""cra session, resolve, execute, simulate and approvals."""

import json
from pathlib import Path

import pytest

from cra import CRARuntime, RuntimeConfig
from cra._core.canonical import dumps
from cra.atlas.loader import load_json
from tests.cli.harness import REFUND, REFUND_WORDS, REFUNDED, SUPPORT, TICKET, Run

NOBODY = "01890000-0000-7000-8000-000000000000"


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_is_created_listed_shown_and_ended(cra: Run) -> None:
    pytest.importorskip("apsw")
    session_id = cra("session", "create", "support-1", "Help", "--metadata", '{"shift": 1}').out.strip()
    shown = cra("session", "show", session_id, "--json").json
    assert (shown["status"], shown["agent_id"], shown["metadata"]) == ("active", "support-1", {"shift": 1})
    assert [s["session_id"] for s in cra("session", "list", "--json").json["sessions"]] == [session_id]
    assert session_id in cra("session", "list", "--agent", "support-1", "--status", "active").out
    assert cra("session", "list", "--agent", "nobody", "--json").json == {"sessions": []}
    assert cra("session", "end", session_id, "--reason", "cancelled").code == 0
    ended = cra("session", "end", session_id, "--json")
    assert (ended.code, ended.error["code"]) == (7, "session_ended")
    assert cra("session", "show", session_id, "--json").json["end_reason"] == "cancelled"
    asked = cra("resolve", "x", "-S", session_id, "--json")
    assert (asked.code, asked.error["code"]) == (7, "session_ended")


def test_looking_for_a_session_makes_no_store(cra: Run, tmp_path: Path) -> None:
    for words in (("session", "list"), ("session", "show", NOBODY), ("approvals", "list"), ("trace", "show", NOBODY)):
        ran = cra(*words, "--json")
        assert (ran.code, ran.error["code"]) == (4, "file_not_found"), words
        assert "--storage" in ran.error["hint"]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_session_is_not_found(cra: Run, session: str) -> None:
    for words in (
        ("session", "show", NOBODY),
        ("session", "end", NOBODY),
        ("resolve", "x", "-S", NOBODY),
        ("execute", "a.b", "-S", NOBODY, "--returns", "1"),
        ("simulate", "x", "-S", NOBODY),
        ("trace", "verify", NOBODY),
    ):
        ran = cra(*words, "--json")
        assert (ran.code, ran.error["code"]) == (4, "session_not_found"), words


def test_bad_words_are_refused(cra: Run, session: str) -> None:
    assert cra("session", "list", "--status", "sleeping").code == 2
    assert cra("session", "list", "--limit", "0").code == 2
    assert cra("session", "end", session, "--reason", "bored").code == 2
    assert cra("session", "create", "a", "b", "--context", "{not json").code == 3
    assert cra("session", "create", "a", "b", "--context", "[1]").code == 3
    assert cra("session", "create", "", "b").code == 3
    assert cra("session", "create", "a", "b", "--id", "x").code == 3


def test_storage_and_settings_that_make_no_sense_are_bad_input(cra: Run) -> None:
    for words in (
        ("--storage", "mysql://x"),
        ("--set", "max_sessions=many"),
        ("--set", "unheard=1"),
        ("--set", "capture_parameters=some"),
        ("--set", "default_ttl_seconds=-1"),
        ("--set", "stored_atlases=1"),
    ):
        ran = cra("session", "create", "a", "b", *words, "--json")
        assert (ran.code, ran.error["code"]) == (3, "config_invalid"), words


def test_a_command_decides_by_the_stored_atlases_when_it_is_told_to(cra: Run, session: str) -> None:
    forbidding = load_json(
        {
            "atlas_version": "1.0",
            "atlas_id": "com.acme.own",
            "version": "1.0.0",
            "name": "Own",
            "policies": [{"policy_id": "nothing-read", "type": "deny", "actions": ["ticket.get"]}],
        }
    )
    with CRARuntime(RuntimeConfig(storage="sqlite:///cra.db", stored_atlases=True)) as runtime:
        runtime.administration.load_atlas(forbidding, actor="dana")
    words = ("resolve", "read a ticket", "-S", session, "-a", SUPPORT, "--json")
    denied = {action["action_id"] for action in cra(*words, "--set", "stored_atlases=true").json["denied_actions"]}
    assert "ticket.get" in denied
    assert "ticket.get" not in {action["action_id"] for action in cra(*words).json["denied_actions"]}
    assert cra(*words, "--set", "stored_atlases=false").code == 0


def test_a_store_that_is_no_database_is_a_storage_error(cra: Run, tmp_path: Path) -> None:
    pytest.importorskip("apsw")
    (tmp_path / "cra.db").write_text("this is not a database, but a sentence that is long enough to look like a file")
    ran = cra("session", "list", "--json")
    assert ran.code == 5
    assert ran.out == ""


# -- resolve ----------------------------------------------------------------------------------------------------------


def test_a_resolution_is_shown_with_its_reasons(cra: Run) -> None:
    ran = cra("resolve", "Refund the second charge", "--agent", "support-1", "-s", "memory")
    assert ran.code == 0
    assert "decision: partial" in ran.out
    for words in ("ticket.get", "deny-delete", "handbook/context/handbook.md", "3 per minute and agent"):
        assert words in ran.out


def test_json_is_the_canonical_resolution(cra: Run) -> None:
    ran = cra("resolve", "Refund the second charge", "--agent", "support-1", "-s", "memory", "--json")
    assert ran.out.encode() == dumps(ran.json) + b"\n"
    assert ran.json["decision"]["type"] == "partial"
    assert ran.err == ""


def test_without_an_atlas_nothing_is_allowed_and_it_says_why(cra: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRA_ATLASES")
    ran = cra("resolve", "Anything", "--agent", "a", "-s", "memory")
    assert ran.code == 1
    assert "no atlas is loaded" in ran.err
    assert cra("resolve", "Anything", "--agent", "a", "-s", "memory", "--json").json["decision"]["type"] == "deny"


def test_the_request_fields_narrow_the_answer(cra: Run) -> None:
    base = ("resolve", "Refund", "--agent", "support-1", "-s", "memory", "--json")
    money = cra(*base, "--capability", "money").json
    assert {a["action_id"] for a in money["allowed_actions"]} == {"refund.create", "refund.get"}
    frozen = cra(*base, "--context", '{"account_status": "frozen"}').json
    assert "deny-frozen-account" in {d.get("policy_id") for d in frozen["denied_actions"]}
    critical = cra(*base, "--risk", "critical").json
    assert critical["decision"]["type"] == "requires_approval"
    assert cra(*base, "--risk", "enormous").code == 2
    assert cra(*base, "--context", "nonsense").code == 3
    assert cra(*base, "--atlas-id", "com.acme.other").code == 4


def test_who_asks_has_to_be_said_once(cra: Run) -> None:
    assert cra("resolve", "x").code == 2
    assert cra("resolve", "x", "--agent", "a", "--session", NOBODY).code == 2
    assert cra("resolve", "--agent", "a").code == 2


def test_a_whole_request_is_answered_and_a_bad_one_points_at_the_place(cra: Run, session: str, tmp_path: Path) -> None:
    from cra.protocol.times import format_timestamp
    from cra.runtime.config import system_clock

    request = {
        "carp_version": "1.0",
        "request_id": "01890000-0000-7000-8000-0000000000aa",
        "timestamp": format_timestamp(system_clock()),
        "operation": "resolve",
        "requester": {"agent_id": "support-1", "session_id": session},
        "task": {"goal": "Refund"},
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    answered = cra("resolve", "--request", str(path), "--json")
    assert answered.json["request_id"] == request["request_id"]
    again = cra("resolve", "--request", str(path), "--json")
    assert (again.code, again.error["code"]) == (7, "duplicate_request")
    path.write_text(json.dumps({**request, "task": {"goal": ""}}))
    ran = cra("resolve", "--request", str(path), "--json")
    assert (ran.code, ran.error["pointer"]) == (3, "/task/goal")
    path.write_text("{")
    assert cra("resolve", "--request", str(path)).code == 3
    assert cra("resolve", "--request", "gone.json").code == 4
    assert cra("resolve", "goal", "--request", str(path)).code == 2


# -- execute ----------------------------------------------------------------------------------------------------------


def test_an_allowed_call_runs_and_a_denied_one_does_not(cra: Run, session: str) -> None:
    ran = cra("execute", "ticket.get", "ticket_id=T-1", "-S", session, "--returns", TICKET, "--json")
    assert ran.code == 0
    assert ran.json["result"] == json.loads(TICKET)
    assert ran.out.encode() == dumps(ran.json) + b"\n"
    denied = cra("execute", "ticket.delete", "ticket_id=T-1", "-S", session, "--returns", "1", "--json")
    assert denied.code == 1
    assert denied.json["error"]["details"]["policy_id"] == "deny-delete"
    text = cra("execute", "ticket.delete", "ticket_id=T-1", "-S", session, "--returns", "1")
    assert text.code == 1
    assert "agents do not delete records" in text.out


def test_parameters_come_as_words_as_json_and_from_a_file(cra: Run, session: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"ticket_id": "T-1"}')
    for words in (("ticket_id=T-1",), ('ticket_id:="T-1"',), ("-p", '{"ticket_id": "T-1"}'), ("-p", "@p.json")):
        assert cra("execute", "ticket.get", *words, "-S", session, "--returns", TICKET).code == 0, words
    for words, code in (
        (("ticket_id",), 2),
        (("=T-1",), 2),
        (("ticket_id:={",), 3),
        (("-p", "[]"), 3),
        (("-p", '{"a": 1, "a": 2}'), 3),
        (("-p", "@gone.json"), 4),
        (("ticket_id:=7",), 1),
        (("wrong=T-1",), 1),
    ):
        assert cra("execute", "ticket.get", *words, "-S", session, "--returns", TICKET).code == code, words


def test_a_call_needs_a_resolution_and_an_action_that_exists(cra: Run) -> None:
    pytest.importorskip("apsw")
    fresh = cra("session", "create", "support-1", "Help").out.strip()
    ran = cra("execute", "ticket.get", "ticket_id=T-1", "-S", fresh, "--returns", TICKET, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (7, "resolution_required")
    with_goal = ("--goal", "Help", "--returns", TICKET)
    assert cra("execute", "ticket.get", "ticket_id=T-1", "-S", fresh, *with_goal).code == 0
    assert cra("execute", "ticket.fly", "-S", fresh, "--returns", "1").code == 1
    assert cra("execute", "NotAnAction", "-S", fresh, "--returns", "1").code == 3


def test_one_command_can_do_it_all_in_memory(cra: Run) -> None:
    words = ("kb.search", "query=refund", "--agent", "x", "-s", "memory", "--returns", '{"articles": []}')
    assert cra("execute", *words, "--goal", "Find the rules").code == 0
    assert cra("execute", *words).code == 2


def test_something_has_to_do_the_work(cra: Run, session: str) -> None:
    ran = cra("execute", "ticket.get", "ticket_id=T-1", "-S", session, "--json")
    assert ran.code == 2
    assert "simulate" in ran.error["hint"]
    assert cra("execute", "ticket.get", "-S", session, "--returns", "1", "--executors", "a:b").code == 2


def test_executors_come_from_a_module_of_this_folder(cra: Run, session: str, tmp_path: Path) -> None:
    (tmp_path / "desk_of_tests.py").write_text(
        "def register(runtime):\n"
        "    @runtime.executor('ticket.get')\n"
        "    def get(parameters):\n"
        f"        return {{**{json.loads(TICKET)!r}, 'ticket_id': parameters['ticket_id']}}\n"
        "def broken(parameters):\n"
        "    raise OSError('the disk is full')\n"
        "class inner:\n"
        "    table = {'ticket.*': broken}\n"
        "def fails(runtime):\n"
        "    raise ValueError('no')\n"
        "number = 7\n"
    )
    call = ("execute", "ticket.get", "ticket_id=T-9", "-S", session, "--json", "--executors")
    assert cra(*call, "desk_of_tests:register").json["result"]["ticket_id"] == "T-9"
    failed = cra(*call, "desk_of_tests:inner.table")
    assert (failed.code, failed.json["error"]["code"]) == (8, "action_failed")
    for name in (
        "desk_of_tests",
        "desk_of_tests:",
        "desk_of_tests:gone",
        "desk_of_tests:number",
        "desk_of_tests:fails",
        "no_such_module_here:x",
        "no_such_file.py",
    ):
        ran = cra(*call, name)
        assert ran.code == 3, name
        assert ran.error["hint"] is not None or "fails" in name or "gone" in name
    missing = cra("execute", "kb.search", "query=xx", "-S", session, "--json", "--executors", "desk_of_tests:register")
    assert (missing.code, missing.json["error"]["code"]) == (8, "executor_missing")
    assert "--executors" in missing.json["error"]["details"]["hint"]


def test_executors_come_from_a_file_as_they_would_from_a_module(cra: Run, session: str, tmp_path: Path) -> None:
    (tmp_path / "with_classes.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "@dataclass\n"
        "class Desk:\n"
        "    name: str\n"
        "    tickets: ClassVar[dict] = {}\n"
        "def register(runtime):\n"
        f"    runtime.register_executor('*', lambda parameters: {json.loads(TICKET)!r})\n"
    )
    call = ("execute", "ticket.get", "ticket_id=T-9", "-S", session, "--json", "--executors")
    assert cra(*call, "with_classes.py").code == 0
    for number, (text, words) in enumerate(
        (
            ("async def register(runtime): ...", "is async"),
            ("register = {5: print}", "registered for `5`"),
            ("register = {'': print}", "registered for `''`"),
        )
    ):
        (tmp_path / f"wrong_{number}.py").write_text(text)
        ran = cra(*call, f"wrong_{number}.py")
        assert (ran.code, ran.error["code"]) == (3, "config_invalid")
        assert words in ran.error["message"]


def test_a_result_that_breaks_its_schema_is_a_failure(cra: Run, session: str) -> None:
    ran = cra("execute", "ticket.get", "ticket_id=T-1", "-S", session, "--returns", "{}", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (8, "action_failed")


def test_the_same_key_gives_the_stored_answer(cra: Run, session: str) -> None:
    call = ("execute", "ticket.get", "-S", session, "--idempotency-key", "k-1", "--json", "--returns", TICKET)
    first, second = (cra(*call, "ticket_id=T-1").json for _ in range(2))
    assert first["execution_id"] == second["execution_id"]
    other = cra(*call, "ticket_id=T-2")
    assert (other.code, other.json["error"]["code"]) == (7, "idempotency_conflict")


def test_a_rate_limit_holds_across_commands(cra: Run, session: str) -> None:
    call = ("execute", "reply.send", "ticket_id=T-1", "body=Hello", "-S", session, "--returns", '{"message_id": "M"}')
    assert [cra(*call).code for _ in range(4)] == [0, 0, 0, 1]
    last = cra(*call, "--json")
    assert last.json["error"]["code"] == "limit_exceeded"
    assert 0 < last.json["error"]["details"]["retry_after_seconds"] <= 60


# -- approvals --------------------------------------------------------------------------------------------------------


def ask(cra: Run, session: str) -> str:
    ran = cra("execute", *REFUND_WORDS, "-S", session, "--returns", REFUNDED, "--json")
    assert ran.code == 6
    approval: str = ran.json["error"]["details"]["approval_id"]
    return approval


def test_a_granted_call_runs_once(cra: Run, session: str) -> None:
    approval = ask(cra, session)
    (waiting,) = cra("approvals", "list", "--json").json["approvals"]
    assert (waiting["approval_id"], waiting["parameters"]) == (approval, REFUND)
    assert approval in cra("approvals", "list").out
    own = cra("approvals", "grant", approval, "--approver", "support-1", "--json")
    assert (own.code, own.error["code"]) == (7, "approval_conflict")
    granted = cra("approvals", "grant", approval, "--approver", "dana", "--reason", "fine", "--json").json
    assert (granted["status"], granted["approver"], granted["reason"]) == ("granted", "dana", "fine")
    call = ("execute", *REFUND_WORDS, "-S", session, "--returns", REFUNDED)
    assert cra(*call, "--approval", approval).code == 0
    assert cra("approvals", "show", approval, "--json").json["status"] == "used"
    assert cra(*call, "--approval", approval).code in (1, 7)
    assert ask(cra, session) != approval


def test_a_rejected_call_does_not_run(cra: Run, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    approval = ask(cra, session)
    monkeypatch.setenv("CRA_APPROVER", "dana")
    assert cra("approvals", "reject", approval, "--reason", "no").code == 0
    again = cra("approvals", "grant", approval, "--json")
    assert (again.code, again.error["code"]) == (7, "approval_conflict")
    assert cra("approvals", "list", "--status", "rejected", "--json").json["approvals"][0]["approver"] == "dana"
    assert cra("approvals", "list").out == ""
    assert "nothing waits" in cra("approvals", "list").err


def test_approvals_that_do_not_exist_and_words_that_make_no_sense(cra: Run, session: str) -> None:
    ran = cra("approvals", "show", NOBODY, "--json")
    assert (ran.code, ran.error["code"]) == (4, "approval_not_found")
    assert cra("approvals", "grant", NOBODY, "--approver", "dana").code == 4
    assert cra("approvals", "grant", NOBODY).code == 2
    assert cra("approvals", "show", "7").code == 3
    assert cra("approvals", "list", "--status", "maybe").code == 2


# -- simulate ---------------------------------------------------------------------------------------------------------


def test_a_simulation_answers_as_the_call_would_and_does_nothing(cra: Run, session: str) -> None:
    before = cra("trace", "export", session).out
    call = ("simulate", "--session", session, "--json", "--action")
    waits = cra(*call, *REFUND_WORDS)
    assert (waits.code, waits.json["answer"]["status"]) == (6, "pending_approval")
    assert waits.json["simulated"] is True
    assert cra(*call, "ticket.delete", "ticket_id=T-1").code == 1
    allowed = cra(*call, "ticket.get", "ticket_id=T-1")
    assert (allowed.code, allowed.json["answer"]["simulated"]) == (0, True)
    assert "action.approved" in [event["event_type"] for event in allowed.json["events"]]
    assert cra("simulate", "Refund", "--session", session).code == 0
    assert cra("trace", "export", session).out == before


def test_without_a_session_a_simulation_leaves_nothing_behind(cra: Run, tmp_path: Path) -> None:
    assert "would be: pending_approval" in cra("simulate", "--action", *REFUND_WORDS, "--agent", "support-1").out
    assert cra("simulate", "Refund", "--agent", "support-1", "-a", SUPPORT).code == 0
    assert list(tmp_path.iterdir()) == []
    assert cra("simulate").code == 2
    assert cra("simulate", "one", "two").code == 2
    assert cra("simulate", "goal", "-p", "{}").code == 2


def test_text_of_an_agent_cannot_steer_the_terminal(cra: Run) -> None:
    pytest.importorskip("apsw")
    session_id = cra("session", "create", "support-1", "\x1b[2J\u202eevil [bold]x[/bold] :boom:").out.strip()
    for words in (("session", "list"), ("session", "show", session_id), ("trace", "show", session_id)):
        out = cra(*words).out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "[bold]x[/bold] :boom:" in out


# -- the same at every door -------------------------------------------------------------------------------------------


def test_the_command_line_gives_the_bytes_that_the_library_gives(
    cra: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One corpus of requests through the library and through commands: equal answers, equal traces."""
    pytest.importorskip("apsw")
    from cra.cli import _runtime
    from cra.cli._options import settings, sqlite_url
    from cra.runtime.sync import CRARuntime

    now_us = 1_767_610_800_000_000
    asked: list[int] = []

    def ids(size: int) -> bytes:
        asked.append(size)
        return len(asked).to_bytes(size, "big")

    real = _runtime.make_config
    monkeypatch.setattr(_runtime, "make_config", lambda chosen: real(chosen, clock=lambda: now_us, ids=ids))
    session_id = "01890000-0000-7000-8000-000000000001"

    def request(number: int, **fields: object) -> dict[str, object]:
        return {
            "carp_version": "1.0",
            "request_id": f"01890000-0000-7000-8000-{number:012d}",
            "timestamp": "2026-01-05T11:00:00.000000Z",
            "operation": "resolve",
            "requester": {"agent_id": "support-1", "session_id": session_id},
            "task": {"goal": "Refund \u20ac 20 \U0001f4b6"},
            **fields,
        }

    requests = [
        request(1),
        request(2, task={"goal": "Refund", "risk_tier": "high", "required_capabilities": ["money"]}),
        request(3, task={"goal": "Refund", "context_hints": ["double charge"]}, context={"account_status": "frozen"}),
        request(4, atlas_ids=["com.acme.customer-support"]),
    ]
    with CRARuntime(_runtime.make_config(settings(storage=sqlite_url(str(tmp_path / "library.db"))))) as runtime:
        runtime.load_atlas(SUPPORT)
        runtime.create_session("support-1", "Help", session_id=session_id)
        expected = [runtime.handle(value).decode() + "\n" for value in requests]
        trace = runtime.get_trace(session_id).data.decode()
    asked.clear()
    assert cra("session", "create", "support-1", "Help", "--id", session_id).code == 0
    for number, value in enumerate(requests):
        (tmp_path / "request.json").write_text(json.dumps(value))
        assert cra("resolve", "--request", "request.json", "--json").out == expected[number]
    assert cra("trace", "export", session_id).out == trace
