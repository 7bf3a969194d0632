"""The evaluator of NetworkPolicies on what a live cluster holds, and on what only some policies use."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.reachability import Cluster, End, may_connect, selecting


def pod(name: str, phase: str = "Running", namespace: str = "shop", **extra: Any) -> dict[str, Any]:
    container = {"ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9}]}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}, **extra.pop("metadata", {})},
        "spec": {"containers": [container], **extra},
        "status": {"phase": phase},
    }


def policy(**spec: Any) -> dict[str, Any]:
    whole = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], **spec}
    return {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "shop"}, "spec": whole}


def cluster(*items: dict[str, Any]) -> Cluster:
    spaces = [
        {"kind": "Namespace", "metadata": {"name": "shop"}},
        {"kind": "Namespace", "metadata": {"name": "edge", "labels": {"team": "web"}}},
    ]
    return Cluster.read([*items, *spaces])


def test_pods_that_are_gone_or_of_the_hosts_network_do_not_count() -> None:
    leaving = pod("leaving", metadata={"deletionTimestamp": "now"})
    found = cluster(pod("web"), pod("job", "Succeeded"), leaving, pod("proxy", hostNetwork=True))
    assert [end.labels["app"] for end in found.pods] == ["web"]


def test_a_pod_is_found_by_labels_and_namespace() -> None:
    found = cluster(pod("web"), pod("web", namespace="edge"))
    assert found.pod("edge", {"app": "web"}).all_namespace_labels == {
        "team": "web",
        "kubernetes.io/metadata.name": "edge",
    }
    with pytest.raises(LookupError):
        found.pod("edge", {"app": "other"})


@pytest.mark.parametrize(("port", "open_"), [(8080, True), (9, False), (80, False)])
def test_a_port_name_is_looked_up_in_the_receivers_containers(port: int, *, open_: bool) -> None:
    found = cluster(pod("web"), policy(ingress=[{"ports": [{"port": "http", "protocol": "TCP"}]}]))
    web = found.pod("shop", {"app": "web"})
    assert may_connect(found.policies, End({"app": "x"}, "edge"), web, port) is open_
    nameless = End({"app": "web"}, "shop")
    assert not may_connect(found.policies, End({"app": "x"}, "edge"), nameless, port)


def test_without_a_policy_all_is_open_and_with_an_empty_one_nothing() -> None:
    found = cluster(pod("web"), policy())
    web = found.pod("shop", {"app": "web"})
    assert may_connect([], End(), web, 1)
    assert not may_connect(found.policies, End(), web, 1)
    assert may_connect(found.policies, web, End(namespace="edge"), 1), "it is closed for ingress only"
    assert selecting(found.policies, web) == list(found.policies)
