"""Records as canonical JSON, for the stores that keep them as bytes."""

import json
from typing import Any, TypeVar

from msgspec import Struct, structs

from cra._core.canonical import dumps
from cra.errors import StorageCorrupt
from cra.storage.base import ApprovalRecord, ResolutionRecord, SessionRecord

T = TypeVar("T", bound=Struct)

# NOTE: not msgspec's own codecs: they refuse integers above 64 bits, which contexts and parameters may hold.


def session_bytes(record: SessionRecord) -> bytes:
    """Return a session's record without its action_count, which is kept beside the head."""
    fields = structs.asdict(record)
    del fields["action_count"]
    return dumps(fields)


def session_of(data: bytes, actions: int) -> SessionRecord:
    """Return the session that `session_bytes` wrote."""
    return _record(SessionRecord, {**_fields(data), "action_count": actions})


def resolution_bytes(record: ResolutionRecord) -> bytes:
    """Return a resolution's record."""
    fields = structs.asdict(record)
    fields["offered"] = sorted(record.offered)
    return dumps(fields)


def resolution_of(data: bytes) -> ResolutionRecord:
    """Return the resolution that `resolution_bytes` wrote."""
    fields = _fields(data)
    for name, kind in (("atlas_ids", tuple), ("capabilities", tuple), ("offered", frozenset)):
        fields[name] = kind(fields.get(name, ()))
    return _record(ResolutionRecord, fields)


def approval_bytes(record: ApprovalRecord) -> bytes:
    """Return an approval's record."""
    return dumps(structs.asdict(record))


def approval_of(data: bytes) -> ApprovalRecord:
    """Return the approval that `approval_bytes` wrote."""
    return _record(ApprovalRecord, _fields(data))


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise StorageCorrupt(f"a stored record is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise StorageCorrupt("a stored record is not an object")
    return fields


def _record(kind: type[T], fields: dict[str, Any]) -> T:
    try:
        return kind(**fields)
    except TypeError as error:
        raise StorageCorrupt(f"a stored record has other fields than expected: {error}") from error
