"""What a setting names is opened, or refused with what it could have been."""

from pathlib import Path
from typing import Any

import pytest

from cra.errors import ConfigInvalid
from cra.storage.memory import MemoryStorage
from cra.storage.open import open_storage


def opened(target: Any) -> Any:
    return open_storage(target, max_sessions=1, max_events=10)


def test_a_store_is_taken_as_it_is() -> None:
    store = MemoryStorage()
    assert opened(store) is store
    assert opened("memory").name == opened("memory:").name == "memory"


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (None, "`NoneType`"),
        (3, "`int`"),
        ([], "`list`"),
        (Path("cra.db"), f"`{type(Path()).__name__}`"),
        ("", "``"),
        ("mysql://user:hunter2@db/cra", "`mysql`"),
        ("sqlite://cra.db", "`sqlite`"),
        ("cra.db", "`cra.db`"),
    ],
)
def test_anything_else_is_refused_with_what_there_is(target: Any, found: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        opened(target)
    assert refused.value.message.startswith(f"storage is {found}, expected ")
    assert "sqlite:///cra.db" in (refused.value.hint or "")
    assert refused.value.pointer == "/storage"


@pytest.mark.parametrize("target", ["sqlite:///", "sqlite:///:memory:", "sqlite:///file:x", "sqlite:///a%00b"])
def test_a_path_that_names_no_file_is_refused(target: str) -> None:
    pytest.importorskip("apsw")
    with pytest.raises(ConfigInvalid, match="expected the path of a file"):
        opened(target)
