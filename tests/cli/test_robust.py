"""What holds however the commands are used: nonsense, many at once, and as the documents say."""

import io
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cra.cli._exit import Exit
from tests.cli.harness import ROOT, STRICTER, SUPPORT, Run

COMMANDS = [
    "init", "atlas validate", "atlas show", "atlas list", "atlas pack", "atlas digest", "atlas test", "session create",
    "session list", "session show", "session end", "resolve", "execute", "simulate", "approvals list", "approvals show",
    "approvals grant", "approvals reject", "trace show", "trace verify", "trace export", "trace diff", "trace tail",
    "replay", "doctor",
]  # fmt: skip
WORDS = [
    "--json",
    "--storage",
    "memory",
    "sqlite:///x.db",
    "--storage=",
    "-s",
    "--atlas",
    SUPPORT,
    STRICTER,
    "-a",
    "gone",
    "--set",
    "capture_parameters=full",
    "x=y",
    "--session",
    "01890000-0000-7000-8000-000000000000",
    "not-a-uuid",
    "--agent",
    "support-1",
    "--goal",
    "Help",
    "ticket.get",
    "ticket.delete",
    "ticket_id=T-1",
    "amount:=1e400",
    "amount:=",
    "=",
    "",
    "-",
    "--",
    "--returns",
    "{}",
    '{"a":1,"a":2}',
    "[" * 200,
    "NaN",
    "--executors",
    "os:getcwd",
    "os",
    "--approver",
    "dana",
    "--status",
    "all",
    "--limit",
    "-1",
    "999999999999999999999",
    "--count",
    "0",
    "--first",
    "--format",
    "csv",
    "-o",
    "out.file",
    ".",
    "/dev/null",
    "/",
    "\x1b[31m",
    "\udcff",
    "é" * 300,
    "--risk",
    "high",
    "--context",
    '{"a": "\\ud800"}',
    "@gone",
    "@.",
    "--payload",
    "--type",
    "*",
    "--head",
    "0" * 64,
    "--against",
    "--request",
    "--idempotency-key",
    "k",
    "--level",
    "--id",
    "--parameters",
]


@pytest.mark.parametrize("seed", range(4))
def test_no_command_line_is_an_internal_error(
    seed: int, cra: Run, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random words, mostly nonsense: each ends with a documented code, says why, and never shows a traceback."""
    chance = random.Random(seed)
    seen = set()
    for _ in range(60):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"x": 1}\n')))
        words = chance.choice(COMMANDS).split() + chance.choices([*WORDS, session], k=chance.randrange(7))
        ran = cra(*words)
        seen.add(ran.code)
        assert ran.code in set(Exit) - {Exit.INTERNAL, Exit.UNAVAILABLE}, (words, ran.err)
        if ran.code != 0 and "--json" in words:
            assert (ran.out == "") == (ran.err.startswith('{"error":')), (words, ran)
        assert "\x1b" not in ran.out + ran.err, words
    assert len(seen) >= 3


def test_a_limit_holds_among_processes_at_the_same_time(session: str, tmp_path: Path) -> None:
    """Five commands at once want one of three replies a minute; three get it, and the chain stays one."""
    command = [
        sys.executable, "-m", "cra", "execute", "reply.send", "ticket_id=T-1", "body=Hello", "--session", session,
        "--returns", '{"message_id": "M"}', "--json",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    done = [(process.communicate(timeout=60), process.returncode) for process in running]
    codes = sorted(code for _, code in done)
    assert codes == [0, 0, 0, 1, 1], done
    verified = subprocess.run(
        [sys.executable, "-m", "cra", "trace", "verify", session, "--story", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert json.loads(verified.stdout)["ok"] is True


@pytest.mark.skipif(not (ROOT / "docs" / "cli.md").is_file(), reason="the documents are not here")
def test_the_first_steps_of_the_documents_work(cra: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apsw")
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## In five minutes")[2]
    block = text.partition("```console\n")[2].partition("```")[0]
    session = ""
    codes = {}
    for line in block.splitlines():
        command = line.removeprefix("$ ").replace("$SESSION", session)
        if match := re.fullmatch(r"export (\w+)=(\S+)", command):
            monkeypatch.setenv(match[1], match[2])
        elif match := re.fullmatch(r"SESSION=\$\((.*)\)", command):
            session = cra(*shlex.split(match[1])[1:]).out.strip()
        elif command:
            codes[command.replace(session or "-", "SESSION")] = cra(*shlex.split(command)[1:]).code
    assert len(codes) >= 10
    assert {command for command, code in codes.items() if code} == {
        "cra execute note.delete note_id=N-1 --session SESSION --returns '{}'"
    }


@pytest.mark.skipif(not (ROOT / "docs" / "cli.md").is_file(), reason="the documents are not here")
def test_the_executors_of_the_documents_work(cra: Run, session: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "my_desk.py" in block)
    first = code.splitlines()[0]
    (tmp_path / "my_desk.py").write_text(
        code.replace('"subject": "Hello"', '"subject": "Hello", **REST'), encoding="utf-8"
    )
    rest = {"status": "open", "priority": "low", "customer_id": "C-1"}
    with (tmp_path / "my_desk.py").open("a", encoding="utf-8") as file:
        file.write(f"REST = {rest!r}\n")
    words = shlex.split(first.partition("for: ")[2].replace("$SESSION", session))
    ran = cra(*words[1:], "--json")
    assert ran.json["result"] == {"ticket_id": "T-1", "subject": "Hello", **rest}
