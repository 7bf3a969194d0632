"""Install or upgrade both charts with Helm and wait, with a line per change, until the resource says Ready.

Nothing here knows what the operator creates: it reads the resource's conditions, as any user would. When the time is
over it prints what an engineer asks for first: the status, the events, the last words of pods that are not ready.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hack.demo.kube import OPERATOR, OPERATOR_NAMESPACE, RESOURCE, ROOT, TOOLS, Cluster, CommandError, Manifest
from hack.demo.terminal import Deadline, DemoError, Stopwatch, colour, say, step

CHARTS = ROOT / "charts"
VALUES_KIND = Path(__file__).with_name("values-kind.yaml")
IMAGES = TOOLS / "images.json"
READY_WITHIN_S = 600.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}


def deploy(
    cluster: Cluster,
    namespace: str,
    *,
    values: Sequence[Path] = (),
    operator_values: Sequence[Path] = (),
    ready_within_s: float = READY_WITHIN_S,
) -> None:
    """Bring the operator and one installation to what the charts and values say, and wait for Ready."""
    cluster.check()
    for file in (*values, *operator_values):
        if not file.is_file():
            raise DemoError(f"there is no values file {file}")
    watch = Stopwatch()
    images = read_images()
    apply_namespace(cluster, OPERATOR_NAMESPACE)
    apply_namespace(cluster, namespace)
    step(watch, f"operator {images['operator']} into {OPERATOR_NAMESPACE}")
    install_operator(cluster, namespace, images["operator"], operator_values)
    step(watch, f"NovaCoreDeployment {namespace}/novacore, workloads {images['workloads']}")
    install_platform(cluster, namespace, images, values)
    wait_until_ready(cluster, namespace, watch, Deadline(ready_within_s))


def read_images() -> dict[str, str]:
    """Return the image names that `hack.cluster images` built. DemoError when it has not run."""
    try:
        images: dict[str, str] = json.loads(IMAGES.read_text())
    except (OSError, ValueError) as error:
        raise DemoError("no images have been built here: run `make image`, or `make up` for everything") from error
    missing = {"operator", "workloads"} - images.keys()
    if missing:
        raise DemoError(f"{IMAGES.name} names no image for {', '.join(sorted(missing))}: run `make image`")
    return images


def split_image(image: str) -> tuple[str, str]:
    """Return repository and tag of `repository:tag`. DemoError without a tag."""
    repository, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        raise DemoError(f"image {image!r} has no tag")
    return repository, tag


def apply_namespace(cluster: Cluster, name: str) -> None:
    """Make the namespace, with PodSecurity *restricted* enforced on it."""
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    cluster.kubectl("apply", "--server-side", "--field-manager=novacore-demo", "-f", "-", stdin=json.dumps(manifest))


def install_operator(cluster: Cluster, namespace: str, image: str, files: Sequence[Path] = ()) -> None:
    """Install or upgrade the operator's chart; it serves this namespace and all that already hold an installation."""
    repository, tag = split_image(image)
    values = {
        "image": {"repository": repository, "tag": tag},
        "installationNamespaces": sorted({namespace, *installed_namespaces(cluster)}),
    }
    helm_upgrade(cluster, OPERATOR, namespace=OPERATOR_NAMESPACE, files=files, values=values)
    rollout = ("rollout", "status", f"deployment/{OPERATOR}", "-n", OPERATOR_NAMESPACE, "--timeout=120s")
    try:
        cluster.kubectl(*rollout, timeout_s=130)
    except CommandError:
        report(cluster, OPERATOR_NAMESPACE)
        raise


def installed_namespaces(cluster: Cluster) -> set[str]:
    """Return the namespaces that hold a NovaCoreDeployment."""
    try:
        return {found["metadata"]["namespace"] for found in cluster.items(RESOURCE, "--all-namespaces")}
    except CommandError:
        return set()  # the resource type is not there before the first install


def install_platform(cluster: Cluster, namespace: str, images: dict[str, str], values: Sequence[Path]) -> None:
    """Install or upgrade the chart that holds the one resource, with the images that were built or chosen here."""
    repository, tag = split_image(images["workloads"])
    own: Manifest = {"image": {"repository": repository, "tag": tag}}
    own |= {store: {"image": images[store]} for store in ("postgres", "redis") if store in images}
    helm_upgrade(cluster, "novacore", namespace=namespace, files=(VALUES_KIND, *values), values=own)


def helm_upgrade(
    cluster: Cluster, release: str, *, namespace: str, files: Sequence[Path] = (), values: Manifest
) -> None:
    """Run `helm upgrade --install` of the chart of that name, with values files and, above them, our own values."""
    own = TOOLS / f"values-{cluster.name}-{namespace}-{release}.json"
    own.write_text(json.dumps(values, indent=2))
    arguments = [argument for file in (*files, own) for argument in ("--values", str(file))]
    cluster.helm("upgrade", "--install", release, str(CHARTS / release), "--namespace", namespace, *arguments)


def wait_until_ready(cluster: Cluster, namespace: str, watch: Stopwatch, deadline: Deadline) -> None:
    """Return when Ready is True for the present generation; print each change. DemoError with a report otherwise."""
    progress = Progress()
    for resource in changes(cluster, namespace, deadline):
        for line in progress.lines(resource):
            step(watch, line)
        if is_ready(resource):
            step(watch, colour("Ready", "green"))
            return
    report(cluster, namespace)
    raise DemoError(f"not Ready after {deadline.seconds:.0f} s: the state is above; `make status` shows it again")


def changes(cluster: Cluster, namespace: str, deadline: Deadline) -> Iterator[Manifest]:
    """Yield the resource now and at each change until the deadline (`kubectl get --watch`, restarted if it ends)."""
    while not deadline.over:
        process = subprocess.Popen(
            cluster.kubectl_command("get", RESOURCE, "novacore", "-n", namespace, "--watch", "-o", "json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
        text = ""
        try:
            while (line := lines.get(timeout=max(0.01, deadline.left_s))) is not None:
                text += line
                if line.startswith("}"):  # kubectl indents: only the end of an object stands in column 0
                    yield json.loads(text)
                    text = ""
        except queue.Empty:
            return
        finally:
            process.terminate()
            process.wait(10)


def _pump(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def is_ready(resource: Manifest) -> bool:
    """Return whether Ready is True and speaks of the present generation."""
    found = conditions_of(resource).get("Ready", {})
    return found.get("status") == "True" and found.get("observedGeneration") == resource["metadata"]["generation"]


def conditions_of(resource: Manifest) -> dict[str, Manifest]:
    """Return the conditions by type."""
    return {condition["type"]: condition for condition in resource.get("status", {}).get("conditions", [])}


@dataclass(slots=True)
class Progress:
    """Remembers what was said, so that each change is one line."""

    _said: dict[str, tuple[str, str]] = field(default_factory=dict)
    _components: tuple[int, int] | None = None

    def lines(self, resource: Manifest) -> list[str]:
        """Return a line per condition that changed, and one when the number of ready components did."""
        new = []
        for kind, condition in conditions_of(resource).items():
            state = (str(condition.get("status")), str(condition.get("reason", "")))
            if self._said.get(kind) != state:
                self._said[kind] = state
                mark = colour(state[0], "green") if state[0] == "True" else state[0]
                new.append(f"{kind} {mark}  {state[1]}  {condition.get('message', '')}".rstrip())
        components = resource.get("status", {}).get("components", [])
        counted = (sum(1 for component in components if component.get("ready")), len(components))
        if components and counted != self._components:
            self._components = counted
            waiting = ", ".join(component["name"] for component in components if not component.get("ready"))
            new.append(f"{counted[0]}/{counted[1]} components ready" + (f", waiting for {waiting}" if waiting else ""))
        return new


def report(cluster: Cluster, namespace: str) -> None:
    """Print the status, the last events, and the last log lines of what is not ready."""
    for title, arguments in (
        ("resource", ("get", RESOURCE, "-n", namespace, "-o", "jsonpath={.items[*].status}")),
        ("pods", ("get", "pods", "-n", namespace, "-o", "wide")),
        ("events", ("get", "events", "-n", namespace, "--sort-by=.lastTimestamp")),
        (f"logs of {OPERATOR}", ("logs", "-n", OPERATOR_NAMESPACE, f"deployment/{OPERATOR}", "--tail=30")),
    ):
        _section(cluster, title, arguments)
    try:
        pods = cluster.items("pods", "-n", namespace)
    except CommandError:
        return
    for pod in pods:
        state = pod.get("status", {})
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in state.get("conditions", []))
        if not ready and state.get("phase") != "Succeeded":
            name = pod["metadata"]["name"]
            _section(cluster, f"logs of {name}", ("logs", "-n", namespace, name, "--all-containers", "--tail=20"))


def _section(cluster: Cluster, title: str, arguments: Sequence[str]) -> None:
    try:
        text = "\n".join(cluster.kubectl(*arguments).splitlines()[-40:])
    except CommandError as error:
        text = str(error)
    say(f"\n{colour(title, 'bold')}\n{text}")
