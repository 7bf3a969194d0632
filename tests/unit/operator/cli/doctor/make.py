"""Objects of a sound cluster, as the API server returns them; a test names only what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from novacore_operator.api.crd import custom_resource_definition
from novacore_operator.cli.errors import VERSION

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def crd() -> dict[str, Any]:
    return custom_resource_definition() | {"status": {"conditions": [{"type": "Established", "status": "True"}]}}


def operator(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "novacore-operator",
            "namespace": "system",
            "labels": {"app.kubernetes.io/version": VERSION},
        },
        "spec": {"replicas": 2},
        "status": {"availableReplicas": 2},
    } | changes


def lease(seconds: float) -> dict[str, Any]:
    return {"spec": {"renewTime": at(seconds).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}


def storage_class(name: str, *, default: bool = False) -> dict[str, Any]:
    key = "storageclass.kubernetes.io/is-default-class"
    return {"metadata": {"name": name, "annotations": {key: "true"} if default else {}}}


def claim(phase: str) -> dict[str, Any]:
    return {"metadata": {"name": "data-novacore-postgres-0"}, "spec": {}, "status": {"phase": phase}}


def pod(reason: str = "", image: str = "novacore/workloads:0.1.0") -> dict[str, Any]:
    state = {"waiting": {"reason": reason}} if reason else {"running": {}}
    return {
        "metadata": {"name": "novacore-memory-x"},
        "status": {"containerStatuses": [{"image": image, "state": state}]},
    }


def slices(*ready: bool) -> list[dict[str, Any]]:
    return [{"endpoints": [{"conditions": {"ready": one}} for one in ready]}]
