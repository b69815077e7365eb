"""Catalog: the atlases that a tenant's store has, read into the registry."""

from cra._core.sha256 import hexdigest
from cra.atlas.package import Atlas
from cra.atlas.registry import Registry
from cra.atlas.snapshot import Snapshot
from cra.errors import AtlasError, StorageCorrupt, StorageError
from cra.storage.base import Document, Storage

ATLAS = "atlas"

# Documents are read between two looks at their revision; this many changes in between mean something is wrong.
_MAX_READS = 100


class Catalog:
    """What a tenant's store has of atlases; each body is decoded once.

    INVARIANT: an atlas that cannot be read decides nothing and lets nothing be decided: what it forbids is not known.
    """

    def __init__(self, storage: Storage, registry: Registry) -> None:
        self._storage = storage
        self._registry = registry
        self._known: dict[str, Atlas] = {}

    def is_current(self) -> bool:
        """Whether the registry has what the store has."""
        return self._storage.revision(ATLAS) == self._registry.snapshot.catalog

    def refresh(self) -> Snapshot:
        """Return the snapshot of what the store has now.

        Raises `StorageCorrupt` when an atlas cannot be read, or not beside the others.
        """
        for _ in range(_MAX_READS):
            revision = self._storage.revision(ATLAS)
            if revision == self._registry.snapshot.catalog:
                return self._registry.snapshot
            documents = self._storage.documents(ATLAS)
            if self._storage.revision(ATLAS) == revision:
                return self._take(documents, revision)
        raise StorageError(f"the stored atlases changed {_MAX_READS} times while they were read")

    def _take(self, documents: list[Document], revision: int) -> Snapshot:
        atlases = [self.atlas_of(document) for document in documents]
        # Only what is stored now, so that what was replaced is not kept.
        self._known = {hexdigest(document.body): atlas for document, atlas in zip(documents, atlases, strict=True)}
        try:
            return self._registry.restock(atlases, revision)
        except AtlasError as error:
            raise StorageCorrupt(
                f"the stored atlases cannot be loaded together, so nothing is decided: {error.message}",
                hint=error.hint or "unload or replace one of them",
            ) from error

    def atlas_of(self, document: Document) -> Atlas:
        """Return the atlas of a document; raises `StorageCorrupt` when it is none, or another."""
        atlas = self._known.get(hexdigest(document.body)) or _decode(document)
        if atlas.atlas_id != document.name:
            raise _corrupt(document, f"it is `{atlas.atlas_id}`")
        return atlas


def _decode(document: Document) -> Atlas:
    from cra.atlas import loader

    try:
        return loader.load_archive(document.body, source=f"stored atlas {document.name}")
    except AtlasError as error:
        raise _corrupt(document, error.message) from error


def _corrupt(document: Document, words: str) -> StorageCorrupt:
    return StorageCorrupt(
        f"stored atlas `{document.name}` cannot be read, so nothing is decided: {words}",
        hint="load it again with replace, or unload it",
    )
