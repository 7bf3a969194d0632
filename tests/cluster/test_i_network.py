"""Who may reach whom, from the NetworkPolicies and pods that the cluster holds; how pods are spread and evicted.

The bare node image enforces no policy, so here they are evaluated by the rules of the API. Enforcement is tried by
`python3 -m hack.demo isolation` on the stock node image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from novacore_contracts.services import BY_NAME, INTERNAL_PORT, SERVICES
from novacore_operator.build.common import selector
from tests.cluster.conftest import NAMESPACE, SYSTEM, change_spec, ready
from tests.cluster.kube import Kube, KubectlError, until
from tests.kit.callmatrix import COMPONENTS, PATHS, STORES, is_a_path, ports
from tests.kit.reachability import Cluster, End, may_connect, selecting

OUTSIDE = End(address="203.0.113.7")
DOOR = BY_NAME["gateway"].port

Case = tuple[str, End, End, int, str, bool]
"""What it is, from, to, port, protocol, whether it should be allowed."""


@pytest.fixture(scope="module")
def live(kube: Kube, platform: str) -> Cluster:
    """The policies and pods of the cluster; the migration's pod has ended and is taken from its Job."""
    ready(kube)
    found = json.loads(kube.run("get", "networkpolicies,pods,namespaces", "-A", "-o", "json"))["items"]
    return Cluster.read(found)


@pytest.fixture(scope="module")
def pods(kube: Kube, live: Cluster, platform: str) -> dict[str, End]:
    """A live pod of each component."""
    here = {name: live.pod(platform, selector(name)) for name in COMPONENTS if name != "migrate"}
    job = kube.list("jobs", platform)[0]  # of this release or of one before: their labels are the same
    like = here["gateway"]
    return here | {"migrate": End(job["spec"]["template"]["metadata"]["labels"], platform, "", like.namespace_labels)}


def cases(live: Cluster, pods: dict[str, End]) -> Iterator[Case]:
    """Yield every case of the matrix."""
    for source, target, port in PATHS:
        yield f"{source} to {target}", pods[source], pods[target], port, "TCP", is_a_path(source, target)
    operator = live.pod(SYSTEM, {"app.kubernetes.io/name": "novacore-operator"})
    dns = live.pod("kube-system", {"k8s-app": "kube-dns"})
    neighbour = End({"app": "shell"}, NAMESPACE, "", pods["gateway"].namespace_labels)
    false_operator = End(operator.labels, "default")
    for name, pod in pods.items():
        for port in ports(name):
            door = name == "gateway" and port == DOOR
            for who, end in (
                ("a pod beside", neighbour),
                ("a pod of kube-system", dns),
                ("an address outside", OUTSIDE),
            ):
                yield f"{who} to {name}", end, pod, port, "TCP", door
            inner = name in BY_NAME and port == INTERNAL_PORT
            yield f"the operator to {name}", operator, pod, port, "TCP", inner
            yield f"a pod with the operator's labels to {name}", false_operator, pod, port, "TCP", door
        for protocol in ("UDP", "TCP"):
            yield f"{name} to DNS", pod, dns, 53, protocol, name not in STORES
        for port in (443, 6443):
            yield f"{name} to the API server", pod, OUTSIDE, port, "TCP", name == "auth-billing"
        for port in (25, 80, 8443):
            yield f"{name} to the Internet", pod, OUTSIDE, port, "TCP", False
        yield f"{name} to the operator", pod, operator, 8080, "TCP", False
    for port in (443, 6443):
        yield "the operator to the API server", operator, OUTSIDE, port, "TCP", True
    yield "the operator to the Internet", operator, OUTSIDE, 80, "TCP", False


def wrong(live: Cluster, wanted: list[Case], *, without: str = "") -> list[str]:
    """Return the cases that come out otherwise, with the policies that are there (`without`: all but one)."""
    policies = [policy for policy in live.policies if policy["metadata"]["name"] != without]
    return [
        f"{what}: {protocol} {port} is {'denied' if allowed else 'allowed'}"
        for what, source, target, port, protocol, allowed in wanted
        if may_connect(policies, source, target, port, protocol) is not allowed
    ]


def test_the_live_policies_allow_the_matrix_and_nothing_else(
    live: Cluster, pods: dict[str, End], capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = list(cases(live, pods))
    allowed = sum(case[-1] for case in wanted)
    with capfd.disabled():
        print(f"\nNetworkPolicies, live: {len(live.policies)}; cases allowed {allowed}, denied {len(wanted) - allowed}")
    assert wrong(live, wanted) == []
    assert allowed >= 50
    assert len(wanted) - allowed >= 50


def test_each_live_policy_is_needed(live: Cluster, pods: dict[str, End]) -> None:
    """The control of the test above: without any one of the policies it would fail."""
    wanted = list(cases(live, pods))
    names = {policy["metadata"]["name"] for policy in live.policies if policy["metadata"]["namespace"] == NAMESPACE}
    assert names == {f"novacore-{component}" for component in COMPONENTS}
    assert [name for name in sorted(names) if not wrong(live, wanted, without=name)] == []


def test_each_pod_is_closed_in_both_directions_by_one_policy(live: Cluster, platform: str) -> None:
    here = [pod for pod in live.pods if pod.namespace == platform]
    assert len(here) >= len(SERVICES) + len(STORES)
    for pod in here:
        (policy,) = selecting(live.policies, pod)
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"], pod.labels


def test_pods_listen_on_the_ports_of_the_matrix_and_no_others(live: Cluster, platform: str) -> None:
    for name in (*BY_NAME, *STORES):
        pod = live.pod(platform, selector(name))
        assert set(pod.port_names.values()) == set(ports(name)), name


def test_two_pods_are_spread_and_one_of_them_stays(kube: Kube, platform: str) -> None:
    """A budget appears with the second pod, and the API server holds evictions against it."""
    service = BY_NAME["noble-spirit"]
    labels = ",".join(f"{key}={value}" for key, value in selector(service.name).items())
    assert kube.get("pdb", service.full_name, platform) is None, "one pod has no budget: it would block every drain"
    with change_spec(kube, {"services": {service.name: {"replicas": 2}}}):
        ready(kube, within_s=90)
        budget = until(lambda: _able(kube, service.full_name), within_s=30, what="the budget lets one pod go")
        assert budget["status"]["currentHealthy"] == budget["status"]["expectedPods"] == 2
        pods = kube.list("pods", platform, labels)
        assert len(pods) == 2
        for pod in pods:
            (spread,) = pod["spec"]["topologySpreadConstraints"]
            assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
            assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
            assert spread["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        first, second = (pod["metadata"]["name"] for pod in pods)
        _evict(kube, first, platform)
        with pytest.raises(KubectlError, match=r"disruption budget"):
            _evict(kube, second, platform)
        ready(kube, within_s=90)
    ready(kube, within_s=90)
    assert kube.get("pdb", service.full_name, platform) is None


def _able(kube: Kube, name: str) -> dict[str, Any] | None:
    budget = kube.get("pdb", name, NAMESPACE)
    return budget if budget is not None and budget.get("status", {}).get("disruptionsAllowed") == 1 else None


def _evict(kube: Kube, pod: str, namespace: str) -> None:
    """Ask for an eviction, as `kubectl drain` does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    kube.run(
        "create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "-f", "-", stdin=json.dumps(body)
    )
