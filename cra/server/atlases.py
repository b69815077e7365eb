"""Atlases: list, look at, load, unload."""

from typing import Any

from msgspec import Struct

from cra._core.canonical import dumps
from cra.atlas import loader
from cra.atlas.package import Atlas, effective_manifest
from cra.errors import AtlasNotFound
from cra.server.call import Answer, Call, Response, json_response
from cra.server.media import ATLAS_ZIP


class LoadQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an atlas is loaded."""

    replace: bool = False


def summary(atlas: Atlas) -> dict[str, Any]:
    """Return what identifies an atlas."""
    return {
        "atlas_id": atlas.atlas_id,
        "version": atlas.version,
        "name": atlas.manifest.name,
        "digest": atlas.digest,
    }


async def _find(call: Call) -> Atlas:
    atlas_id = call.path["atlas_id"]
    for atlas in await call.tenant.runtime.administration.atlases():
        if atlas.atlas_id == atlas_id:
            return atlas
    raise AtlasNotFound(f"atlas `{atlas_id}` is not loaded")


async def listed(call: Call) -> Answer:
    """List the loaded atlases in load order."""
    runtime = call.tenant.runtime
    await runtime.administration.atlases()  # what other processes have loaded
    snapshot = runtime.snapshot
    return json_response(
        {"atlases": [summary(atlas) for atlas in snapshot.atlases], "snapshot_digest": snapshot.digest}
    )


async def get(call: Call) -> Answer:
    """Show an atlas's effective manifest, or the whole atlas as an archive."""
    atlas = await _find(call)
    if call.media == ATLAS_ZIP:
        return Response(await call.service.aside(loader.archive_of, atlas), media=ATLAS_ZIP)
    return Response(dumps(effective_manifest(atlas.manifest)), media=call.media)


async def digest(call: Call) -> Answer:
    """Show what identifies an atlas."""
    return json_response(summary(await _find(call)))


async def load(call: Call) -> Answer:
    """Load an atlas."""
    query = call.parameters(LoadQuery)
    read = loader.load_archive if call.body_media == ATLAS_ZIP else loader.load_json
    # Reading a large one takes a while, and nobody else is to wait for that.
    atlas = await call.service.aside(read, call.content, source="the request")
    await call.tenant.runtime.administration.load_atlas(atlas, replace=query.replace, actor=call.identity.subject)
    location = f"/v1/atlases/{atlas.atlas_id}".encode()
    return json_response(summary(atlas), 201, headers=[(b"location", location)])


async def unload(call: Call) -> Answer:
    """Unload an atlas."""
    administration = call.tenant.runtime.administration
    await administration.unload_atlas(call.path["atlas_id"], actor=call.identity.subject)
    return Response(status=204)
