"""Counters and histograms for Prometheus."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from cra._core.chain import EventBatch
from cra.errors import CRAError
from cra.server.call import Answer, Call, Response
from cra.server.identity import SYSTEM_TENANT
from cra.storage.base import AppendSoon, Change, Done, Pending, Storage

TEXT = "text/plain"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# As many tenants have a label of their own; the others share one.
MAX_TENANT_LABELS = 100
# No tenant can have these names, so none sees what they count.
_OTHERS = "_others"
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Tally:
    """A counter and a histogram that count the same, in between two flushes.

    PERF: 0.3 us instead of 1.4; theirs take a lock each, and with several workers write to a file.
    """

    __slots__ = ("_buckets", "_counter", "_histogram", "_lock", "_sum")

    def __init__(self, counter: Counter, histogram: Histogram) -> None:
        self._counter = counter
        self._histogram = histogram
        self._buckets = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0
        self._lock = Lock()

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        with self._lock:
            self._buckets[bisect_left(_SECONDS, seconds)] += 1
            self._sum += seconds

    def flush(self) -> None:
        """Give on what was counted."""
        with self._lock:
            buckets, total = self._buckets, self._sum
            count = sum(buckets)
            if not count:
                return
            self._buckets, self._sum = [0] * len(buckets), 0.0
        self._counter.inc(count)
        # NOTE: the package has no way to observe many at once but the one that `observe` itself goes.
        self._histogram._sum.inc(total)
        for place, number in enumerate(buckets):
            if number:
                self._histogram._buckets[place].inc(number)


class Metrics:
    """What a process counts; with several workers each counts in files that all of them read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._requests = Counter(
            "cra_requests", "Requests answered", ("route", "method", "status", "tenant"), registry=registry
        )
        self._seconds = Histogram(
            "cra_request_seconds", "Time from a request's head to its answer", ("route",), buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._decisions = Counter(
            "cra_decisions", "Answers to CARP requests", ("operation", "decision", "tenant"), registry=registry
        )
        self._appends = Counter("cra_appends", "Appends to the store", ("result",), registry=registry)
        self._append_seconds = Histogram(
            "cra_append_seconds", "Time that the store took for an append", buckets=_SECONDS, registry=registry
        )
        self._active = Gauge(
            "cra_calls_active", "Calls being worked on", ("kind",), registry=registry, multiprocess_mode="livesum"
        )
        self._cut = Counter("cra_streams_cut", "Live traces that were cut off", ("reason",), registry=registry)
        self._children: dict[Any, Any] = {}
        self._tallies: list[Tally] = []
        # Answers by operation, decision and tenant since the last flush; only the loop's own thread counts them.
        self._decided: dict[tuple[str, str, str], int] = {}
        self._tenants: set[str] = set()
        self._landed = self._tally(self._appends.labels("ok"), self._append_seconds)

    def request(self, route: str, method: str, status: int, tenant: str, seconds: float) -> None:
        """Count an answered request; `seconds` is what it took."""
        key = (route, method, status, tenant)
        tally = self._children.get(key)
        if tally is None:
            labels = (route, method, str(status), self._tenant(tenant))
            tally = self._children[key] = self._tally(self._requests.labels(*labels), self._seconds.labels(route))
        tally.add(seconds)

    def decision(self, operation: str, decision: str, tenant: str) -> None:
        """Count an answer to a CARP request."""
        key = (operation, decision, tenant)
        self._decided[key] = self._decided.get(key, 0) + 1

    def append(self, seconds: float) -> None:
        """Count an append that has landed."""
        self._landed.add(seconds)

    def _tally(self, counter: Counter, histogram: Histogram) -> Tally:
        tally = Tally(counter, histogram)
        self._tallies.append(tally)
        return tally

    def flush(self, now: float = 0.0) -> None:
        """Give what was tallied to the counters that are read."""
        for tally in self._tallies:
            tally.flush()
        decided, self._decided = self._decided, {}
        for (operation, decision, tenant), number in decided.items():
            self._decisions.labels(operation, decision, self._tenant(tenant)).inc(number)

    def append_failed(self, code: str) -> None:
        """Count an append that has not landed."""
        self._appends.labels(code).inc()

    def cut(self, reason: str) -> None:
        """Count a live trace that was cut off."""
        self._cut.labels(reason).inc()

    def text(self, calls: int, streams: int, tenant: str | None = None) -> bytes:
        """Return everything in the text exposition format, or only what is counted for one tenant."""
        self.flush()
        self._active.labels("call").set(calls)
        self._active.labels("stream").set(streams)
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry if tenant is None else _OneTenant(registry, tenant))

    def _tenant(self, name: str) -> str:
        if name in self._tenants or len(self._tenants) < MAX_TENANT_LABELS:
            self._tenants.add(name)
            return name
        return _OTHERS


class _OneTenant(Collector):
    """What a tenant may see of the counts: its own, and nothing that others add to."""

    def __init__(self, registry: CollectorRegistry, tenant: str) -> None:
        self._registry = registry
        self._tenant = tenant

    def collect(self) -> Iterator[Metric]:
        """Yield the families with the tenant's samples only."""
        for family in self._registry.collect():
            own = [sample for sample in family.samples if sample.labels.get("tenant") == self._tenant]
            if own:
                family.samples = own
                yield family


class MeteredStorage:
    """A store whose appends are counted; everything else is the store's own."""

    def __init__(self, inner: Storage, metrics: Metrics) -> None:
        self.inner = inner
        self._metrics = metrics
        self._append = inner.append
        self._inner_soon = inner.append_soon
        self.append_soon: AppendSoon | None = None if inner.append_soon is None else self._append_soon
        self.name, self.tenant = inner.name, inner.tenant
        self.durability, self.blocking = inner.durability, inner.blocking

    def __getattr__(self, name: str) -> Any:
        # PERF: found here once, and from then on as an attribute.
        value = self.__dict__[name] = getattr(self.inner, name)
        return value

    def of_tenant(self, tenant: str) -> MeteredStorage:
        """Return another tenant's part, counted too."""
        return MeteredStorage(self.inner.of_tenant(tenant), self._metrics)

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        """Append, and count it."""
        began = time.perf_counter()
        try:
            self._append(session_id, expected_head, batch, change)
        except BaseException as error:
            self._count(began, error)
            raise
        self._count(began, None)

    def _append_soon(
        self, session_id: str, expected_head: str, batch: EventBatch, change: Change, done: Done
    ) -> Pending:
        began = time.perf_counter()

        def counted(error: BaseException | None) -> None:
            self._count(began, error)
            done(error)

        assert self._inner_soon is not None  # noqa: S101 - only then is this the store's
        return self._inner_soon(session_id, expected_head, batch, change, counted)

    def _count(self, began: float, error: BaseException | None) -> None:
        if error is None:
            self._metrics.append(time.perf_counter() - began)
        else:
            self._metrics.append_failed(error.code if isinstance(error, CRAError) else "refused")


async def scrape(call: Call) -> Answer:
    """Give what was counted."""
    service, identity = call.service, call.identity
    # How much all of them do is for who runs the service: an identity of `system`, or of development.
    whole = identity.tenant == SYSTEM_TENANT or identity.credential == "dev"
    text = service.metrics.text(service.gate.active, service.streams.active, None if whole else identity.tenant)
    return Response(text, media=_CONTENT_TYPE)
