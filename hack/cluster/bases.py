"""Images of others: the Python base, Postgres with pgvector, Redis.

On the stock path they are pulled; on the bare path they are built from Debian packages under the same names, so that
manifests are identical. StatefulSets give their own command, so these images need no entrypoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from hack.cluster import engine
from hack.cluster.decide import Path as ClusterPath
from hack.cluster.rootfs import Rootfs, ensure_rootfs
from hack.cluster.stages import Stages, run

POSTGRES = "pgvector/pgvector:pg18"
REDIS = "redis:8.0"
STOCK_BASE = "python:3.13-slim"

BARE_BASE = Rootfs(name="novacore/base:trixie", suite="trixie", packages=["python3", "libgomp1", "ca-certificates"])
# Debian forky: trixie's pgvector is 0.8.0 and we require 0.8.4. The user must be uid 999 as in the well-known images,
# and initdb wants it to have a name.
BARE_POSTGRES = Rootfs(
    name=POSTGRES,
    suite="forky",
    packages=["postgresql-18", "postgresql-18-pgvector", "pgbackrest"],
    hooks=[
        # Before anything is configured there is no groupadd; Debian's scripts keep an account that exists.
        'echo "postgres:x:999:" >> "$1/etc/group"',
        'echo "postgres:x:999:999::/var/lib/postgresql:/bin/bash" >> "$1/etc/passwd"',
    ],
    late_hooks=['rm -rf "$1/var/lib/postgresql/18"'],
    changes=[
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/18/bin",
        "USER 999",
    ],
)
BARE_REDIS = Rootfs(
    name=REDIS,
    suite="trixie",
    packages=["redis-server", "redis-tools"],
    hooks=[
        'echo "redis:x:999:" >> "$1/etc/group"',
        'echo "redis:x:999:999::/data:/usr/sbin/nologin" >> "$1/etc/passwd"',
    ],
    changes=["USER 999"],
)


@dataclass(frozen=True, slots=True)
class Bases:
    """Names of the images to build on and to load."""

    python: str
    postgres: str = POSTGRES
    redis: str = REDIS


def ensure(path: ClusterPath, stages: Stages, *, only: str = "") -> Bases:
    """Pull (stock) or build (bare) what is missing."""
    if path == "bare":
        for key, rootfs in (("base", BARE_BASE), ("postgres", BARE_POSTGRES), ("redis", BARE_REDIS)):
            if only in ("", key):
                ensure_rootfs(rootfs, stages)
        return Bases(python=BARE_BASE.name)
    for key, name in (("base", STOCK_BASE), ("postgres", POSTGRES), ("redis", REDIS)):
        if only in ("", key) and not engine.has_image(name):
            with stages.stage(f"pulling {name}"):
                run([engine.docker(), "pull", "--quiet", name])
    return Bases(python=STOCK_BASE)
