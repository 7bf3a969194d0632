"""A budget protects what can bear the loss of one pod."""

from typing import Any

import pytest

from novacore_contracts.services import SERVICES
from tests.unit.operator.build.objects import build


@pytest.mark.parametrize(
    ("settings", "exists"),
    [
        ({"replicas": 0}, False),
        ({"replicas": 1}, False),
        ({"replicas": 2}, True),
        ({"replicas": 5}, True),
        ({"autoscaling": {"maxReplicas": 5}}, False),
        ({"autoscaling": {"minReplicas": 2, "maxReplicas": 5}}, True),
    ],
    ids=str,
)
def test_a_budget_stands_only_over_two_pods_or_more(settings: dict[str, Any], exists: bool) -> None:
    objects = build(services={"memory": settings})
    assert (("PodDisruptionBudget", "novacore-memory") in objects) is exists


def test_production_has_a_budget_for_each_service_with_two_pods() -> None:
    names = {name for kind, name in build(profile="Production") if kind == "PodDisruptionBudget"}
    assert names == {service.full_name for service in SERVICES} - {"novacore-distillation-worker"}
