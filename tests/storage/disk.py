"""Disk: a file system for SQLite that fails when told, and that loses what was not synced when its power is cut.

It lies over the real one, which plays the part of the system's cache: SQLite reads from it what it wrote. What would
have survived is kept apart: for each file the bytes of its last sync, and what was written and cut off since.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import apsw

SECTOR = 512


class Write(NamedTuple):
    """Bytes written at an offset; without bytes, the file was cut off there."""

    offset: int
    data: bytes | None


class Kept:
    """What of a file survives, and what may."""

    def __init__(self) -> None:
        self.synced = bytearray()
        # Whether the file itself is known to be in its directory.
        self.there = False
        self.pending: list[Write] = []

    def sync(self) -> None:
        for write in self.pending:
            apply(self.synced, write)
        self.pending.clear()
        self.there = True

    def survive(self, source: random.Random) -> bytes | None:
        """Return what is found after a cut: any of the unsynced sectors may be there, in any order, or none."""
        if not self.there and source.random() < 0.5:
            return None
        data = bytearray(self.synced)
        fate = source.choice(("none", "all", "first", "some", "some"))
        if fate == "none":
            return bytes(data)
        writes = [piece for write in self.pending for piece in sectors(write)]
        if fate == "first":
            writes = writes[: source.randrange(len(writes) + 1)]
        elif fate == "some":
            kept = source.random()
            writes = [write for write in writes if source.random() < kept]
            source.shuffle(writes)
        for write in writes:
            apply(data, write)
        return bytes(data)


def sectors(write: Write) -> Iterator[Write]:
    """Yield the parts of a write that a disk puts down each in one go."""
    if write.data is None:
        yield write
        return
    at, end = write.offset, write.offset + len(write.data)
    while at < end:
        stop = min(end, (at // SECTOR + 1) * SECTOR)
        yield Write(at, write.data[at - write.offset : stop - write.offset])
        at = stop


def apply(data: bytearray, write: Write) -> None:
    if write.data is None:
        del data[write.offset :]
        return
    if len(data) < write.offset:
        data.extend(bytes(write.offset - len(data)))
    data[write.offset : write.offset + len(write.data)] = write.data


class Disk(apsw.VFS):
    """The file system; `cut_at` and `fail_at` count the writes, syncs and cuts of files from when they are set."""

    def __init__(self, name: str = "disk") -> None:
        self.files: dict[str, Kept] = {}
        self.lock = Lock()
        self.operations = 0
        self.dark = False
        self._cut_at: int | None = None
        self._failing: dict[str, tuple[int, int, Exception]] = {}
        self._counts: dict[str, int] = {}
        self.base = apsw.vfs_names()[0]
        super().__init__(name, self.base, makedefault=True)

    # What a test says

    def cut_at(self, operation: int) -> None:
        """Cut the power before that many more operations are done."""
        self._cut_at = self.operations + operation

    def fail(self, kind: str, error: Exception, *, nth: int = 1, times: int = 1) -> None:
        """Make `times` operations of a kind (write, sync) fail, beginning with the nth from now."""
        first = self._counts.get(kind, 0) + nth
        self._failing[kind] = (first, first + times, error)

    def heal(self) -> None:
        """Fail no more."""
        self._failing.clear()

    def survivors(self, folder: Path, source: random.Random) -> None:
        """Write to a folder what may be found after the cut."""
        folder.mkdir()
        for name, kept in self.files.items():
            data = kept.survive(source)
            if data is not None and not name.endswith("-shm"):
                (folder / Path(name).name).write_bytes(data)

    # What SQLite does

    def begin(self, kind: str) -> None:
        """Count an operation; raises when it fails, or when there is no power."""
        self.operations += 1
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._cut_at is not None and self.operations >= self._cut_at:
            self.dark = True
        if self.dark:
            raise apsw.IOError("there is no power")
        if kind in self._failing:
            first, end, error = self._failing[kind]
            if first <= count < end:
                raise type(error)(*error.args)

    def xOpen(self, name: object, flags: list[int]) -> DiskFile:
        return DiskFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.lock:
            if self.dark:
                return
            # It is only ever deleted when what it had is safe elsewhere, so both outcomes of a cut are one.
            self.files.pop(filename, None)
            super().xDelete(filename, syncdir)


class DiskFile(apsw.VFSFile):
    """One open file."""

    def __init__(self, disk: Disk, name: object, flags: list[int]) -> None:
        super().__init__(disk.base, name, flags)
        self.disk = disk
        path = name if isinstance(name, str) else name.filename() if name is not None else ""  # type: ignore[attr-defined]
        with disk.lock:
            self.kept = disk.files.setdefault(path, Kept())

    def xWrite(self, data: bytes, offset: int) -> None:
        with self.disk.lock:
            self.disk.begin("write")
            super().xWrite(data, offset)
            self.kept.pending.append(Write(offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        with self.disk.lock:
            self.disk.begin("truncate")
            super().xTruncate(size)
            self.kept.pending.append(Write(size, None))

    def xSync(self, flags: int) -> None:
        with self.disk.lock:
            self.disk.begin("sync")
            self.kept.sync()


@contextmanager
def disk() -> Iterator[Disk]:
    """Have SQLite use a disk of its own as long as this lasts."""
    made = Disk()
    try:
        yield made
    finally:
        made.unregister()
