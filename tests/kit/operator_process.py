"""The operator as its own process, with the identity that the chart gives it; and the chart's objects it needs.

It runs the same entry point as the image does, against a control plane of `tests.kit.controlplane`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.kit.api import Manifest, RefusedError
from tests.kit.child import Child, free_port
from tests.kit.controlplane import ROOT, ControlPlane, binary, groups_of, service_account
from tests.kit.wait import until

SYSTEM = "novacore-system"
NAME = "novacore-operator"
START_S = 30
TAKE_OVER_S = 20
"""A crashed holder's Lease is taken within 15 s."""


def install_chart(plane: ControlPlane, *, namespace: str = SYSTEM, **values: Any) -> list[Manifest]:
    """Render the operator's chart with Helm, apply its CRD and its roles; return all that was rendered.

    Not applied: the Deployment and what belongs to its pod. The process below stands for it.
    """
    file = plane.folder / f"values-{namespace}.json"
    file.write_text(json.dumps(values))
    command = [binary("helm"), "template", NAME, ROOT / "charts" / NAME, "--namespace", namespace, "--values", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rendered = [item for item in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if item]
    for name in (namespace, *values.get("watchNamespaces", ())):
        plane.admin.apply(namespace_of(name))
    wanted = ("CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    for manifest in rendered:
        if manifest["kind"] in wanted:
            plane.admin.apply(manifest, manager="helm")
    until(lambda: served(plane), within_s=10, what="the API server serves NovaCoreDeployments")
    return rendered


def namespace_of(name: str) -> Manifest:
    """Return a namespace as `make up` makes one."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def served(plane: ControlPlane) -> bool:
    """Whether the API server serves NovaCoreDeployments."""
    try:
        plane.admin.list("NovaCoreDeployment")
    except RefusedError as error:  # not known yet, or its storage is being made
        assert error.code in (404, 429), error
        return False
    return True


class OperatorProcess:
    """One operator. `namespaces` empty: the whole cluster."""

    def __init__(
        self,
        plane: ControlPlane,
        *,
        name: str = "operator",
        namespace: str = SYSTEM,
        namespaces: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.user = service_account(namespace, NAME)
        self.name = name
        self._port = free_port()
        config = plane.kubeconfig(self.user, *groups_of(self.user))
        env = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
        env |= {"KUBECONFIG": str(config), "POD_NAME": name, "POD_NAMESPACE": namespace}
        command = [sys.executable, "-m", "novacore_operator", "run", f"--port={self._port}"]
        command += [*(f"--namespace={item}" for item in namespaces), *options]
        self.child = Child(name, command, log=plane.folder / f"{name}.log", env=env)
        self._from = 0

    def start(self, *, leads: bool = True, within_s: float = START_S) -> None:
        """Start it, and wait until its caches are full and, unless told otherwise, it holds the Lease."""
        self._from = self.log.stat().st_size if self.log.exists() else 0
        self.child.start()
        self._until(self.ready, "the operator's caches are full", within_s)
        if leads:
            self._until(lambda: self.said("lease_acquired"), "the operator holds the Lease", TAKE_OVER_S)

    def stop(self) -> None:
        """SIGTERM: it gives the Lease up and ends with 0."""
        code = self.child.stop()
        assert code == 0, f"the operator ended with {code}\n{self.child.tail()}"

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self.child.kill()

    def freeze(self) -> None:
        """SIGSTOP: a process that hangs."""
        self.child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.child.signal(signal.SIGCONT)

    @property
    def log(self) -> Path:
        """File with its log lines, of all its runs."""
        return self.child.log

    def lines(self) -> list[dict[str, Any]]:
        """Return the log lines of the present run."""
        with self.log.open("rb") as file:
            file.seek(self._from)
            text = file.read().decode(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def said(self, event: str) -> bool:
        """Whether the present run logged this event."""
        return any(line["event"] == event for line in self.lines())

    def report(self, lines: int = 40) -> str:
        """Return the last log lines of the present run, short."""
        known = ("service", "version", "pod", "logger", "reconcile_id", "ts")
        short = [
            " ".join([line["ts"][11:23], *(str(value) for key, value in line.items() if key not in known)])
            for line in self.lines()[-lines:]
        ]
        return "\n".join([f"--- {self.name}, {self.log}", *short])

    def ready(self) -> bool:
        """Whether /readyz answers 200."""
        return self.page("/readyz") is not None

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over all series that carry these labels."""
        total = 0.0
        for line in (self.page("/metrics") or "").splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{key}="{text}"' in series for key, text in labels.items()):
                total += float(value)
        return total

    def memory_mib(self, what: str = "VmRSS") -> float:
        """Return its resident memory, or with `VmHWM` the most that it ever was."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith(f"{what}:"))
        return int(line.split()[1]) / 1024

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def page(self, path: str) -> str | None:
        """Return what its own listener serves; None when it does not, or refuses."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                text: str = answer.read().decode()
                return text
        except (urllib.error.URLError, OSError):
            return None

    def _until(self, probe: Any, what: str, within_s: float) -> None:
        def checked() -> bool:
            assert self.child.runs(), f"the operator ended\n{self.child.tail()}"
            return bool(probe())

        until(checked, within_s=within_s, what=what, report=self.child.tail, every_s=0.05)
