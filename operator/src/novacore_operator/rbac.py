"""The rights the operator needs, as data: the chart's roles are made from this, a test compares them with what is used.

Secrets by name only. Server-side apply makes an object under `patch` and `create`, and for an apply the API server checks
`create` with the object's name (tried on 1.35: without it the apply of an absent Secret is refused), so `resourceNames`
hold for creation too. `list` and `watch` of one name work with
`resourceNames` because the informers select by `metadata.name`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from novacore_operator.api import GROUP, PLURAL
from novacore_operator.state import names


class Rule(TypedDict, total=False):
    """A PolicyRule of a Role or ClusterRole."""

    apiGroups: list[str]
    resources: list[str]
    verbs: list[str]
    resourceNames: list[str]


WRITTEN = ["list", "watch", "create", "patch", "delete"]
SECRETS = ["get", "list", "watch", "create", "patch"]
"""Never `delete`: a Secret goes with its owner or stays with the data."""


def namespaced_rules() -> list[Rule]:
    """Return the rights in a namespace with an installation (ClusterRole in cluster mode, Role otherwise)."""
    return [
        {"apiGroups": [GROUP], "resources": [PLURAL], "verbs": ["list", "watch"]},
        {"apiGroups": [GROUP], "resources": [f"{PLURAL}/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["serviceaccounts", "services", "configmaps"], "verbs": WRITTEN},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": WRITTEN},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": WRITTEN},
        {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": WRITTEN},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": WRITTEN},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": SECRETS, "resourceNames": sorted(names.SECRETS)},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    ]


def referenced_secret_rules(secrets: Iterable[str]) -> list[Rule]:
    """Return the right to read the Secrets that users name in a resource (chart value `referencedSecrets`)."""
    wanted = sorted(secrets)
    if not wanted:
        return []
    return [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": wanted}]


def own_namespace_rules(watch_namespaces: Iterable[str] = ()) -> list[Rule]:
    """Return the rights in the operator's own namespace: the Lease, and the root keys.

    In cluster mode the installations' namespaces, hence the names of their root keys, are not known beforehand: there
    the right covers the Secrets of the operator's own namespace, and of no other.
    """
    roots: Rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "patch"]}
    wanted = sorted(names.root_secret(namespace) for namespace in watch_namespaces)
    if wanted:
        roots["resourceNames"] = wanted
    return [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "update"],
            "resourceNames": [names.LEASE],
        },
        roots,
    ]
