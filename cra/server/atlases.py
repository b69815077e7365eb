"""Atlases: list, look at, load, unload."""

from typing import Any

from msgspec import Struct

from cra.atlas.package import Atlas, effective_manifest
from cra.errors import AtlasNotFound
from cra.server.call import Answer, Call, Response, json_response


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


def _find(call: Call) -> Atlas:
    atlas_id = call.path["atlas_id"]
    for atlas in call.tenant.runtime.list_atlases():
        if atlas.atlas_id == atlas_id:
            return atlas
    raise AtlasNotFound(f"atlas `{atlas_id}` is not loaded")


async def listed(call: Call) -> Answer:
    """List the loaded atlases in load order."""
    snapshot = call.tenant.runtime.snapshot
    return json_response(
        {"atlases": [summary(atlas) for atlas in snapshot.atlases], "snapshot_digest": snapshot.digest}
    )


async def get(call: Call) -> Answer:
    """Show an atlas's effective manifest."""
    return json_response(effective_manifest(_find(call).manifest))


async def digest(call: Call) -> Answer:
    """Show what identifies an atlas."""
    return json_response(summary(_find(call)))


async def load(call: Call) -> Answer:
    """Load an atlas."""
    query = call.parameters(LoadQuery)
    atlas = call.tenant.runtime.load_atlas_from_json(await call.body(), replace=query.replace)
    return json_response(summary(atlas), 201)


async def unload(call: Call) -> Answer:
    """Unload an atlas."""
    call.tenant.runtime.unload_atlas(call.path["atlas_id"])
    return Response(status=204)
