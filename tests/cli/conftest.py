"""Commands run in this process, in a folder of their own, with what they print."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.harness import REFUND_WORDS, REFUNDED, SUPPORT, TICKET, Ran, Run

pytest.importorskip("typer")
pytest.importorskip("rich")


@pytest.fixture
def cra(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs `cra` in an empty folder, with the support atlas in the environment."""
    from cra.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("CRA_STORAGE", "CRA_SET", "CRA_APPROVER", "CRA_DEBUG", "COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CRA_ATLASES", SUPPORT)
    capfd.readouterr()

    def run(*words: str) -> Ran:
        code = main(list(words))
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Ran(int(code), out, err)

    return run


_made: dict[str, tuple[str, dict[str, bytes]]] = {}


def once(name: str, folder: Path, make: Callable[[], str]) -> str:
    """Return what `make` returns, with the files it leaves; made once, copied for every further test."""
    if name not in _made:
        value = make()
        _made[name] = value, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return value
    value, files = _made[name]
    for path, content in files.items():
        (folder / path).write_bytes(content)
    return value


@pytest.fixture
def session(cra: Run, tmp_path: Path) -> str:
    """Return a session of the default store that has resolved its goal."""
    pytest.importorskip("apsw")

    def make() -> str:
        made = cra("session", "create", "support-1", "Help the customer of T-1042", "--json")
        assert made.code == 0, made.err
        session_id: str = made.json["session_id"]
        assert cra("resolve", "Refund the second charge", "--session", session_id).code == 0
        return session_id

    return once("session", tmp_path, make)


@pytest.fixture
def trace(cra: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the file of a session with a few calls of every sort, whose parameters were kept."""
    pytest.importorskip("apsw")
    monkeypatch.setenv("CRA_SET", "capture_parameters=full")

    def make() -> str:
        session = cra("session", "create", "support-1", "Help the customer of T-1042").out.strip()
        assert cra("resolve", "Refund the second charge", "-S", session).code == 0
        calls = [
            (("ticket.get", "ticket_id=T-1"), TICKET, 0),
            (("ticket.delete", "ticket_id=T-1"), "1", 1),
            (("ticket.close", "ticket_id=T-1", "resolution=solved"), TICKET, 0),
            (REFUND_WORDS, REFUNDED, 6),
        ]
        for words, returns, code in calls:
            assert cra("execute", *words, "-S", session, "--returns", returns).code == code
        assert cra("session", "end", session).code == 0
        assert cra("trace", "export", session, "-o", "one.trace.jsonl").code == 0
        return session

    once("trace", tmp_path, make)
    return tmp_path / "one.trace.jsonl"
