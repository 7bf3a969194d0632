"""Does the installation have what it needs, and how is it? Pure."""

from __future__ import annotations

from novacore_operator.api import KIND
from novacore_operator.cli.doctor import Facts, Judged, Result
from novacore_operator.cli.errors import PROGRAM
from novacore_operator.cli.status_view import remedy_of
from novacore_operator.reasons import Reason
from novacore_operator.status import condition_of

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
UNPULLABLE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
UNDER_WAY = frozenset(
    {
        Reason.INSTALLING,
        Reason.ROLLING_OUT,
        Reason.CANARY_RUNNING,
        Reason.DATA_STORES_STARTING,
        Reason.MIGRATION_PENDING,
        Reason.MIGRATION_RUNNING,
        Reason.SECRETS_PENDING,
    }
)


def storage(facts: Facts) -> Judged:
    """Judge the StorageClasses: the named ones exist, or there is a default."""
    names = {item["metadata"]["name"] for item in facts.classes}
    default = sorted(
        item["metadata"]["name"]
        for item in facts.classes
        if (item["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    )
    specs = [resource.get("spec", {}) for resource in facts.resources]
    stores = [spec.get(store, {}) for spec in specs for store in ("postgres", "redis")] or [{}]
    wanted = {(s.get("storage") or {}).get("className") for s in stores if s.get("mode", "Simple") != "External"}
    absent = sorted(name for name in wanted if name and name not in names)
    if absent:
        listed = ", ".join(sorted(names)) or "none at all"
        remedy = f"Create it, or name one that exists in spec.postgres.storage.className and spec.redis ({listed})."
        return Judged("fail", f"StorageClass {', '.join(absent)} does not exist", remedy)
    if None in wanted and not default:
        bound = facts.claims and all(claim.get("status", {}).get("phase") == "Bound" for claim in facts.claims)
        remedy = (
            f"Annotate one with {DEFAULT_CLASS}=true, or set spec.postgres.storage.className and "
            "spec.redis.storage.className."
        )
        message = f"there is no default StorageClass (there are: {', '.join(sorted(names)) or 'none'})"
        return Judged("warn" if bound else "fail", message, remedy)
    if len(default) > 1:
        return Judged("warn", f"several defaults: {', '.join(default)}", "Keep the annotation on one of them.")
    return Judged("ok", f"default StorageClass: {default[0]}" if default else "the named StorageClasses exist")


def single(facts: Facts) -> Judged:
    """Judge that a namespace has one resource."""
    names = sorted(resource["metadata"]["name"] for resource in facts.resources)
    if len(names) > 1:
        message = f"{len(names)} in {facts.namespace} ({', '.join(names)}): only the oldest is carried out"
        return Judged("fail", message, Reason.NAMESPACE_TAKEN.remedy)
    return Judged("ok", f"{len(names)} {KIND} in {facts.namespace}")


def images(facts: Facts) -> Judged:
    """Judge whether the nodes get the images."""
    broken: dict[str, str] = {}
    for pod in facts.pods:
        status = pod.get("status", {})
        for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            waiting = container.get("state", {}).get("waiting") or {}
            if waiting.get("reason") in UNPULLABLE:
                broken.setdefault(container.get("image", "?"), f"{pod['metadata']['name']}: {waiting['reason']}")
    if broken:
        said = "; ".join(f"{image} ({where})" for image, where in broken.items())
        return Judged("fail", f"cannot be pulled: {said}", Reason.IMAGE_PULL_FAILED.remedy)
    if not facts.pods:
        return Judged("info", f"no pod of NovaCore in {facts.namespace} yet")
    return Judged("ok", f"no pod of {len(facts.pods)} waits for an image")


def claims(facts: Facts) -> Judged:
    """Judge the volume claims."""
    unbound = [claim for claim in facts.claims if claim.get("status", {}).get("phase") != "Bound"]
    if unbound:
        said = "; ".join(
            f"{claim['metadata']['name']} is {claim.get('status', {}).get('phase', 'new')} "
            f"(class {claim.get('spec', {}).get('storageClassName') or 'default'})"
            for claim in unbound
        )
        name = unbound[0]["metadata"]["name"]
        remedy = f"`kubectl -n {facts.namespace} describe pvc {name}`: its last event says what the provisioner lacks."
        return Judged("fail", said, remedy)
    if not facts.claims:
        return Judged("info", f"no volume claim in {facts.namespace}")
    return Judged("ok", f"bound: {len(facts.claims)}")


def policies(facts: Facts) -> Judged:
    """Say what cannot be judged from outside: whether the network plug-in enforces NetworkPolicies."""
    if not facts.policies:
        return Judged("info", f"no NetworkPolicy of NovaCore in {facts.namespace}")
    message = f"in place: {len(facts.policies)}; whether the network plug-in enforces them is unknown"
    return Judged("info", message, "Ask whoever runs the cluster's network; Calico, Cilium and Antrea do.")


def autoscaling(facts: Facts) -> Judged:
    """Judge whether autoscalers learn how much CPU the pods use."""
    scaled = sorted(
        name
        for resource in facts.resources
        for name, service in (resource.get("spec", {}).get("services") or {}).items()
        if service.get("autoscaling")
    )
    if not scaled:
        return Judged("info", "no service has autoscaling")
    if facts.metrics:
        message = f"{', '.join(scaled)} will not grow: {facts.metrics}"
        return Judged("warn", message, "Install metrics-server, or look at its pods in kube-system.")
    return Judged("ok", f"metrics.k8s.io answers; scaled by load: {', '.join(scaled)}")


def conditions(facts: Facts) -> Judged:
    """Judge the resource's own condition Ready."""
    if not facts.resources:
        return Judged("info", f"no {KIND} in {facts.namespace} yet", "")
    for resource in facts.resources:
        metadata, status = resource["metadata"], resource.get("status") or {}
        ready = condition_of(status, "Ready")
        name, reason = metadata["name"], str(ready.get("reason", ""))
        if status.get("observedGeneration") != metadata.get("generation"):
            remedy = f"Wait a moment; if it lasts, `{PROGRAM} logs operator`."
            return Judged(
                "warn", f"{name}: the operator has not acted on generation {metadata.get('generation')}", remedy
            )
        if ready.get("status") != "True":
            troubled = [part["name"] for part in status.get("components", ()) if not part.get("ready")]
            remedy = remedy_of(reason, name=name, component=(troubled or ["SERVICE"])[0]) or f"`{PROGRAM} status`."
            result: Result = "warn" if reason in UNDER_WAY else "fail"
            return Judged(result, f"{name} is not ready: {reason}: {ready.get('message', '')}", remedy)
    return Judged("ok", f"{', '.join(resource['metadata']['name'] for resource in facts.resources)}: Ready")
