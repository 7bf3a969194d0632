"""The product's preview over a whole control plane: one client, one set of caches, plans for any installation.

`kubectl novacore plan` makes caches for one namespace and lets them go; here they stay, so that thousands of plans can
be made. What runs is the same: `loop.preview.preview`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from novacore_operator.kube import Kube
from novacore_operator.loop.preview import preview, read
from novacore_operator.observe.observer import Observer
from novacore_operator.preview import Preview
from novacore_operator.state import Observed
from novacore_operator.telemetry import Metrics
from tests.kit.api import Manifest
from tests.kit.controlplane import ControlPlane
from tests.kit.operator_process import SYSTEM

USER = "test-planner"
SYNC_S = 60
PLAN_S = 120
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and how long it took, dry runs included."""

    preview: Preview
    seconds: float


class Planner:
    """Plans from any thread. Use as a context manager."""

    def __init__(self, plane: ControlPlane) -> None:
        self._config = plane.kubeconfig(USER, "system:masters")
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)
        self._error: BaseException | None = None
        self._kube: Kube
        self._observer: Observer

    def __enter__(self) -> Planner:
        self._thread.start()
        assert self._ready.wait(SYNC_S), f"the planner's caches are not full after {SYNC_S} s"
        assert self._error is None, self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(SYNC_S)

    def plan(self, body: Manifest) -> Planned:
        """Return what applying this resource would do. `body`: as the API server would store it."""
        nova, invalid = read(body)
        assert invalid is None, invalid
        began = time.monotonic()
        found = self._wait(preview(self._kube, self._observer, nova))
        return Planned(found, time.monotonic() - began)

    def seen(self, body: Manifest) -> Observed:
        """Return what the caches have of an installation."""
        return self._wait(self._observer.observe(read(body)[0], ()))[0]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PLAN_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
            self._ready.set()
            raise

    async def _serve(self) -> None:
        metrics = Metrics()
        ignore: Callable[..., None] = lambda *_: None  # noqa: E731 - a type for a lambda
        self._kube = await Kube.connect(metrics, kubeconfig=str(self._config))
        self._observer = Observer(self._kube, metrics, operator_namespace=SYSTEM, namespaces=(), changed=ignore)
        try:
            async with asyncio.TaskGroup() as tasks:
                watches = self._observer.start(tasks)
                await self._observer.synced()
                self._ready.set()
                await self._end.wait()
                for watch in watches:
                    watch.cancel()
        finally:
            await self._kube.close()
