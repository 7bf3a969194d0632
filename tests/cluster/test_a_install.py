"""Apply one resource, and nine services become Ready (acceptance A, H)."""

from __future__ import annotations

import base64
import json

from novacore_contracts.services import BY_NAME, SERVICES
from tests.cluster.conftest import NAMESPACE, SYSTEM
from tests.cluster.kube import Kube, condition


def test_one_resource_becomes_nine_ready_services(kube: Kube, platform: str) -> None:
    nova = kube.must("nova", "novacore", platform)
    for kind in ("Ready", "DataStoresReady", "MigrationsApplied", "SecretsReady"):
        assert condition(nova, kind)["status"] == "True", kind
    assert condition(nova, "Progressing")["status"] == "False"
    assert nova["status"]["observedGeneration"] == nova["metadata"]["generation"]
    components = {c["name"]: c for c in nova["status"]["components"]}
    assert set(BY_NAME) | {"postgres", "redis"} <= set(components)
    assert all(component["ready"] for component in components.values())
    for service in SERVICES:
        deployment = kube.must("deployment", service.full_name, platform)
        assert deployment["status"]["availableReplicas"] == deployment["spec"]["replicas"]


def test_kubectl_get_and_wait_tell_the_same(kube: Kube, platform: str) -> None:
    kube.run("wait", "nova/novacore", "-n", platform, "--for=condition=Ready", "--timeout=10s")
    header, row = kube.run("get", "nova", "-n", platform).splitlines()
    columns = dict(zip(header.split(), row.split(), strict=False))
    assert columns["READY"] == "True"
    assert columns["SERVICES"] == "9/9"


def test_owned_objects_carry_an_owner_and_no_finalizer(kube: Kube, platform: str) -> None:
    uid = kube.must("nova", "novacore", platform)["metadata"]["uid"]
    assert "finalizers" not in kube.must("nova", "novacore", platform)["metadata"]
    for service in SERVICES:
        owners = kube.must("deployment", service.full_name, platform)["metadata"]["ownerReferences"]
        assert [owner["uid"] for owner in owners if owner.get("controller")] == [uid]


def test_every_pod_passes_restricted_pod_security(kube: Kube, platform: str) -> None:
    labels = kube.must("namespace", platform, platform)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len(kube.list("pods", platform)) >= 11


def test_no_pod_mounts_a_default_service_account_token(kube: Kube, platform: str) -> None:
    for pod in kube.list("pods", platform):  # the operator's own pod talks to the API server and mounts its token
        assert pod["spec"].get("automountServiceAccountToken") is False, pod["metadata"]["name"]
        mounts = [m["mountPath"] for c in pod["spec"]["containers"] for m in c.get("volumeMounts", [])]
        assert "/var/run/secrets/kubernetes.io/serviceaccount" not in mounts, pod["metadata"]["name"]


def test_no_environment_variable_or_argument_holds_a_secret(kube: Kube, platform: str) -> None:
    """Neither by reference nor by value: each stored secret value is looked for in the live pod specs."""
    specs = {p["metadata"]["name"]: p["spec"] for p in kube.list("pods", NAMESPACE) + kube.list("pods", SYSTEM)}
    for name, spec in specs.items():
        for container in spec["containers"] + spec.get("initContainers", []):
            assert "envFrom" not in container, name
            assert not [e for e in container.get("env", []) if "secretKeyRef" in e.get("valueFrom", {})], name
    values = {
        leaf
        for secret in kube.list("secrets", NAMESPACE) + kube.list("secrets", SYSTEM)
        if secret["type"] != "helm.sh/release.v1"
        for value in secret.get("data", {}).values()
        for leaf in secret_strings(base64.b64decode(value).decode(errors="replace"))
    }
    assert len(values) > 40, "hardly a secret found: the check would prove nothing"
    text = json.dumps(specs)
    assert not [value for value in values if value in text]


def secret_strings(content: str) -> set[str]:
    """Return what of a Secret's value must appear nowhere: its lines, and what lies in its JSON or JWS, 16 and longer."""
    found = {line for line in content.splitlines() if not line.startswith("-----")}
    parts = content.split(".")
    if len(parts) == 3 and "\n" not in content:
        content = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode(errors="replace")
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    queue = [document]
    while queue:
        item = queue.pop()
        if isinstance(item, dict):
            public = {"host", "kid", "active_kid", "ring", "x", "y", "user", "name", "member_of", "database", "sslmode"}
            queue += [value for key, value in item.items() if key not in public]
        elif isinstance(item, list):
            queue += item
        elif isinstance(item, str):
            found.add(item)
    return {text for text in found if len(text) >= 16}


def test_workloads_run_as_non_root_with_a_read_only_root(kube: Kube, platform: str) -> None:
    pods = kube.list("pods", platform) + kube.list("pods", SYSTEM)
    assert len(pods) >= len(SERVICES) + 3
    for spec in (pod["spec"] for pod in pods):
        for container in spec["containers"]:
            context = {**spec["securityContext"], **container["securityContext"]}
            assert context["runAsNonRoot"] is True
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
