"""A Redis and a Postgres as the operator configures them in mode Simple: TLS, its users, its files; only paths differ.

The operator mints an installation's keys and passwords; what it would mount into a store's pod is written to a folder,
and the server starts on this machine with it, under the one name that its certificate has here: `localhost`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from novacore_contracts.releases import CURRENT
from novacore_contracts.services import POSTGRES_PORT, REDIS_PORT
from novacore_operator.api.spec import Spec
from novacore_operator.build.store_config import build_postgres_config, build_redis_config
from novacore_operator.rotation import mint
from novacore_operator.state import Material, Nova, names, stores
from tests.kit.child import Child, free_port
from tests.kit.wait import until

START_S = 20
HOST = "localhost"
UNPRIVILEGED = "postgres"
"""Whom Postgres runs as when the tests run as root, which it refuses."""


@dataclass(frozen=True, slots=True)
class Secure:
    """An installation's material, and where a store of it listens."""

    material: Material = field(repr=False)
    port: int

    @property
    def ca(self) -> str:
        """Certificate of the installation's authority."""
        return self.material[names.CA_PRIVATE]["tls.crt"].decode()


def minted() -> Material:
    """Return the material of a new installation with every store of its own."""
    setting = mint.Setting("test", own_cache=True)
    return mint.complete({}, setting, now=datetime.now(UTC), entropy=secrets.token_bytes)


def _nova() -> Nova:
    return Nova("nova", "test", "uid", 1, "2026-01-01T00:00:00Z", 1, Spec(version=CURRENT, profile="Production"))


@contextmanager
def secure_redis(
    folder: Path, *, material: Material, store: str = stores.REDIS, more_users: Mapping[str, str] | None = None
) -> Iterator[Secure]:
    """Run a Redis with the operator's configuration. `more_users`: name -> ACL rules, for what a user's own may have."""
    cache = store == stores.CACHE
    config = build_redis_config(_nova(), mint.redis_users(material, cache=cache), store)["data"]
    port = free_port()
    places = {
        f"tls-port {REDIS_PORT}": f"tls-port {port}\nbind 127.0.0.1",
        "/etc/novacore/redis": str(folder),
        "/etc/novacore/tls": str(folder),
        "dir /tmp" if cache else "dir /data": f"dir {folder}",
    }
    users = config["users.acl"] + "".join(f"user {name} on {rules}\n" for name, rules in (more_users or {}).items())
    _write(folder, {**material[stores.TLS[store]], "users.acl": users.encode()})
    _write(folder, {"redis.conf": _placed(config["redis.conf"], places).encode()})
    program = shutil.which("redis-server")
    assert program is not None, "redis-server is not installed: make test-service installs it"
    child = Child(store, [program, folder / "redis.conf"], log=folder / "log")
    with _running(child, port):
        yield Secure(material, port)


@contextmanager
def secure_postgres(folder: Path, *, material: Material) -> Iterator[Secure]:
    """Run a Postgres by the operator's start script, which makes the database."""
    config = build_postgres_config(_nova())["data"]
    port = free_port()
    places = {
        "/var/lib/postgresql": str(folder),
        "/etc/novacore/postgres": str(folder),
        "/etc/novacore/admin": str(folder),
        "/etc/novacore/tls": str(folder),
        "/var/run/postgresql": str(folder),
        f"port = {POSTGRES_PORT}": f"port = {port}\nfsync = off",
        "listen_addresses = '*'": "listen_addresses = '127.0.0.1'",
    }
    files = {name: _placed(text, places).encode() for name, text in config.items()}
    _write(folder, {**files, **material[names.POSTGRES_ADMIN], **material[names.POSTGRES_TLS]})
    command: list[str | Path] = ["/bin/sh", folder / "start.sh"]
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        command = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups", *command]
    child = Child("postgres", command, log=folder.with_suffix(".log"))
    with _running(child, port):
        yield Secure(material, port)


def _placed(text: str, places: Mapping[str, str]) -> str:
    for inside, here in places.items():
        text = text.replace(inside, here)
    return text


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)


@contextmanager
def _running(child: Child, port: int) -> Iterator[None]:
    child.start()
    try:
        until(lambda: _answers(child, port), within_s=START_S, what=f"{child.name} listens", report=child.tail)
        yield
    finally:
        if child.runs():
            child.signal(signal.SIGINT)  # Postgres would wait for its clients after SIGTERM
        child.stop()


def _answers(child: Child, port: int) -> bool:
    assert child.runs(), f"{child.name} ended\n{child.tail()}"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
