"""PodDisruptionBudgets."""

from __future__ import annotations

from novacore_contracts.services import Service
from novacore_operator.build.common import manifest, selector
from novacore_operator.build.scale import replicas
from novacore_operator.state import Manifest, Nova


def build_pod_disruption_budget(nova: Nova, service: Service) -> Manifest | None:
    """Return the disruption budget of one service, or None when it must not exist."""
    if replicas(nova, service) < 2:
        return None  # a budget over a single pod blocks every node drain
    return manifest(
        "PodDisruptionBudget",
        nova,
        service.full_name,
        component=service.name,
        spec={"maxUnavailable": 1, "selector": {"matchLabels": selector(service.name)}},
    )
