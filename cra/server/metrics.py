"""Counters and histograms for Prometheus."""

from __future__ import annotations

import os
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from cra._core.chain import EventBatch
from cra.errors import CRAError
from cra.server.call import Answer, Call, Response
from cra.storage.base import Change, Storage

TEXT = "text/plain"
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# As many tenants have a label of their own; the others share one.
MAX_TENANT_LABELS = 100
_OTHERS = "others"
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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
        self._tenants: set[str] = set()
        self._landed = self._appends.labels("ok")

    def request(self, route: str, method: str, status: int, tenant: str, seconds: float) -> None:
        """Count an answered request; `seconds` is what it took."""
        # PERF: looking a child up by its labels takes 1 us, in a dictionary 0.1.
        key = (route, method, status, tenant)
        pair = self._children.get(key)
        if pair is None:
            labels = (route, method, str(status), self._tenant(tenant))
            pair = self._children[key] = (self._requests.labels(*labels), self._seconds.labels(route))
        pair[0].inc()
        pair[1].observe(seconds)

    def decision(self, operation: str, decision: str, tenant: str) -> None:
        """Count an answer to a CARP request."""
        key = (operation, decision, tenant)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._decisions.labels(operation, decision, self._tenant(tenant))
        child.inc()

    def append(self, seconds: float) -> None:
        """Count an append that has landed."""
        self._landed.inc()
        self._append_seconds.observe(seconds)

    def append_failed(self, code: str) -> None:
        """Count an append that has not landed."""
        self._appends.labels(code).inc()

    def cut(self, reason: str) -> None:
        """Count a live trace that was cut off."""
        self._cut.labels(reason).inc()

    def text(self, calls: int, streams: int) -> bytes:
        """Return everything in the text exposition format."""
        self._active.labels("call").set(calls)
        self._active.labels("stream").set(streams)
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _tenant(self, name: str) -> str:
        if name in self._tenants or len(self._tenants) < MAX_TENANT_LABELS:
            self._tenants.add(name)
            return name
        return _OTHERS


class MeteredStorage:
    """A store whose appends are counted; everything else is the store's own."""

    def __init__(self, inner: Storage, metrics: Metrics) -> None:
        self.inner = inner
        self._metrics = metrics
        self._append = inner.append

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        # PERF: found here once, and from then on as an attribute.
        if callable(value):
            self.__dict__[name] = value
        return value

    def of_tenant(self, tenant: str) -> MeteredStorage:
        """Return another tenant's part, counted too."""
        return MeteredStorage(self.inner.of_tenant(tenant), self._metrics)

    def append(self, session_id: str, expected_head: str, batch: EventBatch, change: Change) -> None:
        """Append, and count it."""
        began = time.perf_counter()
        try:
            self._append(session_id, expected_head, batch, change)
        except CRAError as error:
            self._metrics.append_failed(error.code)
            raise
        except Exception:
            self._metrics.append_failed("refused")
            raise
        self._metrics.append(time.perf_counter() - began)


async def scrape(call: Call) -> Answer:
    """Give what was counted."""
    service = call.service
    return Response(service.metrics.text(service.gate.active, service.streams.active), media=_CONTENT_TYPE)
