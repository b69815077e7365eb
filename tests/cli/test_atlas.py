"""cra init and cra atlas."""

import json
from pathlib import Path

import pytest

from tests.cli.harness import ATLASES, STRICTER, SUPPORT, Run

MANIFEST = {
    "atlas_version": "1.0",
    "atlas_id": "Not An Id",
    "version": "1",
    "name": "x",
    "capabilities": [{"capability_id": "c", "name": "c", "actions": ["a.b"]}],
    "policies": [{"policy_id": "p", "type": "maybe", "actions": ["*"]}],
    "actions": [{"action_id": "a.b", "name": "x", "parameters_schema": {"type": "nonsense"}}],
    "context_packs": [{"pack_id": "k", "name": "k", "files": ["context/gone.md"]}],
}


@pytest.fixture
def bad(tmp_path: Path) -> str:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "atlas.json").write_text(json.dumps(MANIFEST))
    return "bad"


def test_a_new_atlas_is_valid_without_a_warning_and_its_tests_pass(cra: Run) -> None:
    made = cra("init", "my-notes", "--name", "My notes")
    assert made.code == 0
    assert "com.example.my-notes 0.1.0" in made.out
    checked = cra("atlas", "validate", "my-notes", "--strict", "--json")
    assert checked.code == 0
    assert checked.json["atlases"][0]["warnings"] == []
    tested = cra("atlas", "test", "my-notes", "--json")
    assert (tested.code, tested.json["failed"]) == (0, 0)
    assert tested.json["passed"] >= 5


def test_what_init_suggests_works(cra: Run) -> None:
    import shlex

    made = cra("init", "desk")
    lines = [line.strip() for line in made.out.splitlines() if line.startswith("  cra ")]
    assert len(lines) == 3
    for line in lines:
        assert cra(*shlex.split(line)[1:]).code == 0


def test_init_overwrites_nothing_and_refuses_a_bad_id(cra: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "atlas.json").write_text("mine")
    ran = cra("init", "taken", "--json")
    assert ran.code == 7
    assert ran.error["code"] == "atlas_conflict"
    assert (tmp_path / "taken" / "atlas.json").read_text() == "mine"
    assert not (tmp_path / "taken" / "policies").exists()
    assert cra("init", "other", "--id", "NoDots").code == 2
    assert not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("")
    assert cra("init", "file/atlas").code == 3


def test_init_makes_a_good_id_of_a_strange_folder_name(cra: Run) -> None:
    assert cra("init", "2 Wild__Things!", "--json").json["atlas_id"] == "com.example.atlas"
    assert cra("init", "Wild__Things!", "--json").json["atlas_id"] == "com.example.wild-things"


def test_all_problems_of_an_atlas_are_listed_with_their_places(cra: Run, bad: str) -> None:
    ran = cra("atlas", "validate", bad, "--json")
    assert ran.code == 1
    assert ran.json["valid"] is False
    problems = ran.json["atlases"][0]["problems"]
    pointers = {problem["pointer"] for problem in problems}
    assert {"/atlas_id", "/version", "/policies/0/type"} <= pointers
    words = cra("atlas", "validate", bad)
    assert words.code == 1
    for problem in problems:
        assert problem["message"] in words.out
        assert f"{problem['file']}#{problem['pointer']}" in words.out


def test_an_invalid_atlas_where_one_is_needed_is_bad_input_with_all_its_problems(cra: Run, bad: str) -> None:
    for words in (
        ("atlas", "show"),
        ("atlas", "digest"),
        ("atlas", "pack"),
        ("atlas", "test"),
        ("simulate", "x", "-a"),
    ):
        ran = cra(*words, bad, "--json")
        assert ran.code == 3, words
        assert ran.error["code"] == "atlas_invalid"
        assert len(ran.error["details"]["problems"]) >= 3
    text = cra("simulate", "x", "-a", bad)
    assert text.err.count("atlas.json#") >= 3
    assert "hint:" in text.err


def test_one_bad_atlas_among_good_ones_is_found(cra: Run, bad: str) -> None:
    ran = cra("atlas", "validate", SUPPORT, bad, "--json")
    assert ran.code == 1
    assert [atlas["valid"] for atlas in ran.json["atlases"]] == [True, False]


def test_a_missing_atlas_is_not_found(cra: Run) -> None:
    for words in (("atlas", "validate"), ("atlas", "show"), ("atlas", "digest"), ("atlas", "pack"), ("atlas", "test")):
        ran = cra(*words, "nowhere", "--json")
        assert (ran.code, ran.error["code"]) == (4, "atlas_not_found"), words
    assert cra("atlas", "list", "nowhere").code == 4


def test_an_atlas_is_shown_whole(cra: Run) -> None:
    ran = cra("atlas", "show", SUPPORT)
    assert ran.code == 0
    for words in ("com.acme.customer-support", "ticket.delete", "deny-delete", "handbook", "rate_limit"):
        assert words in ran.out
    value = cra("atlas", "show", SUPPORT, "--json").json
    assert value["manifest"]["version"] == "2.1.0"
    assert value["digest"] == cra("atlas", "digest", SUPPORT).out.strip()


def test_atlases_are_listed_from_a_folder_and_from_the_environment(cra: Run, bad: str, tmp_path: Path) -> None:
    found = cra("atlas", "list", str(ATLASES), "--json").json["atlases"]
    assert {"com.acme.customer-support"} <= {atlas["atlas_id"] for atlas in found}
    assert [atlas["path"] for atlas in cra("atlas", "list", "--json").json["atlases"]] == [SUPPORT]
    listed = cra("atlas", "list", str(tmp_path))
    assert listed.code == 0
    assert "not valid" in listed.out


def test_folder_and_archive_of_an_atlas_share_the_digest(cra: Run, tmp_path: Path) -> None:
    packed = cra("atlas", "pack", SUPPORT, "-o", "support.atlas", "--json")
    assert packed.code == 0
    assert packed.json["bytes"] == (tmp_path / "support.atlas").stat().st_size
    digests = {cra("atlas", "digest", path).out for path in (SUPPORT, "support.atlas")}
    assert digests == {packed.json["digest"] + "\n"}
    assert cra("atlas", "test", "support.atlas").code == 0
    assert cra("atlas", "pack", SUPPORT, "-o", "no/such/folder/x.atlas").code == 3


def test_the_tests_of_the_examples_pass(cra: Run) -> None:
    folders = [str(path.parent) for path in sorted(ATLASES.glob("*/atlas.json"))]
    ran = cra("atlas", "test", *folders, "--json")
    failed = [(a["path"], r) for a in ran.json["atlases"] for r in a["results"] if not r["passed"]]
    assert failed == []
    assert ran.code == 0
    assert {SUPPORT, STRICTER} <= set(folders)


def test_a_case_that_fails_says_in_which_way(cra: Run, tmp_path: Path) -> None:
    cra("init", "notes")
    case = {
        "name": "deleting is allowed",
        "request": {"goal": "Clean up", "agent_id": "writer-1"},
        "expect": {"allowed": ["note.delete"]},
    }
    (tmp_path / "notes" / "tests" / "more.json").write_text(json.dumps([case]))
    ran = cra("atlas", "test", "notes")
    assert ran.code == 1
    assert "FAIL deleting is allowed" in ran.out
    assert "denied by `deny-delete`" in ran.out
    assert cra("atlas", "test", "notes", "-k", "a writer*").code == 0
    assert cra("atlas", "test", "notes", "-k", "nothing like that").code == 2


def test_test_cases_that_are_not_valid_are_bad_input(cra: Run, tmp_path: Path) -> None:
    cra("init", "notes")
    (tmp_path / "notes" / "tests" / "more.json").write_text('[{"name": "x", "unknown": 1}]')
    ran = cra("atlas", "test", "notes", "--json")
    assert ran.code == 3
    assert ran.error["details"]["problems"][0]["file"] == "tests/more.json"
    assert cra("atlas", "validate", "notes").code == 1
