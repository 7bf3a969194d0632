"""NovaCoreDeployments in tests against a real API server: made, and waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.kit.api import Api, Manifest
from tests.kit.wait import until

NAME = "novacore"


def nova(namespace: str, *, name: str = NAME, **spec: Any) -> Manifest:
    """Return a resource: the fields of the spec given, and the version."""
    return {
        "apiVersion": "novacore.ai/v1alpha1",
        "kind": "NovaCoreDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"version": "0.1.0", **spec},
    }


def condition(resource: Manifest | None, kind: str) -> Manifest:
    """Return one condition of a resource, or an empty dict when it is not there yet."""
    conditions = (resource or {}).get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == kind), {})


def await_condition(
    api: Api,
    namespace: str,
    kind: str,
    *,
    status: str = "True",
    reason: str = "",
    within_s: float,
    name: str = NAME,
    report: Callable[[], str] = lambda: "",
) -> Manifest:
    """Wait until a condition says this of the present generation; return the resource."""

    def probe() -> Manifest | None:
        resource = api.get("NovaCoreDeployment", name, namespace)
        found = condition(resource, kind)
        if resource is None or found.get("observedGeneration") != resource["metadata"]["generation"]:
            return None
        return resource if found["status"] == status and found["reason"] == (reason or found["reason"]) else None

    def state() -> str:
        conditions = (api.get("NovaCoreDeployment", name, namespace) or {}).get("status", {}).get("conditions", [])
        lines = [f"{item['type']}={item['status']} {item['reason']}: {item['message']}" for item in conditions]
        return "\n".join([*lines, report()])

    what = f"{namespace}/{name}: {kind}={status} {reason}"
    return until(probe, within_s=within_s, what=what, report=state, every_s=0.05)


def await_ready(api: Api, namespace: str, *, within_s: float = 30, report: Callable[[], str] = lambda: "") -> Manifest:
    """Wait until the resource is Ready for its present generation; return it."""
    return await_condition(api, namespace, "Ready", within_s=within_s, report=report)
