"""A service as a pod runs it: a process of its own, on mounts that change as the kubelet changes them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from novacore_contracts.paths import Paths
from tests.kit.child import Child, free_port
from tests.kit.harness import Stores, mount
from tests.kit.keys import Keys
from tests.kit.kubelet import Mount
from tests.kit.peers import StubPeer, token_issuer
from tests.kit.until import until

START_S = 60.0

# Ports are constants of the contracts, and a machine has one clock: a process beside others needs its own of both.
# The audit hook notes each connection that Python itself opens (what a blocking fetch of keys would do).
PROGRAM = """
import dataclasses, datetime, sys, time
from novacore_contracts import services
service, public, internal, ahead, connects = sys.argv[1:]
services.INTERNAL_PORT = int(internal)
services.BY_NAME[service] = dataclasses.replace(services.BY_NAME[service], port=int(public))
if ahead:
    from novacore.common import app
    class Ahead:
        monotonic = staticmethod(time.monotonic)
        def now(self):
            with open(ahead) as file:
                shift = datetime.timedelta(seconds=float(file.read()))
            return datetime.datetime.now(datetime.UTC) + shift
    app.SystemClock = Ahead
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open(connects, "a") as out:
            out.write(event + "\\n")
sys.addaudithook(hook)
from novacore.cli import main
main(["serve", service])
"""


@dataclass
class ServicePod:
    """A running process with HTTP clients of its two ports."""

    name: str
    paths: Paths
    keys: Keys
    child: Child
    auth: StubPeer
    keyset: Mount
    public: httpx.AsyncClient
    internal: httpx.AsyncClient
    connects: Path
    ahead: Path | None

    def set_clock(self, ahead_s: float) -> None:
        """Set its wall clock this far ahead of the machine's; only of a pod that has a `clock`."""
        assert self.ahead is not None, "this pod has the machine's clock"
        part = self.ahead.with_suffix(".part")
        part.write_text(str(ahead_s))
        part.replace(self.ahead)

    async def rings(self) -> dict[str, Any]:
        """What it says of its rings."""
        return dict((await self.internal.get("/internal/keyset")).json()["rings"])

    async def value(self, sample: str) -> float:
        """One sample of its metrics, by name and labels as they are exposed; 0 without one."""
        for line in (await self.internal.get("/metrics")).text.splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    async def series(self) -> int:
        """How many samples it exposes."""
        lines = (await self.internal.get("/metrics")).text.splitlines()
        return sum(1 for line in lines if line and not line.startswith("#"))

    def resident_bytes(self) -> int:
        """Its memory."""
        pages = int(Path(f"/proc/{self.child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_s(self) -> float:
        """The processor time it used so far."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime

    def outbound(self) -> int:
        """How many connections and look-ups of names Python opened in it so far."""
        return len(self.connects.read_text().splitlines()) if self.connects.exists() else 0


@asynccontextmanager
async def service_pod(
    name: str,
    *,
    folder: Path,
    keys: Keys,
    settings: Mapping[str, Any] | None = None,
    documents: Mapping[str, bytes] | None = None,
    clock: bool = False,
) -> AsyncIterator[ServicePod]:
    """Start `novacore serve NAME` for a service without stores, wait until it is Ready, and end it."""
    auth = await token_issuer(keys, name, StubPeer("auth-billing")).start()
    paths, ports = Paths(folder), (free_port(), free_port())
    peers = {"auth-billing": {"service_url": auth.url, "internal_url": auth.url}}
    mount(paths, name, keys, Stores(), {"peers": peers, **(settings or {})})
    shutil.rmtree(paths.keyset)
    signed = {f"{ring}.jws": keys.sign(keys.document(ring)) for ring in ("serviceJwt", "userJwt")}
    keyset = Mount(paths.keyset, signed | dict(documents or {}))
    connects, ahead = folder / "connects", folder / "ahead" if clock else None
    if ahead is not None:
        ahead.write_text("0")
    words = [name, *map(str, ports), str(ahead or ""), str(connects)]
    child = Child(
        name, [sys.executable, "-c", PROGRAM, *words],
        log=folder / "process.log", env={**os.environ, "NOVA_ROOT": str(folder)},
    )  # fmt: skip
    child.start()
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}", timeout=30) as public,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[1]}", timeout=30) as internal,
        ):
            pod = ServicePod(name, paths, keys, child, auth, keyset, public, internal, connects, ahead)

            async def ready() -> bool:
                assert child.runs(), child.tail()
                try:
                    return (await internal.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(ready, within_s=START_S, what=f"{name} is Ready", report=child.tail)
            yield pod
    finally:
        child.stop()
        await auth.stop()
