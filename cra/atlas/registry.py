"""Registry: which atlases are loaded, and the snapshot compiled from them."""

from collections.abc import Sequence
from threading import Lock
from typing import Literal

from cra.atlas.package import Atlas
from cra.atlas.snapshot import Snapshot
from cra.errors import AtlasConflict, AtlasInvalid, AtlasNotFound

# The revision of stored atlases that nobody has read yet; no store has it.
UNREAD = -1


class Registry:
    """The loaded atlases of one tenant; every change makes a new snapshot or none.

    The baseline is what this process loads. It stands first, and what the tenant's store has comes after it.
    """

    def __init__(self, default_decision: Literal["allow", "deny"] = "allow", *, stored: bool = False) -> None:
        self._default_decision = default_decision
        self._lock = Lock()
        self._baseline: tuple[Atlas, ...] = ()
        self._stored: tuple[Atlas, ...] = ()
        self._snapshot = Snapshot((), default_decision, UNREAD if stored else None)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of what is loaded now."""
        return self._snapshot

    @property
    def baseline(self) -> frozenset[str]:
        """The ids of the atlases that this process has loaded itself."""
        return frozenset([atlas.atlas_id for atlas in self._baseline])

    def add(self, atlas: Atlas, *, replace: bool = False) -> Snapshot:
        """Load an atlas, in the place of the one of its id when `replace`; returns the new snapshot."""
        with self._lock:
            loaded = list(self._baseline)
            places = [number for number, other in enumerate(loaded) if other.atlas_id == atlas.atlas_id]
            if places and not replace:
                raise AtlasConflict(
                    f"atlas `{atlas.atlas_id}` is loaded already, version {loaded[places[0]].version}",
                    hint="load it with replace=True, or unload it first",
                )
            if places:
                loaded[places[0]] = atlas
            else:
                loaded.append(atlas)
            return self._swap(loaded, self._stored, self._snapshot.catalog)

    def remove(self, atlas_id: str) -> Snapshot:
        """Unload an atlas; returns the new snapshot."""
        with self._lock:
            loaded = [atlas for atlas in self._baseline if atlas.atlas_id != atlas_id]
            if len(loaded) == len(self._baseline):
                raise AtlasNotFound(f"atlas `{atlas_id}` is not loaded")
            check_unneeded(atlas_id, [*loaded, *self._stored])
            return self._swap(loaded, self._stored, self._snapshot.catalog)

    def restock(self, stored: Sequence[Atlas], catalog: int) -> Snapshot:
        """Take what the store has at the revision `catalog`; returns the new snapshot."""
        with self._lock:
            return self._swap(self._baseline, stored, catalog)

    def check(self, stored: Sequence[Atlas]) -> None:
        """Raise `AtlasInvalid` or `AtlasConflict` unless these could be what the store has."""
        self._compile([*self._baseline, *stored], None)

    def _swap(self, baseline: Sequence[Atlas], stored: Sequence[Atlas], catalog: int | None) -> Snapshot:
        self._snapshot = self._compile([*baseline, *stored], catalog)
        self._baseline, self._stored = tuple(baseline), tuple(stored)
        return self._snapshot

    def _compile(self, loaded: list[Atlas], catalog: int | None) -> Snapshot:
        from cra.atlas.validator import dependency_problems

        versions: dict[str, str] = {}
        for atlas in loaded:
            if atlas.atlas_id in versions:
                raise AtlasConflict(
                    f"atlas `{atlas.atlas_id}` is one of the baseline and stored too", hint="unload the stored one"
                )
            versions[atlas.atlas_id] = atlas.version
        problems = [problem for atlas in loaded for problem in dependency_problems(atlas.manifest, versions)]
        if problems:
            raise AtlasInvalid(f"{problems[0].message}", problems=problems, hint="load the dependency first")
        return Snapshot(loaded, self._default_decision, catalog)


def check_unneeded(atlas_id: str, others: Sequence[Atlas]) -> None:
    """Raise `AtlasConflict` when one of the other atlases depends on `atlas_id`."""
    for atlas in others:
        if atlas_id in atlas.manifest.dependencies:
            raise AtlasConflict(f"atlas `{atlas.atlas_id}` depends on `{atlas_id}`", hint="unload that one first")
