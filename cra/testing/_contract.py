"""What the parts of the storage contract have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cra.storage.base import Storage


class Contract:
    """A store to test, opened anew for each test."""

    # How many threads meet at a counter or at a head.
    threads = 16

    def open(self, directory: Path) -> Storage:
        """Return the store; with one that is durable, a second call with the same directory finds its sessions."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Storage]:
        store = self.open(tmp_path)
        yield store
        store.close()
