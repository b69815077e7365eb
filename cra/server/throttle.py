"""The service's own rate limits, for each credential and each tenant; a policy's limits are another matter."""

from __future__ import annotations

from throttled import RateLimiterType, Throttled, rate_limiter, store

from cra.errors import RateLimited
from cra.server.auth.settings import ThrottleSettings
from cra.server.identity import Identity


class Throttle:
    """Count calls in this process, and refuse those that come too fast.

    The counts of N processes are N counts. What is remembered is bounded; what was least recently used is forgotten.
    """

    def __init__(self, settings: ThrottleSettings) -> None:
        self._key = limiter(settings.key_per_second, settings.key_burst, settings.max_tracked)
        self._tenant = limiter(settings.tenant_per_second, settings.tenant_burst, settings.max_tracked)

    def check(self, identity: Identity) -> None:
        """Count one call; raises `RateLimited` when the credential or its tenant has none left."""
        if self._key is not None:
            # One credential of an issuer or a proxy speaks for many people; each is counted for itself.
            self._count(self._key, f"{identity.tenant}\x00{identity.credential}\x00{identity.subject}", "credential")
        if self._tenant is not None:
            self._count(self._tenant, identity.tenant, "tenant")

    def _count(self, limiter: Throttled, name: str, whose: str) -> None:
        result = limiter.limit(name)
        if result.limited:
            seconds = max(1, -int(-result.state.retry_after // 1))
            raise RateLimited(
                f"the {whose} has used up its share of the service",
                hint="wait as long as Retry-After says",
                details={"retry_after_seconds": seconds},
            )


def limiter(per_second: int, burst: int, tracked: int) -> Throttled | None:
    """Return what counts by name, `tracked` names at most; None where `per_second` is 0, no limit."""
    if per_second == 0:
        return None
    return Throttled(
        using=RateLimiterType.GCRA.value,
        quota=rate_limiter.per_sec(per_second, burst=burst),
        store=store.MemoryStore(options={"MAX_SIZE": tracked}),
        timeout=-1,
    )
