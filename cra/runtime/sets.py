"""Sets: which atlases, in which versions and order, a recorded digest stands for."""

from collections.abc import Iterator, Sequence
from itertools import combinations, islice, permutations, product
from math import factorial
from typing import Any

from msgspec import Struct

from cra._core.canonical import digest
from cra.atlas.package import Atlas
from cra.atlas.snapshot import Snapshot


class AtlasRef(Struct, frozen=True, kw_only=True):
    """One atlas of a loaded set, as session.started names it."""

    atlas_id: str
    version: str
    digest: str


def ref_of(atlas: Atlas) -> AtlasRef:
    """Return the name of an atlas."""
    return AtlasRef(atlas_id=atlas.atlas_id, version=atlas.version, digest=atlas.digest)


class Sets:
    """The sets that given atlases can have been loaded as, found by the digest that the trace names.

    Given may be several versions of one atlas: a digest names the versions, their order and the default decision, so
    a set that is found is the recorded one.
    """

    def __init__(self, atlases: Sequence[Atlas], default_decision: str) -> None:
        self.atlases = tuple({atlas.digest: atlas for atlas in atlases}.values())
        newest = {atlas.atlas_id: atlas for atlas in atlases}
        self._default_decision = default_decision
        self._fallback = tuple(newest.values())
        self._known: dict[str, tuple[tuple[Atlas, ...], str]] | None = None
        self._made: dict[tuple[tuple[str, ...], str], Snapshot] = {}

    @property
    def fallback(self) -> Snapshot:
        """The snapshot of what was given, of each atlas the last version."""
        return self._snapshot(self._fallback, self._default_decision)

    def started(self, refs: Sequence[dict[str, Any]]) -> Snapshot | None:
        """Return the snapshot of exactly these atlases, or None when one of them was not given."""
        by_digest = {atlas.digest: atlas for atlas in self.atlases}
        found = [by_digest.get(str(ref.get("digest"))) for ref in refs]
        whole = tuple(atlas for atlas in found if atlas is not None)
        return self._snapshot(whole, self._default_decision) if len(whole) == len(refs) else None

    def find(self, snapshot_digest: object) -> Snapshot | None:
        """Return the snapshot of this digest, or None when it cannot be made of the given atlases."""
        for made in self._made.values():
            if made.digest == snapshot_digest:
                return made
        if self._known is None:
            self._known = {
                _set_digest(chosen, default): (chosen, default)
                for chosen in _choices(self.atlases)
                for default in ("allow", "deny")
            }
        known = self._known.get(str(snapshot_digest))
        return None if known is None else self._snapshot(*known)

    def _snapshot(self, atlases: tuple[Atlas, ...], default_decision: str) -> Snapshot:
        key = (tuple(atlas.digest for atlas in atlases), default_decision)
        if key not in self._made:
            self._made[key] = Snapshot(atlases, default_decision)
        return self._made[key]


# So many sets are tried at most; a tenth of a second.
_MOST_SETS = 20_000


def _choices(atlases: tuple[Atlas, ...]) -> Iterator[tuple[Atlas, ...]]:
    """Yield the sets that can be made of some atlases: of each id one version or none.

    They come in every order while those are few. Else the ids keep the order in which they were given first, as a
    version takes the place of the one before it; and when even these are too many, only some are tried.
    """
    versions: dict[str, list[Atlas]] = {}
    for atlas in atlases:
        versions.setdefault(atlas.atlas_id, []).append(atlas)
    sizes = range(len(versions) + 1)
    pick = permutations if sum(_ways(tuple(versions.values()), size) for size in sizes) <= _MOST_SETS else combinations
    # The largest first, since sessions begin with all there is.
    every = (chosen for size in reversed(sizes) for ids in pick(versions.values(), size) for chosen in product(*ids))
    yield from islice(every, _MOST_SETS)


def _ways(versions: tuple[list[Atlas], ...], size: int) -> int:
    """Return how many ordered sets of a size there are."""
    # Elementary symmetric polynomials of the numbers of versions, each of which can be put into any order.
    ways = [1] + [0] * size
    for own in versions:
        for count in range(size, 0, -1):
            ways[count] += ways[count - 1] * len(own)
    return ways[size] * factorial(size)


def _set_digest(atlases: Sequence[Atlas], default_decision: str) -> str:
    refs = [{"atlas_id": a.atlas_id, "digest": a.digest, "version": a.version} for a in atlases]
    return digest({"atlases": refs, "default_decision": default_decision})


def refs_of(atlases: object) -> tuple[AtlasRef, ...]:
    """Return the names that session.started has for its atlases."""
    refs = atlases if isinstance(atlases, list) else []
    return tuple(
        AtlasRef(atlas_id=str(ref.get("atlas_id")), version=str(ref.get("version")), digest=str(ref.get("digest")))
        for ref in refs
    )
