"""Folders, read without ever leaving them."""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from cra.atlas._paths import collisions, path_fault
from cra.atlas._tree import KEPT, MANIFEST, ROOMS, Tree, shown
from cra.atlas.bounds import Bounds

# NOTE: Windows has neither; there a place is a path, and links show as reparse points.
_AT = os.open in os.supports_dir_fd and os.scandir in os.supports_fd and hasattr(os, "O_NOFOLLOW")
_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)
_REPARSE_POINT = 0x400

_Place = int | str


def read_folder(path: str, bounds: Bounds, named: Callable[[Tree], Iterable[str]]) -> Tree:
    """Read the atlas in the folder `path`.

    Looked at are the manifest, the well-known rooms and files, and what `named` finds in the manifest: the paths
    its packs name. Everything else in the folder is left alone. Every step down is taken from an open folder,
    refusing links, so a folder that changes meanwhile cannot lead the reader outside.
    """
    tree = Tree(path)
    reader = _Reader(tree, bounds)
    known = {MANIFEST, *KEPT, *ROOMS}
    root: _Place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if _AT else path
    try:
        top = reader.entries(root, "")
        reader.read(root, "", [entry for entry in top if entry.name == MANIFEST])
        known.update(name.partition("/")[0] for name in named(tree) if path_fault(name) is None)
        reader.read(root, "", [entry for entry in top if entry.name in known and entry.name != MANIFEST])
        tree.strange.extend(e.name for e in top if e.name not in known and e.is_dir(follow_symlinks=False))
    except _TooMuch as error:
        tree.refuse("too_large", str(error), file=MANIFEST)
    finally:
        _leave(root)
    for second, first in collisions(sorted(tree.files)):
        tree.refuse("duplicate_id", f"`{second}` and `{first}` are one file on some systems", file=second)
    return tree


class _TooMuch(Exception):
    """A bound of the whole folder is passed; reading stops."""


class _Reader:
    """The bounds of one reading."""

    def __init__(self, tree: Tree, bounds: Bounds) -> None:
        self.tree = tree
        self.bounds = bounds
        self.entries_left = bounds.max_files
        self.bytes_left = bounds.max_total_bytes

    def entries(self, place: _Place, prefix: str) -> list["os.DirEntry[str]"]:
        """Return what lies in a folder, in the order of the names; hidden names are not part of an atlas."""
        found = []
        with os.scandir(place) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    found.append(entry)
                # The top folder may hold other things; they are listed, never read.
                if len(found) > (self.entries_left if prefix else 100 * self.bounds.max_files):
                    raise _TooMuch(f"`{prefix or '.'}` holds too many files, expected at most {self.bounds.max_files}")
        if prefix:
            self.entries_left -= len(found)
        return sorted(found, key=lambda entry: entry.name)

    def read(self, place: _Place, prefix: str, entries: list["os.DirEntry[str]"]) -> None:
        """Read files and folders of `place` into the tree."""
        for entry in entries:
            path = prefix + entry.name
            # NOTE: on Windows an entry of `scandir` knows neither its file's number nor its links.
            status = entry.stat(follow_symlinks=False) if _AT else Path(entry.path).lstat()
            if fault := path_fault(path):
                self.tree.refuse("path_escape", f"`{shown(path)}` cannot be a file of an atlas: {fault}", file=path)
            elif fault := self._link(status):
                self.tree.refuse("link", f"`{shown(path)}` {fault}, expected a plain file", file=path)
            elif stat.S_ISDIR(status.st_mode):
                self._enter(place, entry.name, path)
            elif stat.S_ISREG(status.st_mode):
                self._file(place, entry.name, path, status)
            else:
                self.tree.refuse("not_a_file", f"`{shown(path)}` is {_kind(status)}, expected a plain file", file=path)

    def _link(self, status: os.stat_result) -> str | None:
        if stat.S_ISLNK(status.st_mode) or getattr(status, "st_file_attributes", 0) & _REPARSE_POINT:
            return "is a link"
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and not self.bounds.allow_hard_links:
            return f"has {status.st_nlink} hard links"
        return None

    def _enter(self, place: _Place, name: str, path: str) -> None:
        try:
            inner: _Place
            if isinstance(place, int):
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            else:
                inner = str(Path(place, name))
        except OSError as error:
            self.tree.refuse("unreadable", f"`{shown(path)}` cannot be opened: {_words(error)}", file=path)
            return
        try:
            self.read(inner, path + "/", self.entries(inner, path + "/"))
        finally:
            _leave(inner)

    def _file(self, place: _Place, name: str, path: str, seen: os.stat_result) -> None:
        limit = self.bounds.max_file_bytes
        if seen.st_size > limit:
            self._too_large(path, seen.st_size)
            return
        try:
            if isinstance(place, int):
                descriptor = os.open(name, _FLAGS, dir_fd=place)
            else:
                descriptor = os.open(str(Path(place, name)), _FLAGS)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or not os.path.samestat(status, seen):
                    self.tree.refuse("link", f"`{shown(path)}` changed while it was read", file=path)
                    return
                content = _read_up_to(file.fileno(), limit + 1)
        except OSError as error:
            self.tree.refuse("unreadable", f"`{shown(path)}` cannot be read: {_words(error)}", file=path)
            return
        if len(content) > limit:
            self._too_large(path, len(content))
            return
        self.bytes_left -= len(content)
        if self.bytes_left < 0:
            raise _TooMuch(f"the files have more than {self.bounds.max_total_bytes} bytes together")
        self.tree.files[path] = content

    def _too_large(self, path: str, size: int) -> None:
        words = f"`{shown(path)}` has {size} bytes, expected at most {self.bounds.max_file_bytes}"
        self.tree.refuse("too_large", words, file=path)


def _read_up_to(descriptor: int, size: int) -> bytes:
    chunks = []
    while size > 0 and (chunk := os.read(descriptor, min(size, 1 << 20))):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _leave(place: _Place) -> None:
    if isinstance(place, int):
        os.close(place)


def _kind(status: os.stat_result) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(status.st_mode), "something else")


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
