"""The names that files may have inside an atlas."""

import unicodedata
from collections.abc import Iterable, Iterator

from cra.atlas._hidden import hidden_character

MAX_PATH_BYTES = 1_024
MAX_SEGMENT_BYTES = 255
MAX_SEGMENTS = 16

# NOTE: Windows opens a device for these names in any folder and with any suffix.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))]
)


def path_fault(path: str) -> str | None:
    """Say why `path` cannot name a file inside an atlas, or return None when it can.

    One spelling for one file on every system: relative, `/` between plain names, no `.` or `..`.
    """
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    if hidden := hidden_character(path):
        return f"it contains the character {hidden}"
    if "\\" in path:
        return "it contains a backslash"
    if path.startswith("/"):
        return "it is absolute"
    if ":" in path:
        return "it contains a colon (a drive letter or a stream)"
    segments = path.split("/")
    if len(segments) > MAX_SEGMENTS:
        return f"it is deeper than {MAX_SEGMENTS} levels"
    return next((fault for segment in segments if (fault := _segment_fault(segment))), None)


def _segment_fault(segment: str) -> str | None:
    if segment == "":
        return "it has an empty segment"
    if segment == "..":
        return "it leaves the folder"
    if segment == ".":
        return "it has a `.` segment"
    if segment.startswith("."):
        return "it names a hidden file"
    if segment.endswith((".", " ")) or segment.startswith(" "):
        return "a segment begins or ends with a space, or ends with a dot"
    if segment.partition(".")[0].casefold() in _DEVICES:
        return f"`{segment}` is a device on some systems"
    if len(segment.encode("utf-8", "surrogatepass")) > MAX_SEGMENT_BYTES:
        return f"a segment is longer than {MAX_SEGMENT_BYTES} bytes"
    return None


def fold(path: str) -> str:
    """Return what two paths share when some file system takes them for one file."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def collisions(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each path that some file system takes for an earlier one, with that earlier one."""
    seen: dict[str, str] = {}
    for path in paths:
        first = seen.setdefault(fold(path), path)
        if first is not path:
            yield path, first
