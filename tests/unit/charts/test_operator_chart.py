"""The operator's chart: valid objects, least privilege, restricted pods, and selectors that never change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from novacore_contracts.releases import CURRENT
from novacore_contracts.services import BY_NAME, INTERNAL_PORT
from novacore_operator.state.names import MANAGER, root_secret
from tests.unit.charts.conftest import OPERATOR, PLATFORM, ROOT, Manifest, named, of_kind, one, values_files

Render = Callable[..., list[Manifest]]
VERSIONS = tuple(f"1.{minor}" for minor in range(30, 38))
RESTRICTED_VOLUMES = {
    "configMap",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
ALL = pytest.mark.parametrize("file", values_files(OPERATOR), ids=named)


@pytest.mark.parametrize("version", VERSIONS)
@ALL
def test_every_object_is_valid_for_every_supported_kubernetes(
    operator: Render, file: Path | None, version: str
) -> None:
    for manifest in operator(file=file):
        if (
            manifest["kind"] != "CustomResourceDefinition"
        ):  # its schema is of the API server's own making: cluster tests
            kubernetes_validate.validate(manifest, version, strict=True)


@ALL
def test_pods_pass_pod_security_restricted(operator: Render, file: Path | None) -> None:
    pod = one(operator(file=file), "Deployment")["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for volume in pod["volumes"]:
        assert set(volume) - {"name"} <= RESTRICTED_VOLUMES
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert "privileged" not in context


@ALL
def test_no_token_is_mounted_by_default_and_no_secret_comes_by_environment(operator: Render, file: Path | None) -> None:
    manifests = operator(file=file)
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    for account in of_kind(manifests, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert "envFrom" not in container
        for variable in container["env"]:
            assert set(variable["valueFrom"]) == {"fieldRef"}


@ALL
def test_selectors_hold_only_what_never_changes(operator: Render, file: Path | None) -> None:
    stable = {"app.kubernetes.io/name": MANAGER, "app.kubernetes.io/instance": "novacore-operator"}
    manifests = operator(file=file)
    deployment = one(manifests, "Deployment")
    assert deployment["spec"]["selector"] == {"matchLabels": stable}
    assert stable.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    for service in of_kind(manifests, "Service"):
        assert service["spec"]["selector"] == stable
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        for manifest in of_kind(manifests, kind):
            assert manifest["spec"][field] == {"matchLabels": stable}


@ALL
def test_every_object_carries_the_recommended_labels(operator: Render, file: Path | None) -> None:
    for manifest in operator(file=file):
        labels = manifest["metadata"]["labels"]
        for name in ("name", "instance", "version", "component", "part-of", "managed-by"):
            assert f"app.kubernetes.io/{name}" in labels, manifest["kind"]


def test_the_crd_is_the_generated_one_and_is_kept(operator: Render) -> None:
    crd = one(operator(), "CustomResourceDefinition")
    committed = yaml.safe_load((ROOT / "crds/novacoredeployments.novacore.ai.yaml").read_text())
    assert crd["spec"] == committed["spec"]
    assert crd["metadata"]["name"] == committed["metadata"]["name"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_crd_can_be_let_go_or_left_out(operator: Render) -> None:
    assert "annotations" not in one(operator({"crds": {"keep": False}}), "CustomResourceDefinition")["metadata"]
    assert not of_kind(operator({"crds": {"enabled": False}}), "CustomResourceDefinition")


def test_watching_all_namespaces_names_those_that_may_review_tokens(operator: Render) -> None:
    manifests = operator({"installationNamespaces": ["a", "b"]})
    reviewers = [
        binding for binding in of_kind(manifests, "ClusterRoleBinding") if "reviewer" in binding["metadata"]["name"]
    ]
    assert [subject["namespace"] for subject in reviewers[0]["subjects"]] == ["a", "b"]
    assert {subject["name"] for subject in reviewers[0]["subjects"]} == {BY_NAME["auth-billing"].full_name}
    assert {role["metadata"]["name"] for role in of_kind(manifests, "ClusterRole")} == {
        "novacore-operator",
        "novacore-token-reviewer",
    }


def test_watched_namespaces_get_a_role_each_and_the_operator_no_cluster_role(operator: Render) -> None:
    manifests = operator({"watchNamespaces": ["a", "b"]})
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]) for role in of_kind(manifests, "Role")}
    assert roles == {
        ("a", "novacore-operator"),
        ("b", "novacore-operator"),
        ("novacore-system", "novacore-operator-own"),
    }
    (cluster_role,) = of_kind(manifests, "ClusterRole")
    assert cluster_role["rules"] == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    ]
    (binding,) = of_kind(manifests, "ClusterRoleBinding")
    assert [subject["namespace"] for subject in binding["subjects"]] == ["a", "b"]
    args = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [word for word in args if word.startswith("--namespace")] == ["--namespace=a", "--namespace=b"]


def test_every_binding_points_at_a_role_and_an_account_of_the_chart(operator: Render) -> None:
    for values in ({}, {"watchNamespaces": ["a"]}):
        manifests = operator(values)
        account = one(manifests, "ServiceAccount")["metadata"]
        roles = {(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests if "rules" in m}
        for binding in [*of_kind(manifests, "RoleBinding"), *of_kind(manifests, "ClusterRoleBinding")]:
            role = binding["roleRef"]
            assert (role["kind"], binding["metadata"].get("namespace"), role["name"]) in roles
            for subject in binding["subjects"]:
                if subject["name"] == account["name"]:
                    assert subject["namespace"] == account["namespace"]


def rules(manifests: list[Manifest]) -> Iterator[dict[str, Any]]:
    for manifest in manifests:
        yield from manifest.get("rules", [])


@ALL
def test_no_rule_holds_a_wildcard_or_grants_its_own_growth(operator: Render, file: Path | None) -> None:
    for rule in rules(operator(file=file)):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
        assert "rbac.authorization.k8s.io" not in rule["apiGroups"]


def test_secrets_of_users_are_read_by_name_only(operator: Render) -> None:
    with_secret = list(rules(operator({"referencedSecrets": ["model-key"]})))
    assert {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["model-key"],
        "verbs": ["get"],
    } in with_secret


@pytest.mark.parametrize("watched", [[], ["a", "b"]], ids=["cluster", "namespaces"])
def test_secrets_are_granted_by_name_outside_the_operators_own_namespace(operator: Render, watched: list[str]) -> None:
    manifests = operator({"watchNamespaces": watched})
    own = [role for role in of_kind(manifests, "Role") if role["metadata"]["name"].endswith("-own")]
    others = [manifest for manifest in manifests if manifest not in own]
    assert all(rule.get("resourceNames") for rule in rules(others) if "secrets" in rule["resources"])
    (roots,) = [rule for rule in rules(own) if "secrets" in rule["resources"]]
    assert roots.get("resourceNames", []) == [root_secret(namespace) for namespace in watched]
    assert "delete" not in roots["verbs"]  # listed and watched, so that a change is seen at once


def test_a_disruption_budget_exists_only_over_several_pods(operator: Render) -> None:
    assert not of_kind(operator({"replicaCount": 1}), "PodDisruptionBudget")
    assert of_kind(operator({"replicaCount": 2}), "PodDisruptionBudget")


def test_by_default_a_second_pod_stands_by_and_one_of_the_two_stays(operator: Render) -> None:
    manifests = operator()
    assert one(manifests, "Deployment")["spec"]["replicas"] == 2
    assert one(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_network_policy_lets_the_operator_reach_the_internal_port(operator: Render) -> None:
    policy = one(operator(), "NetworkPolicy")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert INTERNAL_PORT in ports
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]


def test_a_digest_wins_over_a_tag_and_a_registry_stands_in_front(operator: Render) -> None:
    def image(values: dict[str, str]) -> str:
        pod = one(operator({"image": values}), "Deployment")["spec"]["template"]["spec"]
        return str(pod["containers"][0]["image"])

    assert image({}) == f"novacore/operator:{CURRENT}"
    assert (
        image({"registry": "registry.example.test:5000", "tag": "x"})
        == "registry.example.test:5000/novacore/operator:x"
    )
    digest = "sha256:" + "a" * 64
    assert image({"tag": "x", "digest": digest}) == f"novacore/operator@{digest}"


def test_probes_ask_the_operator_and_not_the_api_server(operator: Render) -> None:
    container = one(operator(), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]


def test_both_charts_carry_the_current_release(operator: Render) -> None:
    for chart in (OPERATOR, PLATFORM):
        meta = yaml.safe_load((chart / "Chart.yaml").read_text())
        assert meta["version"] == meta["appVersion"] == CURRENT
        assert meta["kubeVersion"] == ">=1.30-0"
