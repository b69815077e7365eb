"""RuntimeConfig: every setting of a runtime, with its range."""

import os
import time
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from cra.errors import ConfigInvalid
from cra.protocol.carp import MAX_TTL_SECONDS
from cra.storage.base import Storage

# What a trace means that names no `max_context_tokens`.
DEFAULT_TTL_SECONDS = 3600
DEFAULT_CONTEXT_TOKENS = 8000

Clock = Callable[[], int]
Ids = Callable[[int], bytes]


def system_clock() -> int:
    """Return the microseconds since 1970 by the system's clock."""
    return time.time_ns() // 1000


class RuntimeConfig(Struct, frozen=True, kw_only=True):
    """The settings of a runtime; the defaults are those of the library.

    `storage` is `memory`, a URL such as `sqlite:///cra.db`, or a `Storage`. `clock` returns microseconds since 1970
    and `ids` that many random bytes; both are for tests and replays. `capture_parameters="full"` keeps call
    parameters and request contexts in the trace, `"hash"` only their digests. With `stored_atlases` decisions are also
    made by the atlases that the store has, as `administration` loads them.
    """

    storage: str | Storage = "memory"
    default_ttl_seconds: int = DEFAULT_TTL_SECONDS
    max_context_tokens: int = DEFAULT_CONTEXT_TOKENS
    clock_skew_seconds: int = 300
    default_decision: Literal["allow", "deny"] = "allow"
    capture_parameters: Literal["hash", "full"] = "hash"
    approval_ttl_seconds: int = 3600
    max_pending_approvals: int = 1000
    max_sessions: int = 1_000_000
    max_events: int = 100_000_000
    max_cached_sessions: int = 100_000
    max_parameter_bytes: int = 1 << 20
    max_result_bytes: int = 8 << 20
    executor_threads: int = 32
    retention: int | None = None
    stored_atlases: bool = False
    clock: Clock = system_clock
    ids: Ids = os.urandom

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is None and name == "retention":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ConfigInvalid(
                    f"{name} is `{value}`, expected a whole number from {low} to {high}", pointer=f"/{name}"
                )
        stored: object = self.stored_atlases
        if not isinstance(stored, bool):
            raise ConfigInvalid(f"stored_atlases is `{stored}`, expected true or false", pointer="/stored_atlases")
        for name, words in _CHOICES:
            if getattr(self, name) not in words:
                raise ConfigInvalid(
                    f"{name} is `{getattr(self, name)}`, expected one of {', '.join(words)}", pointer=f"/{name}"
                )


_RANGES: tuple[tuple[str, int, int], ...] = (
    ("default_ttl_seconds", 0, MAX_TTL_SECONDS),
    ("max_context_tokens", 0, 10_000_000),
    ("clock_skew_seconds", 0, 86_400),
    ("approval_ttl_seconds", 1, 30 * 86_400),
    ("max_pending_approvals", 1, 1_000_000),
    ("max_sessions", 1, 1 << 40),
    ("max_events", 1, 1 << 50),
    ("max_cached_sessions", 1, 1 << 30),
    ("max_parameter_bytes", 2, 1 << 30),
    ("max_result_bytes", 2, 1 << 30),
    ("executor_threads", 1, 10_000),
    ("retention", 0, 1 << 40),
)
_CHOICES = (("default_decision", ("allow", "deny")), ("capture_parameters", ("hash", "full")))
