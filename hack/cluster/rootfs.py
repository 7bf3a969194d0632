"""Debian root file systems as Docker images: mmdebstrap and `docker import`, named by suite and packages."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from hack.cluster import engine, machine
from hack.cluster.errors import Problem
from hack.cluster.paths import digest
from hack.cluster.stages import Stages


@dataclass(frozen=True)
class Rootfs:
    """A minimal Debian with these packages, imported as image `name`."""

    name: str
    suite: str
    packages: Sequence[str]
    hooks: Sequence[str] = ()  # shell, run by mmdebstrap with "$1" = the new root, before packages are configured
    late_hooks: Sequence[str] = ()  # the same, at the end
    changes: Sequence[str] = field(default_factory=tuple)  # Dockerfile lines for `docker import --change`

    @property
    def key(self) -> str:
        """Hash of everything that makes it, kept as a label on the image."""
        return digest(repr(self))


# On every image built here of other people's software, so that `load` and `clean` know ours from pulled ones.
LABEL = "ai.novacore.rootfs"


def ensure_rootfs(rootfs: Rootfs, stages: Stages) -> None:
    """Build and import unless an image of that name with the same key is there."""
    if _key_of(rootfs.name) == rootfs.key:
        return
    with stages.stage(f"building {rootfs.name} from Debian {rootfs.suite}"):
        if shutil.which("mmdebstrap") is None:
            machine.apt_install("mmdebstrap")
        _import(rootfs)


def _key_of(name: str) -> str:
    return engine.label(name, LABEL) if engine.has_image(name) else ""


def _import(rootfs: Rootfs) -> None:
    make = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(rootfs.packages)}"]
    # A testing suite's Release file may be past its date.
    make += ['--aptopt=Acquire::Check-Valid-Until "false"', *[f"--essential-hook={hook}" for hook in rootfs.hooks]]
    make += [f"--customize-hook={hook}" for hook in rootfs.late_hooks]
    make += ["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", rootfs.suite, "-"]
    load = [engine.docker(), "import"]
    for change in [
        f"LABEL {LABEL}={rootfs.key}",
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        *rootfs.changes,
    ]:
        load += ["--change", change]
    making = subprocess.Popen(make, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False)
    loading = subprocess.run(
        [*load, "-", rootfs.name], stdin=making.stdout, capture_output=True, text=True, check=False
    )
    _, errors = making.communicate()
    if making.returncode != 0 or loading.returncode != 0:
        tail = "\n    ".join((errors.decode(errors="replace") + loading.stderr).strip().splitlines()[-6:])
        raise Problem(f"{rootfs.name} could not be built:\n    {tail}\n", "check that Debian's packages can be reached")
