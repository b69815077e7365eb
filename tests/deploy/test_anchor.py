"""Heads that were noted elsewhere show what the chain itself cannot: a rewritten whole, a cut end, a lost session."""

import json
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from cra import CRARuntime, RuntimeConfig

ROOT = Path(__file__).resolve().parents[2]


def anchor(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy/anchor.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


@pytest.fixture
def store(tmp_path: Path) -> tuple[str, str, Path]:
    """Return the URL of a store, a session in it, and the file with its heads."""
    url = f"sqlite:///{tmp_path}/cra.db"
    with CRARuntime(RuntimeConfig(storage=url)) as runtime:
        runtime.load_atlas(ROOT / "examples/atlases/customer-support")
        session = runtime.create_session(agent_id="bot", goal="Help")
        runtime.resolve(session.id, "Look at T-1")
        runtime.administration.set_retention({"ended_days": None, "keep_ended": 0}, actor="ann")
    made = anchor("note", "--storage", url)
    assert made.returncode == 0, made.stderr
    assert {json.loads(line)["session_id"] for line in made.stdout.splitlines()} > {session.id}
    notes = tmp_path / "heads.jsonl"
    notes.write_text(made.stdout)
    return url, session.id, notes


def test_a_store_that_has_grown_is_what_was_noted(store: tuple[str, str, Path]) -> None:
    url, session, notes = store
    with CRARuntime(RuntimeConfig(storage=url)) as runtime:
        runtime.load_atlas(ROOT / "examples/atlases/customer-support")
        runtime.resolve(session, "Look at T-2")
    checked = anchor("check", "--storage", url, str(notes))
    assert (checked.returncode, checked.stdout) == (0, "")


def test_a_purge_that_is_recorded_is_no_loss(store: tuple[str, str, Path]) -> None:
    url, session, notes = store
    with CRARuntime(RuntimeConfig(storage=url)) as runtime:
        runtime.end_session(session)
        assert runtime.administration.purge() == [session]
    checked = anchor("check", "--storage", url, str(notes))
    assert (checked.returncode, checked.stdout) == (0, "")


def test_another_history_that_verifies_is_found(store: tuple[str, str, Path]) -> None:
    url, session, notes = store
    path = url.removeprefix("sqlite:///")
    with CRARuntime(RuntimeConfig(storage=url)) as runtime:
        events = runtime.get_trace(session).data
    # Who can write the file drops the newest append; what is left is a chain without a fault.
    with apsw.Connection(path) as connection:
        connection.execute("DELETE FROM events WHERE place = (SELECT max(place) FROM events WHERE place < (2 << 32))")
    with CRARuntime(RuntimeConfig(storage=url)) as runtime:
        assert runtime.get_trace(session).data != events
        assert runtime.verify_chain(session)
    checked = anchor("check", "--storage", url, str(notes))
    assert checked.returncode == 1
    assert f"{session}: has 1 events" in checked.stdout


def test_a_session_that_was_taken_away_is_found(store: tuple[str, str, Path]) -> None:
    url, session, notes = store
    with apsw.Connection(url.removeprefix("sqlite:///")) as connection:
        connection.execute("DELETE FROM sessions WHERE session_id = ?", (session,))
    checked = anchor("check", "--storage", url, str(notes))
    assert checked.returncode == 1
    assert f"{session}: is gone, and no purge of it is recorded" in checked.stdout
