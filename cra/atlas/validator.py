"""The judgement over an atlas: every problem at once."""

from collections.abc import Mapping
from itertools import chain, islice
from typing import Any

import msgspec

from cra.atlas._advice import advice
from cra.atlas._meaning import meaning_problems
from cra.atlas._parts import escape, take_apart
from cra.atlas._shape import shape_of
from cra.atlas._tree import Tree, shown, tree_of
from cra.atlas.bounds import DEFAULT_BOUNDS, Bounds
from cra.atlas.cases import read_cases
from cra.atlas.semver import parse_range, parse_version
from cra.errors import Problem
from cra.protocol.atlas import Manifest

__all__ = ["Verdict", "dependency_problems", "judge", "validate"]


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
    found = chain(tree.problems, parts.problems, shape.problems, meaning_problems(shape, parts, tree, bounds))
    problems = list(islice(found, bounds.max_problems))
    if len(problems) == bounds.max_problems:
        words = f"there are {bounds.max_problems} problems or more; the others are left out"
        problems.append(Problem("too_large", words))
    manifest = None if problems else shape.manifest()
    warnings: list[Problem] = []
    if thorough:
        problems += read_cases(tree.files, manifest)[1]
        if manifest is not None:
            warnings += islice(advice(shape, parts, tree), bounds.max_problems)
    return Verdict(manifest=None if problems else manifest, problems=problems, warnings=warnings)


def dependency_problems(manifest: Manifest, versions: Mapping[str, str]) -> list[Problem]:
    """Return the dependencies that the atlases with these versions, by id, do not satisfy."""
    problems = []
    for atlas_id, text in manifest.dependencies.items():
        pointer = f"/dependencies/{escape(atlas_id)}"
        version = versions.get(atlas_id)
        if version is None:
            words = f"atlas `{atlas_id}` is not loaded, expected `{shown(text)}`"
            problems.append(Problem("dependency", words, pointer=pointer))
        elif parse_version(version) not in parse_range(text):
            words = f"atlas `{atlas_id}` is loaded as {version}, expected `{shown(text)}`"
            problems.append(Problem("dependency", words, pointer=pointer))
    return problems


def validate(
    manifest: Any,
    files: Mapping[str, str | bytes] | None = None,
    *,
    versions: Mapping[str, str] | None = None,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> list[Problem]:
    """Return every problem of a decoded manifest with the files beside it; with `versions`, of its dependencies too."""
    tree = tree_of(files or {}, "memory")
    tree.add_manifest(manifest)
    verdict = judge(tree, bounds)
    if verdict.manifest is None or versions is None:
        return verdict.problems
    return dependency_problems(verdict.manifest, versions)
