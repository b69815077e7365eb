"""An atlas: a manifest with the context files it names."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from cra._core.canonical import digest as canonical_digest
from cra._core.sha256 import hexdigest
from cra.protocol.atlas import Manifest


class Atlas(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One valid atlas; `files` holds its context files by the path the manifest gives them.

    `manifest` is the effective one: what stands in `policies/`, `actions/` and `adapters/` is merged in.
    `digest` covers the effective manifest and every context file, so the folder, the archive and the single
    JSON of one atlas share it. `source` is where it was read from, for messages; it is not under the digest.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    digest: str
    source: str

    @property
    def atlas_id(self) -> str:
        return self.manifest.atlas_id

    @property
    def version(self) -> str:
        return self.manifest.version

    def text(self, path: str) -> str:
        """Return the context file `path` as text; it was checked to be UTF-8 when the atlas was read."""
        return self.files[path].decode("utf-8")

    def __repr__(self) -> str:
        return f"Atlas({self.atlas_id} {self.version}, {self.digest[:12]}, {self.source})"


def make_atlas(manifest: Manifest, files: Mapping[str, bytes], source: str) -> Atlas:
    """Make the atlas of a valid manifest; only the context files that it names are kept."""
    named = {path: files[path] for pack in manifest.context_packs for path in pack.files}
    return Atlas(manifest=manifest, files=MappingProxyType(named), digest=atlas_digest(manifest, named), source=source)


def effective_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest as plain JSON values, every default filled in, absent optionals left out."""
    value: dict[str, Any] = msgspec.to_builtins(manifest)
    return value


def atlas_digest(manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 over the canonical manifest and the digest of each file."""
    digests = {path: hexdigest(content) for path, content in files.items()}
    return canonical_digest({"manifest": effective_manifest(manifest), "files": digests})
