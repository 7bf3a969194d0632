"""What the operator owns is put back; what it does not own is left alone; otherwise it is silent (acceptance F)."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cluster.audit import OPERATOR, last_write, position, writes
from tests.cluster.conftest import SYSTEM, ready
from tests.cluster.kube import Kube, pod_ready, until

QUIET_S = 120


def test_the_steady_state_is_silent_for_two_minutes(kube: Kube, platform: str) -> None:
    """Comes first here: the tests before it use the platform and change nothing, so most of the time is over."""
    ready(kube)
    mark = position(kube)

    def silent() -> bool:
        at, what = last_write(kube, user=OPERATOR)
        told.append(f"{at:%H:%M:%S} {what}")
        return (datetime.now(UTC) - at).total_seconds() >= QUIET_S

    told: list[str] = []
    until(silent, within_s=QUIET_S + 15, what="two minutes without a write", report=lambda: told[-1], every_s=5)
    assert position(kube) > mark, "the audit log grew: it does record writes (Lease renewals, kubelet)"


def test_a_deleted_deployment_is_back_and_ready_within_30_s(kube: Kube, platform: str) -> None:
    old = kube.must("deployment", "novacore-memory", platform)["metadata"]["uid"]
    mark = position(kube)
    kube.delete("deployment", "novacore-memory", platform)

    def back() -> bool:
        now = kube.get("deployment", "novacore-memory", platform)
        return bool(now and now["metadata"]["uid"] != old and now["status"].get("availableReplicas"))

    until(back, within_s=30, what="deployment novacore-memory is back and available")
    ready(kube, within_s=60)
    # The witness of the quiet tests does see the operator's writes.
    assert any("deployments novacore/novacore-memory" in write for write in writes(kube, user=OPERATOR, since=mark))


@pytest.mark.parametrize(
    ("kind", "name", "patch", "read"),
    [
        ("deployment", "novacore-memory", {"spec": {"replicas": 0}}, lambda o: o["spec"]["replicas"]),
        (
            "service",
            "novacore-memory",
            {"spec": {"selector": {"app.kubernetes.io/component": "nobody"}}},
            lambda o: o["spec"]["selector"]["app.kubernetes.io/component"],
        ),
        ("configmap", "novacore-memory-settings", {"data": {"settings.yaml": "log_level: debug"}}, lambda o: o["data"]),
        ("secret", "novacore-memory-creds", {"data": {"postgres.jws": "Z2FyYmFnZQ=="}}, lambda o: o["data"]),
        (
            "serviceaccount",
            "novacore-memory",
            {"automountServiceAccountToken": True},
            lambda o: o.get("automountServiceAccountToken"),
        ),
        ("networkpolicy", "novacore-memory", {"spec": {"ingress": [{}]}}, lambda o: o["spec"]["ingress"]),
    ],
)
def test_a_changed_field_is_put_back(kube: Kube, platform: str, kind: str, name: str, patch: Any, read: Any) -> None:
    before = read(kube.must(kind, name, platform))
    kube.run("patch", kind, name, "-n", platform, "--type=merge", "-p", json.dumps(patch))
    until(lambda: read(kube.must(kind, name, platform)) == before, within_s=15, what=f"{kind}/{name} put back")
    ready(kube, within_s=120)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("service", "novacore-gateway-public"),
        ("configmap", "novacore-keyset-root"),
        ("secret", "novacore-userjwt-private"),
    ],
)
def test_a_deleted_object_is_put_back(kube: Kube, platform: str, kind: str, name: str) -> None:
    before = kube.must(kind, name, platform)
    kube.delete(kind, name, platform)
    after = until(lambda: kube.get(kind, name, platform), within_s=15, what=f"{kind}/{name} is back")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after.get("data") == before.get("data"), "the same content, never a new key"
    ready(kube, within_s=60)


def test_foreign_labels_and_annotations_stay(kube: Kube, platform: str) -> None:
    kube.run("label", "deployment", "novacore-memory", "-n", platform, "team=blue", "--overwrite")
    kube.run("annotate", "service", "novacore-memory", "-n", platform, "example.test/note=mine", "--overwrite")
    patches = {"deployment": {"spec": {"replicas": 0}}, "service": {"spec": {"type": "NodePort"}}}
    for kind, patch in patches.items():
        kube.run("patch", kind, "novacore-memory", "-n", platform, "--type=merge", "-p", json.dumps(patch))

    def repaired() -> bool:
        deployment = kube.must("deployment", "novacore-memory", platform)
        service = kube.must("service", "novacore-memory", platform)
        return deployment["spec"]["replicas"] == 1 and service["spec"]["type"] == "ClusterIP"

    until(repaired, within_s=15, what="our fields are put back")
    assert kube.must("deployment", "novacore-memory", platform)["metadata"]["labels"]["team"] == "blue"
    assert kube.must("service", "novacore-memory", platform)["metadata"]["annotations"]["example.test/note"] == "mine"


def test_an_operator_restart_writes_and_restarts_nothing(kube: Kube, platform: str) -> None:
    ready(kube)
    pods = _staying(kube, platform)
    mark = position(kube)
    kube.run("rollout", "restart", "deployment/novacore-operator", "-n", SYSTEM)
    kube.run("rollout", "status", "deployment/novacore-operator", "-n", SYSTEM, "--timeout=120s", timeout_s=130)
    _leads_again(kube)
    threading.Event().wait(20)  # the observation itself: a first pass over a warm cache takes about a second
    assert writes(kube, user=OPERATOR, since=mark) == []
    assert _staying(kube, platform) == pods


def _staying(kube: Kube, namespace: str) -> set[str]:
    """Names of the pods that are not on their way out (the test before may have left one)."""
    return {p["metadata"]["name"] for p in kube.list("pods", namespace) if "deletionTimestamp" not in p["metadata"]}


def _leads_again(kube: Kube) -> None:
    def holder() -> bool:
        lease = kube.must("lease", "novacore-operator", SYSTEM)["spec"].get("holderIdentity") or ""
        pods = kube.list("pods", SYSTEM, "app.kubernetes.io/name=novacore-operator")
        return any(
            pod_ready(p) and lease.startswith(p["metadata"]["name"])
            for p in pods
            if "deletionTimestamp" not in p["metadata"]
        )

    until(holder, within_s=60, what="the new operator pod holds the Lease")
