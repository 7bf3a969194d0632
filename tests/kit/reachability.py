"""Who may talk to whom, evaluated from NetworkPolicy objects by the rules of the Kubernetes API (networking.k8s.io/v1).

A pod that no policy selects for a direction is open in that direction; policies that select it add up. A connection
needs the sender's egress and the receiver's ingress. A port's name is looked up in the receiver's containers.

Fed with what a builder returns, or with what a live cluster holds (`Cluster.read`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Policy = Mapping[str, Any]
NAMESPACE_NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a pod, or an address outside the cluster."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "test"
    address: str = ""  # set for what is no pod
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    port_names: Mapping[str, int] = field(default_factory=dict)  # of its containers

    @property
    def all_namespace_labels(self) -> Mapping[str, str]:
        """Labels of the end's namespace, with the one that the API server sets."""
        return {**self.namespace_labels, NAMESPACE_NAME: self.namespace}


def may_connect(policies: Iterable[Policy], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Return whether `source` may open a connection to `target`."""
    known = list(policies)

    def allows(own: End, other: End, direction: str, who: str) -> bool:
        chosen = [policy for policy in selecting(known, own) if direction in policy["spec"]["policyTypes"]]
        return not chosen or any(
            _port_fits(rule, port, protocol, target.port_names)
            and (not rule.get(who) or any(_is(peer, other, policy) for peer in rule[who]))
            for policy in chosen
            for rule in policy["spec"].get(direction.lower(), ())
        )

    return allows(source, target, "Egress", "to") and allows(target, source, "Ingress", "from")


def selecting(policies: Iterable[Policy], end: End) -> list[Policy]:
    """Return the policies that select a pod."""
    return [policy for policy in policies if _selects_pod(policy, end)]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What decides about reachability in a live cluster: its policies and its running pods."""

    policies: tuple[Policy, ...]
    pods: tuple[End, ...]

    @classmethod
    def read(cls, items: Iterable[Mapping[str, Any]]) -> Cluster:
        """Return the cluster of `kubectl get networkpolicies,pods,namespaces -A -o json`. A pod that has ended or is on
        its way out counts no more, one of the host's network is none of those that policies bind."""
        by_kind: dict[str, list[Mapping[str, Any]]] = {}
        for item in items:
            by_kind.setdefault(item["kind"], []).append(item)
        labels = {item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in by_kind["Namespace"]}
        alive = [pod for pod in by_kind["Pod"] if _alive(pod) and not pod["spec"].get("hostNetwork")]
        return cls(
            tuple(by_kind.get("NetworkPolicy", ())),
            tuple(_end(pod, labels[pod["metadata"]["namespace"]]) for pod in alive),
        )

    def pod(self, namespace: str, labels: Mapping[str, str]) -> End:
        """Return a pod that has these labels. LookupError when there is none."""
        for pod in self.pods:
            if pod.namespace == namespace and labels.items() <= pod.labels.items():
                return pod
        raise LookupError(f"no running pod in {namespace} has {dict(labels)}")


def _alive(pod: Mapping[str, Any]) -> bool:
    return pod["status"].get("phase") in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]


def _end(pod: Mapping[str, Any], namespace_labels: Mapping[str, str]) -> End:
    metadata = pod["metadata"]
    named = {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if "name" in port
    }
    return End(metadata.get("labels", {}), metadata["namespace"], "", namespace_labels, named)


def _selects_pod(policy: Policy, end: End) -> bool:
    same = policy["metadata"]["namespace"] == end.namespace
    return same and not end.address and _matches(policy["spec"]["podSelector"], end.labels)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}, "matchExpressions are not evaluated here"
    return selector.get("matchLabels", {}).items() <= labels.items()


def _port_fits(rule: Mapping[str, Any], port: int, protocol: str, names: Mapping[str, int]) -> bool:
    def fits(entry: Mapping[str, Any]) -> bool:
        first = entry["port"]
        if isinstance(first, str):
            return names.get(first) == port
        return bool(first <= port <= entry.get("endPort", first))

    return not rule.get("ports") or any(
        entry.get("protocol", "TCP") == protocol and fits(entry) for entry in rule["ports"]
    )


def _is(peer: Mapping[str, Any], end: End, policy: Policy) -> bool:
    if "ipBlock" in peer:
        return bool(end.address) and ip_address(end.address) in ip_network(peer["ipBlock"]["cidr"])
    if end.address:
        return False
    if "namespaceSelector" in peer:
        there = _matches(peer["namespaceSelector"], end.all_namespace_labels)
    else:
        there = end.namespace == policy["metadata"]["namespace"]
    return there and _matches(peer.get("podSelector", {}), end.labels)
