"""One kind (or one Secret name), listed and watched, kept as projections.

Invariants: INF-1 a cached object never goes back to an older resourceVersion: a write's own answer is put in at once
(`saw`), and the stale events that still come are dropped, so no decision rests on a state before our own write.
INF-2 after 410 or a cut the list is taken anew and what is missing in it is removed.
Not here: what an event means. `changed(namespace, live_before, live_now)` says only that something did.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from novacore_operator.errors import NovaError
from novacore_operator.kube import Gone, Kube
from novacore_operator.observe.projection import foreign_data, owned_data, project
from novacore_operator.state import Live, Manifest, Ref, Sealed
from novacore_operator.telemetry import Log, Metrics

log = Log(__name__)

PAUSE_S = (0.5, 15.0)
Changed = Callable[[str, Live | None, Live | None], None]


class Informer:
    """The cache of one watch."""

    def __init__(
        self,
        kube: Kube,
        metrics: Metrics,
        kind: str,
        *,
        namespace: str | None,
        changed: Changed,
        labels: str | None = None,
        name: str | None = None,
    ) -> None:
        self._kube = kube
        self._metrics = metrics
        self._kind = kind
        self._namespace = namespace
        self._labels = labels
        self._name = name
        self._changed = changed
        self._objects: dict[Ref, Live] = {}
        self._sealed: dict[Ref, Sealed] = {}
        self._foreign: dict[Ref, Sealed] = {}
        self._buried: dict[str, int] = {}
        self.synced = asyncio.Event()

    def objects(self, namespace: str) -> list[Live]:
        """Return what is cached of one namespace."""
        return [live for ref, live in self._objects.items() if ref.namespace == namespace]

    def sealed(self, ref: Ref) -> Sealed | None:
        """Return a Secret's entries that are ours, or None."""
        return self._sealed.get(ref)

    def foreign(self, ref: Ref) -> Sealed | None:
        """Return a Secret's entries that are not ours (any more), or None."""
        return self._foreign.get(ref)

    def saw(self, body: Manifest) -> None:
        """Take in an object, from the watch or as the answer to our own write (INF-1)."""
        live = project(self._kind, body)
        before = self._objects.get(live.ref)
        if before is not None and before.uid == live.uid and before.version >= live.version:
            return
        if self._buried.get(live.uid, -1) >= live.version:
            return
        self._objects[live.ref] = live
        if self._kind == "Secret":
            self._sealed[live.ref] = owned_data(body)
            self._foreign[live.ref] = foreign_data(body)
        self._changed(live.ref.namespace, before, live)

    def lost(self, ref: Ref, uid: str, version: int) -> None:
        """Take out an object that was deleted; a namesake made meanwhile stays."""
        before = self._objects.get(ref)
        if before is None or before.uid != uid:
            return
        self._buried = {uid: version}  # one is enough: stale events come right after
        del self._objects[ref]
        self._sealed.pop(ref, None)
        self._foreign.pop(ref, None)
        self._changed(ref.namespace, before, None)

    async def run(self) -> None:
        """Watch for ever."""
        pause = PAUSE_S[0]
        while True:
            try:
                version = await self._relist()
                pause = PAUSE_S[0]
                self.synced.set()
                while True:
                    version = await self._watch(version)
            except Gone:
                self._metrics.count("watch_restarts_total", kind=self._kind)
            except NovaError as error:
                self._metrics.count("watch_errors_total", kind=self._kind)
                log.warning("watch_failed", kind=self._kind, name=self._name, reason=error.message)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(pause * 2, PAUSE_S[1])

    async def _relist(self) -> str:
        items, version = await self._kube.list(
            self._kind, namespace=self._namespace, labels=self._labels, name=self._name
        )
        for body in items:
            self.saw(body)
        present = {Ref(self._kind, item["metadata"]["namespace"], item["metadata"]["name"]) for item in items}
        for ref, live in list(self._objects.items()):
            if ref not in present and live.version <= int(version):
                self.lost(ref, live.uid, int(version))
        return version

    async def _watch(self, version: str) -> str:
        """Follow one watch to its end; return where to go on."""
        async for kind, body in self._kube.watch(
            self._kind, namespace=self._namespace, since=version, labels=self._labels, name=self._name
        ):
            version = body["metadata"]["resourceVersion"]
            if kind == "DELETED":
                metadata = body["metadata"]
                ref = Ref(self._kind, metadata["namespace"], metadata["name"])
                self.lost(ref, metadata["uid"], int(version))
            elif kind != "BOOKMARK":
                self.saw(body)
        return version
