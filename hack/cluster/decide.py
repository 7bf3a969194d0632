"""The pure decisions: which path, and whether this machine can take it. Facts in, a decision or a Problem out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hack.cluster.errors import Problem

Path = Literal["stock", "bare"]

GIB = 1 << 30
DISK_NEED_GIB: dict[tuple[Path, bool], int] = {
    # (path, node image already there). A cold bare build keeps up to 12 GB of Go build cache and 6 GB of modules.
    ("bare", False): 30,
    ("bare", True): 6,
    ("stock", False): 12,
    ("stock", True): 6,
}


@dataclass(frozen=True, slots=True)
class Host:
    """What was seen of this machine."""

    root: bool
    debian: bool
    engine_answers: bool  # a Docker engine answers on its socket
    engine_installed: bool  # dockerd is on the disk
    can_pull: bool  # Docker pulled a tiny image within the time limit
    stock_node_present: bool  # Docker holds kind's own node image, from an earlier pull
    cgroup_v1: bool
    sys_resource: bool  # CAP_SYS_RESOURCE can be had
    disk_free_gib: float
    node_image_present: bool


def choose_path(host: Host, wanted: str) -> tuple[Path, str]:
    """Return the path and, for a person, why. `wanted` is auto, stock or bare."""
    if wanted == "stock":
        return "stock", "asked for"
    if wanted == "bare":
        return "bare", "asked for"
    if host.engine_answers and host.can_pull:
        return "stock", "Docker can pull images"
    if host.engine_answers and host.stock_node_present:
        return "stock", "Docker cannot pull images now, but holds kind's node image"  # a laptop on a train
    if host.engine_answers:
        return "bare", "Docker cannot pull images"
    return "bare", "no Docker engine answers"


def check(host: Host, path: Path) -> None:
    """Raise a Problem when this machine cannot go that way."""
    if not host.engine_answers:
        if path == "stock":
            raise Problem("the stock path needs a running Docker engine", "start Docker, or use CLUSTER_PATH=bare")
        if not host.engine_installed and not host.debian:
            raise Problem(
                "there is no Docker engine, and this is not Debian, where it would be installed for you",
                "install and start Docker, then run the same command again",
            )
        if not host.root:
            raise Problem(
                "no Docker engine answers, and starting one needs root",
                "start Docker (or add yourself to the group docker), or run as root",
            )
    if path == "bare" and not host.root:
        raise Problem("the bare path builds root file systems as root", "run as root, or let Docker pull images")
    if path == "bare" and not host.debian:
        raise Problem("the bare path uses Debian's package tools", "let Docker pull images, or run on Debian")
    need = DISK_NEED_GIB[(path, host.node_image_present)]
    if host.disk_free_gib < need:
        raise Problem(
            f"{host.disk_free_gib:.0f} GiB of disk are free, the {path} path needs {need}",
            "free some space (`make clean` removes what we built)",
        )


def check_port(port: int, free: bool, cluster_exists: bool) -> None:
    """Raise a Problem when the loopback port is taken by somebody else than our own cluster."""
    if not 1 <= port <= 65535:
        raise Problem(f"{port} is not a port", "use PORT=1024..65535")
    if not free and not cluster_exists:
        raise Problem(f"port {port} on 127.0.0.1 is taken", f"use another one: make up PORT={_other(port)}")


def _other(port: int) -> int:
    return port + 80 if port + 80 <= 65535 else 5080


EngineAction = Literal["none", "wait", "install", "start", "clear-and-start"]


def engine_action(*, answers: bool, installed: bool, pid_file: bool, pid_alive: bool) -> EngineAction:
    """What must be done so that an engine answers.

    `pid_alive`: the pid file names a live process *that is dockerd*. A number that another process got since, or none,
    is left from a killed one.
    """
    if answers:
        return "none"
    if pid_alive:
        return "wait"  # somebody is starting it: a second one would fail on the pid file
    if not installed:
        return "install"
    if pid_file and not pid_alive:
        return "clear-and-start"
    return "start"


NodeAction = Literal["create", "start", "wait", "none"]


def node_action(*, exists: bool, running: bool, api_answers: bool) -> NodeAction:
    """What must be done with the cluster's node container. Silence is waited out first: a node that has just restarted
    needs most of a minute, and making it anew would delete the data of everything in it."""
    if not exists:
        return "create"
    if not running:
        return "start"
    return "none" if api_answers else "wait"


def check_mapping(name: str, mapped: int | None, port: int) -> None:
    """Raise a Problem when the existing cluster is not mapped to the port asked for: a mapping cannot be changed."""
    if mapped == port:
        return
    if mapped is None:
        raise Problem(f"a kind cluster {name} exists that was not made here", "use another name: make up NAME=…")
    raise Problem(
        f"cluster {name} is mapped to port {mapped}, not {port}",
        f"use make up PORT={mapped}, or delete it first: make down",
    )
