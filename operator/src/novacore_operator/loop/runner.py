"""Everything that runs beside kopf: caches, Lease, queue, workers, the watchdog, the probes' listener.

Workers begin when the caches are full and the Lease is held; a process without the Lease keeps warm caches and waits.
Invariant WATCHDOG-1: a process with a watch that was silent for longer than any watch can be ends, and is restarted.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from novacore_operator.api import KIND
from novacore_operator.errors import Fatal, Retry
from novacore_operator.kube import Kube
from novacore_operator.loop.census import Census
from novacore_operator.loop.lease import Lease
from novacore_operator.loop.queue import Queue, Urgency
from novacore_operator.loop.reconcile import RESYNC_S, Reconciler
from novacore_operator.loop.rings import Rings
from novacore_operator.loop.store import Store
from novacore_operator.observe.observer import Observer
from novacore_operator.observe.pods import Pods
from novacore_operator.observe.traffic import Traffic, read
from novacore_operator.reasons import Reason
from novacore_operator.rotation.timing import PRODUCTION, Timing
from novacore_operator.state import Live
from novacore_operator.telemetry import Log, Metrics

log = Log(__name__)

WORKERS = 4
DRAIN_S = 10.0
TURN_POLL_S = 0.05
WATCHDOG_EACH_S = 10.0
SILENT_S = 200.0
"""Twice as long as a connection may be silent (`kube.SILENCE_S`): it is the watch that hangs."""


@dataclass(frozen=True, slots=True)
class Options:
    """How this process was started. No namespaces: the whole cluster."""

    namespaces: tuple[str, ...]
    operator_namespace: str
    identity: str
    port: int = 8080
    resync_s: float = RESYNC_S
    timing: Timing = PRODUCTION


def _refuse() -> None:
    raise Retry(Reason.API_UNAVAILABLE, "nothing more is written: the process is stopping")


class Runner:
    """The parts, wired."""

    def __init__(self, kube: Kube, metrics: Metrics, options: Options) -> None:
        self._kube = kube
        self._metrics = metrics
        self._options = options
        self._store = Store()
        self._queue = Queue(time.monotonic, random.random)
        self._observer = Observer(
            kube,
            metrics,
            operator_namespace=options.operator_namespace,
            namespaces=options.namespaces,
            changed=self._child_changed,
            traffic=Traffic(read),
        )
        self._lease = Lease(kube, metrics, namespace=options.operator_namespace, identity=options.identity)
        self.census = Census(
            kube,
            self._store,
            namespaces=options.namespaces,
            changed=lambda key: self._queue.add(key, Urgency.EDIT),
            gone=self._gone,
        )
        self._pods = Pods()
        self._reconciler = Reconciler(
            kube,
            self._observer,
            self._store,
            metrics,
            identity=options.identity,
            rings=Rings(kube, self._observer, metrics, pods=self._pods, timing=options.timing),
            gone=self._gone,
        )
        self._stopping = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self._synced = False
        kube.guard = self._lease.check

    def _gone(self, key: tuple[str, str]) -> None:
        self._queue.forget(key)
        self._leave_nothing(key)
        others = self._store.keys(key[0])
        for other in others:
            self._queue.add(other, Urgency.EDIT)  # the namespace is free for it now
        log.info("resource_deleted", cr=f"{key[0]}/{key[1]}")

    def _leave_nothing(self, key: tuple[str, str]) -> None:
        """Drop what is kept of a resource that is gone: when it goes, and again when a turn that ran then has ended."""
        self._metrics.remove("novacore_platform_condition", platform=key[0], name=key[1])
        self._metrics.remove("last_success_timestamp_seconds", platform=key[0], kind=KIND, name=key[1])
        if not self._store.keys(key[0]):
            self._observer.forget(key[0])
            self._reconciler.forget(key[0])

    def _child_changed(self, namespace: str | None, before: Live | None, now: Live | None) -> None:
        if before is not None and now is not None and replace(before, version=now.version) == now:
            return  # nothing that we look at
        for key in self._store.keys(namespace):
            self._queue.add(key, Urgency.DRIFT)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Start everything; return when the workers run."""
        self._observer.start(tasks)
        tasks.create_task(self._watchdog(), name="watchdog")
        await self._observer.synced()
        await self.census.take()  # at once: which of two resources is older must be known before either is acted upon
        tasks.create_task(self.census.run(), name="census")
        self._synced = True
        log.info("caches_full", resources=len(self._store.keys()))
        tasks.create_task(self._lease.run(), name="lease")
        await self._lease.held.wait()
        self._workers = [tasks.create_task(self._work(), name=f"worker {n}") for n in range(WORKERS)]

    async def _watchdog(self) -> None:
        """Raise Fatal when a watch is silent for too long (WATCHDOG-1)."""
        while True:
            await asyncio.sleep(WATCHDOG_EACH_S)
            silent_s = time.monotonic() - self._observer.alive_at()
            if silent_s > SILENT_S:
                raise Fatal(Reason.INTERNAL_ERROR, f"a watch has been silent for {silent_s:.0f} s")

    async def stop(self) -> None:
        """Let what is being written end and nothing more begin, then give the Lease up."""
        self._stopping.set()
        self._kube.guard = _refuse  # a turn that installs has dozens of writes to go: the other process will do them
        end = time.monotonic() + DRAIN_S
        while self._queue.schedule.running() and time.monotonic() < end:  # noqa: ASYNC110 - ten workers, no one event
            # An idle worker never wakes, so the end of a turn is what is waited for, not the end of a worker.
            await asyncio.sleep(TURN_POLL_S)
        for worker in self._workers:
            worker.cancel()
        await self._pods.close()
        await self._lease.release()

    async def _work(self) -> None:
        while not self._stopping.is_set():
            key = await self._queue.get()
            if self._stopping.is_set():
                self._queue.done(key, failed=False)
                return
            turn = await self._reconciler.turn(key)
            if self._store.get(key) is None:
                self._leave_nothing(key)
            again = turn.again_s
            if again == RESYNC_S:
                again = self._options.resync_s * random.uniform(0.8, 1.0)  # noqa: S311 - spread, so that resyncs do not come together
            self._queue.done(key, failed=turn.failed, again_s=again)

    # --- probes -------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Serve /livez, /readyz and /metrics for ever."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._serve_metrics)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=self._options.port).start()
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        """Ready with full caches, with or without the Lease: both replicas can take over at once."""
        if self._synced and not self._stopping.is_set():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="caches are being filled, or the process is stopping\n")

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        now = time.monotonic()
        self._metrics.set("queue_depth", self._queue.schedule.depth(now=now), kind=KIND)
        self._metrics.set("queue_oldest_seconds", self._queue.schedule.oldest_s(now=now), kind=KIND)
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
