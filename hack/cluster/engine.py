"""The Docker engine: found, installed where it is absent (Debian, root), started by us where nobody starts it.

There is no systemd on many build machines, so dockerd is started here, detached, and `down` stops it again if we did.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from hack.cluster import machine, tools
from hack.cluster.decide import engine_action
from hack.cluster.errors import Problem
from hack.cluster.paths import ENGINE_LOG, ENGINE_PID, STATE
from hack.cluster.stages import run, say, succeeds

PID_FILE = Path("/var/run/docker.pid")
START_S = 60


def docker() -> str:
    """Return the Docker client. Debian's own comes first: it has BuildKit built in, newer ones may lack the plugin."""
    return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else (shutil.which("docker") or "docker")


def answers() -> bool:
    """Return whether an engine answers on its socket."""
    return succeeds([docker(), "info"], timeout_s=20)


def ours() -> bool:
    """Return whether this repository started the engine that runs."""
    return _is_dockerd(_read_pid(ENGINE_PID))


def killed() -> bool:
    """Return whether the engine we started ended without `stop`: its pid file is there and its process is not."""
    return ENGINE_PID.exists() and not ours() and not answers()


def cgroup_v1() -> bool:
    """Return whether containers run on cgroup v1; asked of the engine, whose machine may not be this one (a Mac)."""
    return run([docker(), "info", "--format", "{{.CgroupVersion}}"]).strip() == "1"


def has_image(name: str) -> bool:
    """Return whether the engine holds an image of that name."""
    return succeeds([docker(), "image", "inspect", name])


def image_id(name: str) -> str:
    """Return the image's id without its algorithm prefix; a Problem when it does not exist."""
    return run([docker(), "image", "inspect", "--format", "{{.Id}}", name]).strip().removeprefix("sha256:")


def label(image: str, key: str) -> str:
    """Return one label of an image, "" when it has none of that name."""
    return run([docker(), "image", "inspect", "--format", f'{{{{index .Config.Labels "{key}"}}}}', image]).strip()


def build(context: Path, *, tag: str, dockerfile: Path | None = None, args: tuple[str, ...] = ()) -> None:
    """`docker build` with BuildKit. The CA bundle goes in as a build secret: proxies of some machines need it."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    secret = ["--secret", f"id=ca,src={bundle}"] if bundle.exists() else []
    run(
        [
            docker(),
            "build",
            "--progress=plain",
            *secret,
            "-t",
            tag,
            "-f",
            dockerfile or context / "Dockerfile",
            *args,
            context,
        ],
        # Attestations would turn each image into an index of two, which containerd's import half understands.
        env={"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
    )


def remove_older(repository: str, *, keep: str, prefix: str = "") -> None:
    """Remove the other tags of a repository that start with `prefix`; one that a container uses stays."""
    listed = run([docker(), "images", "--format", "{{.Repository}}:{{.Tag}}", repository]).split()
    for name in listed:
        if name != keep and name.startswith(f"{repository}:{prefix}"):
            succeeds([docker(), "rmi", name])


def ensure() -> None:
    """Make an engine answer: install, clear what a killed one left, start."""
    pid_alive = _is_dockerd(_read_pid(PID_FILE))
    action = engine_action(
        answers=answers(),
        installed=shutil.which("dockerd") is not None,
        pid_file=PID_FILE.exists(),
        pid_alive=pid_alive,
    )
    if action == "none":
        return
    if action == "wait":
        _wait(lambda: not _is_dockerd(_read_pid(PID_FILE)))
        return
    if action == "install":
        say("           no Docker engine: installing Debian's docker.io")
        machine.apt_install("docker.io", "ca-certificates", "iptables")
    _clear_leftovers()
    _start()


def stop() -> None:
    """Stop the engine if this repository started it; leave everybody else's alone."""
    pid = _read_pid(ENGINE_PID)
    if pid is None:
        return
    if _is_dockerd(pid):
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 60
        while _is_dockerd(pid):
            if time.monotonic() > end:
                raise Problem(f"dockerd (pid {pid}) does not stop", f"look at {ENGINE_LOG}")
            _pause(0.2)
    ENGINE_PID.unlink(missing_ok=True)


def _start() -> None:
    STATE.mkdir(exist_ok=True)
    arguments = ["dockerd", "--log-level=warn"]
    if not machine.has_sys_resource():
        wrapper = tools.build_go("runtime-wrapper")
        arguments += [f"--add-runtime=novacore={wrapper}", "--default-runtime=novacore"]
    with ENGINE_LOG.open("ab") as log:
        # Its own session: it outlives this command, and a Ctrl-C here does not reach it.
        child = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    ENGINE_PID.write_text(str(child.pid))
    _wait(lambda: child.poll() is not None)


def _wait(gone: Callable[[], bool]) -> None:
    """Wait until an engine answers; a Problem when it ends (`gone`) or takes too long."""
    end = time.monotonic() + START_S
    while not answers():
        if gone() or time.monotonic() > end:
            lines = ENGINE_LOG.read_text(errors="replace").splitlines() if ENGINE_LOG.exists() else []
            tail = "\n    ".join(lines[-5:])
            raise Problem(f"dockerd did not start:\n    {tail}\n", f"the whole log is {ENGINE_LOG}")
        _pause(0.2)


def _clear_leftovers() -> None:
    """After a kill -9 the pid file, the socket and dockerd's own containerd stay behind; each stops the next start."""
    PID_FILE.unlink(missing_ok=True)
    Path("/var/run/docker.sock").unlink(missing_ok=True)
    managed = Path("/var/run/docker/containerd/containerd.pid")
    pid = _read_pid(managed)
    if pid is not None and program(pid) == "containerd":
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 10
        while program(pid) == "containerd" and time.monotonic() < end:
            _pause(0.1)
    managed.unlink(missing_ok=True)


def _read_pid(file: Path) -> int | None:
    try:
        return int(file.read_text().strip())
    except (OSError, ValueError):
        return None


def _is_dockerd(pid: int | None) -> bool:
    return pid is not None and program(pid) == "dockerd"


def program(pid: int, proc: Path = Path("/proc")) -> str:
    """Return the name of the program a pid runs; "" when there is none (a zombie holds nothing and counts as none).

    A pid file outlives its process, and numbers are given out again: whoever signals a pid asks this first.
    """
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return Path(words[0].decode(errors="replace")).name


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - polling another process: there is nothing to await
