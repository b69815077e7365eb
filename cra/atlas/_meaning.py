"""What a manifest means: whether its names, files and rules fit together."""

from collections.abc import Iterator

from cra.atlas._parts import Parts
from cra.atlas._shape import Shape
from cra.atlas._tree import Tree
from cra.errors import Problem


def meaning_problems(shape: Shape, parts: Parts, tree: Tree) -> Iterator[Problem]:
    """Yield everything that has the right shape and cannot be meant."""
    for piece, pack in shape.context_packs:
        for index, path in enumerate(pack.files):
            if path not in tree.files:
                yield Problem("missing_file", f"`{path}` is missing", file=piece.file, pointer=f"{piece.pointer}/files/{index}")
