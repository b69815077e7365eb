"""The judgement over an atlas: every problem at once."""

from itertools import chain, islice

import msgspec

from cra.atlas._meaning import meaning_problems
from cra.atlas._parts import take_apart
from cra.atlas._shape import shape_of
from cra.atlas._tree import Tree
from cra.atlas.bounds import DEFAULT_BOUNDS, Bounds
from cra.errors import Problem
from cra.protocol.atlas import Manifest

__all__ = ["Verdict", "judge"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; `manifest` is the effective one, None when there is a problem."""

    manifest: Manifest | None
    problems: list[Problem]
    warnings: list[Problem] = msgspec.field(default_factory=list)


def judge(tree: Tree, bounds: Bounds = DEFAULT_BOUNDS, *, thorough: bool = False) -> Verdict:
    """Judge what lies in a tree: what could not be read, then the schema, then the meaning.

    Meaning is judged for all that has the right shape. `thorough` adds the atlas's own test cases and warnings.
    """
    parts = take_apart(tree, bounds)
    shape = shape_of(parts, bounds)
    found = chain(tree.problems, parts.problems, shape.problems, meaning_problems(shape, parts, tree))
    problems = list(islice(found, bounds.max_problems))
    if len(problems) == bounds.max_problems:
        words = f"there are {bounds.max_problems} problems or more; the others are left out"
        problems.append(Problem("too_large", words))
    manifest = None if problems else shape.manifest()
    return Verdict(manifest=manifest, problems=problems)
