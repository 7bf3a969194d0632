"""metrics-server, which autoscaling needs: installed when asked for, from the manifests of its Go module.

Stock path: the node pulls the image. Bare path: it is built from the module under the same name. The module's manifests
are taken from Go's module cache at run time and never kept in the repository; its release overlay names the image.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from pathlib import Path

from hack.cluster import engine, load, tools
from hack.cluster.decide import Path as ClusterPath
from hack.cluster.errors import Problem
from hack.cluster.lock import exclusive
from hack.cluster.paths import BIN, STATE, TOOLS, kubeconfig
from hack.cluster.rootfs import LABEL
from hack.cluster.stages import Stages, run

MODULE = "sigs.k8s.io/metrics-server"
TOOL = "metrics-server"
API_SERVICE = "v1beta1.metrics.k8s.io"
MEASURED_S = 90
"""It looks at the kubelets every 15 s and knows a rate after the second look."""


def ensure(name: str, path: ClusterPath, stages: Stages) -> None:
    """Make cluster `name` know how much CPU and memory its pods use. A second call takes seconds."""
    if not kubeconfig(name).exists():
        raise Problem(f"there is no cluster {name} here", "run: make up")
    with exclusive(), stages.stage("reading metrics-server's manifests from its Go module"):
        folder, version = _module()
        here = _copied(folder)
        release = run([BIN / "kubectl", "kustomize", here / "manifests/overlays/release"])
        repository = repository_of(release)
    if path == "bare":
        _image(f"{repository}:{version}", stages)
        load.load(name, [f"{repository}:{version}"], stages)
    with stages.stage("metrics-server installed, pods measured"):
        # The API server keeps its connection. Registered before kube-proxy knows the Service, it would keep one that
        # ended outside of the cluster, and ask there for ever.
        _apply(name, here, kustomization(repository, version, registered=False))
        _kubectl(name, "rollout", "status", "deployment/metrics-server", "-n", "kube-system", "--timeout=180s")
        _apply(name, here, kustomization(repository, version))
        _kubectl(name, "wait", f"apiservice/{API_SERVICE}", "--for=condition=Available", "--timeout=60s")
        _measured(name)


def repository_of(release: str) -> str:
    """Return the name of the released image, without its tag, from the rendered release overlay."""
    found = re.search(r"^\s*(?:- )?image: (\S+):[^:/\s]+$", release, re.MULTILINE)
    if found is None:
        raise Problem(
            "metrics-server's module no longer names its image where we look", "update hack/cluster/metrics.py"
        )
    return found[1]


def kustomization(repository: str, version: str, *, registered: bool = True) -> dict[str, object]:
    """Return what is changed of the module's release: the tag is the pinned version (the overlay may name an older
    one), and kubelets of kind have certificates that nobody signed. `registered`: the API server is told of it."""
    insecure = [{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kubelet-insecure-tls"}]
    absent = {"$patch": "delete", "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    patches = [{"target": {"kind": "Deployment", "name": "metrics-server"}, "patch": json.dumps(insecure)}]
    if not registered:
        patches.append({"patch": json.dumps({**absent, "metadata": {"name": API_SERVICE}})})
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["manifests/overlays/release"],
        "images": [{"name": repository, "newTag": version}],
        "patches": patches,
    }


def _apply(name: str, here: Path, wanted: dict[str, object]) -> None:
    (here / "kustomization.yaml").write_text(json.dumps(wanted, indent=2))
    _kubectl(name, "apply", "--server-side", "--field-manager=novacore-cluster", "-k", str(here))


def _module() -> tuple[Path, str]:
    """Return folder and version of the pinned module; of all it needs, only itself is downloaded."""
    told = json.loads(run([tools.go(), "mod", "download", "-json", MODULE], cwd=TOOLS / TOOL))
    return Path(told["Dir"]), str(told["Version"])


def _copied(folder: Path) -> Path:
    """Copy the module's manifests below `.tools/`: kustomize wants them under one root, and Go's cache is read-only."""
    here = STATE / TOOL
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(folder / "manifests", here / "manifests", copy_function=shutil.copyfile)
    for directory in [here / "manifests", *(path for path in here.rglob("*") if path.is_dir())]:
        directory.chmod(0o755)
    return here


def _image(name: str, stages: Stages) -> None:
    """Build the image from the module unless Docker has it, of the same pins."""
    with stages.stage("building metrics-server from its Go module"), exclusive():
        binary = tools.build_go(TOOL) / TOOL
        key = binary.parent.name
        if engine.has_image(name) and engine.label(name, LABEL) == key:
            return
        with tempfile.TemporaryDirectory(dir=STATE) as scratch:
            context = Path(scratch)
            shutil.copy2(binary, context / TOOL)
            lines = ("FROM scratch", f"COPY {TOOL} /{TOOL}", f"LABEL {LABEL}={key}", f'ENTRYPOINT ["/{TOOL}"]')
            (context / "Dockerfile").write_text("\n".join(lines) + "\n")
            engine.build(context, tag=name)


def _measured(name: str) -> None:
    """Wait until it has measured a node."""
    end = time.monotonic() + MEASURED_S
    while not json.loads(_kubectl(name, "get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"))["items"]:
        if time.monotonic() > end:
            raise Problem(
                f"metrics-server has measured nothing in {MEASURED_S} s",
                f"look at: kubectl --kubeconfig {kubeconfig(name)} -n kube-system logs deployment/metrics-server",
            )
        time.sleep(1)  # noqa: TID251 - polling another process: there is nothing to await


def _kubectl(name: str, *arguments: str) -> str:
    return run([BIN / "kubectl", "--kubeconfig", kubeconfig(name), *arguments], timeout_s=200)
