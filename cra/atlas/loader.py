"""Reading atlases: from a folder, an archive, a single JSON file, or memory."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cra._core.canonical import dumps
from cra.atlas._archive import read_archive, write_archive
from cra.atlas._folder import read_folder
from cra.atlas._parts import named_files
from cra.atlas._tree import KEPT, MANIFEST, ROOMS, Tree, shown, tree_of
from cra.atlas.bounds import DEFAULT_BOUNDS, Bounds
from cra.atlas.package import Atlas, effective_manifest, make_atlas
from cra.atlas.validator import Verdict, judge
from cra.errors import AtlasInvalid, AtlasNotFound, InvalidJSON, Problem
from cra.protocol.jsontext import decode

__all__ = ["archive_of", "inspect", "inspect_json", "load", "load_archive", "load_json", "pack", "read_tree"]

Source = str | os.PathLike[str]


def load(path: Source, *, bounds: Bounds = DEFAULT_BOUNDS) -> Atlas:
    """Read the atlas at `path`: a folder (or the `atlas.json` in it), a `.atlas` archive, or one JSON file.

    Raises `AtlasNotFound`, or `AtlasInvalid` with every problem that was found; then nothing is loaded.
    """
    tree = read_tree(path, bounds=bounds)
    return _atlas(tree, judge(tree, bounds))


def load_json(
    data: bytes | str | Mapping[str, Any],
    files: Mapping[str, str | bytes] | None = None,
    *,
    source: str = "memory",
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Atlas:
    """Make an atlas of a manifest (JSON text or its value) and the files beside it, as they would lie in a folder."""
    tree = _tree_of_json(data, files, source)
    return _atlas(tree, judge(tree, bounds))


def load_archive(data: bytes, *, source: str = "memory", bounds: Bounds = DEFAULT_BOUNDS) -> Atlas:
    """Read an atlas from the bytes of a `.atlas` archive; as `load`."""
    tree = Tree(source)
    if len(data) > bounds.max_archive_bytes:
        tree.refuse("too_large", f"the archive has more than {bounds.max_archive_bytes} bytes", file=MANIFEST)
    else:
        tree = read_archive(data, source, bounds)
    return _atlas(tree, judge(tree, bounds))


def archive_of(atlas: Atlas) -> bytes:
    """Return an archive of the effective manifest and the context files; the same atlas gives the same bytes."""
    return write_archive({MANIFEST: dumps(effective_manifest(atlas.manifest)), **atlas.files})


def inspect(path: Source, *, bounds: Bounds = DEFAULT_BOUNDS) -> Verdict:
    """Judge the atlas at `path` without loading it: its problems, its test cases' problems, and warnings."""
    return judge(read_tree(path, bounds=bounds), bounds, thorough=True)


def inspect_json(
    data: bytes | str | Mapping[str, Any],
    files: Mapping[str, str | bytes] | None = None,
    *,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Verdict:
    """Judge a manifest in memory, as `inspect` does a folder."""
    return judge(_tree_of_json(data, files, "memory"), bounds, thorough=True)


def pack(path: Source, out: Source, *, bounds: Bounds = DEFAULT_BOUNDS) -> str:
    """Write the valid atlas at `path` to the archive `out` and return its digest.

    The same files give the same archive, byte for byte. Packed are the manifest, the well-known rooms and files,
    and what the packs name; `out` is replaced whole or not at all.
    """
    tree = read_tree(path, bounds=bounds)
    atlas = _atlas(tree, judge(tree, bounds))
    kept = {name: content for name, content in tree.files.items() if _is_kept(name) or name in atlas.files}
    _replace(Path(out), write_archive(kept))
    return atlas.digest


def read_tree(path: Source, *, bounds: Bounds = DEFAULT_BOUNDS) -> Tree:
    """Read the files of the atlas at `path`, as yet unjudged."""
    if not str(path):
        raise AtlasNotFound("the path of the atlas is empty", hint="`.` is this folder")
    place = Path(path)
    try:
        if place.name == MANIFEST and place.is_file():
            # A manifest brings the rules beside it; read alone it would lose them silently.
            place = place.parent
        mode = place.stat().st_mode
        if stat.S_ISDIR(mode):
            return read_folder(str(place), bounds, lambda tree: _named(tree, bounds))
        if not stat.S_ISREG(mode):
            raise AtlasNotFound(f"`{shown(str(place))}` is neither a folder nor a file")
        return _read_file(place, bounds)
    except FileNotFoundError:
        raise AtlasNotFound(
            f"there is no atlas at `{shown(str(place))}`", hint="give a folder with an atlas.json, or an archive"
        ) from None
    except (OSError, ValueError) as error:
        words = (getattr(error, "strerror", None) or str(error)).lower()
        raise AtlasNotFound(f"the atlas at `{shown(str(place))}` cannot be read: {words}") from None


def _read_file(place: Path, bounds: Bounds) -> Tree:
    with place.open("rb") as file:
        data = file.read(bounds.max_archive_bytes + 1)
    name = str(place)
    tree = Tree(name)
    if len(data) > bounds.max_archive_bytes:
        tree.refuse("too_large", f"the file has more than {bounds.max_archive_bytes} bytes", file=MANIFEST)
    elif data[:2] == b"PK" or name.endswith(".atlas"):
        return read_archive(data, name, bounds)
    else:
        tree.files[MANIFEST] = data
    return tree


def _named(tree: Tree, bounds: Bounds) -> Iterator[str]:
    with suppress(InvalidJSON):
        data = tree.files.get(MANIFEST, b"")
        yield from named_files(decode(data, max_bytes=bounds.max_json_bytes, max_depth=bounds.max_json_depth))


def _tree_of_json(data: bytes | str | Mapping[str, Any], files: Mapping[str, str | bytes] | None, source: str) -> Tree:
    tree = tree_of(files or {}, source)
    tree.add_manifest(dict(data) if isinstance(data, Mapping) else data)
    return tree


def _atlas(tree: Tree, verdict: Verdict) -> Atlas:
    if verdict.manifest is None or verdict.problems:
        raise _invalid(tree.source, verdict.problems)
    return make_atlas(verdict.manifest, tree.files, tree.source)


def _invalid(source: str, problems: list[Problem]) -> AtlasInvalid:
    first = problems[0]
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return AtlasInvalid(
        f"atlas `{source}` is not valid: {first.file}{first.pointer and '#' + first.pointer}: {first.message}{more}",
        problems=problems,
        hint="every problem, with its place, is in `problems`; see docs/atlases.md",
    )


def _is_kept(path: str) -> bool:
    return path == MANIFEST or path in KEPT or path.partition("/")[0] in ROOMS


def _replace(out: Path, data: bytes) -> None:
    import tempfile

    descriptor, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(out)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
