"""Prometheus objects, made only from the registry in `novacore_contracts.metrics`.

One registry per platform object, so that several services can live in one test process. Children of counters whose
labels are all enumerated exist from the start with 0. `_created` series are off: they are a fifth of the lines and
nobody reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, TypeVar, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    exposition,
)
from prometheus_client.openmetrics import exposition as openmetrics

from novacore_contracts.metrics import BY_NAME, Metric, metrics_of

disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped

M = TypeVar("M", Counter, Gauge, Histogram)
_CLASSES: dict[str, type[Any]] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class UnknownMetricError(KeyError):
    """The registry has no such metric for this service, or it is of another kind."""


class Metrics:
    """The metrics of one service. `owner` is the service's name."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self._made = {metric.name: self._make(metric) for metric in metrics_of(owner)}
        self._seen: dict[tuple[str, str], set[str]] = {}
        self._flushes: list[Callable[[], None]] = []

    def counter(self, name: str) -> Counter:
        """Return a counter; `name` with its `_total`. UnknownMetricError when the registry has no such one for us."""
        return cast("Counter", self._get(name, "counter"))

    def gauge(self, name: str) -> Gauge:
        """Return a gauge."""
        return cast("Gauge", self._get(name, "gauge"))

    def histogram(self, name: str) -> Histogram:
        """Return a histogram."""
        return cast("Histogram", self._get(name, "histogram"))

    def bounded(self, metric: str, label: str, value: str) -> str:
        """Return `value`, or "other" once the label's bound in the registry is used up."""
        bound = next(entry for entry in BY_NAME[metric].labels if entry.name == label).size
        seen = self._seen.setdefault((metric, label), set())
        if value in seen:
            return value
        if len(seen) >= bound - 1:
            return "other"
        seen.add(value)
        return value

    def before_reading(self, flush: Callable[[], None]) -> None:
        """Call `flush` before anything is read: for what is counted so often that a plain number must do meanwhile."""
        self._flushes.append(flush)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return body and content type for `/metrics`: OpenMetrics when asked for, for it alone carries exemplars."""
        self._flush()
        if "application/openmetrics-text" in accept:
            body: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]  # as above
            return body, openmetrics.CONTENT_TYPE_LATEST
        return exposition.generate_latest(self.registry), exposition.CONTENT_TYPE_LATEST

    def value(self, name: str, **labels: str) -> float:
        """Return a sample's value, 0.0 when there is none. For tests and for health answers."""
        self._flush()
        return self.registry.get_sample_value(name, labels) or 0.0

    def _flush(self) -> None:
        for flush in self._flushes:
            flush()

    def _get(self, name: str, kind: str) -> Counter | Gauge | Histogram:
        metric = BY_NAME.get(name)
        if metric is None or metric.kind != kind or name not in self._made:
            raise UnknownMetricError(f"{name} is no {kind} of {self.owner}: add it to novacore_contracts.metrics")
        return self._made[name]

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        options: dict[str, Any] = {"buckets": metric.buckets} if metric.kind == "histogram" else {}
        names = [label.name for label in metric.labels]
        build: Callable[..., Counter | Gauge | Histogram] = _CLASSES[metric.kind]
        made = build(metric.name, metric.help, names, registry=self.registry, **options)
        if metric.kind == "counter" and names and metric.enumerated:
            for values in product(*(label.values for label in metric.labels)):
                made.labels(*values)
        return made
