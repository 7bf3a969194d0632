"""A control plane of a test's own, with the chart installed and pods played: for tests that disturb the operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.api import Api, Manifest
from tests.kit.auditlog import AuditLog
from tests.kit.controlplane import ControlPlane, running
from tests.kit.operator_process import install_chart, served
from tests.kit.player import Player

STORAGE = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "example.org/none",
    "allowVolumeExpansion": True,
}


@dataclass
class Bench:
    """What is there before an operator is."""

    plane: ControlPlane
    player: Player
    chart: list[Manifest]

    @property
    def api(self) -> Api:
        """The API server as an administrator."""
        return self.plane.admin

    @property
    def audit(self) -> AuditLog:
        """What the API server recorded."""
        return AuditLog(self.plane.audit_log)

    def served(self) -> bool:
        """Whether the API server serves NovaCoreDeployments."""
        return served(self.plane)


@contextmanager
def bench(folder: Path, **values: Any) -> Iterator[Bench]:
    """Start a control plane, install the chart with these values, play the pods; end all of it."""
    with running(folder) as plane:
        chart = install_chart(plane, **values)
        plane.admin.apply(STORAGE)
        with Player(plane.admin) as player:
            yield Bench(plane, player, chart)
