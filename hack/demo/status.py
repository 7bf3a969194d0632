"""One screen about an installation: conditions, components, memory, start-up times, image sizes.

Memory is what the kubelet measures (`/stats/summary`): resident = anonymous memory, working set = resident plus page
cache in use; the working set is what a limit is held against. Start-up runs from the container's start to the pod's
Ready condition; Kubernetes keeps both in whole seconds. Image sizes are the node's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from hack.demo.kube import OPERATOR_NAMESPACE, RESOURCE, Cluster, CommandError, Manifest
from hack.demo.terminal import DemoError, colour, mebibytes, say, table


@dataclass(frozen=True, slots=True)
class PodFigures:
    """What one pod uses and how long it took to become Ready."""

    name: str
    namespace: str
    ready: bool
    restarts: int
    resident_bytes: int | None
    working_set_bytes: int | None
    start_s: float | None
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """Everything `make status` shows."""

    resource: Manifest
    pods: tuple[PodFigures, ...]
    images: dict[str, int]

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the whole platform."""
        return sum(pod.resident_bytes or 0 for pod in self.pods)

    @property
    def working_set_bytes(self) -> int:
        """Working set of the whole platform."""
        return sum(pod.working_set_bytes or 0 for pod in self.pods)


def status(cluster: Cluster, namespace: str, *, output: str = "text") -> None:
    """Print the state of the installation in one namespace."""
    cluster.check()
    found = read(cluster, namespace)
    say(as_json(found) if output == "json" else as_text(found, namespace))


def read(cluster: Cluster, namespace: str) -> Status:
    """Return the state of the installation. DemoError when there is none."""
    try:
        resources = cluster.items(RESOURCE, "-n", namespace)
    except CommandError as error:
        raise DemoError(f"this cluster has no NovaCore ({error}): run `make up`") from error
    if not resources:
        raise DemoError(f"namespace {namespace} holds no NovaCoreDeployment: run `make up`")
    pods = [*cluster.items("pods", "-n", namespace), *cluster.items("pods", "-n", OPERATOR_NAMESPACE)]
    running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
    nodes = cluster.items("nodes")
    measured: dict[tuple[str, str], Manifest] = {}
    for node in nodes:
        try:
            summary = cluster.raw(f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary")
        except CommandError:
            continue  # a node that does not answer leaves a gap in the table, not an error
        measured |= {(pod["podRef"]["namespace"], pod["podRef"]["name"]): pod for pod in summary.get("pods", [])}
    figures = tuple(figures_of(pod, measured) for pod in running)
    return Status(resources[0], figures, image_sizes(nodes, {image for pod in figures for image in pod.images}))


def figures_of(pod: Manifest, measured: dict[tuple[str, str], Manifest]) -> PodFigures:
    """Return one pod's figures from its object and the kubelet's summary."""
    meta, state = pod["metadata"], pod.get("status", {})
    memory = measured.get((meta["namespace"], meta["name"]), {}).get("memory", {})
    containers = state.get("containerStatuses", [])
    conditions = {condition["type"]: condition for condition in state.get("conditions", [])}
    ready = conditions.get("Ready", {})
    return PodFigures(
        name=meta["name"],
        namespace=meta["namespace"],
        ready=ready.get("status") == "True",
        restarts=sum(int(container.get("restartCount", 0)) for container in containers),
        resident_bytes=memory.get("rssBytes"),
        working_set_bytes=memory.get("workingSetBytes"),
        start_s=start_seconds(containers, ready),
        images=tuple(sorted({short(container["image"]) for container in containers})),
    )


def start_seconds(containers: Iterable[Manifest], ready: Manifest) -> float | None:
    """Return seconds from the last container's start to Ready; None while it is not Ready."""
    starts = [container.get("state", {}).get("running", {}).get("startedAt") for container in containers]
    if ready.get("status") != "True" or not starts or None in starts or "lastTransitionTime" not in ready:
        return None
    begun = max(datetime.fromisoformat(str(start)) for start in starts)
    return max(0.0, (datetime.fromisoformat(str(ready["lastTransitionTime"])) - begun).total_seconds())


def image_sizes(nodes: Iterable[Manifest], wanted: set[str]) -> dict[str, int]:
    """Return the size on the node of each wanted image."""
    sizes: dict[str, int] = {}
    for node in nodes:
        for image in node.get("status", {}).get("images", []):
            for name in image.get("names", []):
                if short(name) in wanted:
                    sizes[short(name)] = int(image["sizeBytes"])
    return dict(sorted(sizes.items()))


def short(image: str) -> str:
    """Return an image's name without the default registry that containerd puts in front."""
    return image.removeprefix("docker.io/").removeprefix("library/")


def as_json(found: Status) -> str:
    """Return the state as stable JSON."""
    state: dict[str, Any] = found.resource.get("status", {})
    meta = found.resource["metadata"]
    document = {
        "name": meta["name"],
        "namespace": meta["namespace"],
        "generation": meta.get("generation"),
        "observed_generation": state.get("observedGeneration"),
        "conditions": state.get("conditions", []),
        "components": state.get("components", []),
        "pods": [asdict(pod) for pod in found.pods],
        "images": found.images,
        "total": {"resident_bytes": found.resident_bytes, "working_set_bytes": found.working_set_bytes},
    }
    return json.dumps(document, indent=2)


def as_text(found: Status, namespace: str) -> str:
    """Return the state as one screen of text."""
    meta, state = found.resource["metadata"], found.resource.get("status", {})
    parts = [
        colour(f"NovaCoreDeployment {namespace}/{meta['name']}", "bold")
        + f"  generation {meta.get('generation')}, seen {state.get('observedGeneration', 'none')}",
        table(("condition", "status", "reason", "message"), [condition_row(c) for c in state.get("conditions", [])]),
        table(("component", "ready", "reason", "message"), [component_row(c) for c in state.get("components", [])]),
        table(
            ("pod", "ready", "restarts", "resident", "working set", "start"),
            [*(pod_row(pod) for pod in found.pods), total_row(found)],
            right=(2, 3, 4, 5),
        ),
        table(
            ("image", "size on the node"), [(name, mebibytes(size)) for name, size in found.images.items()], right=(1,)
        ),
    ]
    return "\n\n".join(parts)


def condition_row(condition: Manifest) -> tuple[str, str, str, str]:
    """Return one condition as a row."""
    good = condition.get("status") == "True"
    return (
        str(condition.get("type", "")),
        colour("True", "green") if good else str(condition.get("status", "")),
        str(condition.get("reason", "")),
        str(condition.get("message", "")),
    )


def component_row(component: Manifest) -> tuple[str, str, str, str]:
    """Return one component as a row."""
    counts = f"{component.get('available', '')}/{component['desired']}" if component.get("desired") is not None else ""
    return (
        str(component.get("name", "")),
        counts or ("yes" if component.get("ready") else "no"),
        str(component.get("reason", "")),
        str(component.get("message", "")),
    )


def pod_row(pod: PodFigures) -> tuple[str, ...]:
    """Return one pod as a row; a dash for what was not measured."""
    return (
        pod.name,
        "yes" if pod.ready else "no",
        str(pod.restarts),
        "-" if pod.resident_bytes is None else mebibytes(pod.resident_bytes),
        "-" if pod.working_set_bytes is None else mebibytes(pod.working_set_bytes),
        "-" if pod.start_s is None else f"{pod.start_s:.0f} s",
    )


def total_row(found: Status) -> tuple[str, ...]:
    """Return the sum of all pods as a row."""
    return ("all", "", "", mebibytes(found.resident_bytes), mebibytes(found.working_set_bytes), "")
