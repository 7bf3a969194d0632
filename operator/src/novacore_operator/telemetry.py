"""The operator's own log lines and metrics.

One JSON object per line, also for kopf's and aiohttp's lines. Metrics exist only as the contracts' registry lists them.
Never in a line: a body, a Secret's content, a token.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from novacore_contracts.metrics import metrics_of

context: ContextVar[Mapping[str, Any]] = ContextVar("context", default=MappingProxyType({}))
"""Fields of every line of the current task: cr, generation, reconcile_id."""

VERSION = version("novacore-operator")


class JsonLines(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": "operator",
            "version": VERSION,
            "pod": os.environ.get("POD_NAME", os.uname().nodename),
            "event": record.getMessage(),
            "logger": record.name,
            **context.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = {"type": record.exc_info[0].__name__, "stack": self.formatException(record.exc_info)}
        return json.dumps(line, default=str, ensure_ascii=False)


class Log:
    """`log.info("object_written", object="Deployment novacore-memory")`: an event's name, then its fields."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Log for developers."""
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """Log what happened."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Log what a person may want to look at."""
        self._logger.warning(event, extra={"fields": fields})

    def exception(self, event: str, **fields: Any) -> None:
        """Log a defect with its stack."""
        self._logger.exception(event, extra={"fields": fields})


def configure(level: str) -> None:
    """Send every logger's lines to standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)


def _full(name: str) -> str:
    return name if name.startswith("novacore_") else f"novacore_operator_{name}"


class Metrics:
    """The operator's metrics by name, made from the registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._all: dict[str, Counter | Gauge | Histogram] = {}
        for metric in metrics_of("operator"):
            labels = [label.name for label in metric.labels]
            if metric.kind == "counter":
                self._all[metric.name] = Counter(metric.name, metric.help, labels, registry=self.registry)
            elif metric.kind == "gauge":
                self._all[metric.name] = Gauge(metric.name, metric.help, labels, registry=self.registry)
            else:
                self._all[metric.name] = Histogram(
                    metric.name, metric.help, labels, buckets=metric.buckets, registry=self.registry
                )

    def count(self, name: str, /, **labels: str) -> None:
        """Add one to a counter. `name` without the operator's prefix."""
        metric = self._all[_full(name)]
        if isinstance(metric, Counter):
            (metric.labels(**labels) if labels else metric).inc()

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge."""
        metric = self._all[_full(name)]
        if isinstance(metric, Gauge):
            (metric.labels(**labels) if labels else metric).set(value)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add a value to a histogram."""
        metric = self._all[_full(name)]
        if isinstance(metric, Histogram):
            (metric.labels(**labels) if labels else metric).observe(value)

    def remove(self, name: str, /, **labels: str) -> None:
        """Forget a child, so that a deleted installation leaves no series behind."""
        metric = self._all[_full(name)]
        wanted = tuple(labels.values())
        for child in [child for child in list(metric._metrics) if child[: len(wanted)] == wanted]:  # noqa: SLF001
            metric.remove(*child)
