"""Every command explains itself, with an example, in the help and in docs/cli.md."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cra.cli import _app, app
from cra.cli._exit import Exit
from tests.cli.harness import ROOT, SUPPORT, Run

DOCS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") if (ROOT / "docs").is_dir() else ""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, with its words."""
    for name, child in group.commands.items():
        if getattr(child, "commands", None):
            yield from commands(child, (*path, name))
        else:
            yield (*path, name), child


ALL = dict(commands(get_command(app)))


def test_the_commands_that_were_promised_are_there() -> None:
    words = {" ".join(path) for path in ALL}
    promised = "init resolve execute replay simulate conformance doctor demo bench"
    assert set(promised.split()) <= words
    assert {f"atlas {word}" for word in ("validate", "show", "list", "pack", "digest", "test")} <= words
    assert {f"session {word}" for word in ("create", "list", "show", "end")} <= words
    assert {f"trace {word}" for word in ("show", "verify", "export", "diff", "tail")} <= words
    assert {f"approvals {word}" for word in ("list", "show", "grant", "reject")} <= words


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_has_an_example_that_begins_with_the_command(path: tuple[str, ...], cra: Run) -> None:
    ran = cra(*path, "--help")
    assert ran.code == 0
    examples = ran.out.partition("Examples:\n")[2].partition("\n\n")[0]
    assert f"cra {' '.join(path)}" in examples


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_has_words_and_every_command_takes_json(path: tuple[str, ...]) -> None:
    options = [item for item in ALL[path].params if item.param_type_name == "option" and item.name != "help"]
    assert [item.name for item in options if not item.help] == []
    assert any("--json" in item.opts for item in options)


@pytest.mark.skipif(not DOCS, reason="the documents are not here")
@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_is_in_the_docs(path: tuple[str, ...]) -> None:
    assert re.search(rf"`cra {' '.join(path)}[` ]", DOCS)


@pytest.mark.skipif(not DOCS, reason="the documents are not here")
def test_every_exit_code_is_in_the_docs() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS, re.MULTILINE)}
    assert codes == {int(code) for code in Exit}


def test_the_examples_of_the_help_are_command_lines_that_parse(cra: Run) -> None:
    """Each is run with --help behind it, so that only its options and arguments are looked at."""
    import shlex

    for path in ALL:
        examples = cra(*path, "--help").out.partition("Examples:\n")[2].partition("\n\n")[0]
        for line in examples.splitlines():
            text = re.sub(r"^\s*(?:[A-Z_]+=(?:\$\(|\S+ ))*", "", line).split(" | ")[0].split(" > ")[0]
            words = shlex.split(text.rstrip(")"))
            assert words[0] == "cra"
            assert cra(*words[1:], "--help").code == 0, line


def test_without_arguments_the_help_is_shown_and_the_code_says_usage(cra: Run) -> None:
    for words in ((), ("trace",)):
        ran = cra(*words)
        assert ran.code == 2
        assert ran.out == ""
        assert "Usage: cra" in ran.err


def test_an_unknown_command_and_an_unknown_option_are_usage_errors(cra: Run) -> None:
    ran = cra("frobnicate")
    assert (ran.code, ran.out) == (2, "")
    assert "`frobnicate`" in ran.err
    ran = cra("session", "list", "--frob", "--json")
    assert ran.code == 2
    assert ran.error["code"] == "usage_error"
    assert "cra session list --help" in ran.error["hint"]


def test_the_version_is_printed(cra: Run) -> None:
    ran = cra("--version")
    assert ran.code == 0
    assert ran.out.startswith("cra")


def test_one_command_loads_only_its_own_module() -> None:
    script = (
        "import sys; from cra.cli import main; main(['session', 'create', '--help']); "
        "others = ('cra.cli.demo', 'cra.cli.trace', 'apsw'); "
        "print([name for name in sys.modules if name in others], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stderr.strip() == "[]"


def test_the_module_runs_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cra", "atlas", "digest", "nowhere", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 4
    assert '"atlas_not_found"' in done.stderr


def test_a_reader_that_goes_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cra", "atlas", "show", SUPPORT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        words = process.stderr.read()
        assert (process.wait(timeout=60), words) == (Exit.PIPE, b"")


def test_completion_offers_commands() -> None:
    environment = {**os.environ, "_CRA_COMPLETE": "complete_bash", "COMP_WORDS": "cra tr", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cra"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
        env=environment,
    )
    assert "trace" in done.stdout.split()


def test_missing_packages_are_named_with_the_extra(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['typer'] = None; from cra.cli import main; "
        "print(main(['demo'])); print(main(['demo', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["69", "69"]
    assert "pip install 'cra-core[cli]'" in done.stderr
    assert '{"error": {"code": "missing_extra"' in done.stderr


def test_every_module_of_the_room_is_a_command_or_private() -> None:
    names = {path.stem for path in (ROOT / "cra" / "cli").glob("*.py") if not path.stem.startswith("_")}
    assert names == set(_app.COMMANDS)
