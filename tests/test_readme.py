"""What the README shows runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

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
