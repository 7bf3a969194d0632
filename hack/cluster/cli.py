"""The verbs. Exit codes: 0 done, 1 a Problem that a person must mend, 64 bad arguments."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from hack.cluster import bases, engine, host, kind, load, machine, node, product, tools
from hack.cluster.decide import DISK_NEED_GIB, Host, check, check_port, choose_path
from hack.cluster.decide import Path as ClusterPath
from hack.cluster.errors import Problem
from hack.cluster.paths import STATE, kubeconfig
from hack.cluster.stages import Stages, paint, run, say

BAD_INPUT = 64


class Parser(argparse.ArgumentParser):
    """argparse with our exit code for bad input, and one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit 64."""
        self.exit(BAD_INPUT, f"error: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = Parser(
        prog="python3 -m hack.cluster",
        description="A real Kubernetes cluster on this machine, with the images it needs.",
        epilog="People use `make up`, `make down` and `make clean`; these verbs are what those call.",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for verb, text in (
        ("up", "create the cluster, or make the existing one answer again; quick when it is there"),
        ("down", "delete the cluster and stop the Docker engine if this command started it; images stay cached"),
        ("load", "load the built images into the cluster's node; only what it lacks"),
    ):
        one = verbs.add_parser(verb, help=text, description=text)
        one.add_argument("--name", default="novacore", type=_name, help="name of the cluster (default %(default)s)")
        if verb == "up":
            one.add_argument(
                "--port", default=5000, type=int, help="loopback port of the gateway (default %(default)s)"
            )
        if verb != "load":
            _path_option(one)
    images = verbs.add_parser("images", help="build our two images; on the bare path what they stand on too")
    images.add_argument("--only", default="", choices=["", "operator", "workloads", "base", "postgres", "redis"])
    _path_option(images)
    some = verbs.add_parser("tools", help="kind, kubectl, helm and uv in .tools/bin")
    some.add_argument("--only", default="", choices=["", "uv"])
    pushing = verbs.add_parser("push", help="tag both product images for a registry and push them")
    pushing.add_argument("registry", nargs="?", default="", help="such as registry.example.org/team")
    verbs.add_parser("redis-server", help="make sure a redis-server is on PATH, for service tests")
    verbs.add_parser("doctor", help="check tools, versions and disk, and say what mends each")
    verbs.add_parser("clean", help="remove every image, volume and build result of ours")
    return top


def main(argv: Sequence[str]) -> int:
    """Run one verb."""
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments, Stages())
    except Problem as problem:
        say(f"{paint('error:', 31)} {problem}")
        return 1


def _run(arguments: argparse.Namespace, stages: Stages) -> int:
    verbs: dict[str, Callable[[], object]] = {
        "up": lambda: up(name=arguments.name, port=arguments.port, wanted=arguments.path, stages=stages),
        "down": lambda: down(arguments.name),
        "images": lambda: build_images(settle(arguments.path, stages)[0], stages, only=arguments.only),
        "load": lambda: load.load(arguments.name, list(product.recorded().values()), stages),
        "tools": lambda: tools.ensure(stages, arguments.only),
        "push": lambda: say("\n".join(f"pushed {name}" for name in product.push(arguments.registry))),
        "redis-server": tools.redis_server,
        "doctor": doctor,
        "clean": clean,
    }
    answer = verbs[arguments.verb]()
    if arguments.verb in ("up", "images"):
        say(stages.table())
    return answer if isinstance(answer, int) else 0


def settle(wanted: str, stages: Stages) -> tuple[ClusterPath, Host, str]:
    """Make an engine answer, choose the path, check the machine. Returns path, facts and the node image's name."""
    with stages.stage("looking at this machine"):
        before = host.read_host(node_image="")
        path, why = choose_path(before, wanted)
        check(replace(before, node_image_present=_maybe_built(before)), path)
        engine.ensure()
        image = node.image() if path == "bare" else kind.STOCK_IMAGE
        after = host.read_host(node_image=image) if not before.engine_answers else before
        if not before.engine_answers and wanted == "auto":
            path, why = choose_path(after, wanted)
            image = node.image() if path == "bare" else kind.STOCK_IMAGE
    say(f"           {path} path: {why}")
    return path, after, image


def up(*, name: str, port: int, wanted: str, stages: Stages) -> ClusterPath:
    """Cluster up; returns the path taken."""
    path, facts, image = settle(wanted, stages)
    check_port(port, machine.port_free(port), kind.exists(name))
    tools.ensure(stages)
    if path == "bare":
        node.ensure(stages)
    kind.ensure(name=name, port=port, path=path, cgroup_v1=facts.cgroup_v1, node_image=image, stages=stages)
    say(f"cluster {name} is up: export KUBECONFIG={kubeconfig(name)}")
    return path


def build_images(path: ClusterPath, stages: Stages, *, only: str = "") -> dict[str, str]:
    """Bases and products; returns the names of all images an installation needs."""
    found = bases.ensure(path, stages, only=only if only in ("base", "postgres", "redis") else "")
    if only in ("base", "postgres", "redis"):
        return {}
    return product.build(found, stages, only=only)


def down(name: str) -> None:
    """Delete the cluster; stop the engine if we started it and no other kind cluster uses it."""
    if engine.answers():
        if kind.exists(name):
            kind.delete(name)
            say(f"deleted cluster {name}")
        if kind.names():
            say(f"the Docker engine goes on: {', '.join(kind.names())} still use it")
            return
    engine.stop()
    say("nothing of ours is running")


def clean() -> None:
    """Remove clusters, images, build caches and `.tools/`."""
    if engine.answers():
        for name in kind.names():
            if kubeconfig(name).exists():
                kind.delete(name)
        ours = run(
            [engine.docker(), "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=novacore/*"]
        ).split()
        if ours:
            run([engine.docker(), "rmi", "-f", *ours])
        run([engine.docker(), "builder", "prune", "-f", "--all"])
        run([engine.docker(), "image", "prune", "-f"])
        engine.stop()
    shutil.rmtree(STATE, ignore_errors=True)
    say("removed our clusters, images and .tools/ (Go's own caches stay: `go clean -cache -modcache` frees them)")


def doctor() -> int:
    """Print one line per check; 1 if something must be mended."""
    facts = host.read_host(node_image="")
    path, why = choose_path(facts, "auto")
    need = DISK_NEED_GIB[(path, _maybe_built(facts))]
    startable = facts.engine_answers or (facts.root and facts.debian)
    checks = [
        ("a Docker engine answers or can be started", startable, "start Docker, or run as root on Debian"),
        (f"disk: {facts.disk_free_gib:.0f} GiB free, {need} needed", facts.disk_free_gib >= need, "make clean"),
        ("port 5000 is free or ours", machine.port_free(5000) or kind_exists(facts), "make up PORT=…"),
        ("redis-server for service tests", shutil.which("redis-server") is not None, "install Redis 7 or newer"),
    ]
    say(f"path: {path} ({why})")
    if not facts.sys_resource:
        say("note: CAP_SYS_RESOURCE cannot be had here; runc gets a wrapper that does without it")
    for what, fine, remedy in checks:
        say(f"  {paint('ok  ', 32)}  {what}" if fine else f"  {paint('mend', 31)}  {what}: {remedy}")
    return 0 if all(fine for _, fine, _ in checks) else 1


def kind_exists(facts: Host) -> bool:
    """Return whether the default cluster exists (its port is then taken by itself)."""
    return facts.engine_answers and kind.exists("novacore")


def _maybe_built(facts: Host) -> bool:
    """Whether the heavy build is behind us: the node image is there, or (engine stopped) the Go results are."""
    if facts.engine_answers:
        return bool(run([engine.docker(), "images", "-q", "novacore/node"]).strip())
    return any((STATE / "go").glob("kubernetes-*/.done"))


def _path_option(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--path", default="auto", choices=["auto", "stock", "bare"], help="how to get images (default: find out)"
    )


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no cluster name: use lower-case letters, digits and hyphens")
    return text
