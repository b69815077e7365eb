"""What the README and the pages show runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

from cra.server.settings import ServiceSettings
from tests.server.running import running

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_programs_in_the_readme_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        namespace: dict[str, Any] = {}
        exec(compile(block, "README.md", "exec"), namespace)
        runtime, session = namespace["runtime"], namespace["session"]
        assert runtime.verify_chain(session.id)
        assert namespace["resolution"].context_blocks
        assert namespace["ticket"]["status"] == "open"
        assert runtime.get_trace(session.id).of_type("action.executed")


def programs(page: str) -> list[str]:
    return BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["administration.md", "configuration.md", "replay.md"])
def test_the_programs_of_a_page_run_one_after_the_other(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in programs(page):
        exec(compile(block, page, "exec"), namespace)
    namespace["runtime"].close()


def test_the_program_of_the_client_runs_against_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = programs("client.md")
    refund = {"refund_id": "R-1", "status": "created", "amount": 20, "currency": "EUR"}

    def register(runtime: Any) -> None:
        runtime.register_executor("*", lambda parameters: refund, inline=True)

    settings = ServiceSettings(
        storage="memory", dev=True, shutdown_seconds=5, atlases=(str(ROOT / "examples/atlases/customer-support"),)
    )
    with running(settings, register=register) as service:
        namespace: dict[str, Any] = {}
        text = first.replace("https://cra.example.com", service.url).replace(', api_key="cra_..."', "")
        exec(compile(text, "client.md", "exec"), namespace)
    assert namespace["refund"] == refund
