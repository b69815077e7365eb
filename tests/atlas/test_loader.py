"""Reading atlases: the same atlas wherever it lies."""

import json
import os
import sys
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from cra._core.canonical import digest as canonical_digest
from cra._core.sha256 import hexdigest
from cra.atlas.bounds import Bounds
from cra.atlas.loader import inspect, inspect_json, load, load_json, pack
from cra.errors import AtlasInvalid, AtlasNotFound

MINIMAL = {"atlas_version": "1.0", "atlas_id": "com.acme.notes", "version": "1.0.0", "name": "Notes"}
READ = {"action_id": "note.read", "name": "Read"}
WRITE = {"action_id": "note.write", "name": "Write"}
DENY = {"policy_id": "deny-write", "type": "deny", "actions": ["note.write"]}
ALLOW = {"policy_id": "allow-read", "type": "allow", "actions": ["note.read"]}
FILES: dict[str, Any] = {
    "atlas.json": {
        **MINIMAL,
        "actions": [READ],
        "policies": [ALLOW],
        "adapters": {"mcp": {"prefix": "notes"}},
        "context_packs": [{"pack_id": "guide", "name": "Guide", "files": ["context/guide.md", "context/größe.txt"]}],
    },
    "actions/write.json": WRITE,
    "policies/b.json": {"policies": [{**DENY, "policy_id": "second"}]},
    "policies/a.json": [DENY],
    "adapters/openai.json": {"strict": True},
    "context/guide.md": "# Guide\n",
    "context/größe.txt": "größer\n",
}


def write(folder: Path, files: Mapping[str, Any]) -> Path:
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(as_bytes(content))
    return folder


def as_bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return (content if isinstance(content, str) else json.dumps(content)).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "notes", FILES)


def test_the_parts_in_folders_follow_the_manifest_in_the_order_of_their_names(folder: Path) -> None:
    manifest = load(folder).manifest
    assert [action.action_id for action in manifest.actions] == ["note.read", "note.write"]
    assert [policy.policy_id for policy in manifest.policies] == ["allow-read", "deny-write", "second"]
    assert manifest.adapters == {"mcp": {"prefix": "notes"}, "openai": {"strict": True}}


def test_folder_manifest_archive_and_memory_give_one_digest(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "notes.atlas"
    packed = pack(folder, archive)
    texts = {path: as_bytes(content) for path, content in FILES.items() if path != "atlas.json"}
    single = json.dumps(
        {
            **FILES["atlas.json"],
            "actions": [READ, WRITE],
            "policies": [ALLOW, DENY, {**DENY, "policy_id": "second"}],
            "adapters": {"mcp": {"prefix": "notes"}, "openai": {"strict": True}},
        }
    )
    atlases = [
        load(folder),
        load(str(folder)),
        load(folder / "atlas.json"),
        load(archive),
        load_json(FILES["atlas.json"], texts),
        load_json(json.dumps(FILES["atlas.json"]), texts),
        load_json(single, {path: content for path, content in texts.items() if path.startswith("context/")}),
    ]
    assert {atlas.digest for atlas in atlases} == {packed}
    assert all(atlas.text("context/größe.txt") == "größer\n" for atlas in atlases)
    assert all(set(atlas.files) == {"context/guide.md", "context/größe.txt"} for atlas in atlases)


def test_the_digest_is_that_of_the_effective_manifest_with_the_digests_of_its_files() -> None:
    atlas = load_json({**MINIMAL, "context_packs": [{"pack_id": "p", "name": "P", "files": ["a.txt"]}]}, {"a.txt": "x"})
    pack_value = {
        "pack_id": "p", "name": "P", "description": "", "files": ["a.txt"], "priority": 100, "conditions": {},
    }  # fmt: skip
    manifest = {
        **MINIMAL, "description": "", "authors": [], "domains": [], "capabilities": [], "context_packs": [pack_value],
        "policies": [], "actions": [], "adapters": {}, "dependencies": {}, "metadata": {},
    }  # fmt: skip
    assert atlas.digest == canonical_digest({"manifest": manifest, "files": {"a.txt": hexdigest(b"x")}})


@pytest.mark.parametrize(
    "change",
    [
        {"atlas.json": {**FILES["atlas.json"], "name": "Other"}},
        {"context/guide.md": "# Guide\n\n"},
        {"policies/a.json": [{**DENY, "priority": 1}]},
        {"adapters/openai.json": {"strict": False}},
    ],
    ids=["manifest", "file", "policy", "adapter"],
)
def test_every_change_that_counts_changes_the_digest(folder: Path, change: dict[str, Any]) -> None:
    before = load(folder).digest
    write(folder, change)
    assert load(folder).digest != before


def test_what_is_not_part_of_an_atlas_changes_nothing(folder: Path) -> None:
    before = load(folder).digest
    write(
        folder, {".git/config": "x", "README.md": "# Notes", "src/main.py": "x", ".DS_Store": b"\0", "context/.x": "y"}
    )
    write(folder, {"policies/README.md": "why", "tests/a.json": [], "context/draft.md": "not named by a pack"})
    (folder / "src" / "link").symlink_to("/etc/passwd")
    assert load(folder).digest == before
    codes = {warning.code for warning in inspect(folder).warnings}
    assert {"strange_folder", "unused_file"} <= codes


def test_packing_twice_gives_the_same_bytes_and_leaves_out_what_does_not_belong(folder: Path, tmp_path: Path) -> None:
    write(folder, {".env": "SECRET=1", "src/main.py": "x", "LICENSE": "Apache", "tests/a.json": []})
    pack(folder, tmp_path / "one.atlas")
    os.utime(folder / "atlas.json", (1, 1))
    (folder / "atlas.json").chmod(0o600)
    pack(folder, tmp_path / "two.atlas")
    assert (tmp_path / "one.atlas").read_bytes() == (tmp_path / "two.atlas").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.atlas") as archive:
        assert archive.namelist() == sorted([*FILES, "LICENSE", "tests/a.json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "one.atlas", "two.atlas"]


def test_an_archive_by_an_ordinary_zip_tool_is_read(folder: Path, tmp_path: Path) -> None:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("context")
        for path in FILES:
            archive.write(folder / path, path)
    (tmp_path / "zipped.atlas").write_bytes(out.getvalue())
    assert load(tmp_path / "zipped.atlas").digest == load(folder).digest


def test_an_invalid_atlas_is_not_packed(folder: Path, tmp_path: Path) -> None:
    write(folder, {"actions/more.json": [{"action_id": "note.read", "name": "Again"}]})
    out = tmp_path / "notes.atlas"
    out.write_bytes(b"what was here before")
    with pytest.raises(AtlasInvalid):
        pack(folder, out)
    assert out.read_bytes() == b"what was here before"


def test_a_single_file_of_another_name_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({**MINIMAL, "policies": [ALLOW, DENY], "actions": [READ, WRITE]}))
    write(tmp_path, {"policies/more.json": "not read"})
    assert len(load(path).manifest.policies) == 2


def test_what_the_caller_changes_later_does_not_change_the_atlas() -> None:
    schema: dict[str, Any] = {"type": "object"}
    value = {**MINIMAL, "actions": [{**READ, "parameters_schema": schema}]}
    atlas = load_json(value)
    schema["type"] = "string"
    assert atlas.manifest.actions[0].parameters_schema == {"type": "object"}
    with pytest.raises(TypeError):
        atlas.files["x"] = b""  # type: ignore[index]  # that it cannot be done is the test


def test_the_folder_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link").digest == load(folder).digest


@pytest.mark.parametrize("name", ["missing", "missing/atlas.json", "a\0b", "x" * 5000])
def test_a_path_without_an_atlas_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(AtlasNotFound) as caught:
        load(tmp_path / name)
    assert "\0" not in caught.value.message
    assert len(caught.value.message) < 200


def test_a_folder_without_a_manifest_says_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path, {"tests/atlas.json": {}})
    with pytest.raises(AtlasInvalid) as caught:
        load(tmp_path)
    assert [(p.code, p.file) for p in caught.value.problems] == [("missing_file", "atlas.json")]
    assert "tests/atlas.json" in caught.value.message


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes in folders")
def test_a_pipe_is_no_atlas(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.atlas")
    with pytest.raises(AtlasNotFound):
        load(tmp_path / "pipe.atlas")


def test_an_error_names_the_first_problem_and_counts_the_others() -> None:
    with pytest.raises(AtlasInvalid, match=r"atlas\.json#/name: .* and 1 more") as caught:
        load_json({**MINIMAL, "name": "", "version": "1"})
    assert len(caught.value.problems) == 2
    assert caught.value.details["problems"][0]["pointer"] == "/name"


def test_values_that_are_not_json_are_refused_with_their_place() -> None:
    with pytest.raises(AtlasInvalid) as caught:
        load_json({**MINIMAL, "metadata": {"x": [1, float("nan")]}})
    assert [(p.code, p.pointer) for p in caught.value.problems] == [("invalid_json", "/metadata/x/1")]


def test_bounds_can_be_chosen() -> None:
    assert load_json(MINIMAL, bounds=Bounds(max_actions=0)).atlas_id == "com.acme.notes"
    verdict = inspect_json({**MINIMAL, "actions": [READ]}, bounds=Bounds(max_actions=0))
    assert [problem.code for problem in verdict.problems] == ["too_large"]


def test_an_atlas_introduces_itself() -> None:
    atlas = load_json(MINIMAL, source="a test")
    assert (atlas.atlas_id, atlas.version, atlas.source) == ("com.acme.notes", "1.0.0", "a test")
    assert repr(atlas) == f"Atlas(com.acme.notes 1.0.0, {atlas.digest[:12]}, a test)"
