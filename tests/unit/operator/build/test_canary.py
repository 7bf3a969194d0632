"""The canary's Deployment, beside that of its service."""

from __future__ import annotations

from typing import Any

from novacore_contracts.services import BY_NAME
from novacore_operator.build.canary import build_canary
from novacore_operator.state.names import ANNOTATION_TEMPLATE
from tests.unit.operator.build.objects import Objects, build


def both(**spec: Any) -> tuple[Objects, Any, Any]:
    """Return all objects, the Deployment of memory, and its canary."""
    objects = build(**spec)
    deployment = objects["Deployment", "novacore-memory"]
    return objects, deployment, build_canary(BY_NAME["memory"], deployment)


def selects(selector: dict[str, str], template: Any) -> bool:
    """Return whether a selector takes the pods of a template."""
    return selector.items() <= template["metadata"]["labels"].items()


def test_the_canary_is_one_new_pod_and_differs_by_a_label_alone() -> None:
    _, deployment, canary = both(profile="Production")
    assert (canary["metadata"]["name"], canary["spec"]["replicas"]) == ("novacore-memory-canary", 1)
    assert canary["spec"]["template"]["spec"] == deployment["spec"]["template"]["spec"]
    labels = dict(canary["spec"]["template"]["metadata"]["labels"])
    assert labels.pop("novacore.ai/track") == "canary"
    assert labels == deployment["spec"]["template"]["metadata"]["labels"]


def test_the_canary_counts_none_of_the_services_pods() -> None:
    _, deployment, canary = both()
    wanted = canary["spec"]["selector"]["matchLabels"]
    assert selects(wanted, canary["spec"]["template"])
    assert not selects(wanted, deployment["spec"]["template"])


def test_the_canary_serves_and_is_protected_like_the_services_pods() -> None:
    """Its Service, its NetworkPolicy and its disruption budget take the canary in."""
    objects, _, canary = both(profile="Production")
    template = canary["spec"]["template"]
    assert selects(objects["Service", "novacore-memory"]["spec"]["selector"], template)
    for kind, name in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
        assert selects(objects[kind, "novacore-memory"]["spec"][name]["matchLabels"], template)


def test_the_canarys_pod_tells_that_it_is_the_canarys() -> None:
    _, deployment, canary = both()
    mark = canary["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    assert canary["spec"]["template"]["metadata"]["annotations"][ANNOTATION_TEMPLATE] == mark
    assert mark != deployment["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    assert build_canary(BY_NAME["memory"], deployment) == canary


def test_the_canary_of_an_older_release_tells_it_too() -> None:
    _, _, canary = both(version="0.1.0")
    mark = canary["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    assert canary["spec"]["template"]["metadata"]["annotations"][ANNOTATION_TEMPLATE] == mark


def test_the_number_of_an_autoscaled_service_is_not_the_canarys() -> None:
    _, deployment, canary = both(services={"memory": {"autoscaling": {"maxReplicas": 5}}})
    assert "replicas" not in deployment["spec"]
    assert canary["spec"]["replicas"] == 1
    assert set(canary["metadata"]["annotations"]) == {ANNOTATION_TEMPLATE, "novacore.ai/desired"}
