"""Images into the node: only those it lacks, and without the references that an import leaves behind.

Only images that were built here are sent. Pulled ones the node pulls itself: `docker save` of a multi-platform image
whose other platforms were never fetched is an archive that containerd refuses.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Mapping

from hack.cluster import engine
from hack.cluster.errors import Problem
from hack.cluster.lock import exclusive
from hack.cluster.paths import loaded
from hack.cluster.rootfs import LABEL
from hack.cluster.stages import Stages, run


def load(name: str, images: list[str], stages: Stages) -> list[str]:
    """Send the images that the node of cluster `name` does not have; return those sent."""
    with exclusive():
        node = f"{name}-control-plane"
        container = run([engine.docker(), "inspect", "--format", "{{.Id}}", node], why="run: make up").strip()
        local = {image: engine.image_id(image) for image in images if _built_here(image)}
        sent = _recorded(name, container)
        wanted = lacking(local, _references(node), sent)
        if wanted:
            with stages.stage(f"loading {', '.join(wanted)} into the node"):
                _send(node, wanted)
        _remove_import_references(node)
        loaded(name).write_text(json.dumps({"node": container, "images": {**sent, **local}}))
        return wanted


def lacking(local: Mapping[str, str], present: Collection[str], sent: Mapping[str, str]) -> list[str]:
    """Return the images to send. `local`: name -> id in Docker; `present`: references in the node; `sent`: name -> id
    at the last load. A name made from the content needs no comparison; any other may have been built anew since."""
    return [
        image
        for image, identity in local.items()
        if qualified(image) not in present or (":dev-" not in image and sent.get(image) != identity)
    ]


def qualified(image: str) -> str:
    """Return the full reference that containerd keeps: `redis:8.0` is `docker.io/library/redis:8.0`."""
    first, _, rest = image.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if rest else f"docker.io/library/{image}"


def _built_here(image: str) -> bool:
    return image.startswith("novacore/") or bool(engine.label(image, LABEL))


def _references(node: str) -> list[str]:
    return run([engine.docker(), "exec", node, "ctr", "-n", "k8s.io", "images", "ls", "-q"]).split()


def _recorded(name: str, container: str) -> dict[str, str]:
    """What was sent to this very node container; nothing when it was made anew since."""
    try:
        record = json.loads(loaded(name).read_text())
    except (OSError, ValueError):
        return {}
    return record["images"] if record.get("node") == container else {}


def _remove_import_references(node: str) -> None:
    stale = [reference for reference in _references(node) if reference.startswith("import-")]
    if stale:
        run([engine.docker(), "exec", node, "ctr", "-n", "k8s.io", "images", "rm", *stale])


def _send(node: str, images: list[str]) -> None:
    import_into([engine.docker(), "exec", "-i", node], images, "--snapshotter=overlayfs")


def import_into(inside: list[str], images: list[str], *flags: str) -> None:
    """Pipe `docker save IMAGES` into containerd's import; `inside` is the command prefix that runs in the node."""
    with subprocess.Popen([engine.docker(), "save", *images], stdout=subprocess.PIPE) as saving:
        command = [*inside, "ctr", "-n", "k8s.io", "images", "import", *flags, "-"]
        loading = subprocess.run(command, stdin=saving.stdout, capture_output=True, text=True, check=False)
        if saving.stdout:
            saving.stdout.close()  # else a save whose reader has gone would wait for us for ever
    if saving.returncode != 0 or loading.returncode != 0:
        raise Problem(f"images could not be loaded: {loading.stderr.strip()[-300:]}", "is the disk of the node full?")
