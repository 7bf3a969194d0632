"""`novacore-operator run`: one asyncio loop with our own parts, and kopf's watch of the resource beside it."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import uuid
from typing import Any

from novacore_contracts.releases import RELEASES
from novacore_operator.errors import Fatal
from novacore_operator.kube import Kube, wait_until_served
from novacore_operator.loop.reconcile import RESYNC_S
from novacore_operator.loop.runner import Options, Runner
from novacore_operator.rotation.timing import PRODUCTION, TEST, Timing
from novacore_operator.telemetry import VERSION as OPERATOR_VERSION
from novacore_operator.telemetry import Log, Metrics, configure
from novacore_operator.watch import KopfWatch

log = Log("novacore_operator")

PROFILES: dict[str, Timing] = {"production": PRODUCTION, "test": TEST}


async def serve(options: Options) -> None:
    """Run until SIGTERM. Fatal when the Lease is lost, or a watch hangs."""
    metrics = Metrics()
    kube = await Kube.connect(metrics)
    stop = asyncio.Event()
    _on_signals(stop)
    try:
        runner = Runner(kube, metrics, options)
        watch = KopfWatch(kube, metrics, runner.census, namespaces=options.namespaces, identity=options.identity)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runner.listen(), name="probes")
            starting = tasks.create_task(_start(kube, runner, watch, options, tasks), name="start")
            await stop.wait()
            log.info("stopping")
            starting.cancel()
            await runner.stop()
            _cancel_all(but=asyncio.current_task())
    finally:
        await kube.close()
    log.info("stopped")


async def _start(kube: Kube, runner: Runner, watch: KopfWatch, options: Options, tasks: asyncio.TaskGroup) -> None:
    await wait_until_served(kube, namespace=next(iter(options.namespaces), None))
    tasks.create_task(watch.run(), name="kopf")
    await runner.run(tasks)


def _cancel_all(*, but: asyncio.Task[Any] | None) -> None:
    for task in asyncio.all_tasks():
        if task is not but:
            task.cancel()


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = argparse.ArgumentParser(prog="novacore-operator", description="The NovaCore operator.")
    commands = result.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="watch NovaCoreDeployments and make them true")
    run.add_argument(
        "--watch-namespace",
        "--namespace",
        action="append",
        default=[],
        dest="namespaces",
        metavar="NAMESPACE",
        help="watch this namespace only (repeatable); without it the whole cluster",
    )
    run.add_argument("--port", type=int, default=8080, help="port of /livez, /readyz and /metrics (default 8080)")
    run.add_argument(
        "--resync",
        type=float,
        default=RESYNC_S,
        metavar="SECONDS",
        help="look at each resource at least this often, also when nothing happens (default 600)",
    )
    run.add_argument(
        "--timing-profile",
        choices=tuple(PROFILES),
        default="production",
        help="how long the steps of a key rotation take (default production; test: seconds, refused by profile "
        "Production)",
    )
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    commands.add_parser("version", help="print the operator's version and the releases it knows")
    return result


def main() -> None:
    """Entry point. Exit 0 after SIGTERM, 1 when the process cannot go on."""
    arguments = parser().parse_args()
    if arguments.command == "version":
        sys.stdout.write(f"novacore-operator {OPERATOR_VERSION} (releases: {', '.join(RELEASES)})\n")
        return
    configure(arguments.log_level)
    pod = os.environ.get("POD_NAME", os.uname().nodename)
    options = Options(
        namespaces=tuple(dict.fromkeys(arguments.namespaces)),
        operator_namespace=os.environ.get("POD_NAMESPACE", "novacore-system"),
        identity=f"{pod}_{uuid.uuid4().hex[:8]}",
        port=arguments.port,
        resync_s=arguments.resync,
        timing=PROFILES[arguments.timing_profile],
    )
    log.info("starting", namespaces=list(options.namespaces) or "all", identity=options.identity)
    try:
        asyncio.run(serve(options))
    except* Fatal as group:
        for error in group.exceptions:
            log.warning("fatal", reason=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
