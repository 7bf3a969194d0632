"""What users may add to a service's pods, and how pods are spread."""

from __future__ import annotations

from typing import Any

import pytest

from novacore_contracts.services import SERVICES
from tests.unit.operator.build.objects import build, templates


def pod(service: str = "memory", **settings: Any) -> dict[str, Any]:
    """Return the pod spec of a service with these settings."""
    found: dict[str, Any] = templates(build(services={service: settings}))[f"novacore-{service}"]["spec"]
    return found


def test_environment_variables_stand_in_one_order() -> None:
    found = pod(env={"TZ": "UTC", "HTTP_PROXY": "http://proxy:3128"})["containers"][0]["env"]
    assert found == [{"name": "HTTP_PROXY", "value": "http://proxy:3128"}, {"name": "TZ", "value": "UTC"}]


def test_an_empty_variable_has_no_value_as_the_api_server_keeps_it() -> None:
    assert pod(env={"NO_PROXY": ""})["containers"][0]["env"] == [{"name": "NO_PROXY"}]


@pytest.mark.parametrize("settings", [{}, {"env": {}}], ids=str)
def test_without_variables_there_is_no_field(settings: dict[str, Any]) -> None:
    assert "env" not in pod(**settings)["containers"][0]


def test_pods_of_one_revision_are_spread_over_nodes() -> None:
    for service in SERVICES:
        (spread,) = pod(service.name)["topologySpreadConstraints"]
        assert spread == {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {
                "matchLabels": {
                    "app.kubernetes.io/name": "novacore",
                    "app.kubernetes.io/component": service.name,
                }
            },
            "matchLabelKeys": ["pod-template-hash"],
        }


def test_a_spread_of_ones_own_replaces_the_usual_one() -> None:
    wanted = {"maxSkew": 2, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    (spread,) = pod(topologySpreadConstraints=[wanted])["topologySpreadConstraints"]
    assert wanted.items() <= spread.items()
    assert pod(topologySpreadConstraints=[]).get("topologySpreadConstraints") is None


def test_the_profile_changes_no_template_but_by_its_setting() -> None:
    """More pods of a service are not other pods: a change of replicas restarts none."""
    assert pod(replicas=1) == pod(replicas=5)


@pytest.mark.parametrize("name", ["memory", "reflection-worker", "mcp-server"])
def test_a_disabled_service_has_no_object_but_its_credentials(name: str) -> None:
    with_it, without = build(profile="Production"), build(profile="Production", services={name: {"enabled": False}})
    gone = {key for key in with_it if key not in without}
    full = f"novacore-{name}"
    assert gone == {
        ("Deployment", full),
        ("Service", full),
        ("ServiceAccount", full),
        ("NetworkPolicy", full),
        ("PodDisruptionBudget", full),
        ("ConfigMap", f"{full}-settings"),
    }
    assert ("Secret", f"{full}-creds") in without
    others = [key for key in without if key[0] in ("Deployment", "StatefulSet")]
    assert all(without[key] == with_it[key] for key in others), "a neighbour would restart"
