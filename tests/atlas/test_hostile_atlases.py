"""Atlases made to do harm: a clear error with a place, nothing loaded, nothing opened outside."""

import json
import os
import socket
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from cra.atlas._archive import read_archive
from cra.atlas.bounds import DEFAULT_BOUNDS, Bounds
from cra.atlas.loader import inspect, load, load_json
from cra.errors import AtlasInvalid

MINIMAL = {"atlas_version": "1.0", "atlas_id": "com.acme.notes", "version": "1.0.0", "name": "Notes"}
MANIFEST = json.dumps(MINIMAL).encode()
WITH_FILE = {**MINIMAL, "context_packs": [{"pack_id": "p", "name": "P", "files": ["context/a.md"]}]}
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="makes what Windows does not have")


def refused(read: Callable[[], object]) -> list[tuple[str, str, str]]:
    with pytest.raises(AtlasInvalid) as caught:
        read()
    assert caught.value.problems
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000
    return [(problem.code, problem.file, problem.pointer) for problem in caught.value.problems]


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.md").write_text("the secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.md").write_text("the secret")
    root = tmp_path / "atlas"
    (root / "context").mkdir(parents=True)
    (root / "atlas.json").write_text(json.dumps(WITH_FILE))
    return root


def test_a_link_to_a_file_is_refused(folder: Path) -> None:
    (folder / "context" / "a.md").symlink_to("../../secret.md")
    assert refused(lambda: load(folder)) == [("link", "context/a.md", "")]


def test_a_link_inside_the_atlas_is_refused_too(folder: Path) -> None:
    (folder / "context" / "b.md").write_text("text")
    (folder / "context" / "a.md").symlink_to("b.md")
    assert refused(lambda: load(folder)) == [("link", "context/a.md", "")]


def test_a_link_to_a_folder_is_refused(folder: Path) -> None:
    (folder / "context").rmdir()
    (folder / "context").symlink_to("../outside")
    assert refused(lambda: load(folder)) == [("link", "context", "")]


def test_a_link_in_place_of_the_manifest_is_refused(folder: Path) -> None:
    (folder / "atlas.json").rename(folder.parent / "elsewhere.json")
    (folder / "atlas.json").symlink_to("../elsewhere.json")
    assert refused(lambda: load(folder)) == [("link", "atlas.json", "")]


def test_a_linked_rule_is_refused(folder: Path) -> None:
    (folder / "context" / "a.md").write_text("text")
    (folder / "policies").mkdir()
    (folder / "policies" / "deny.json").symlink_to("/dev/zero")
    assert refused(lambda: load(folder)) == [("link", "policies/deny.json", "")]


@needs_posix
def test_a_hard_link_is_a_file_like_any_other_unless_refused(folder: Path) -> None:
    os.link(folder.parent / "secret.md", folder / "context" / "a.md")
    assert load(folder).text("context/a.md") == "the secret"
    assert refused(lambda: load(folder, bounds=Bounds(allow_hard_links=False))) == [("link", "context/a.md", "")]


@needs_posix
def test_pipes_and_sockets_are_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "context" / "a.md")
    with socket.socket(socket.AF_UNIX) as unix:
        before = Path.cwd()
        os.chdir(folder)
        try:
            unix.bind("context/b.md")
        finally:
            os.chdir(before)
        assert refused(lambda: load(folder)) == [("not_a_file", "context/a.md", ""), ("not_a_file", "context/b.md", "")]


@needs_posix
def test_a_file_swapped_for_a_link_while_reading_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "context" / "a.md").write_text("text")
    real = os.open

    def swap(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if path == "a.md":
            (folder / "context" / "a.md").unlink()
            (folder / "context" / "a.md").symlink_to("../../secret.md")
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", swap)
    assert refused(lambda: load(folder)) == [("unreadable", "context/a.md", "")]


@needs_posix
def test_a_file_swapped_for_another_while_reading_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "context" / "a.md").write_text("text")
    real = os.open

    def swap(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if path == "a.md":
            (folder.parent / "secret.md").replace(folder / "context" / "a.md")
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", swap)
    assert refused(lambda: load(folder)) == [("link", "context/a.md", "")]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_told(folder: Path) -> None:
    (folder / "context" / "a.md").write_text("text")
    (folder / "context" / "a.md").chmod(0)
    assert refused(lambda: load(folder)) == [("unreadable", "context/a.md", "")]


@needs_posix
def test_links_are_refused_too_where_folders_cannot_be_held_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Windows does; there every step is a path that is looked at before and after it is opened."""
    monkeypatch.setattr("cra.atlas._folder._AT", False)
    (folder / "context" / "a.md").write_text("text")
    assert load(folder).text("context/a.md") == "text"
    (folder / "context" / "b.md").symlink_to("../../secret.md")
    (folder / "policies").symlink_to("../outside")
    os.link(folder.parent / "secret.md", folder / "context" / "c.md")
    assert refused(lambda: load(folder, bounds=Bounds(allow_hard_links=False))) == [
        ("link", "context/b.md", ""),
        ("link", "context/c.md", ""),
        ("link", "policies", ""),
    ]


def test_a_huge_file_is_not_read(folder: Path) -> None:
    with (folder / "context" / "a.md").open("wb") as file:
        file.truncate(64 << 20)
    assert refused(lambda: load(folder)) == [("too_large", "context/a.md", "")]


def test_a_huge_manifest_is_not_read(folder: Path) -> None:
    with (folder / "atlas.json").open("wb") as file:
        file.truncate(64 << 20)
    assert refused(lambda: load(folder)) == [("too_large", "atlas.json", "")]


def test_many_files_end_the_reading(folder: Path) -> None:
    for number in range(30):
        (folder / "context" / f"{number}.md").write_text("text")
    assert refused(lambda: load(folder, bounds=Bounds(max_files=20)))[0] == ("too_large", "atlas.json", "")
    assert refused(lambda: load(folder, bounds=Bounds(max_total_bytes=150)))[0] == ("too_large", "atlas.json", "")


def test_deep_folders_are_refused(folder: Path) -> None:
    (folder / "context" / "a.md").write_text("text")
    deep = folder.joinpath("context", *["d"] * 40)
    deep.mkdir(parents=True)
    assert [code for code, _, _ in refused(lambda: load(folder))] == ["path_escape"]


@needs_posix
def test_names_that_another_system_reads_differently_are_refused(folder: Path) -> None:
    (folder / "context" / "a.md").write_text("text")
    for name in ("A.md", "b\\c.md", "nul.md", "x:y.md", "end. "):
        (folder / "context" / name).write_text("text")
    os.close(os.open(os.fsencode(folder) + b"/context/\xff.md", os.O_CREAT | os.O_WRONLY))
    problems = refused(lambda: load(folder))
    assert sorted(code for code, _, _ in problems) == ["duplicate_id", *["path_escape"] * 5]


@needs_posix
def test_a_name_cannot_write_to_the_terminal(folder: Path) -> None:
    (folder / "context" / "\x1b[31m\u202e.md").write_text("text")
    problems = refused(lambda: load(folder))
    assert ("path_escape", "context/\\u001b[31m\\u202e.md", "") in problems


# Archives


def archive(files: dict[str, bytes] | list[tuple[str, bytes]], *, deflate: bool = False) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as made:
        for name, content in files.items() if isinstance(files, dict) else files:
            made.writestr(zipfile.ZipInfo(name) if not deflate else name, content)
    return out.getvalue()


def entry(name: str | bytes, content: bytes = b"x", **changes: Any) -> dict[str, Any]:
    """Describe one entry; `changes` are what the headers say instead of the truth."""
    raw = name.encode() if isinstance(name, str) else name
    told = {"flags": 0x800, "method": 0, "crc": zlib.crc32(content), "packed": len(content), "size": len(content)}
    return {"name": raw, "content": content, **told, "mode": stat.S_IFREG | 0o644, "extra": b"", **changes}


def forged(entries: list[dict[str, Any]], *, before: bytes = b"", after: bytes = b"", **end: Any) -> bytes:
    """Write an archive by hand, lies and all."""
    data, directory, offsets = before, b"", []
    for e in entries:
        offsets.append(e.get("offset", len(data)))
        local = e.get("local", {})
        name = local.get("name", e["name"])
        data += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, local.get("flags", e["flags"]), e["method"], 0, 33, local.get("crc", e["crc"]),
            local.get("packed", e["packed"]), local.get("size", e["size"]), len(name), 0,
        )  # fmt: skip
        data += name + e["content"]
    for e, offset in zip(entries, offsets, strict=True):
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, 20, e["flags"], e["method"], 0, 33, e["crc"], e["packed"], e["size"],
            len(e["name"]), len(e["extra"]), 0, 0, 0, e["mode"] << 16 | e.get("attributes", 0), offset,
        )  # fmt: skip
        directory += e["name"] + e["extra"]
    count = end.get("count", len(entries))
    start = end.get("start", len(data))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", end.get("disk", 0), 0, count, count, len(directory), start, len(after))
    return data + directory + tail + after


GOOD = entry("atlas.json", MANIFEST)


def of(data: bytes, tmp_path: Path, **bounds: Any) -> list[tuple[str, str, str]]:
    path = tmp_path / "hostile.atlas"
    path.write_bytes(data)
    problems = refused(lambda: load(path, bounds=Bounds(**bounds)))
    assert sorted(tmp_path.iterdir()) == [path]
    return problems


def test_the_forge_makes_good_archives(tmp_path: Path) -> None:
    path = tmp_path / "good.atlas"
    packed = zlib.compress(b"x" * 999)[2:-4]
    path.write_bytes(
        forged([GOOD, entry("a.md", b"x" * 999) | {"content": packed, "method": 8, "packed": len(packed)}])
    )
    assert read_archive(path.read_bytes(), "x", DEFAULT_BOUNDS).files == {"atlas.json": MANIFEST, "a.md": b"x" * 999}
    assert load(path).atlas_id == "com.acme.notes"


@pytest.mark.parametrize(
    "name",
    [
        "../a.md",
        "context/../../a.md",
        "/etc/cron.d/x",
        "..\\a.md",
        "C:\\a.md",
        "C:a.md",
        "a\0.md",
        "./a.md",
        "a//b.md",
        "//server/share",
        "context/..",
        "~/../x",
        ".ssh/config",
        "con",
        "context/aux.md",
        "a\u202e.md",
        "x" * 300,
        "d/" * 30 + "x",
        "",
        "/",
        "../",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    assert [code for code, _, _ in of(forged([GOOD, entry(name)]), tmp_path)] == ["path_escape"]


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        (stat.S_IFLNK | 0o777, "link"),
        (stat.S_IFCHR | 0o666, "not_a_file"),
        (stat.S_IFBLK | 0o666, "not_a_file"),
        (stat.S_IFIFO | 0o666, "not_a_file"),
        (stat.S_IFSOCK | 0o666, "not_a_file"),
        (stat.S_IFDIR | 0o755, "not_a_file"),
    ],
)
def test_what_is_no_plain_file_is_refused(mode: int, code: str, tmp_path: Path) -> None:
    assert of(forged([GOOD, entry("context/a.md", b"/etc/passwd", mode=mode)]), tmp_path) == [
        (code, "context/a.md", "")
    ]


@pytest.mark.parametrize("field", [0x0001, 0x000D, 0x756E, 0x7075])
def test_extra_fields_that_change_an_entry_are_refused(field: int, tmp_path: Path) -> None:
    extra = struct.pack("<2H", field, 4) + b"link"
    assert of(forged([GOOD, entry("a.md", extra=extra)]), tmp_path) == [("invalid_archive", "atlas.json", "")]


def test_a_link_of_windows_is_refused(tmp_path: Path) -> None:
    assert of(forged([GOOD, entry("a.md", attributes=0x400)]), tmp_path) == [("link", "a.md", "")]


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    other = json.dumps({**MINIMAL, "name": "Other"}).encode()
    assert of(forged([GOOD, entry("atlas.json", other)]), tmp_path) == [("duplicate_id", "atlas.json", "")]


@pytest.mark.parametrize("names", [("a.md", "A.md"), ("straße.md", "STRASSE.md"), ("é.md", "e\u0301.md"), ("d", "D/")])
def test_names_that_collide_on_another_system_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    entries = [entry(name, b"" if name.endswith("/") else b"x") | {"mode": 0} for name in names]
    assert [code for code, _, _ in of(forged([GOOD, *entries]), tmp_path)] == ["duplicate_id"]


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    for flag in (0x1, 0x40, 0x2000):
        assert of(forged([GOOD, entry("a.md", flags=0x800 | flag)]), tmp_path) == [("invalid_archive", "a.md", "")]


def test_other_ways_of_packing_are_refused(tmp_path: Path) -> None:
    for method in (1, 9, 12, 14, 93, 95, 99):
        assert of(forged([GOOD, entry("a.md", method=method)]), tmp_path) == [("invalid_archive", "a.md", "")]


def test_names_in_other_encodings_are_refused(tmp_path: Path) -> None:
    for name, flags in ((b"gr\x81n.md", 0), (b"\xff.md", 0x800)):
        assert of(forged([GOOD, entry(name, flags=flags)]), tmp_path) == [("invalid_archive", "atlas.json", "")]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("unpacked"))
    four_mb = archive({"atlas.json": MANIFEST, "context/a.md": b"\0" * (4 << 20)}, deflate=True)
    assert of(four_mb, tmp_path) == [("too_large", "context/a.md", "")]
    large = archive({"atlas.json": MANIFEST, "context/a.md": b"\0" * (5 << 20)}, deflate=True)
    assert of(large, tmp_path) == [("too_large", "context/a.md", "")]


def test_many_files_that_are_large_together_are_refused(tmp_path: Path) -> None:
    files = {f"context/{number}.md": os.urandom(100) for number in range(10)}
    data = archive({"atlas.json": MANIFEST, **files})
    assert of(data, tmp_path, max_total_bytes=1000) == [("too_large", "atlas.json", "")]


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    packed = zlib.compress(b"\0" * (8 << 20), 9)[2:-4]
    for size in (1, 100_000):
        lie = entry("a.md", packed, method=8, size=size, crc=zlib.crc32(b"\0" * size))
        assert of(forged([GOOD, lie]), tmp_path) == [("invalid_archive", "atlas.json", "")]
    short = entry("a.md", zlib.compress(b"abc")[2:-4], method=8, size=5, crc=0)
    assert of(forged([GOOD, short]), tmp_path) == [("invalid_archive", "atlas.json", "")]


def test_a_stored_entry_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    assert of(forged([GOOD, entry("a.md", b"abc", size=2)]), tmp_path) == [("invalid_archive", "a.md", "")]


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """The bomb of D. Fifield: one compressed kernel, many directory entries that point at it."""
    kernel = entry("a.md", b"x" * 100)
    entries = [GOOD, kernel, *(entry(f"{n}.md", b"x" * 100, offset=len(MANIFEST) + 40) for n in range(20))]
    problems = of(forged(entries), tmp_path)
    assert problems == [("invalid_archive", "atlas.json", "")]


def test_an_entry_inside_another_is_refused(tmp_path: Path) -> None:
    inner = forged([entry("evil.md", b"evil")])[: 30 + 7 + 4]
    outer = entry("a.md", inner + b"padding")
    at = 30 + len("atlas.json") + len(MANIFEST) + 30 + len("a.md")
    hidden = entry("evil.md", b"evil", offset=at)
    hidden_twice = forged([GOOD, outer, hidden])
    assert of(hidden_twice, tmp_path) == [("invalid_archive", "atlas.json", "")]


@pytest.mark.parametrize(
    "local",
    [{"name": b"evil.json"}, {"size": 5}, {"packed": 5}, {"crc": 5}, {"flags": 0x801}],
    ids=["name", "size", "packed size", "checksum", "flags"],
)
def test_a_local_header_that_tells_another_story_is_refused(local: dict[str, Any], tmp_path: Path) -> None:
    assert of(forged([GOOD | {"local": local}]), tmp_path) == [("invalid_archive", "atlas.json", "")]


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    assert of(forged([GOOD, entry("a.md", b"text", crc=1)]), tmp_path) == [("invalid_archive", "atlas.json", "")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"PK\5\6",
        MANIFEST,
        forged([GOOD])[:-1],
        forged([GOOD]) + b"\0",
        forged([GOOD], before=b"#!/bin/sh\n"),
        forged([GOOD], after=b"a comment"),
        forged([GOOD], count=2),
        forged([GOOD], count=0xFFFF),
        forged([GOOD], start=0),
        forged([GOOD], start=0xFFFFFFFF),
        forged([GOOD], disk=1),
        forged([GOOD | {"offset": 0xFFFFFF}]),
        forged([GOOD | {"offset": 7}]),
        forged([]),
        forged([entry("notes/atlas.json", MANIFEST)]),
    ],
    ids=[
        "empty",
        "two bytes",
        "an end only",
        "JSON",
        "cut",
        "a byte after",
        "a script before",
        "comment",
        "one too many",
        "zip64 count",
        "directory at 0",
        "zip64 offset",
        "second disk",
        "far away",
        "in the middle",
        "no entries",
        "a folder deeper",
    ],
)
def test_a_broken_or_unusual_archive_is_refused(data: bytes, tmp_path: Path) -> None:
    assert [file for _, file, _ in of(data, tmp_path)] == ["atlas.json"]


def test_every_cut_of_an_archive_is_refused_or_told(tmp_path: Path) -> None:
    data = archive({"atlas.json": MANIFEST, "context/a.md": b"text" * 50}, deflate=True)
    for size in range(0, len(data), 3):
        tree = read_archive(data[:size], "x", DEFAULT_BOUNDS)
        assert tree.problems, size
        assert not tree.files, size


def test_every_flipped_byte_of_an_archive_is_harmless() -> None:
    data = archive({"atlas.json": MANIFEST, "context/a.md": b"text" * 50}, deflate=True)
    good = read_archive(data, "x", DEFAULT_BOUNDS).files
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0xFF
        tree = read_archive(bytes(flipped), "x", DEFAULT_BOUNDS)
        # What is not refused is a time, a mode or a version that nobody reads.
        assert tree.problems or tree.files == good or sorted(tree.files) == sorted(good), at


def test_a_streamed_archive_is_read(tmp_path: Path) -> None:
    """As `zip -` writes it: sizes after the content, because nobody could go back."""

    class Pipe(BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise OSError

        def tell(self) -> int:
            raise OSError

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("atlas.json", MANIFEST)
        made.writestr("context/a.md", "text" * 50)
    (tmp_path / "streamed.atlas").write_bytes(out.getvalue())
    assert load(tmp_path / "streamed.atlas").atlas_id == "com.acme.notes"


def test_a_directory_with_many_entries_is_not_walked(tmp_path: Path) -> None:
    data = archive([(f"{number}", b"") for number in range(5000)])
    assert of(data, tmp_path) == [("invalid_archive", "atlas.json", "")]


def test_a_huge_archive_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.atlas"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    assert refused(lambda: load(path)) == [("too_large", "atlas.json", "")]


# Manifests


def nested(depth: int, inner: Any = 1) -> Any:
    for _ in range(depth):
        inner = {"x": inner}
    return inner


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe{\0}\0", "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b'{"atlas_id":"a.b","atlas_id":"c.d"}', "invalid_json"),
        (b'{"metadata":{"x":NaN}}', "invalid_json"),
        (b'{"metadata":{"x":1e999}}', "invalid_json"),
        (b'{"name":"\\ud800"}', "invalid_json"),
        (b'{"metadata":' + b"9" * 100_000 + b"}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"metadata":' * 100_000, "invalid_json"),
        (b'{"x":[' + b"0," * 2_000_000 + b"0]}", "invalid_json"),
        (b'{"name":"' + b"x" * (5 << 20) + b'"}', "too_large"),
        (b"[]", "schema"),
        (b"null", "schema"),
        (b"1e400", "invalid_json"),
    ],
    ids=[
        "empty",
        "cut",
        "utf-16",
        "byte order mark",
        "duplicate key",
        "NaN",
        "infinite",
        "lone surrogate",
        "huge number",
        "deep arrays",
        "deep objects",
        "many values",
        "long string",
        "array",
        "null",
        "no double",
    ],
)
def test_hostile_json_is_refused(text: bytes, code: str) -> None:
    assert [found for found, _, _ in refused(lambda: load_json(text))] == [code]
    if text != b"[]":  # which is a file of no policies
        assert [file for _, file, _ in refused(lambda: load_json(MINIMAL, {"policies/a.json": text}))] == [
            "policies/a.json"
        ]


@pytest.mark.parametrize(
    "section", ["actions", "policies", "capabilities", "context_packs", "authors", "domains"], ids=str
)
def test_a_manifest_with_a_hundred_thousand_entries_is_refused(section: str) -> None:
    problems = refused(lambda: load_json({**MINIMAL, section: [1] * 100_000}))
    assert problems[0][2].startswith(f"/{section}")
    assert len(problems) <= 501


def test_a_manifest_with_many_faults_is_refused_after_the_first_hundreds() -> None:
    manifest = {**MINIMAL, "policies": [{"policy_id": "p", "type": "x", "actions": 1, "a": 1} for _ in range(4_999)]}
    problems = refused(lambda: load_json(manifest))
    assert len(problems) == 501
    assert problems[-1] == ("too_large", "atlas.json", "")


def test_a_pack_with_many_missing_files_is_refused_after_the_first_hundreds() -> None:
    packs = [{"pack_id": "p", "name": "P", "files": [f"{number}.md" for number in range(60_000)]}]
    assert len(refused(lambda: load_json({**MINIMAL, "context_packs": packs}))) == 501


def test_many_unknown_names_are_refused_without_guessing_at_each() -> None:
    actions = [{"action_id": f"note.action{number}", "name": "A"} for number in range(499)]
    unknown = [f"note.aktion{number}" for number in range(20_000)]
    capability = {"capability_id": "c", "name": "C", "actions": unknown}
    problems = refused(lambda: load_json({**MINIMAL, "actions": actions, "capabilities": [capability]}))
    assert {code for code, _, _ in problems[:-1]} == {"unknown_action"}


def with_schema(schema: Any, **more: Any) -> dict[str, Any]:
    return {**MINIMAL, "actions": [{"action_id": "a.b", "name": "A", "parameters_schema": schema, **more}]}


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        (nested(70, True), "invalid_json"),
        ({"allOf": [nested(50)]}, None),
        ({"properties": {"x": {"$ref": "#/properties/x"}}}, "invalid_schema"),
        ({"allOf": [{"$ref": "#"}]}, "invalid_schema"),
        ({"$ref": "http://127.0.0.1:1/x"}, "remote_ref"),
        ({"$dynamicRef": "https://example.org/x#a"}, "remote_ref"),
        ({"$id": "https://example.org/a", "$ref": "b"}, "remote_ref"),
        ({"$schema": "https://example.org/evil"}, "invalid_schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "invalid_schema"),
        ({"properties": {"x": {"pattern": "(a+)+$"}}}, None),
        ({"properties": {"x": {"pattern": "(?=a)"}}}, "invalid_schema"),
        ({"properties": {"x": {"pattern": "(a{1000}){1000}{1000}"}}}, "invalid_schema"),
        ({"properties": {"x": {"pattern": "[" * 10_000}}}, "invalid_schema"),
        ({"properties": {"x": {"pattern": "(" * 10_000 + ")" * 10_000}}}, "invalid_schema"),
        ({"enum": list(range(100_000))}, "too_large"),
    ],
    ids=[
        "too deep",
        "unknown keywords",
        "self",
        "root",
        "remote",
        "remote dynamic",
        "relative to an id",
        "dialect",
        "draft 7",
        "exponential pattern",
        "lookahead",
        "counted",
        "brackets",
        "parentheses",
        "large enum",
    ],
)
def test_hostile_schemas_are_refused(schema: Any, code: str | None) -> None:
    if code is None:
        assert load_json(with_schema(schema)).atlas_id == "com.acme.notes"
    else:
        assert {found for found, _, _ in refused(lambda: load_json(with_schema(schema)))} == {code}


def test_a_schema_that_doubles_at_every_step_does_not_hang() -> None:
    """The billion laughs: each definition asks for the next one twice."""
    levels = 40
    definitions = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(levels)
    }
    schema = {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "object"}}}
    assert [code for code, _, _ in refused(lambda: load_json(with_schema(schema, examples=[{}])))] == [
        "invalid_example"
    ]
    assert [code for code, _, _ in refused(lambda: load_json(with_schema(schema, examples=[{}] * 50)))][
        -1
    ] == "too_large"


def test_many_examples_that_are_each_a_little_work_are_refused() -> None:
    schema = {"properties": {"x": {"items": {"anyOf": [{"const": n} for n in range(1000)]}}}}
    problems = refused(lambda: load_json(with_schema(schema, examples=[{"x": [999] * 1000}] * 100)))
    assert [code for code, _, _ in problems] == ["too_large"]


def test_a_schema_that_contains_itself_may_have_examples() -> None:
    tree = {
        "$defs": {"t": {"properties": {"left": {"$ref": "#/$defs/t"}, "right": {"$ref": "#/$defs/t"}}}},
        "$ref": "#/$defs/t",
    }
    assert load_json(with_schema(tree, examples=[{"left": {"right": {}}}] * 50)).atlas_id == "com.acme.notes"


def test_a_pattern_that_backtracks_elsewhere_does_not_hang() -> None:
    schema = {"properties": {"x": {"pattern": "^(a+)+$"}}}
    manifest = with_schema(schema, examples=[{"x": "a" * 5000}, {"x": "a" * 5000 + "b"}])
    assert refused(lambda: load_json(manifest)) == [("invalid_example", "atlas.json", "/actions/0/examples/1/x")]


def test_schemas_are_bounded_together_and_equal_ones_count_once() -> None:
    def actions(count: int, schema: Callable[[int], Any]) -> dict[str, Any]:
        made = [{"action_id": f"a.b{n}", "name": "A", "parameters_schema": schema(n)} for n in range(count)]
        return {**MINIMAL, "actions": made}

    wide = {"properties": {f"p{n}": {"type": "string"} for n in range(5_000)}}
    problems = refused(lambda: load_json(actions(9, lambda n: {**wide, "title": str(n)})))
    assert problems == [("too_large", "atlas.json", "/actions/5/parameters_schema")]
    assert load_json(actions(9, lambda _: wide)).atlas_id == "com.acme.notes"
    heavy = {"properties": {f"p{n}": {"pattern": "(a{30}){100}" + str(n)} for n in range(300)}}
    assert refused(lambda: load_json(with_schema(heavy))) == [
        ("too_large", "atlas.json", "/actions/0/parameters_schema"),
    ]


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any, **__: Any) -> Any:
        pytest.fail("a socket was made")

    monkeypatch.setattr(socket, "socket", no)
    monkeypatch.setattr(socket, "create_connection", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    for reference in (
        "https://example.org/a.json",
        "http://localhost/a",
        "ftp://example.org/a",
        "file:///etc/passwd",
        "//x/y",
    ):
        assert refused(lambda ref=reference: load_json(with_schema({"properties": {"x": {"$ref": ref}}})))  # type: ignore[misc]


def test_files_beside_a_manifest_in_memory_keep_the_rules_too() -> None:
    for name in ("../a.md", "/a.md", "a\\b", "C:x", "", "a//b"):
        assert [code for code, _, _ in refused(lambda name=name: load_json(MINIMAL, {name: "x"}))] == ["path_escape"]  # type: ignore[misc]


def test_nothing_of_a_hostile_atlas_is_judged_good(folder: Path) -> None:
    (folder / "context" / "a.md").symlink_to("../../secret.md")
    verdict = inspect(folder)
    assert verdict.manifest is None
    assert [problem.code for problem in verdict.problems] == ["link"]
