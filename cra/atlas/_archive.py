"""Archives: zip files of the plainest kind, with one way to read them."""

import io
import stat
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from cra.atlas._paths import collisions, path_fault
from cra.atlas._tree import MANIFEST, Tree, shown
from cra.atlas.bounds import Bounds

# NOTE: `zipfile` is lenient where archives lie: it takes the last entry of two with one name, believes sizes until it
# has read them, and (before 3.11.8) lets entries overlap. Here what two readers could see differently is refused.
_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_STREAMED = 0x0008
_UTF8 = 0x0800
_STORED, _DEFLATED = 0, 8
_UNIX = 3
_REPARSE_POINT = 0x400
# Extra fields that change what an entry is: zip64 sizes, Unix links and devices, another name.
_EXTRAS = {0x0001: "zip64 sizes", 0x000D: "a link target", 0x756E: "a link target", 0x7075: "a second name"}
# The earliest time a zip can hold, so that an archive does not depend on when it was packed.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class _Bad(Exception):
    """The archive as a whole cannot be read."""


class _Entry(NamedTuple):
    path: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def read_archive(data: bytes, source: str, bounds: Bounds) -> Tree:
    """Read the files of an `.atlas` archive; every entry is checked before any is unpacked."""
    tree = Tree(source)
    try:
        entries = _directory(data, tree, bounds)
        _check_layout(data, entries)
        if not tree.problems:
            for entry in entries:
                content = _unpack(data, entry)
                if not entry.path.endswith("/"):
                    tree.files[entry.path] = content
    except _Bad as error:
        tree.files.clear()
        tree.refuse("invalid_archive", str(error), file=MANIFEST)
    return tree


def _directory(data: bytes, tree: Tree, bounds: Bounds) -> list[_Entry]:
    """Return the entries of the central directory, refusing all that an atlas does not need."""
    if len(data) < _END.size or data[-_END.size : -_END.size + 4] != b"PK\5\6":
        raise _Bad("this is not a zip file, it is cut off, or a comment follows it")
    _, disk, start_disk, here, count, size, start, comment = _END.unpack_from(data, len(data) - _END.size)
    if disk or start_disk or here != count or comment:
        raise _Bad("the end of the archive names several disks or a comment, expected a plain zip")
    if count > bounds.max_files:
        raise _Bad(f"the archive has {count} entries, expected at most {bounds.max_files}")
    if start + size != len(data) - _END.size:
        raise _Bad("the directory of the archive is not where its end says (zip64, or bytes before or after it)")
    entries, at, total = [], start, 0
    for index in range(count):
        if at + _CENTRAL.size > start + size:
            raise _Bad(f"entry {index} is cut off")
        entry, at, mode = _entry(data, at, start + size, index)
        name = shown(entry.path)
        if fault := _fault(entry, mode, bounds):
            tree.refuse(fault[0], f"`{name}` {fault[1]}", file=entry.path)
        total += entry.size
        entries.append(entry)
    if at != start + size:
        raise _Bad("the directory of the archive has bytes after its last entry")
    if total > bounds.max_total_bytes:
        words = f"the files have {total} bytes together, expected at most {bounds.max_total_bytes}"
        tree.refuse("too_large", words, file=MANIFEST)
    for second, first in collisions(entry.path.rstrip("/") for entry in entries):
        words = "appears twice" if second == first else f"and `{shown(first)}` are one file on some systems"
        tree.refuse("duplicate_id", f"`{shown(second)}` {words}", file=second)
    return entries


def _entry(data: bytes, at: int, end: int, index: int) -> tuple[_Entry, int, tuple[int, int]]:
    header = _CENTRAL.unpack_from(data, at)
    signature, made_by, _, flags, method, _, _, crc, packed, size = header[:10]
    n_name, n_extra, n_comment, _, _, attributes, offset = header[10:]
    begin = at + _CENTRAL.size
    after = begin + n_name + n_extra + n_comment
    if signature != b"PK\1\2" or after > end:
        raise _Bad(f"entry {index} is cut off")
    raw = data[begin : begin + n_name]
    for field in _extra_fields(data[begin + n_name : begin + n_name + n_extra], index):
        if field in _EXTRAS:
            raise _Bad(f"entry {index} carries {_EXTRAS[field]} in an extra field")
    try:
        path = raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise _Bad(f"the name of entry {index} is not UTF-8, or not marked as such") from None
    entry = _Entry(path, raw, flags, method, crc, packed, size, offset)
    return entry, after, (made_by >> 8, attributes)


def _extra_fields(extra: bytes, index: int) -> list[int]:
    fields, at = [], 0
    while at < len(extra):
        if at + 4 > len(extra):
            raise _Bad(f"entry {index} has a broken extra field")
        kind, size = struct.unpack_from("<2H", extra, at)
        fields.append(kind)
        at += 4 + size
    if at != len(extra):
        raise _Bad(f"entry {index} has a broken extra field")
    return fields


def _fault(entry: _Entry, mode: tuple[int, int], bounds: Bounds) -> tuple[str, str] | None:
    """Return the code and words of what is wrong with one entry."""
    folder = entry.path.endswith("/")
    if fault := path_fault(entry.path.removesuffix("/")):
        return "path_escape", f"cannot be a file of an atlas: {fault}"
    system, attributes = mode
    kind = stat.S_IFMT(attributes >> 16) if system == _UNIX else 0
    if stat.S_ISLNK(kind) or attributes & _REPARSE_POINT:
        return "link", "is a link, expected a plain file"
    if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG):
        return "not_a_file", "is a device, pipe or folder, expected a plain file"
    if entry.flags & _ENCRYPTED:
        return "invalid_archive", "is encrypted"
    if entry.method not in (_STORED, _DEFLATED):
        return "invalid_archive", f"is packed by method {entry.method}, expected 0 (stored) or 8 (deflated)"
    if entry.method == _STORED and entry.packed != entry.size:
        return "invalid_archive", f"is stored with {entry.packed} bytes and declared with {entry.size}"
    if folder and entry.size:
        return "invalid_archive", "is a folder with content"
    if entry.size > bounds.max_file_bytes:
        return "too_large", f"has {entry.size} bytes, expected at most {bounds.max_file_bytes}"
    if entry.size > 4096 + bounds.max_compression_ratio * entry.packed:
        return "too_large", f"unpacks {entry.packed} bytes to {entry.size}, a zip bomb"
    return None


def _check_layout(data: bytes, entries: list[_Entry]) -> None:
    """Refuse entries that share bytes, bytes that are no entry's, and local headers that tell another story."""
    end = _END.unpack_from(data, len(data) - _END.size)[6]
    previous, at = "the beginning", 0
    descriptor: tuple[int, ...] = (0,)
    for entry in sorted(entries, key=lambda entry: entry.offset):
        name = shown(entry.path)
        _check_gap(entry.offset - at, descriptor, f"`{name}`", previous)
        if entry.offset + _LOCAL.size > end:
            raise _Bad(f"`{name}` lies outside the archive")
        signature, _, flags, method, _, _, crc, packed, size, n_name, n_extra = _LOCAL.unpack_from(data, entry.offset)
        begin = entry.offset + _LOCAL.size
        told = (crc, packed, size)
        streamed = bool(flags & _STREAMED)
        if (
            signature != b"PK\3\4"
            or (flags, method) != (entry.flags, entry.method)
            or data[begin : begin + n_name] != entry.raw_name
            or not ((streamed and told == (0, 0, 0)) or told == (entry.crc, entry.packed, entry.size))
        ):
            raise _Bad(f"`{name}` is described differently in the directory and before its content")
        previous, at = f"`{name}`", begin + n_name + n_extra + entry.packed
        # A streamed entry's sizes follow its content, with or without a signature.
        descriptor = (12, 16) if streamed else (0,)
    _check_gap(end - at, descriptor, "the directory", previous)


def _check_gap(gap: int, expected: tuple[int, ...], what: str, previous: str) -> None:
    if gap < 0:
        raise _Bad(f"{what} and {previous} overlap")
    if gap not in expected:
        raise _Bad(f"there are {gap} bytes between {what} and {previous} that belong to no file")


def _unpack(data: bytes, entry: _Entry) -> bytes:
    n_name, n_extra = struct.unpack_from("<2H", data, entry.offset + 26)
    begin = entry.offset + _LOCAL.size + n_name + n_extra
    packed = data[begin : begin + entry.packed]
    name = shown(entry.path)
    if entry.method == _STORED:
        content = packed
    else:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflate.decompress(packed, entry.size + 1)
        except zlib.error:
            raise _Bad(f"`{name}` is not deflated properly") from None
        if not inflate.eof or inflate.unused_data:
            raise _Bad(f"`{name}` unpacks to another size than declared")
    if len(content) != entry.size:
        raise _Bad(f"`{name}` unpacks to another size than declared")
    if zlib.crc32(content) != entry.crc:
        raise _Bad(f"`{name}` does not match its checksum")
    return content


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """Return an archive with these files; the same files always give the same bytes."""
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, _EPOCH)
            # NOTE: stored, because what deflate makes differs between builds of zlib.
            info.compress_type = zipfile.ZIP_STORED
            info.create_system = _UNIX
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, files[path])
    return out.getvalue()
