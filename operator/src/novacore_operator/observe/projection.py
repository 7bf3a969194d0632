"""From an object's body to the little that is kept of it. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from novacore_operator.state import (
    ClaimFacts,
    Facts,
    JobFacts,
    Live,
    Manifest,
    PodFacts,
    Ref,
    ReleaseFacts,
    Sealed,
    WorkloadFacts,
    names,
    stores,
)
from novacore_operator.state.names import ANNOTATION_DESIRED, ANNOTATION_TEMPLATE, LABEL_COMPONENT
from novacore_operator.state.ownership import owned_fingerprint, owned_keys

MESSAGE_CHARS = 300
LAST_WORDS_CHARS = 160
RESTARTS_TOLD = 2
"""A container that ended once may have met a late peer; twice is a pattern."""


def project(kind: str, body: Manifest) -> Live:
    """Return what is kept of an object. `kind` is given: the items of a list do not name theirs.

    What many objects have in common (namespace, name, owner) is one string for all: there are 80,000 of them with 1,000
    installations.
    """
    metadata = body["metadata"]
    annotations = metadata.get("annotations") or {}
    controller = next((item for item in metadata.get("ownerReferences") or () if item.get("controller")), None)
    return Live(
        ref=Ref(kind, sys.intern(metadata["namespace"]), sys.intern(metadata["name"])),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        generation=int(metadata.get("generation") or 0),
        owner=sys.intern(controller["uid"]) if controller else None,
        desired=annotations.get(ANNOTATION_DESIRED),
        owned="" if kind == "Pod" else owned_fingerprint(body),
        template=sys.intern(template) if (template := annotations.get(ANNOTATION_TEMPLATE)) else None,
        deleting="deletionTimestamp" in metadata,
        facts=_facts(kind, body),
    )


def owned_data(body: Manifest) -> Sealed:
    """Return those entries of a Secret that the operator still owns: what somebody edited is not material."""
    mine = owned_keys(body, "data")
    return Sealed({key: value for key, value in decoded(body).items() if key in mine})


def foreign_data(body: Manifest) -> Sealed:
    """Return the other entries of a Secret: `rotation.adopt` says what of them may be taken."""
    mine = owned_keys(body, "data")
    return Sealed({key: value for key, value in decoded(body).items() if key not in mine})


def decoded(body: Manifest) -> Mapping[str, bytes]:
    """Return the entries of a Secret as bytes."""
    result = {}
    for key, value in (body.get("data") or {}).items():
        try:
            result[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            continue
    return result


def _facts(kind: str, body: Manifest) -> Facts | None:
    read = READERS.get(kind)
    return read(body) if read is not None else None


def _claim(body: Manifest) -> ClaimFacts:
    requests = body["spec"].get("resources", {}).get("requests", {})
    status = body.get("status") or {}
    pending = [item for item in status.get("conditions") or () if item.get("status") == "True"]
    words = "; ".join(f"{item['type']}: {item.get('message', '')}".strip(": ") for item in pending)
    return ClaimFacts(
        requests.get("storage", ""),
        status.get("phase") == "Bound",
        capacity=(status.get("capacity") or {}).get("storage", ""),
        pending=words[:MESSAGE_CHARS],
    )


def _release(body: Manifest) -> ReleaseFacts | None:
    """Return a stored release; None for the revisions of StatefulSets, which copy our labels."""
    metadata, data = body["metadata"], body.get("data") or {}
    number = metadata["name"].removeprefix(names.release(0)[:-1])
    if not number.isdigit():
        return None
    return ReleaseFacts.of(int(number), metadata["creationTimestamp"], data)


def _conditions(body: Manifest) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in (body.get("status") or {}).get("conditions") or ()}


def _deployment(body: Manifest) -> WorkloadFacts:
    status = body.get("status") or {}
    conditions = _conditions(body)
    progressing, refused = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    stalled = ""
    if refused.get("status") == "True":
        stalled = f"{refused.get('reason', 'FailedCreate')}: {refused.get('message', '')}"[:MESSAGE_CHARS]
    elif progressing.get("status") == "False":
        stalled = str(progressing.get("message", "did not progress"))[:MESSAGE_CHARS]
    return WorkloadFacts(
        replicas=int(body["spec"].get("replicas", 1)),
        observed_generation=int(status.get("observedGeneration", 0)),
        total=int(status.get("replicas", 0)),
        updated=int(status.get("updatedReplicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        stalled=stalled,
        overdue=progressing.get("status") == "False"
        and int(status.get("observedGeneration", 0)) >= int(body["metadata"].get("generation") or 0),
    )


def _stateful_set(body: Manifest) -> WorkloadFacts:
    status = body.get("status") or {}
    templates = body["spec"].get("volumeClaimTemplates") or [{}]
    size = templates[0].get("spec", {}).get("resources", {}).get("requests", {}).get("storage", "")
    total = int(status.get("replicas", 0))
    same = status.get("updateRevision") == status.get("currentRevision")
    return WorkloadFacts(
        replicas=int(body["spec"].get("replicas", 1)),
        observed_generation=int(status.get("observedGeneration", 0)),
        total=total,
        # updatedReplicas disappears from the status once a roll-out has ended
        updated=total if same else int(status.get("updatedReplicas", 0)),
        available=int(status.get("availableReplicas", 0)),
        storage=size,
        ordered=body["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady",
    )


HEALTHY = "Cluster in healthy state"


def _cluster(body: Manifest) -> WorkloadFacts:
    """Return the state of a database that CloudNativePG runs, as its status says it.

    It does not say which generation it has seen; a change shows as soon as it begins to carry it out.
    """
    status = body.get("status") or {}
    total = int(status.get("instances", 0))
    phase = str(status.get("phase", ""))
    healthy = phase == HEALTHY and _conditions(body).get("Ready", {}).get("status", "True") == "True"
    reason = str(status.get("phaseReason", ""))
    told = "has not looked at it yet" if not phase else ": ".join(part for part in (phase, reason) if part)
    return WorkloadFacts(
        replicas=int(body["spec"].get("instances", 1)),
        observed_generation=int(body["metadata"].get("generation") or 0),
        total=total,
        updated=total if healthy else 0,
        available=int(status.get("readyInstances", 0)),
        phase="" if healthy else told[:MESSAGE_CHARS],
    )


def _job(body: Manifest) -> JobFacts:
    conditions = _conditions(body)
    # FailureTarget: it will fail, and waits for its pods to end (Kubernetes 1.31 and later).
    failed = conditions.get("Failed") or conditions.get("FailureTarget") or {}
    return JobFacts(
        complete=conditions.get("Complete", {}).get("status") == "True",
        failed=failed.get("status") == "True",
        message=str(failed.get("message", ""))[:MESSAGE_CHARS],
    )


PULL_FAILED = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
NOT_YET = {"ContainerCreating", "PodInitializing"}


def _container_trouble(container: dict[str, Any]) -> tuple[str, str] | None:
    """Return what keeps a container from running, in words that stay the same while it is tried again and again.

    The kubelet's own words alternate (ErrImagePull, ImagePullBackOff; waiting, running, terminated) every few seconds;
    passed on as they are, each change would be a write of the status.
    """
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = str(waiting.get("reason", ""))
    if reason in PULL_FAILED:
        return "ImagePullBackOff", f"{container.get('image', '')} cannot be pulled"
    ended = (container.get("lastState") or {}).get("terminated") or {}
    again = int(container.get("restartCount", 0)) >= RESTARTS_TOLD and not container.get("ready", False)
    if "exitCode" in ended and (again or reason == "CrashLoopBackOff"):
        return "CrashLoopBackOff", _ended(container, ended)
    return (reason, str(waiting.get("message", ""))) if reason and reason not in NOT_YET else None


def _failed_for_good(container: dict[str, Any]) -> tuple[str, str] | None:
    """Return how a container ended that is not restarted, of a Job."""
    ended = (container.get("state") or {}).get("terminated") or {}
    return ("Failed", _ended(container, ended)) if ended.get("exitCode") else None


def _ended(container: dict[str, Any], ended: dict[str, Any]) -> str:
    words = f"exit code {ended['exitCode']} {ended.get('reason', '')}".strip()
    return f"container {container['name']}: {words}{_last_words(ended.get('message', ''))}"


def _last_words(log_end: str) -> str:
    """Return the last line of a container's log, without what differs from one end to the next (times, ids)."""
    line = next((line for line in reversed(log_end.splitlines()) if line.strip()), "").strip()
    try:
        parsed = json.loads(line)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        error = parsed.get("error")
        kind = error.get("type") if isinstance(error, dict) else None
        line = " ".join(str(part) for part in (parsed.get("event"), parsed.get("reason"), kind) if part)
    return f", last words: {line[:LAST_WORDS_CHARS]}" if line else ""


def _pod(body: Manifest) -> PodFacts:
    metadata = body["metadata"]
    containers = (body.get("status") or {}).get("containerStatuses") or ()
    conditions = _conditions(body)
    trouble, message = "", ""
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        trouble, message = "Unschedulable", str(scheduled.get("message", ""))
    look = _failed_for_good if (body.get("status") or {}).get("phase") == "Failed" else _container_trouble
    for container in containers:
        trouble, message = look(container) or (trouble, message)
    return PodFacts(
        component=(metadata.get("labels") or {}).get(LABEL_COMPONENT, ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        trouble=trouble,
        message=message[:MESSAGE_CHARS],
        name=metadata["name"],
        template=(metadata.get("annotations") or {}).get(ANNOTATION_TEMPLATE, ""),
        address=(body.get("status") or {}).get("podIP", ""),
        restarts=max((int(container.get("restartCount", 0)) for container in containers), default=0),
    )


READERS: Mapping[str, Callable[[Manifest], Facts | None]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    stores.CLUSTER_KIND: _cluster,
    "Job": _job,
    "PersistentVolumeClaim": _claim,
    "ControllerRevision": _release,
    "Pod": _pod,
}
