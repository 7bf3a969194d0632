"""One screen about an installation: conditions, components, memory, start-up times, image sizes.

Memory is what the kubelet measures (`/stats/summary`): resident = anonymous memory, working set = resident plus page
cache in use; the working set is what a limit is held against. Start-up runs from the container's start, which
Kubernetes keeps in whole seconds, to the service's log line `serving`; what writes no such line is measured to the
pod's Ready condition, which moves when readiness is lost and found again. Image sizes are the node's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from hack.demo.kube import OPERATOR_NAMESPACE, RESOURCE, Cluster, CommandError, Manifest
from hack.demo.terminal import DemoError, colour, mebibytes, say, table

LOG_BYTES = 65_536
"""Enough for the lines that a service writes until it serves."""


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
    with ThreadPoolExecutor(max_workers=4) as pool:
        serving = pool.map(lambda pod: serving_since(first_log(cluster, pod)), running)
    figures = tuple(figures_of(pod, measured, since) for pod, since in zip(running, serving, strict=True))
    return Status(resources[0], figures, image_sizes(nodes, {image for pod in figures for image in pod.images}))


def first_log(cluster: Cluster, pod: Manifest) -> str:
    """Return the beginning of a pod's log, or nothing when it cannot be read."""
    meta = pod["metadata"]
    try:
        return cluster.kubectl("logs", "-n", meta["namespace"], meta["name"], f"--limit-bytes={LOG_BYTES}")
    except CommandError:
        return ""


def serving_since(log: str) -> datetime | None:
    """Return when a service said that it serves, or None when the log does not say so."""
    for line in log.splitlines():
        if '"serving"' not in line:
            continue
        try:
            fields = json.loads(line)
            if fields.get("event") == "serving":
                return datetime.fromisoformat(fields["ts"])
        except (ValueError, KeyError, AttributeError):
            continue
    return None


def figures_of(pod: Manifest, measured: dict[tuple[str, str], Manifest], serving: datetime | None = None) -> PodFigures:
    """Return one pod's figures from its object, the kubelet's summary and the time at which it began to serve."""
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
        start_s=start_seconds(containers, ready, serving),
        images=tuple(sorted({short(container["image"]) for container in containers})),
    )


def start_seconds(containers: Iterable[Manifest], ready: Manifest, serving: datetime | None = None) -> float | None:
    """Return seconds from the last container's start until it served, or was Ready; None when neither is known."""
    starts = [container.get("state", {}).get("running", {}).get("startedAt") for container in containers]
    if not starts or None in starts:
        return None
    begun = max(datetime.fromisoformat(str(start)) for start in starts)
    if serving is None and ready.get("status") == "True" and "lastTransitionTime" in ready:
        serving = datetime.fromisoformat(str(ready["lastTransitionTime"]))
    return None if serving is None else round(max(0.0, (serving - begun).total_seconds()), 1)


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
        "-" if pod.start_s is None else f"{pod.start_s:.1f} s",
    )


def total_row(found: Status) -> tuple[str, ...]:
    """Return the sum of all pods as a row."""
    return ("all", "", "", mebibytes(found.resident_bytes), mebibytes(found.working_set_bytes), "")
