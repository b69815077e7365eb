"""Wrong input to the commands: what was expected, what was found, where, and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.harness import Run

SYNTAX = "def register(runtime) pass"
ENDS = "import sys\nsys.exit(0)"
FAILS = "def register(runtime):\n    raise RuntimeError('no database')"
LEAVES = "def register(runtime):\n    raise SystemExit(0)"

WRONG = [
    (("init", ""), 2, "FOLDER is empty"),
    (("init", "file"), 3, "`file` is a file, expected a folder"),
    (("demo", "--out", "file"), 3, "`file` is a file, expected a folder"),
    (("atlas", "validate", ""), 4, "the path of the atlas is empty"),
    (("execute", "note.create", "-p", "@gone", "-S", "x", "--returns", "{}"), 4, "no file at `gone` for parameters"),
    (("resolve", "--request", "gone"), 4, "there is no file at `gone` for request"),
    (("trace", "show", "bytes"), 3, "line 1 is not a TRACE event: JSON is malformed"),
    (("keys", "create", "--subject", "x", "--role", "admin", "--storage", "memory"), 2, "the memory store ends"),
    (("tenants", "list", "--storage", "memory"), 2, "the memory store ends"),
    (("storage", "export", "-o", "folder"), 3, "`folder` cannot be written: is a directory"),
    (("serve", "--config", "bytes"), 3, "`bytes` is not TOML: byte 0 is not UTF-8"),
    (("serve", "--host", "999.1.1.1"), 3, "cannot listen on `999.1.1.1` port 8420: "),
    (("serve", "--check", "--executors", "syntax.py"), 3, "`syntax.py` cannot be imported: SyntaxError"),
    (("serve", "--check", "--executors", "ends.py"), 3, "`ends.py` cannot be imported: SystemExit"),
    (("serve", "--check", "--executors", "fails.py"), 3, "`fails.py` fails: RuntimeError: no database"),
    (("serve", "--check", "--executors", "leaves.py"), 3, "`leaves.py` fails: SystemExit"),
    (("serve", "--check", "--atlas", "notes", "--atlas", "notes"), 7, "`com.example.notes` is loaded already"),
]


@pytest.mark.parametrize(
    ("words", "code", "said"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_wrong_input_is_told_and_nothing_is_left(cra: Run, words: tuple[str, ...], code: int, said: str) -> None:
    Path("file").write_text("")
    Path("bytes").write_bytes(b"\xff\xfe")
    Path("folder").mkdir()
    for name, text in (("syntax", SYNTAX), ("ends", ENDS), ("fails", FAILS), ("leaves", LEAVES)):
        Path(f"{name}.py").write_text(text)
    assert cra("init", "notes").code == 0
    cra("session", "create", "writer-1", "goal")
    before = {path for path in Path().iterdir() if "cra.db" not in path.name}
    ran = cra(*words)
    assert (ran.code, "Traceback" in ran.err) == (code, False)
    assert said in ran.err
    assert {path for path in Path().iterdir() if "cra.db" not in path.name and path.name != "__pycache__"} == before


def test_an_id_that_is_none_is_told_in_words(cra: Run) -> None:
    session = cra("session", "create", "writer-1", "goal").out.strip()
    ran = cra("execute", "note.create", "-S", session, "--returns", "{}", "--approval", "nope")
    assert (ran.code, "expected a UUID of 36 lower-case characters" in ran.err) == (3, True)
    ran = cra("execute", "Note", "-S", session, "--returns", "{}")
    assert (ran.code, "expected lower-case words joined by dots" in ran.err) == (3, True)


def test_a_service_whose_executors_fail_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    for workers in ("1", "2"):
        words = [sys.executable, "-m", "cra", "serve", "--port", "0", "--executors", "fails.py", "--workers", workers]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "serves on" in done.stderr) == (3, False)
        assert "`fails.py` fails: RuntimeError: no database" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes them")
def test_a_command_whose_output_is_closed_does_its_work(tmp_path: Path) -> None:
    words = f"{sys.executable} -m cra session create writer-1 goal <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", words], cwd=tmp_path, env={**os.environ, "CRA_STORAGE": ""}, check=False)
    assert done.returncode == 0
    assert (tmp_path / "cra.db").is_file()
