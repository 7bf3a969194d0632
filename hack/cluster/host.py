"""Reads the facts that `decide` needs. Thin: no decision here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hack.cluster import engine
from hack.cluster.decide import GIB, Host
from hack.cluster.kind import STOCK_IMAGE
from hack.cluster.machine import has_sys_resource
from hack.cluster.paths import ROOT, STATE
from hack.cluster.stages import run, succeeds

PROBE_IMAGE = "hello-world:latest"  # 13 kB: the smallest thing that proves a pull


def read_host() -> Host:
    """Look at this machine. Takes up to 20 s when Docker tries to pull and cannot."""
    answers = engine.answers()
    return Host(
        root=os.geteuid() == 0,
        debian=Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None,
        engine_answers=answers,
        engine_installed=shutil.which("dockerd") is not None,
        can_pull=answers and can_pull(),
        stock_node_present=answers and engine.has_image(STOCK_IMAGE),
        cgroup_v1=answers and engine.cgroup_v1(),
        sys_resource=has_sys_resource(),
        disk_free_gib=shutil.disk_usage(ROOT).free / GIB,
        node_image_present=node_image_present(answers),
    )


def can_pull() -> bool:
    """Return whether Docker reaches an image registry (a tiny image, 20 s)."""
    return succeeds([engine.docker(), "pull", "--quiet", PROBE_IMAGE], timeout_s=20)


def node_image_present(engine_answers: bool) -> bool:
    """Whether the heavy build is behind us: a node image is there, or (engine stopped) the Go results are."""
    if engine_answers:
        return engine.has_image(STOCK_IMAGE) or bool(run([engine.docker(), "images", "-q", "novacore/node"]).strip())
    return any((STATE / "go").glob("kubernetes-*/.done"))
