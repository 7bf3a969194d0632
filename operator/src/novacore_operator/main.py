"""`novacore-operator run`: one asyncio loop with kopf's watch of the resource and our own parts beside it.

kopf (pin >= 1.45.2) is a watch and nothing more: only `on.event`, because change handlers write annotations, copy
bodies into them and add finalizers. It must be the last to stop: at its end it cancels every task of the loop.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import uuid
from typing import Any

import kopf

from novacore_contracts.releases import RELEASES
from novacore_operator.api import GROUP, PLURAL, VERSION
from novacore_operator.errors import Fatal
from novacore_operator.kube import Kube, wait_until_served
from novacore_operator.loop.runner import Options, Runner
from novacore_operator.reasons import Reason
from novacore_operator.telemetry import VERSION as OPERATOR_VERSION
from novacore_operator.telemetry import Log, Metrics, configure

log = Log("novacore_operator")

KOPF_START_S = 60


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings (operator.md §3): no posting, no scanning, no peering, watches that notice silence."""
    settings = kopf.OperatorSettings()
    settings.watching.server_timeout = 240
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.queueing.worker_limit = None
    settings.process.ultimate_exiting_timeout = 20
    return settings


def kopf_registry(runner: Runner) -> kopf.OperatorRegistry:
    """Return a registry with our two handlers. A registry of one's own has no login: without it nothing is watched."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def event(event: kopf.RawEvent, **_: Any) -> None:
        runner.resource_event(event["type"], dict(event["object"]))

    return registry


async def serve(options: Options) -> None:
    """Run until SIGTERM. Fatal when the Lease is lost or kopf ends by itself."""
    metrics = Metrics()
    kube = await Kube.connect(metrics)
    stop, kopf_stop, kopf_ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
    _on_signals(stop)
    try:
        await wait_until_served(kube, namespace=options.namespaces[0] if options.namespaces else None)
        runner = Runner(kube, metrics, options)
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(runner, options, kopf_stop, kopf_ready, stop), name="kopf")
            async with asyncio.timeout(KOPF_START_S):
                await kopf_ready.wait()
            _on_signals(stop)  # again: kopf installs its own when it starts
            starting = tasks.create_task(runner.run(tasks), name="start")
            await stop.wait()
            log.info("stopping")
            await runner.stop()
            starting.cancel()
            kopf_stop.set()
            await asyncio.wait([watch], timeout=10)
            _cancel_all(but=asyncio.current_task())
    finally:
        await kube.close()
    log.info("stopped")


def _cancel_all(*, but: asyncio.Task[Any] | None) -> None:
    for task in asyncio.all_tasks():
        if task is not but:
            task.cancel()


async def _watch(
    runner: Runner, options: Options, kopf_stop: asyncio.Event, kopf_ready: asyncio.Event, stop: asyncio.Event
) -> None:
    """Run kopf. Its end before ours is fatal."""
    where: dict[str, Any] = {"namespaces": list(options.namespaces)} if options.namespaces else {"clusterwide": True}
    await kopf.operator(
        registry=kopf_registry(runner),
        settings=kopf_settings(),
        stop_flag=kopf_stop,
        ready_flag=kopf_ready,
        # Else kopf asks for the user's name, and the image's user has none.
        identity=options.identity,  # type: ignore[arg-type, unused-ignore] # kopf does not export its NewType of str
        **where,
    )
    if not stop.is_set():
        raise Fatal(Reason.API_UNAVAILABLE, "kopf's watch ended")


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
