"""Parts of a pod spec that every workload shares: PodSecurity *restricted*, and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from novacore_operator.api.spec import Spec
from novacore_operator.build.release import since
from novacore_operator.state.names import ANNOTATION_TEMPLATE
from novacore_operator.state.ownership import digest

SECRET_MODE = 0o440
"""Readable by root and the pod's group, nobody else."""
CONFIG_MODE = 0o444


def pod_security(user: int) -> dict[str, Any]:
    """Return the pod's security context: never root, files of the group `user`."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Return the container's security context: no privilege, nothing writable but mounts."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def last_words(spec: Spec) -> dict[str, str]:
    """Return the fields that keep the end of a log in the pod's status: the reason of a roll-back outlives the pod."""
    return {"terminationMessagePolicy": "FallbackToLogsOnError"} if since(spec, "0.2.0") else {}


def stamped(spec: Spec, template: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return a pod template that names its own digest, so that a pod tells of which revision it is, and the digest."""
    mark = digest(template)
    if not since(spec, "0.2.0"):
        return template, mark
    metadata = template["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION_TEMPLATE: mark}
    return {**template, "metadata": {**metadata, "annotations": annotations}}, mark


def secret_volume(name: str, secret: str, *, mode: int = SECRET_MODE, optional: bool = False) -> dict[str, Any]:
    """Return a volume of a whole Secret; of an optional one, empty until there is such a Secret."""
    source: dict[str, Any] = {"secretName": secret, "defaultMode": mode}
    if optional:
        source["optional"] = True
    return {"name": name, "secret": source}


def config_volume(name: str, config_map: str, *, mode: int = CONFIG_MODE) -> dict[str, Any]:
    """Return a volume of a whole ConfigMap."""
    return {"name": name, "configMap": {"name": config_map, "defaultMode": mode}}


def empty_dir(name: str, *, size: str, memory: bool = False) -> dict[str, Any]:
    """Return a volume that lives as long as the pod."""
    source: dict[str, Any] = {"sizeLimit": size}
    if memory:
        source["medium"] = "Memory"
    return {"name": name, "emptyDir": source}


def image_pull_secrets(secrets: Sequence[str]) -> dict[str, Any]:
    """Return the pod spec's `imagePullSecrets`, absent when there are none."""
    return {"imagePullSecrets": [{"name": name} for name in secrets]} if secrets else {}
