"""Reads the facts that `decide` needs. Thin: no decision here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hack.cluster import engine
from hack.cluster.decide import GIB, Host
from hack.cluster.machine import cgroup_v1, has_sys_resource
from hack.cluster.stages import succeeds

PROBE_IMAGE = "registry.k8s.io/pause:3.10"  # 320 kB: the smallest thing that proves a pull


def read_host(*, node_image: str) -> Host:
    """Look at this machine. Takes up to 20 s when Docker tries to pull and cannot."""
    answers = engine.answers()
    return Host(
        root=os.geteuid() == 0,
        debian=Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None,
        engine_answers=answers,
        engine_installed=shutil.which("dockerd") is not None,
        can_pull=answers and can_pull(),
        cgroup_v1=cgroup_v1(),
        sys_resource=has_sys_resource(),
        disk_free_gib=shutil.disk_usage(Path.cwd()).free / GIB,
        node_image_present=answers and bool(node_image) and engine.has_image(node_image),
    )


def can_pull() -> bool:
    """Return whether Docker reaches an image registry (a tiny image, 20 s)."""
    return succeeds([engine.docker(), "pull", "--quiet", PROBE_IMAGE], timeout_s=20)
