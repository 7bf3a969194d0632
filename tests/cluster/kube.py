"""kubectl as a small typed door for tests, and the one way to wait: a condition with a deadline.

A failed wait prints what an engineer needs: the resource's status, the last events, and the last logs of pods that are
not ready.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
Manifest = dict[str, Any]


class KubectlError(RuntimeError):
    """kubectl refused; the message is what it printed."""


class Kube:
    """kubectl of one cluster."""

    def __init__(self, kubectl: Path, kubeconfig: Path, node: str) -> None:
        self._base = [str(kubectl), "--kubeconfig", str(kubeconfig)]
        self.kubeconfig = kubeconfig
        self.node = node

    def run(self, *args: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Return stdout. KubectlError with stderr when the exit code is not 0."""
        done = subprocess.run(
            [*self._base, *args], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, kind: str, name: str, namespace: str) -> Manifest | None:
        """Return the object, or None if there is none."""
        out = self.run("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(out) if out.strip() else None

    def must(self, kind: str, name: str, namespace: str) -> Manifest:
        """Return the object; a missing one fails the test by name."""
        found = self.get(kind, name, namespace)
        assert found is not None, f"{kind}/{name} is missing in {namespace}"
        return found

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Manifest]:
        """Return all objects of a kind in a namespace."""
        args = ["get", kind, "-n", namespace, "-o", "json"]
        if selector:
            args += ["-l", selector]
        return list(json.loads(self.run(*args))["items"])

    def apply(self, manifest: Manifest, *, server_side: bool = False) -> str:
        """Apply one manifest as a user would."""
        extra = ["--server-side", "--field-manager=test"] if server_side else []
        return self.run("apply", *extra, "-f", "-", stdin=json.dumps(manifest))

    def delete(self, kind: str, name: str, namespace: str, *, wait: bool = True) -> None:
        """Delete and, by default, wait until it is gone."""
        self.run("delete", kind, name, "-n", namespace, f"--wait={str(wait).lower()}", timeout_s=120)

    def exec(self, pod: str, namespace: str, *command: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Run a command in a pod (`deploy/x` works too)."""
        interactive = ["-i"] if stdin is not None else []
        return self.run("exec", *interactive, "-n", namespace, pod, "--", *command, stdin=stdin, timeout_s=timeout_s)

    def logs(self, target: str, namespace: str, *extra: str) -> str:
        """Return the logs of a pod or `deploy/x`."""
        return self.run("logs", "-n", namespace, target, *extra)

    def on_node(self, *command: str) -> str:
        """Run a command on the (only) node of the kind cluster."""
        return subprocess.run(
            ["docker", "exec", self.node, *command], capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def report(self, namespace: str) -> str:
        """What an engineer needs: CR status, events, pods, last logs of pods that are not ready."""
        parts = []
        for title, args in (
            ("resource", ("get", "nova", "-n", namespace, "-o", "yaml")),
            ("pods", ("get", "pods", "-n", namespace, "-o", "wide")),
            ("events", ("get", "events", "-n", namespace, "--sort-by=.lastTimestamp")),
            ("operator", ("logs", "-n", "novacore-system", "deploy/novacore-operator", "--tail=60")),
        ):
            try:
                parts.append(f"--- {title}\n" + "\n".join(self.run(*args).splitlines()[-80:]))
            except (KubectlError, subprocess.TimeoutExpired) as error:
                parts.append(f"--- {title}: {error}")
        for pod in self.list("pods", namespace):
            if not pod_ready(pod) and pod["status"].get("phase") != "Succeeded":
                name = pod["metadata"]["name"]
                try:
                    parts.append(f"--- logs {name}\n" + self.logs(name, namespace, "--tail=30"))
                except (KubectlError, subprocess.TimeoutExpired) as error:
                    parts.append(f"--- logs {name}: {error}")
        return "\n".join(parts)


def pod_ready(pod: Manifest) -> bool:
    """Return whether the pod's Ready condition is True."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def condition(resource: Manifest | None, kind: str) -> Manifest:
    """Return one condition of a resource, or an empty dict when it is not there yet."""
    conditions = (resource or {}).get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def until(
    probe: Callable[[], T | None],
    *,
    within_s: float,
    what: str,
    report: Callable[[], str] = lambda: "",
    every_s: float = 0.3,
) -> T:
    """Return the first truthy answer of `probe`; fail with `what` and the report after `within_s` seconds."""
    pause = threading.Event()
    end = time.monotonic() + within_s
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            answer = probe()
        except (KubectlError, OSError, httpx.TransportError) as error:  # a busy API server, a port not open yet
            answer, last = None, error
        if answer:
            return answer
        pause.wait(every_s)
    raise AssertionError(f"not within {within_s:.0f} s: {what} (last error: {last})\n{report()}")
