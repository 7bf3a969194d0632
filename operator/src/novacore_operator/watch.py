"""kopf's watch of the resource, in a thread beside our loop. The only module that knows kopf.

kopf (pin >= 1.45.2) is a watch and nothing more: only `on.event`, because change handlers write annotations, copy
bodies into them and add finalizers. It has a loop of its own, because at its end it cancels every task of its loop,
and because an answer that it does not expect (410 to its list) ends it. Of what was deleted while it did not watch it
says nothing: `loop.census` looks for that.
Invariant KOPF-1: its end, for whatever reason, ends nothing else: it is begun anew. The process ends only when a thread
of kopf cannot be ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import kopf

from novacore_operator.api import GROUP, KIND, PLURAL, VERSION
from novacore_operator.errors import Fatal
from novacore_operator.kube import Kube, wait_until_served
from novacore_operator.loop.census import Census
from novacore_operator.reasons import Reason
from novacore_operator.telemetry import Log, Metrics

log = Log(__name__)

STOP_S = 10.0
PAUSE_S = 1.0


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: no posting, no scanning, no peering, watches that notice silence."""
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
    # Else kopf sends SIGKILL to its thread, and that is to the process, when it ends by itself and that takes long.
    settings.process.ultimate_exiting_timeout = None
    return settings


def kopf_registry(take: Callable[[str | None, dict[str, Any]], None]) -> kopf.OperatorRegistry:
    """Return a registry with our two handlers. A registry of one's own has no login: without it nothing is watched."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def event(event: kopf.RawEvent, **_: Any) -> None:
        take(event["type"], dict(event["object"]))

    return registry


class Run:
    """One run of kopf in a thread of its own. `ended` has its result: None after `stop`, else why it ended."""

    def __init__(self, operator: Callable[[asyncio.Event], Any]) -> None:
        self._operator = operator
        self._lock = threading.Lock()
        self._stopped = False
        self._stop: Callable[[], object] | None = None
        self.ended: Future[str | None] = Future()
        self.thread = threading.Thread(target=self._thread, name="kopf", daemon=True)

    def stop(self) -> None:
        """Ask it to end. From any thread, at any time: also before it runs, and after it has ended."""
        with self._lock:
            self._stopped = True
            if self._stop is not None:
                self._stop()

    def _thread(self) -> None:
        reason: str | None = "it returned"
        try:
            asyncio.run(self._main())
        except BaseException as error:  # whatever it is, the watch must be begun anew
            reason = f"{type(error).__name__}: {error}"[:500]
        self.ended.set_result(None if self._stopped else reason)

    async def _main(self) -> None:
        # An event of this loop: kopf would leave a thread behind that waits for one of `threading`, and wait for it.
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._lock:
            if self._stopped:
                return
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        try:
            await self._operator(stop)
        finally:
            with self._lock:
                self._stop = None  # the loop is closed in a moment


class KopfWatch:
    """kopf, begun anew whenever it ends or hears nothing."""

    def __init__(
        self, kube: Kube, metrics: Metrics, census: Census, *, namespaces: tuple[str, ...], identity: str
    ) -> None:
        self._kube = kube
        self._metrics = metrics
        self._census = census
        self._namespaces = namespaces
        self._identity = identity

    async def run(self) -> None:
        """Watch for ever (KOPF-1). Fatal when a thread of kopf cannot be ended."""
        while True:
            # kopf does not notice a definition that comes later, or comes back.
            await wait_until_served(self._kube, namespace=next(iter(self._namespaces), None))
            reason = await self._once()
            log.warning("kopf_ended", reason=reason)
            self._metrics.count("watch_restarts_total", kind=KIND)
            await asyncio.sleep(PAUSE_S)

    async def _once(self) -> str:
        """Run kopf until it ends, or is deaf; return why."""
        loop = asyncio.get_running_loop()

        def take(kind: str | None, body: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(self._census.heard, kind, body)

        run = Run(lambda stop: self._operator(stop, take))
        run.thread.start()
        self._census.expect_list()
        deaf = asyncio.ensure_future(self._census.deaf.wait())
        ended = asyncio.wrap_future(run.ended)
        try:
            await asyncio.wait((deaf, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            deaf.cancel()
            self._census.deaf.clear()
            run.stop()
            await self._joined(run)
        return run.ended.result() or "it does not hear what happens to the resources"

    async def _joined(self, run: Run) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                await asyncio.shield(asyncio.wrap_future(run.ended))
        except TimeoutError:
            raise Fatal(Reason.INTERNAL_ERROR, f"kopf did not end within {STOP_S:g} s") from None

    async def _operator(self, stop: asyncio.Event, take: Callable[[str | None, dict[str, Any]], None]) -> None:
        where: dict[str, Any] = {"namespaces": list(self._namespaces)} if self._namespaces else {"clusterwide": True}
        await kopf.operator(
            registry=kopf_registry(take),
            settings=kopf_settings(),
            stop_flag=stop,
            # Else kopf asks for the user's name, and the image's user has none.
            identity=self._identity,  # type: ignore[arg-type, unused-ignore] # kopf does not export its NewType of str
            **where,
        )
