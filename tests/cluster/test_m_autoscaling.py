"""A service with `autoscaling` grows under load, and the operator leaves the number of its pods to the autoscaler."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from novacore_operator.build.common import selector
from tests.cluster.audit import OPERATOR, position, writes
from tests.cluster.conftest import change_spec, ready
from tests.cluster.kube import Kube, condition, until
from tests.cluster.watcher import Watcher

ROOT = Path(__file__).resolve().parents[2]
TARGET_PERCENT = 40
LOAD_S = 75
GROWN_WITHIN_S = 70
"""metrics-server looks every 15 s, the autoscaler every 15 s, and a pod starts in about 6."""
SCALED = {
    "models": {"llm": {"provider": "echo", "echo": {"delayMs": 5, "tokens": 32}}},  # the load is on the gateway
    "services": {
        "gateway": {"autoscaling": {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilization": TARGET_PERCENT}}
    },
}


pytestmark = pytest.mark.timeout(900)
"""On a new machine metrics-server is built from its module first."""


@pytest.fixture(scope="module")
def measured(kube: Kube, platform: str) -> None:
    """The cluster has a metrics-server."""
    name = kube.node.removesuffix("-control-plane")
    subprocess.run(
        [sys.executable, "-m", "hack.cluster", "metrics-server", "--name", name], cwd=ROOT, check=True, timeout=600
    )


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one time."""

    at_s: float
    wanted: int
    available: int
    ready: bool

    @property
    def short(self) -> bool:
        """Whether a pod is missing."""
        return self.available < self.wanted


class Looks(Watcher):
    """Looks at the gateway's Deployment, then at the resource, twice a second."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        super().__init__(self._see, every_s=0.5)
        self._kube, self._namespace = kube, namespace
        self._started = time.monotonic()
        self.all: list[Look] = []

    def _see(self) -> None:
        nova = self._kube.must("nova", "novacore", self._namespace)
        deployment = self._kube.must("deployment", "novacore-gateway", self._namespace)
        wanted, available = deployment["spec"].get("replicas", 1), deployment["status"].get("availableReplicas", 0)
        is_ready = condition(nova, "Ready").get("status") == "True"
        self.all.append(Look(time.monotonic() - self._started, wanted, available, is_ready))

    def untrue(self) -> list[tuple[Look, Look]]:
        """Return pairs of looks between which a pod was missing all the time, and the second still heard `Ready`.

        The resource was read before the Deployment, so at the second look it speaks of a time after the first.
        """
        return [
            (before, after)
            for before, after in zip(self.all, self.all[1:], strict=False)
            if before.short and after.short and before.wanted == after.wanted and after.ready
        ]


def cpu_millicores(kube: Kube, namespace: str) -> int | None:
    """Return what the gateway's pods use together, None as long as nobody has measured it."""
    labels = ",".join(f"{key}%3D{value}" for key, value in selector("gateway").items())
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={labels}"
    found = json.loads(kube.run("get", "--raw", path))["items"]
    used = [container["usage"]["cpu"] for pod in found for container in pod["containers"]]
    return sum(_millicores(text) for text in used) if used else None


def _millicores(text: str) -> int:
    scale = {"n": 1e-6, "u": 1e-3, "m": 1}.get(text[-1])
    return round(float(text[:-1]) * scale) if scale is not None else round(float(text) * 1000)


@pytest.fixture
def autoscaled(kube: Kube, platform: str, measured: None) -> Iterator[float]:
    """The gateway is scaled by an autoscaler; how many seconds it took until the installation was Ready again."""
    started = time.monotonic()
    with change_spec(kube, SCALED):
        ready(kube, within_s=120)
        yield time.monotonic() - started
    ready(kube, within_s=120)


def test_a_service_grows_under_load_and_the_operator_does_not_interfere(
    kube: Kube, platform: str, url: str, autoscaled: float, capfd: pytest.CaptureFixture[str]
) -> None:
    idle = until(lambda: cpu_millicores(kube, platform), within_s=60, what="the gateway's CPU is measured")
    deployment = kube.must("deployment", "novacore-gateway", platform)
    requested = _millicores(deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
    assert deployment["spec"]["replicas"] == 1
    assert idle < requested * TARGET_PERCENT // 100, "it would grow without any load"
    mark = position(kube)
    arguments = ("--users", "24", "--time", f"{LOAD_S}s", "--think", "0.5-1", "--p95", "60000", "--url", url)
    load = subprocess.Popen(
        [sys.executable, "-m", "loadtest", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started = time.monotonic()
    with Looks(kube, platform) as looks:
        grown = until(
            lambda: _available(kube, platform, at_least=2),
            within_s=GROWN_WITHIN_S,
            what="the gateway has two pods",
            report=lambda: kube.run("describe", "hpa", "-n", platform) + kube.report(platform),
        )
        seconds = time.monotonic() - started
        ready(kube, within_s=60)
        said, _ = load.communicate(timeout=LOAD_S + 60)
    with capfd.disabled():
        print(
            f"\nautoscaling: applied and Ready in {autoscaled:.1f} s; idle {idle}m of {requested}m; "
            f"1 to {grown} pods {seconds:.1f} s after the load began; {len(looks.all)} looks\n{said}"
        )
    assert load.returncode == 0, f"a request failed while it grew\n{said}"
    assert looks.untrue() == []
    ours = [write for write in writes(kube, user=OPERATOR, since=mark) if " deployments " in write]
    assert ours == [], "the operator wrote a Deployment while the autoscaler scaled it"
    assert _owner_of_replicas(kube, platform) == "kube-controller-manager"
    told = kube.must("nova", "novacore", platform)["status"]
    gateway = next(part for part in told["components"] if part["name"] == "gateway")
    assert gateway["ready"]
    assert gateway["desired"] >= 2


def test_without_autoscaling_the_spec_says_again_how_many(kube: Kube, platform: str) -> None:
    ready(kube)
    assert kube.list("hpa", platform) == []
    deployment = kube.must("deployment", "novacore-gateway", platform)
    assert (deployment["spec"]["replicas"], deployment["status"]["availableReplicas"]) == (1, 1)
    assert _owner_of_replicas(kube, platform) == "novacore-operator"


def _available(kube: Kube, namespace: str, *, at_least: int) -> int | None:
    pods: int = kube.must("deployment", "novacore-gateway", namespace)["status"].get("availableReplicas", 0)
    return pods if pods >= at_least else None


def _owner_of_replicas(kube: Kube, namespace: str) -> str:
    """Return the field managers of `spec.replicas`."""
    out = kube.run("get", "deployment", "novacore-gateway", "-n", namespace, "-o", "json", "--show-managed-fields")
    entries: list[dict[str, Any]] = json.loads(out)["metadata"]["managedFields"]
    return ",".join(sorted({e["manager"] for e in entries if "f:replicas" in e.get("fieldsV1", {}).get("f:spec", {})}))
