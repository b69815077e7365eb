"""The SQLite store keeps the contract, whatever happens to its file and its process."""

from pathlib import Path

from cra.storage.base import Storage
from cra.storage.sqlite import SQLiteStorage
from cra.testing.storage import StorageContract


class TestSQLiteStorage(StorageContract):
    def open(self, directory: Path) -> Storage:
        return SQLiteStorage(directory / "cra.db", durability="batched")
