"""cra trace and cra replay."""

import csv
import io
import json
import os
from pathlib import Path
from threading import Thread

import pytest

from tests.cli.harness import REFUND_WORDS, REFUNDED, STRICTER, SUPPORT, Run


def session_of(trace: Path) -> str:
    session_id: str = json.loads(trace.read_bytes().splitlines()[0])["session_id"]
    return session_id


def test_a_trace_is_shown_from_the_store_and_from_a_file(cra: Run, trace: Path) -> None:
    for source in (str(trace), session_of(trace)):
        ran = cra("trace", "show", source)
        assert ran.code == 0
        for words in ("session.started", "ticket.delete: deny by deny-delete", "approval.requested", "session.ended"):
            assert words in ran.out
    picked = cra("trace", "show", str(trace), "--type", "action.*", "--payload")
    assert "action.executed" in picked.out
    assert "session.started" not in picked.out
    assert '"parameters_hash"' in picked.out


def test_json_lines_are_the_stored_bytes(cra: Run, trace: Path) -> None:
    data = trace.read_text()
    assert cra("trace", "show", str(trace), "--json").out == data
    assert cra("trace", "export", session_of(trace)).out == data
    lines = data.splitlines(keepends=True)
    assert cra("trace", "show", str(trace), "--json", "--first", "3", "--count", "2").out == "".join(lines[3:5])
    assert cra("trace", "tail", str(trace), "-n", "2", "--json").out == "".join(lines[-2:])
    assert cra("trace", "tail", str(trace), "-n", "0", "--json").out == ""
    assert len(cra("trace", "tail", session_of(trace)).out.splitlines()) == 10


def test_following_shows_what_comes_in(cra: Run, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file grows by half an event, then by the rest, while nobody waits for real."""
    lines = trace.read_bytes().splitlines(keepends=True)
    growing = trace.with_name("growing.trace.jsonl")
    growing.write_bytes(lines[0])
    pieces = [lines[1][:50], lines[1][50:] + lines[2]]

    def sleep(seconds: float) -> None:
        if not pieces:
            raise KeyboardInterrupt
        with growing.open("ab") as file:
            file.write(pieces.pop(0))

    monkeypatch.setattr("cra.cli.trace.time.sleep", sleep)
    ran = cra("trace", "tail", str(growing), "-f", "--json")
    assert ran.code == 0
    assert ran.out.encode() == b"".join(lines[:3])


def test_an_export_can_be_json_and_csv(cra: Run, trace: Path) -> None:
    events = cra("trace", "export", str(trace), "--format", "json").json
    rows = list(csv.DictReader(io.StringIO(cra("trace", "export", str(trace), "--format", "csv").out)))
    assert [row["event_hash"] for row in rows] == [event["event_hash"] for event in events]
    assert json.loads(rows[0]["payload"]) == events[0]["payload"]
    assert cra("trace", "export", str(trace), "--format", "xml").code == 2
    assert cra("trace", "export", str(trace), "-o", "no/such/folder/x").code == 3
    written = cra("trace", "export", str(trace), "-o", "copy", "--json")
    assert written.json["bytes"] == trace.stat().st_size


def test_a_good_trace_verifies_from_the_store_and_from_a_file(cra: Run, trace: Path) -> None:
    ran = cra("trace", "verify", str(trace), "--json")
    assert ran.code == 0
    assert ran.json["events"] == len(trace.read_bytes().splitlines())
    assert cra("trace", "verify", session_of(trace), "--json").json == ran.json
    assert "verified" in cra("trace", "verify", str(trace)).out


def test_a_trace_comes_through_a_pipe_with_a_name(cra: Run, trace: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_bytes, args=(trace.read_bytes(),))
    writer.start()
    ran = cra("trace", "verify", str(pipe))
    writer.join()
    assert (ran.code, "one unbroken chain" in ran.out) == (0, True)


def test_one_changed_byte_is_found_at_its_event(cra: Run, trace: Path) -> None:
    data = trace.read_bytes()
    at = data.index(b'"amount":600')
    bad = trace.with_name("bad.trace.jsonl")
    bad.write_bytes(data.replace(b'"amount":600', b'"amount":100', 1))
    ran = cra("trace", "verify", str(bad), "--json")
    assert ran.code == 1
    assert (ran.json["ok"], ran.json["index"], ran.json["reason"]) == (False, data.count(b"\n", 0, at), "hash")
    text = cra("trace", "verify", str(bad))
    assert text.code == 1
    assert "not verified" in text.out
    assert str(ran.json["index"]) in text.out


def test_a_cut_end_is_found_with_a_head_from_elsewhere(cra: Run, trace: Path) -> None:
    head = cra("trace", "verify", str(trace), "--json").json["head"]
    assert cra("trace", "verify", str(trace), "--head", head).code == 0
    cut = trace.with_name("cut.trace.jsonl")
    cut.write_bytes(b"".join(trace.read_bytes().splitlines(keepends=True)[:-2]))
    assert cra("trace", "verify", str(cut)).code == 0
    ran = cra("trace", "verify", str(cut), "--head", head, "--json")
    assert (ran.code, ran.json["reason"]) == (1, "head")
    assert cra("trace", "verify", str(cut), "--head", "abc").code == 2


def test_a_chain_that_tells_an_impossible_story_is_found(cra: Run, trace: Path) -> None:
    from cra._core.chain import Chain

    assert cra("trace", "verify", str(trace), "--story", "--json").json["findings"] == []
    chain = Chain("01890000-0000-7000-8000-000000000000", "01890000-0000-7000-8000-000000000001")
    batch = chain.begin(1_700_000_000_000_000, bytes(16))
    batch.add("session.started", {"agent_id": "a", "goal": "g", "atlases": []})
    chain.advance(batch)
    later = chain.begin(1_700_000_001_000_000, bytes(16))
    done = {"action_id": "a.b", "execution_id": batch.span_id, "resolution_id": batch.span_id, "duration_ms": 1}
    later.add("action.executed", {**done, "result_hash": "0" * 64})
    false = trace.with_name("false.trace.jsonl")
    false.write_bytes(batch.data + later.data)
    assert cra("trace", "verify", str(false)).code == 0
    ran = cra("trace", "verify", str(false), "--story", "--json")
    assert (ran.code, ran.json["reason"], ran.json["index"]) == (1, "story", 1)
    assert ran.json["findings"][0]["message"] in cra("trace", "verify", str(false), "--story").out


def test_what_is_no_trace_is_named(cra: Run, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "binary").write_bytes(b"\xff\x00\n")
    for name in ("x.jsonl", "binary"):
        for words in (("show",), ("export", "--format", "csv")):
            ran = cra("trace", words[0], name, *words[1:], "--json")
            assert (ran.code, ran.error["code"]) == (3, "invalid_trace")
        assert cra("trace", "verify", name, "--json").json["reason"] == "grammar"
    missing = cra("trace", "show", "gone.jsonl", "--json")
    assert (missing.code, missing.error["code"]) == (4, "file_not_found")
    assert cra("trace", "verify", str(tmp_path)).code == 4


def test_two_traces_that_say_the_same_do_not_differ(cra: Run, trace: Path) -> None:
    ran = cra("trace", "diff", str(trace), session_of(trace), "--json")
    assert ran.code == 0
    assert cra("trace", "diff", str(trace), str(trace)).code == 0


def test_traces_that_say_something_else_differ(cra: Run, trace: Path) -> None:
    other = cra("session", "create", "support-1", "Something else").out.strip()
    ran = cra("trace", "diff", str(trace), other, "--json")
    assert ran.code == 1
    assert ran.json
    assert cra("trace", "diff", str(trace), other).code == 1
    assert cra("trace", "diff", str(trace), "gone").code == 4
    assert cra("trace", "diff", "-", "-").code == 2


def test_a_recorded_session_is_reproduced(cra: Run, trace: Path) -> None:
    ran = cra("replay", str(trace), "--json")
    assert ran.code == 0, ran.out
    assert (ran.json["ok"], ran.json["complete"]) == (True, True)
    assert "reproduced" in cra("replay", session_of(trace), "--atlas", SUPPORT).out


def test_against_a_stricter_atlas_it_says_what_would_have_changed(cra: Run, trace: Path) -> None:
    ran = cra("replay", str(trace), "--against", STRICTER, "--json")
    assert ran.code == 1
    text = cra("replay", str(trace), "--against", STRICTER)
    assert text.code == 1
    assert "approve-close" in text.out
    assert "stricter" in text.out
    same = cra("replay", str(trace), "--against", SUPPORT)
    assert same.code == 0
    assert "nothing would have been decided differently" in same.out


def test_a_replay_with_other_atlases_is_different(cra: Run, trace: Path) -> None:
    ran = cra("replay", str(trace), "--atlas", STRICTER, "--json")
    assert ran.code == 1
    assert ran.json["ok"] is False
    assert cra("replay", str(trace), "--atlas", STRICTER).code == 1


def test_a_replay_needs_an_atlas_and_a_whole_chain(cra: Run, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = trace.with_name("bad.trace.jsonl")
    bad.write_bytes(trace.read_bytes().replace(b'"amount":600', b'"amount":100', 1))
    ran = cra("replay", str(bad), "--json")
    assert (ran.code, ran.error["code"]) == (3, "invalid_trace")
    monkeypatch.delenv("CRA_ATLASES")
    assert cra("replay", str(trace)).code == 2
    assert cra("replay", str(trace), "-a", "nowhere").code == 4
    assert cra("replay", "gone", "-a", SUPPORT).code == 4


def test_what_was_not_kept_is_said(cra: Run, session: str) -> None:
    assert cra("execute", *REFUND_WORDS, "-S", session, "--returns", REFUNDED).code == 6
    ran = cra("replay", session, "--json")
    assert ran.code == 0, ran.out
    assert ran.json["complete"] is False
    assert "could not be decided again" in cra("replay", session).out
