"""Commands run in this process, in a folder of their own, with what they print."""

from pathlib import Path

import pytest

from tests.cli.harness import SUPPORT, Ran, Run

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


@pytest.fixture
def session(cra: Run) -> str:
    """Return a session of the default store that has resolved its goal."""
    pytest.importorskip("apsw")
    made = cra("session", "create", "support-1", "Help the customer of T-1042", "--json")
    assert made.code == 0, made.err
    session_id: str = made.json["session_id"]
    assert cra("resolve", "Refund the second charge", "--session", session_id).code == 0
    return session_id
