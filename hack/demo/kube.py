"""kubectl and helm of one kind cluster made by `hack.cluster`."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.demo.terminal import DemoError

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
OPERATOR_NAMESPACE = "novacore-system"
OPERATOR = "novacore-operator"
RESOURCE = "novacoredeployments.novacore.ai"

Manifest = dict[str, Any]


class CommandError(DemoError):
    """A tool refused; the message is its last line of output."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster by name: where its kubeconfig is and which binaries speak to it."""

    name: str

    @property
    def kubeconfig(self) -> Path:
        """Written by `hack.cluster up`."""
        return TOOLS / f"kubeconfig-{self.name}"

    def check(self) -> None:
        """DemoError when there is no cluster of that name."""
        if not self.kubeconfig.exists():
            raise DemoError(
                f"there is no cluster {self.name!r} here ({self.kubeconfig.name} is missing): run `make up`"
            )

    def kubectl_command(self, *args: str) -> list[str]:
        """Return the full command line."""
        return [binary("kubectl"), "--kubeconfig", str(self.kubeconfig), *args]

    def kubectl(self, *args: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Return kubectl's output. CommandError when it fails."""
        return run(self.kubectl_command(*args), stdin=stdin, timeout_s=timeout_s)

    def get(self, *args: str, timeout_s: float = 60) -> Manifest:
        """Return what `kubectl get … -o json` printed; an empty dict when nothing was found."""
        output = self.kubectl("get", *args, "-o", "json", "--ignore-not-found", timeout_s=timeout_s)
        found: Manifest = json.loads(output) if output.strip() else {}
        return found

    def items(self, *args: str) -> list[Manifest]:
        """Return the items of `kubectl get KIND …`."""
        found: list[Manifest] = self.get(*args).get("items", [])
        return found

    def raw(self, path: str) -> Manifest:
        """Return the JSON of a path of the API server."""
        found: Manifest = json.loads(self.kubectl("get", "--raw", path))
        return found

    def helm(self, *args: str, timeout_s: float = 120) -> str:
        """Return helm's output. CommandError when it fails."""
        return run([binary("helm"), "--kubeconfig", str(self.kubeconfig), *args], timeout_s=timeout_s)


def binary(name: str) -> str:
    """Return the path of a tool: the repository's own build first, else the one on PATH."""
    own = TOOLS / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise DemoError(f"{name} is missing: run `python3 -m hack.cluster tools`")
    return found


def run(command: list[str], *, stdin: str | None = None, timeout_s: float = 60) -> str:
    """Return stdout. CommandError with the tool's own last words when the exit code is not 0."""
    tool = Path(command[0]).name
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{tool} gave no answer within {timeout_s:.0f} s") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise CommandError(f"{tool}: {' '.join(word.strip() for word in words[-6:])}")
    return done.stdout
