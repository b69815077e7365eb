"""The C leaves stand alone: no Python, no libc, and an interface of their own."""

import ctypes
import hashlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LEAVES = Path(__file__).parents[2] / "cra" / "_core" / "leaf"
SOURCES = sorted(LEAVES.glob("*.c"))
CC = shutil.which("cc")

pytestmark = pytest.mark.skipif(CC is None or sys.platform == "win32", reason="needs a Unix C compiler")


def _compile(*arguments: str) -> None:
    assert CC is not None
    run = subprocess.run(
        [CC, "-O2", "-Wall", "-Wextra", "-Werror", *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("leaf") / "libcra.so"
    _compile("-shared", "-fPIC", "-o", str(path), *map(str, SOURCES))
    return ctypes.CDLL(str(path))


def test_there_are_leaves_to_look_at() -> None:
    assert {source.stem for source in SOURCES} == {"glob", "sha256"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_leaf_needs_no_symbol_from_anywhere(source: Path, tmp_path: Path) -> None:
    compiled = tmp_path / "leaf.o"
    _compile("-std=c11", "-ffreestanding", "-nostdlib", "-c", str(source), "-o", str(compiled))
    if shutil.which("nm"):
        undefined = subprocess.run(["nm", "-u", str(compiled)], capture_output=True, text=True, check=True).stdout
        # A compiler may make these four out of plain loops, and the table of globals out of nothing.
        supplied = {"memcpy", "memmove", "memset", "memcmp", "_GLOBAL_OFFSET_TABLE_"}
        assert {line.split()[-1].lstrip("_") for line in undefined.splitlines()} <= {s.lstrip("_") for s in supplied}


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_digest_does_not_depend_on_how_the_message_is_cut(
    library: ctypes.CDLL, wanted: int, request: pytest.FixtureRequest
) -> None:
    draw = random.Random(request.config.option.seed)
    library.cra_sha256_select(wanted)
    for _ in range(300):
        data = draw.randbytes(draw.randrange(400))
        state, out = ctypes.create_string_buffer(8 * 4 + 8 + 64), ctypes.create_string_buffer(32)
        library.cra_sha256_init(state)
        at = 0
        while at < len(data):
            size = draw.randrange(1, 150)
            library.cra_sha256_update(state, data[at : at + size], ctypes.c_size_t(len(data[at : at + size])))
            at += size
        library.cra_sha256_final(state, out)
        assert out.raw == hashlib.sha256(data).digest()


def test_a_glob_never_reads_past_text_that_is_not_utf_8(library: ctypes.CDLL, request: pytest.FixtureRequest) -> None:
    draw = random.Random(request.config.option.seed)
    for _ in range(2000):
        pattern = bytes(draw.choices(b"*?a\xe2\x82\xac\xff", k=draw.randrange(8)))
        text = bytes(draw.choices(b"a\xe2\x82\xac\xff", k=draw.randrange(10)))
        answer = library.cra_glob(pattern, ctypes.c_size_t(len(pattern)), text, ctypes.c_size_t(len(text)))
        assert answer in (0, 1)
        if not set(pattern) & set(b"*?"):
            assert answer == (pattern == text)
