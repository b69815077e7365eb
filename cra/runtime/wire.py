"""Responses as they go over the wire."""

import msgspec

from cra._core.canonical import dumps
from cra.protocol.carp import ExecuteResponse


def response_bytes(response: ExecuteResponse) -> bytes:
    """Return the canonical JSON of an execute response; the same bytes at every door."""
    return dumps(msgspec.to_builtins(response))
