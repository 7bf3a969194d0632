"""An autoscaler stands where the resource asks for one."""

from __future__ import annotations

from typing import Any

import pytest

from novacore_contracts.services import BY_NAME
from novacore_operator.build.horizontal_pod_autoscaler import build_horizontal_pod_autoscaler
from novacore_operator.state import Nova
from tests.unit.operator.build.objects import build
from tests.unit.operator.make import make_nova

MEMORY = BY_NAME["memory"]


def scaled(**autoscaling: Any) -> Nova:
    """Return a resource whose service memory is scaled by load."""
    return make_nova(services={"memory": {"autoscaling": autoscaling}})


def test_there_is_none_without_autoscaling() -> None:
    assert build_horizontal_pod_autoscaler(make_nova(), MEMORY) is None
    assert not [name for kind, name in build(profile="Production") if kind == "HorizontalPodAutoscaler"]


def test_it_scales_the_deployment_by_cpu() -> None:
    found = build_horizontal_pod_autoscaler(scaled(minReplicas=2, maxReplicas=6, targetCPUUtilization=70), MEMORY)
    assert found is not None
    assert (found["apiVersion"], found["metadata"]["name"]) == ("autoscaling/v2", "novacore-memory")
    assert found["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "novacore-memory"},
        "minReplicas": 2,
        "maxReplicas": 6,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
            }
        ],
    }


@pytest.mark.parametrize(
    ("profile", "autoscaling", "least"),
    [
        ("Development", {"maxReplicas": 4}, 1),
        ("Production", {"maxReplicas": 4}, 2),
        ("Production", {"maxReplicas": 1}, 1),
        ("Production", {"minReplicas": 1, "maxReplicas": 4}, 1),
    ],
)
def test_the_least_number_is_the_profiles_unless_given(profile: str, autoscaling: dict[str, int], least: int) -> None:
    nova = make_nova(profile=profile, services={"memory": {"autoscaling": autoscaling}})
    found = build_horizontal_pod_autoscaler(nova, MEMORY)
    assert found is not None
    assert found["spec"]["minReplicas"] == least
