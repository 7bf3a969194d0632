"""Images into the node: only those it lacks, and without the references that an import leaves behind."""

from __future__ import annotations

import subprocess

from hack.cluster import engine
from hack.cluster.errors import Problem
from hack.cluster.stages import Stages, run


def load(name: str, images: list[str], stages: Stages) -> list[str]:
    """Send the images that the node of cluster `name` does not have; return those sent."""
    node = f"{name}-control-plane"
    present = set(run([engine.docker(), "exec", node, "ctr", "-n", "k8s.io", "images", "ls", "-q"]).split())
    wanted = [image for image in images if qualified(image) not in present]
    if wanted:
        with stages.stage(f"loading {', '.join(wanted)} into the node"):
            _send(node, wanted)
    stale = [
        ref
        for ref in run([engine.docker(), "exec", node, "ctr", "-n", "k8s.io", "images", "ls", "-q"]).split()
        if ref.startswith("import-")
    ]
    if stale:
        run([engine.docker(), "exec", node, "ctr", "-n", "k8s.io", "images", "rm", *stale])
    return wanted


def qualified(image: str) -> str:
    """Return the full reference that containerd keeps: `redis:8.0` is `docker.io/library/redis:8.0`."""
    first, _, rest = image.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if rest else f"docker.io/library/{image}"


def _send(node: str, images: list[str]) -> None:
    docker = engine.docker()
    saving = subprocess.Popen([docker, "save", *images], stdout=subprocess.PIPE)
    command = [docker, "exec", "-i", node, "ctr", "-n", "k8s.io", "images", "import", "-"]
    loading = subprocess.run(command, stdin=saving.stdout, capture_output=True, text=True, check=False)
    if saving.wait() != 0 or loading.returncode != 0:
        raise Problem(f"images could not be loaded: {loading.stderr.strip()[-300:]}", "is the disk of the node full?")
