"""Wrong input is refused by the API server with a sentence that says what to do, or a condition does (acceptance G)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.kube import Kube, KubectlError, condition, until


def nova(namespace: str, name: str = "novacore", **spec: Any) -> dict[str, Any]:
    """A minimal resource."""
    return {
        "apiVersion": "novacore.ai/v1alpha1",
        "kind": "NovaCoreDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"version": "0.1.0", **spec},
    }


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"services": {"gatway": {"replicas": 1}}}, "has a service that does not exist"),
        ({"services": {"gateway": {"replicas": -1}}}, "replicas must be 0 or more"),
        ({"postgres": {"mode": "External"}}, "postgres.external.adminSecretRef.name"),
        ({"version": "latest"}, "spec.version"),
        ({"profile": "Fast"}, "spec.profile"),
        ({"models": {"llm": {"provider": "openai"}}}, "baseURL"),
    ],
)
def test_the_api_server_refuses_and_says_what_to_do(
    kube: Kube, platform: str, namespace: str, spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(KubectlError) as refused:
        kube.apply(nova(namespace, **spec), server_side=True)
    assert sentence in str(refused.value)


def test_a_version_that_does_not_exist_becomes_a_condition(kube: Kube, platform: str, namespace: str) -> None:
    kube.apply(nova(namespace, version="9.9.9"))
    found = until(
        lambda: condition(kube.must("nova", "novacore", namespace), "Ready"), within_s=20, what="a Ready condition"
    )
    assert found["status"] == "False"
    assert found["reason"] == "VersionUnknown"
    assert "0.1.0" in found["message"], "the message names a version that exists"
    assert kube.list("deployments", namespace) == []


def test_a_second_resource_in_a_namespace_gets_a_condition_and_no_fight(kube: Kube, platform: str) -> None:
    kube.apply(nova(platform, name="second"))
    try:
        found = until(
            lambda: condition(kube.must("nova", "second", platform), "Ready"), within_s=20, what="a Ready condition"
        )
        assert (found["status"], found["reason"]) == ("False", "NamespaceTaken")
        assert condition(kube.must("nova", "novacore", platform), "Ready")["status"] == "True"
    finally:
        kube.delete("nova", "second", platform)
