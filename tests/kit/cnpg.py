"""A stand-in for CloudNativePG's definition of `Cluster`, and the statuses that its operator would write.

A minimal definition of our own: the kind, its scope and the status subresource are as in postgresql.cnpg.io/v1, the spec
takes any field, and nobody runs a database. What is tested with it is our side: what is written, what is read of the
status, and that the definition may come late. It does not show that CloudNativePG takes the spec.
"""

from __future__ import annotations

from tests.kit.api import Api, Manifest, RefusedError
from tests.kit.wait import until

NAME = "clusters.postgresql.cnpg.io"
HEALTHY = "Cluster in healthy state"
ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition() -> Manifest:
    """Return the definition."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": ANY, "status": ANY}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": "postgresql.cnpg.io",
            "names": {"kind": "Cluster", "listKind": "ClusterList", "plural": "clusters", "singular": "cluster"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def served(api: Api) -> bool:
    """Whether the API server knows the kind."""
    try:
        api.list("Cluster")
    except RefusedError as error:
        assert error.code in (404, 429), error
        return False
    return True


def install(api: Api) -> None:
    """Make the definition, and wait until it is served."""
    api.apply(definition())
    until(lambda: served(api), within_s=15, what="the API server serves Cluster")


def remove(api: Api) -> None:
    """Delete the definition, and with it every Cluster."""
    api.delete("CustomResourceDefinition", NAME)
    until(lambda: not served(api), within_s=15, what="the API server has forgotten Cluster")


def status(instances: int, *, ready: int | None = None, phase: str = HEALTHY) -> Manifest:
    """Return a status as CloudNativePG's operator writes it."""
    ready = instances if ready is None else ready
    condition = {
        "type": "Ready",
        "status": "True" if phase == HEALTHY else "False",
        "reason": "ClusterIsReady" if phase == HEALTHY else "ClusterIsNotReady",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return {"instances": instances, "readyInstances": ready, "phase": phase, "conditions": [condition]}
