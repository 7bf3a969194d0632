"""The metric registry keeps its own rules."""

from __future__ import annotations

import pytest

from novacore_contracts.metrics import METRICS, metrics_of
from novacore_contracts.services import SERVICES

OWNERS = {service.name for service in SERVICES} | {"all", "workers", "operator"}
PERSONAL = {"user", "user_id", "session", "session_id", "email", "request_id", "path", "url", "raw_model", "raw_tool"}
# Names that OpenTelemetry gives, translated to Prometheus, and the HTTP names everybody uses.
FOREIGN = ("http_", "gen_ai_", "mcp_server_")


@pytest.mark.invariant("METRIC-1")
def test_names_are_unique():
    names = [metric.name for metric in METRICS]

    assert sorted(names) == sorted(set(names))


@pytest.mark.invariant("METRIC-2")
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_counters_and_only_counters_end_in_total(metric):
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not metric.name.endswith("_age_seconds")


@pytest.mark.invariant("METRIC-3")
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_label_has_values_or_a_bound(metric):
    for label in metric.labels:
        assert bool(label.values) != bool(label.bound), label.name
        assert len(set(label.values)) == len(label.values)


@pytest.mark.invariant("METRIC-4")
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_no_label_names_a_person_or_a_request(metric):
    assert not PERSONAL & {label.name for label in metric.labels}
    assert "service" not in {label.name for label in metric.labels}  # a ServiceMonitor sets it


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_histograms_have_rising_buckets_and_others_none(metric):
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_prefix_help_and_owner_are_proper(metric):
    assert metric.name.startswith(("novacore_", *FOREIGN))
    assert metric.help.endswith(".")
    assert set(metric.owners) <= OWNERS


@pytest.mark.parametrize("service", [service.name for service in SERVICES])
def test_a_service_stays_within_its_budget_of_series(service):
    """Upper bounds of one replica; the largest is intelligence. Own metrics, without HTTP and peers."""
    series = 0
    for metric in metrics_of(service):
        if "all" in metric.owners:
            continue
        children = 1
        for label in metric.labels:
            children *= label.size
        series += children * (len(metric.buckets) + 3 if metric.kind == "histogram" else 1)
    assert series <= {"intelligence": 4000, "mcp-server": 1500}.get(service, 600)


def test_the_operator_has_only_its_own():
    assert all(metric.owners == ("operator",) for metric in metrics_of("operator"))
