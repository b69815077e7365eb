"""The backups of docs/operations.md are whole, also of a store at work, and what the page warns of is so."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cra import CRARuntime, RuntimeConfig
from cra._core.chain import verify
from cra.errors import SessionNotFound

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[Path, str, threading.Event]]:
    """Return a store that somebody works in, the session, and what tells that more was recorded."""
    path = tmp_path / "cra.db"
    stop, more = threading.Event(), threading.Event()
    with CRARuntime(RuntimeConfig(storage=f"sqlite:///{path}")) as runtime:
        runtime.load_atlas(ROOT / "examples/atlases/customer-support")
        session = runtime.create_session(agent_id="bot", goal="Help").id

        def work() -> None:
            while not stop.is_set():
                runtime.resolve(session, "Look at T-1")
                more.set()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            assert more.wait(30)
            yield path, session, more
        finally:
            stop.set()
            thread.join()
        assert runtime.verify_chain(session)


@pytest.mark.parametrize("command", [".backup main {}", "VACUUM INTO '{}'"], ids=["backup", "vacuum"])
def test_a_backup_of_a_store_at_work_is_whole(busy: tuple[Path, str, threading.Event], command: str) -> None:
    path, session, more = busy
    copy = path.with_name("copy.db")
    shell = [sys.executable, "-m", "apsw", str(path), command.format(copy)]
    subprocess.run(shell, check=True, capture_output=True, timeout=60)
    more.clear()
    with CRARuntime(RuntimeConfig(storage=f"sqlite:///{copy}")) as restored:
        restored.load_atlas(ROOT / "examples/atlases/customer-support")
        before = restored.get_trace(session).data
        assert verify(before).ok and len(before.splitlines()) > 2
        restored.resolve(session, "Go on with T-1")
        assert restored.get_trace(session).data.startswith(before)
        assert restored.verify_chain(session)
    # Nobody had to wait for it.
    assert more.wait(30)


def test_a_copy_of_the_file_without_its_log_is_no_backup(tmp_path: Path) -> None:
    path, copy = tmp_path / "cra.db", tmp_path / "copy.db"
    with CRARuntime(RuntimeConfig(storage=f"sqlite:///{path}")) as runtime:
        session = runtime.create_session(agent_id="bot", goal="Help").id
        shutil.copy(path, copy)
    with CRARuntime(RuntimeConfig(storage=f"sqlite:///{copy}")) as restored:
        with pytest.raises(SessionNotFound):
            restored.get_trace(session)
