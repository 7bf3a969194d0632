"""The ten ways in which a release fails, as changes of the spec, and the images they need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hack.cluster import engine
from hack.cluster.bases import BARE_BASE, STOCK_BASE
from hack.cluster.load import load
from hack.cluster.stages import Stages
from tests.cluster.kube import Kube, until

FOLDER = Path(__file__).with_name("scenario")
IMAGE = "novacore/scenario"
NO_PROGRAM = "no-program"
OTHER_RELEASE = "9.9.9"
MODES = ("crash", "oom", "unready", "migration-fails", "migration-hangs")


def build_images(cluster: str) -> None:
    """Build the failing images from the services' base image and load them into the node."""
    for mode in MODES:
        build_mode(mode)
    _build(NO_PROGRAM, "-", text=f'FROM {IMAGE}:{MODES[0]}\nENTRYPOINT ["/no/such/program"]\n')
    load(cluster, [f"{IMAGE}:{mode}" for mode in (*MODES, NO_PROGRAM)], Stages())


def build_mode(mode: str) -> None:
    """Build one of them."""
    present = subprocess.run([engine.docker(), "image", "inspect", BARE_BASE.name], capture_output=True, check=False)
    base = BARE_BASE.name if present.returncode == 0 else STOCK_BASE
    _build(mode, str(FOLDER), f"BASE_IMAGE={base}", f"SCENARIO={mode}")


def build_other_release(workloads: str, tag: str) -> None:
    """Build an image of another release than `tag` says: the given one, which takes itself for a later one."""
    where = 'python -c "import novacore_contracts.releases as r; print(r.__file__)"'
    change = f"printf 'CURRENT = \"{OTHER_RELEASE}\"\\n' >> $({where})"
    _build(tag, "-", text=f"FROM {workloads}\nUSER 0\nRUN {change}\nUSER 65532:65532\n")


def _build(mode: str, context: str, *arguments: str, text: str | None = None) -> None:
    flags = [part for argument in arguments for part in ("--build-arg", argument)]
    command = [engine.docker(), "build", "--quiet", *flags, "--tag", f"{IMAGE}:{mode}", context]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    subprocess.run(command, check=True, timeout=300, capture_output=True, env=environment, input=text, text=True)


def _nothing(_: Kube, __: str) -> None:
    """Prepare nothing."""


def _quota(kube: Kube, namespace: str) -> None:
    """Allow no pod more than there are, when those on their way out are gone."""

    def running() -> int | None:
        pods = [pod for pod in kube.list("pods", namespace) if pod["status"]["phase"] in ("Pending", "Running")]
        return None if any("deletionTimestamp" in pod["metadata"] for pod in pods) else len(pods)

    pods = until(running, within_s=90, what="no pod is on its way out")
    kube.run("create", "quota", "scenario", "-n", namespace, f"--hard=pods={pods}")


def _no_quota(kube: Kube, namespace: str) -> None:
    kube.run("delete", "quota", "scenario", "-n", namespace, "--ignore-not-found")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One failing change. `reason`: of the condition that says so. `taken_back`: False where nothing was begun."""

    change: dict[str, Any]
    reason: str
    component: str = "memory"
    taken_back: bool = True
    prepare: Callable[[Kube, str], None] = field(default=_nothing)
    clean_up: Callable[[Kube, str], None] = field(default=_nothing)


def _memory(**settings: Any) -> dict[str, Any]:
    return {"services": {"memory": settings}}


def _image(mode: str) -> dict[str, str]:
    return {"repository": IMAGE, "tag": mode}


def _openai(**settings: Any) -> dict[str, Any]:
    return {"models": {"llm": {"provider": "openai", "model": "none", **settings}}}


SCENARIOS: dict[str, Scenario] = {
    "image does not exist": Scenario(_memory(image={"tag": "none-such"}), "ImagePullFailed"),
    "crash at start": Scenario(_memory(image=_image("crash")), "CrashLooping"),
    "readiness never true": Scenario(_memory(image=_image("unready")), "ProgressDeadlineExceeded"),
    "wrong command": Scenario(_memory(image=_image(NO_PROGRAM)), "CrashLooping"),
    "missing Secret": Scenario(
        _openai(baseURL="http://127.0.0.1:9/v1", apiKeySecretRef={"name": "none-such"}),
        "SecretNotGranted",
        taken_back=False,
    ),
    "quota exceeded": Scenario(
        _memory(podAnnotations={"a": "b"}), "ProgressDeadlineExceeded", prepare=_quota, clean_up=_no_quota
    ),
    "migration fails": Scenario({"image": _image("migration-fails")}, "MigrationFailed", component="migrate"),
    "migration hangs": Scenario({"image": _image("migration-hangs")}, "MigrationFailed", component="migrate"),
    "invalid model endpoint": Scenario(
        _openai(baseURL="http://127.0.0.1:9/v1"), "ProgressDeadlineExceeded", component="intelligence"
    ),
    "OOM at start": Scenario(
        _memory(image=_image("oom"), resources={"requests": {"memory": "64Mi"}, "limits": {"memory": "96Mi"}}),
        "CrashLooping",
    ),
}
