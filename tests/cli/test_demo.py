"""The main job: cra demo tells its story, checks it, and leaves a trace that the commands it names can read."""

import tarfile
from pathlib import Path

import pytest

from cra.atlas.loader import load
from cra.cli._demo.desk import Desk
from tests.cli.harness import Run


def test_every_claim_holds_and_the_commands_it_names_work(cra: Run, tmp_path: Path) -> None:
    ran = cra("demo", "--out", "desk", "--json")
    assert ran.code == 0, ran.json["failed"]
    assert ran.json["ok"] is True
    assert len(ran.json["claims"]) >= 30
    assert all(claim["holds"] for claim in ran.json["claims"])
    assert Path(ran.json["files"]["support.trace.jsonl"]).is_file()
    codes = {(*words[:2], Path(words[2]).name): cra(*words).code for words in ran.json["commands"]}
    expected = dict.fromkeys(codes, 0)
    expected["trace", "verify", "tampered.trace.jsonl"] = 1
    whatif = [words for words in ran.json["commands"] if "--against" in words]
    assert whatif
    assert all(cra(*words).code == 1 for words in whatif)
    for key, code in codes.items():
        if key[0] != "replay":
            assert code == expected[key], key


def test_the_story_is_readable_without_a_terminal_and_never_too_wide(cra: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    ran = cra("demo")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    story = ran.out.partition("All ")[0]
    assert max(map(len, story.splitlines())) <= 60
    for words in (
        "deny-delete",
        "rate limit of 3 calls",
        "who asks cannot approve",
        "reason hash",
        "Replay",
        "stricter",
    ):
        assert words in story


def test_it_can_be_played_again_in_the_same_folder(cra: Run) -> None:
    first, second = (cra("demo", "--json") for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert first.json["session_id"] != second.json["session_id"]


def test_a_folder_that_cannot_be_used_is_named(cra: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = cra("demo", "--out", "file", "--json")
    assert (ran.code, ran.error["code"]) == (3, "file_error")


def test_a_claim_that_does_not_hold_fails_the_demo(cra: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desk that pays twice is caught."""
    real = Desk._refund_create

    def twice(self: Desk, parameters: dict[str, object]) -> object:
        real(self, parameters)
        return real(self, parameters)

    monkeypatch.setattr(Desk, "_refund_create", twice)
    ran = cra("demo", "--json")
    assert ran.code == 1
    assert ran.json["ok"] is False
    assert ran.json["failed"] == "the database has one refund"
    assert cra("demo").code == 1


def test_it_runs_without_the_sqlite_extra(cra: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cra.storage.sqlite", None)
    ran = cra("demo", "--json")
    assert ran.code == 0
    assert "cra.db" not in ran.json["files"]


def test_its_files_are_found_in_an_installed_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cra.cli import _data
    from cra.cli._exit import FileNotFound

    atlases, installed = _data.atlases(), tmp_path / "site" / "cra"
    assert _data.example_atlas("customer-support", tmp_path) == atlases / "customer-support"
    (installed / "_data").mkdir(parents=True)
    with tarfile.open(installed / "_data" / "atlases.tar.xz", "w:xz") as archive:
        archive.add(atlases / "customer-support", "customer-support")
    monkeypatch.setattr(_data, "_PACKAGE", installed)
    unpacked = _data.example_atlas("customer-support", tmp_path / "out")
    assert unpacked == tmp_path / "out" / "customer-support"
    assert load(unpacked).digest == load(atlases / "customer-support").digest
    with pytest.raises(FileNotFound):
        _data.example_atlas("gone", tmp_path / "out")
    monkeypatch.setattr(_data, "_PACKAGE", tmp_path)
    with pytest.raises(FileNotFound):
        _data.example_atlas("customer-support", tmp_path / "out")
