"""What this machine is and has: capabilities, ports, Debian packages. No Docker here."""

from __future__ import annotations

import socket
from pathlib import Path

from hack.cluster.stages import run

CAP_SYS_RESOURCE = 24  # bit number, capability.h


def has_sys_resource(status: Path = Path("/proc/self/status")) -> bool:
    """Return whether a process here can get CAP_SYS_RESOURCE (some virtual machines withhold it even from root)."""
    if not status.exists():
        return True  # no Linux: containers run in a virtual machine of Docker's own, which has it
    line = next(line for line in status.read_text().splitlines() if line.startswith("CapBnd"))
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def port_free(port: int) -> bool:
    """Return whether nobody listens on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def apt_install(*packages: str) -> None:
    """Install Debian packages (root)."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=quiet)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=quiet)
