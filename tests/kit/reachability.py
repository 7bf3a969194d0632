"""Who may talk to whom, evaluated from NetworkPolicy objects by the rules of the Kubernetes API (networking.k8s.io/v1).

A pod that no policy selects for a direction is open in that direction; policies that select it add up. A connection
needs the sender's egress and the receiver's ingress.
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

    @property
    def all_namespace_labels(self) -> Mapping[str, str]:
        """Labels of the end's namespace, with the one that the API server sets."""
        return {**self.namespace_labels, NAMESPACE_NAME: self.namespace}


def may_connect(policies: Iterable[Policy], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Return whether `source` may open a connection to `target`."""
    known = list(policies)
    out = _allows(known, source, target, port, protocol=protocol, direction="Egress")
    return out and _allows(known, target, source, port, protocol=protocol, direction="Ingress")


def _allows(policies: list[Policy], own: End, other: End, port: int, *, protocol: str, direction: str) -> bool:
    chosen = [policy for policy in policies if _selects_pod(policy, own) and direction in policy["spec"]["policyTypes"]]
    if not chosen:
        return True
    where, who = direction.lower(), {"Egress": "to", "Ingress": "from"}[direction]
    return any(
        _port_fits(rule, port, protocol) and (not rule.get(who) or any(_is(peer, other, policy) for peer in rule[who]))
        for policy in chosen
        for rule in policy["spec"].get(where, ())
    )


def _selects_pod(policy: Policy, end: End) -> bool:
    same = policy["metadata"]["namespace"] == end.namespace
    return same and not end.address and _matches(policy["spec"]["podSelector"], end.labels)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}, "matchExpressions are not evaluated here"
    return selector.get("matchLabels", {}).items() <= labels.items()


def _port_fits(rule: Mapping[str, Any], port: int, protocol: str) -> bool:
    return not rule.get("ports") or any(
        entry.get("protocol", "TCP") == protocol and entry["port"] <= port <= entry.get("endPort", entry["port"])
        for entry in rule["ports"]
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
