"""`novacore-operator run`: one asyncio loop with our own parts, and kopf's watch of the resource in a thread beside it.

kopf (pin >= 1.45.2) is a watch and nothing more: only `on.event`, because change handlers write annotations, copy
bodies into them and add finalizers. It has a loop of its own, because at its end it cancels every task of its loop, and
because an answer that it does not expect (410 to its list) ends it: then it is started anew, and nothing else is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import uuid
from typing import Any

import kopf

from novacore_contracts.releases import RELEASES
from novacore_operator.api import GROUP, KIND, PLURAL, VERSION
from novacore_operator.errors import Fatal
from novacore_operator.kube import Kube, wait_until_served
from novacore_operator.loop.runner import Options, Runner
from novacore_operator.reasons import Reason
from novacore_operator.telemetry import VERSION as OPERATOR_VERSION
from novacore_operator.telemetry import Log, Metrics, configure

log = Log("novacore_operator")

KOPF_START_S = 60
KOPF_STOP_S = 10
KOPF_PAUSE_S = 1.0


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


def kopf_registry(watch: KopfWatch) -> kopf.OperatorRegistry:
    """Return a registry with our two handlers. A registry of one's own has no login: without it nothing is watched."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def event(event: kopf.RawEvent, **_: Any) -> None:
        watch.event(event["type"], dict(event["object"]))

    return registry


async def serve(options: Options) -> None:
    """Run until SIGTERM. Fatal when the Lease is lost or kopf does not start."""
    metrics = Metrics()
    kube = await Kube.connect(metrics)
    stop = asyncio.Event()
    _on_signals(stop)
    try:
        await wait_until_served(kube, namespace=options.namespaces[0] if options.namespaces else None)
        runner = Runner(kube, metrics, options)
        watch = KopfWatch(runner, metrics, options, asyncio.get_running_loop())
        async with asyncio.TaskGroup() as tasks:
            watch.start()
            await watch.ready()
            starting = tasks.create_task(runner.run(tasks), name="start")
            await stop.wait()
            log.info("stopping")
            await runner.stop()
            starting.cancel()
            await watch.stop()
            _cancel_all(but=asyncio.current_task())
    finally:
        await kube.close()
    log.info("stopped")


def _cancel_all(*, but: asyncio.Task[Any] | None) -> None:
    for task in asyncio.all_tasks():
        if task is not but:
            task.cancel()


class KopfWatch:
    """kopf in a thread with a loop of its own; its events go to our loop, in order."""

    def __init__(self, runner: Runner, metrics: Metrics, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self._runner = runner
        self._metrics = metrics
        self._options = options
        self._loop = loop
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    async def ready(self) -> None:
        """Return when kopf watches. Fatal when it does not come to that."""
        if not await asyncio.to_thread(self._ready.wait, KOPF_START_S):
            raise Fatal(Reason.API_UNAVAILABLE, f"kopf did not start within {KOPF_START_S} s")

    async def stop(self) -> None:
        """End it; return when it has ended, or after a while."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, KOPF_STOP_S)

    def event(self, kind: str | None, body: dict[str, Any]) -> None:
        """Hand an event over."""
        self._loop.call_soon_threadsafe(self._runner.resource_event, kind, body)

    def _run(self) -> None:
        """Run kopf until it is told to stop; start it anew when it ends by itself."""
        while not self._stop.is_set():
            try:
                asyncio.run(self._operator())
            except Exception as error:
                log.warning("kopf_ended", reason=f"{type(error).__name__}: {error}"[:500])
            if self._stop.wait(KOPF_PAUSE_S):
                return
            self._metrics.count("watch_restarts_total", kind=KIND)
            asyncio.run_coroutine_threadsafe(self._runner.relist(), self._loop)  # what was deleted meanwhile

    async def _operator(self) -> None:
        options = self._options
        where: dict[str, Any] = (
            {"namespaces": list(options.namespaces)} if options.namespaces else {"clusterwide": True}
        )
        await kopf.operator(
            registry=kopf_registry(self),
            settings=kopf_settings(),
            stop_flag=self._stop,
            ready_flag=self._ready,
            # Else kopf asks for the user's name, and the image's user has none.
            identity=options.identity,  # type: ignore[arg-type, unused-ignore] # kopf does not export its NewType of str
            **where,
        )


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
