"""PodDisruptionBudgets."""

from __future__ import annotations

from collections.abc import Iterator

from novacore_contracts.services import Service
from novacore_operator.build.common import manifest, selector
from novacore_operator.build.scale import replicas
from novacore_operator.build.site import Site
from novacore_operator.state import Kind, Manifest, Nova

POD_DISRUPTION_BUDGET = Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets", wave=5)


def pod_disruption_budgets(site: Site) -> Iterator[Manifest | None]:
    """Return the disruption budgets of an installation."""
    for service in site.nova.spec.enabled_services():
        yield build_pod_disruption_budget(site.nova, service)


def build_pod_disruption_budget(nova: Nova, service: Service) -> Manifest | None:
    """Return the disruption budget of one service, or None when it must not exist."""
    if replicas(nova, service) < 2:
        return None  # a budget over a single pod blocks every node drain
    return manifest(
        POD_DISRUPTION_BUDGET,
        nova,
        service.full_name,
        component=service.name,
        spec={"maxUnavailable": 1, "selector": {"matchLabels": selector(service.name)}},
    )
