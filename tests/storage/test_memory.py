"""The memory store keeps the contract, and its bounds."""

from pathlib import Path

from cra.storage.base import Storage
from cra.storage.memory import MemoryStorage
from cra.testing.storage import StorageContract


class TestMemoryStorage(StorageContract):
    def open(self, directory: Path) -> Storage:
        return MemoryStorage()
