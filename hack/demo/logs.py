"""One request followed through every service: the JSON log lines that carry an id, in the order of time."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hack.demo.kube import Cluster, CommandError, Manifest
from hack.demo.terminal import EXIT_USAGE, PALETTE, DemoError, colour, say

PREFIX = "novacore-"
HIDDEN = frozenset({"ts", "level", "service", "version", "pod", "event", "request_id", "trace_id", "span_id"})
"""Fields with a place of their own in the printed line, or the same on each of them."""
ORDER = ("method", "route", "status", "ms", "code")


@dataclass(frozen=True, slots=True)
class Line:
    """One log line."""

    at: str
    service: str
    fields: dict[str, Any]


def logs(cluster: Cluster, namespace: str, wanted: str, *, follow: bool = False) -> int:
    """Print the lines that carry the id; return how many services spoke."""
    if not wanted:
        raise DemoError("which request? make logs ID=… (the id that `make chat ARGS=-v` prints)", exit_code=EXIT_USAGE)
    cluster.check()
    pods = pods_of(cluster, namespace)
    if not pods:
        raise DemoError(f"no pod of NovaCore runs in namespace {namespace}: see `make status`")
    if follow:
        return _follow(cluster, namespace, wanted, pods)
    found = collect(cluster, namespace, wanted, pods)
    for line in found:
        say(render(line))
    services = {line.service for line in found}
    if not found:
        raise DemoError(f"no line carries {wanted}: is the id complete, and not older than the pods?")
    say(colour(f"{len(found)} lines of {len(services)} services: {', '.join(sorted(services))}", "dim"))
    return len(services)


def pods_of(cluster: Cluster, namespace: str) -> list[str]:
    """Return the names of the installation's pods that have started."""

    def started(pod: Manifest) -> bool:
        return any("running" in c.get("state", {}) for c in pod.get("status", {}).get("containerStatuses", []))

    return sorted(
        pod["metadata"]["name"]
        for pod in cluster.items("pods", "-n", namespace)
        if pod["metadata"]["name"].startswith(PREFIX) and started(pod)
    )


def collect(cluster: Cluster, namespace: str, wanted: str, pods: list[str]) -> list[Line]:
    """Return the lines of all pods that carry the id, oldest first."""

    def read(pod: str) -> list[Line]:
        try:
            text = cluster.kubectl("logs", "-n", namespace, pod, "--all-containers", "--tail=-1")
        except CommandError:
            return []  # the pod went away while we looked
        return matching(text.splitlines(), wanted, pod)

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = [line for lines in pool.map(read, pods) for line in lines]
    return sorted(found, key=lambda line: moment(line.at))


def matching(lines: Iterable[str], wanted: str, pod: str) -> list[Line]:
    """Return the JSON lines in which some field is exactly the wanted id (a request id, a run id, …)."""
    found = []
    for text in lines:
        if wanted not in text:
            continue
        try:
            fields = json.loads(text)
        except ValueError:
            continue  # Postgres and Redis do not write JSON
        if isinstance(fields, dict) and wanted in fields.values():
            found.append(Line(str(fields.get("ts", "")), str(fields.get("service") or pod), fields))
    return found


def moment(at: str) -> float:
    """Return a log line's time for sorting; a line without one comes first."""
    try:
        return float(at)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return 0.0


def render(line: Line) -> str:
    """Return one line for a person: time of day, service, level when it matters, event, fields."""
    level = str(line.fields.get("level", "info")).lower()
    mark = {"warning": "yellow", "error": "red", "critical": "red"}.get(level)
    event = str(line.fields.get("event", ""))
    names = [name for name in ORDER if name in line.fields]
    names += [name for name in line.fields if name not in HIDDEN and name not in ORDER]
    rest = " ".join(f"{name}={_value(line.fields[name])}" for name in names if line.fields[name] not in (None, ""))
    paint = PALETTE[sum(line.service.encode()) % len(PALETTE)]
    return (
        f"{colour(_clock(line.at), 'dim')}  {colour(f'{line.service:<20}', paint)}  "
        f"{colour(event, mark) if mark else event}  {rest}"
    ).rstrip()


def _clock(at: str) -> str:
    at_s = moment(at)
    return datetime.fromtimestamp(at_s).astimezone().strftime("%H:%M:%S.%f")[:12] if at_s else " " * 12


def _value(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) and (" " in value or not value) else str(value)


def _follow(cluster: Cluster, namespace: str, wanted: str, pods: list[str]) -> int:
    """Print matching lines as they are written, until Ctrl-C. Return how many services spoke."""
    lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
    running: list[subprocess.Popen[str]] = []

    def pump(pod: str, process: subprocess.Popen[str]) -> None:
        for text in process.stdout or ():
            for line in matching([text], wanted, pod):
                lines.put(line)

    for pod in pods:
        command = cluster.kubectl_command("logs", "-f", "-n", namespace, pod, "--all-containers", "--tail=-1")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        running.append(process)
        threading.Thread(target=pump, args=(pod, process), daemon=True).start()
    services: set[str] = set()
    try:
        while True:
            line = lines.get()
            services.add(line.service)
            say(render(line))
    except KeyboardInterrupt:
        return len(services)
    finally:
        for process in running:
            process.terminate()
