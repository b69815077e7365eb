"""Field types that CARP, TRACE and Atlas share."""

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

# NOTE: Python's `$` also matches before a final line feed, ECMA 262's (which JSON Schema names) does not;
# the lookahead makes both mean the end.
END = "$(?!\\n)"
UUID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}" + END
# RFC 3339 date-time; the calendar is checked when it is read (`protocol.times`).
TIMESTAMP_PATTERN = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})" + END
)
MAX_TIMESTAMP = 40
HASH_PATTERN = "^[0-9a-f]{64}" + END
ATLAS_ID_PATTERN = "^[a-z][a-z0-9]*(\\.[a-z][a-z0-9-]*)+" + END
ACTION_ID_PATTERN = "^[a-z][a-z0-9]*(\\.[a-z][a-z0-9_]*)+" + END

Uuid = Annotated[str, Meta(pattern=UUID_PATTERN, description="UUID, 36 lower-case characters")]
Timestamp = Annotated[str, Meta(pattern=TIMESTAMP_PATTERN, max_length=MAX_TIMESTAMP, description="RFC 3339 date-time")]
Digest = Annotated[str, Meta(pattern=HASH_PATTERN, description="SHA-256, 64 lower-case hexadecimal digits")]
AtlasId = Annotated[str, Meta(pattern=ATLAS_ID_PATTERN, max_length=255)]
ActionId = Annotated[str, Meta(pattern=ACTION_ID_PATTERN, max_length=255)]
Identifier = Annotated[str, Meta(min_length=1, max_length=255)]
Name = Annotated[str, Meta(min_length=1, max_length=100)]
Text = Annotated[str, Meta(max_length=1000)]
Priority = Annotated[int, Meta(ge=0, le=1000)]
JsonObject = dict[str, Any]


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """The base of every wire struct: frozen, keyword-only, unknown fields refused."""


class RiskTier(StrEnum):
    """How much harm an action can do; the order is the order of the members."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class RateLimit(Record, frozen=True):
    """At most `max_calls` in any `window_seconds`."""

    max_calls: Annotated[int, Meta(ge=1, le=1_000_000)]
    window_seconds: Annotated[int, Meta(ge=1, le=31_536_000)]
