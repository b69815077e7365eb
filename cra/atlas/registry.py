"""Registry: which atlases are loaded, and the snapshot compiled from them."""

from threading import Lock
from typing import Literal

from cra.atlas.package import Atlas
from cra.atlas.snapshot import Snapshot
from cra.errors import AtlasConflict, AtlasInvalid, AtlasNotFound


class Registry:
    """The loaded atlases of one tenant; every change makes a new snapshot or none."""

    def __init__(self, default_decision: Literal["allow", "deny"] = "allow") -> None:
        self._default_decision = default_decision
        self._lock = Lock()
        self._snapshot = Snapshot((), default_decision)

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot of what is loaded now."""
        return self._snapshot

    def add(self, atlas: Atlas, *, replace: bool = False) -> Snapshot:
        """Load an atlas, in the place of the one of its id when `replace`; returns the new snapshot."""
        with self._lock:
            loaded = list(self._snapshot.atlases)
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
            return self._swap(loaded)

    def remove(self, atlas_id: str) -> Snapshot:
        """Unload an atlas; returns the new snapshot."""
        with self._lock:
            loaded = [atlas for atlas in self._snapshot.atlases if atlas.atlas_id != atlas_id]
            if len(loaded) == len(self._snapshot.atlases):
                raise AtlasNotFound(f"atlas `{atlas_id}` is not loaded")
            for atlas in loaded:
                if atlas_id in atlas.manifest.dependencies:
                    raise AtlasConflict(
                        f"atlas `{atlas.atlas_id}` depends on `{atlas_id}`", hint="unload that one first"
                    )
            return self._swap(loaded)

    def _swap(self, loaded: list[Atlas]) -> Snapshot:
        from cra.atlas.validator import dependency_problems

        versions = {atlas.atlas_id: atlas.version for atlas in loaded}
        problems = [problem for atlas in loaded for problem in dependency_problems(atlas.manifest, versions)]
        if problems:
            raise AtlasInvalid(f"{problems[0].message}", problems=problems, hint="load the dependency first")
        self._snapshot = Snapshot(loaded, self._default_decision)
        return self._snapshot
