"""One kind (or one Secret name), listed and watched, kept as projections.

Invariants: INF-1 a cached object never goes back to an older resourceVersion: a write's own answer is put in at once
(`saw`), and the stale events that still come are dropped, so no decision rests on a state before our own write.
INF-2 a watch that is cut goes on from the last version seen; after 410, or when that fails again and again, the list is
taken anew and what is missing in it is removed.
Not here: what an event means. `changed(namespace, live_before, live_now)` says only that something did.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from novacore_operator.errors import NovaError
from novacore_operator.kube import Gone, Kube, NotFound
from novacore_operator.observe.projection import foreign_data, owned_data, project
from novacore_operator.state import Live, Manifest, Ref, Sealed
from novacore_operator.telemetry import Log, Metrics

log = Log(__name__)

PAUSE_S = (0.5, 15.0)
RESUMES_MAX = 3
"""A watch that was cut goes on where it was; after so many failures in a row the list is taken anew."""
UNSERVED_S = 5.0
"""How often it is asked whether a foreign kind has come: its definition may not be watched in one namespace alone."""
NOTHING = Sealed({})
Changed = Callable[[str | None, Live | None, Live | None], None]
Memory = Callable[[Ref], Mapping[str, bytes] | None]


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
        foreign: bool = False,
        memory: Memory = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._foreign_kind = foreign
        self._memory = memory  # what somebody else keeps of a Secret: the same bytes are not kept twice
        self.served = True
        self._kube = kube
        self._metrics = metrics
        self._kind = kind
        self._namespace = namespace
        self._labels = labels
        self._name = name
        self._changed = changed
        self._clock = clock
        self._objects: dict[str, tuple[Live, ...]] = {}  # by namespace; of few, a tuple is a fifth of a dict
        self._sealed: dict[Ref, Sealed] = {}
        self._foreign: dict[Ref, Sealed] = {}
        self._buried: dict[str, int] = {}
        self._since = ""  # version to watch from; empty: list
        self.synced = asyncio.Event()
        self.alive_at = clock()
        """When it last heard anything, a refusal too: a watch that only waits is heard of each minute (bookmarks)."""

    def covers(self, namespace: str) -> bool:
        """Return whether this watch tells of a namespace. What it does not tell of would stay as it was put in."""
        return self._namespace in (None, namespace)

    def objects(self, namespace: str) -> Iterable[Live]:
        """Return what is cached of one namespace."""
        return self._objects.get(namespace, ())

    def get(self, ref: Ref) -> Live | None:
        """Return one object, or None."""
        return next((live for live in self._objects.get(ref.namespace, ()) if live.ref.name == ref.name), None)

    def sealed(self, ref: Ref) -> Sealed | None:
        """Return a Secret's entries that are ours, or None."""
        return self._sealed.get(ref)

    def foreign(self, ref: Ref) -> Sealed | None:
        """Return a Secret's entries that are not ours (any more), or None."""
        return self._foreign.get(ref)

    def saw(self, body: Manifest) -> None:
        """Take in an object, from the watch or as the answer to our own write (INF-1)."""
        live = project(self._kind, body)
        before = self.get(live.ref)
        if before is not None and before.uid == live.uid and before.version >= live.version:
            return
        if self._buried.get(live.uid, -1) >= live.version:
            return
        if before is not None and (before.owned, before.desired) == (live.owned, live.desired):
            live = replace(live, owned=before.owned, desired=before.desired)  # one string each, not two
            live.prove(before.proven)
        self._put(live.ref, live)
        if self._kind == "Secret":
            self._keep(live.ref, body)
        self._changed(live.ref.namespace, before, live)

    def _put(self, ref: Ref, *now: Live) -> None:
        """Put an object in the place of the one of this name, or nothing."""
        others = (live for live in self._objects.get(ref.namespace, ()) if live.ref.name != ref.name)
        self._objects[ref.namespace] = (*others, *now)
        if not self._objects[ref.namespace]:
            del self._objects[ref.namespace]

    def _keep(self, ref: Ref, body: Manifest) -> None:
        mine, others = owned_data(body), foreign_data(body)
        known = self._memory(ref)
        self._sealed[ref] = Sealed(known) if known is not None and known == mine.reveal() else mine
        self._foreign[ref] = others if others.reveal() else NOTHING

    def lost(self, ref: Ref, uid: str, version: int) -> None:
        """Take out an object that was deleted; a namesake made meanwhile stays."""
        before = self.get(ref)
        if before is None or before.uid != uid:
            return
        self._buried = {uid: version}  # one is enough: stale events come right after
        self._put(ref)
        self._sealed.pop(ref, None)
        self._foreign.pop(ref, None)
        self._changed(ref.namespace, before, None)

    async def run(self) -> None:
        """Watch for ever."""
        pause, failures = PAUSE_S[0], 0
        while True:
            try:
                if not self._since or failures > RESUMES_MAX:
                    await self._relist()
                    self._is_served()
                    self.synced.set()
                while True:
                    await self._watch()
                    pause, failures = PAUSE_S[0], 0
            except Gone:
                self.alive_at, self._since = self._clock(), ""
                self._metrics.count("watch_restarts_total", kind=self._kind)
            except NotFound as error:
                if self._foreign_kind:
                    self._unserved()
                    await asyncio.sleep(UNSERVED_S)
                    continue
                failures += 1
                pause = await self._failed(error, pause)
            except NovaError as error:
                failures += 1
                pause = await self._failed(error, pause)

    async def _failed(self, error: NovaError, pause: float) -> float:
        """Tell, and wait before it is tried again; return the next pause."""
        self.alive_at = self._clock()
        self._metrics.count("watch_errors_total", kind=self._kind)
        log.warning("watch_failed", kind=self._kind, name=self._name, reason=error.message)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        return min(pause * 2, PAUSE_S[1])

    def _unserved(self) -> None:
        """Take in that the API server does not know the kind: there is none of it."""
        self.alive_at, self._since = self._clock(), ""
        self.served = False
        for live in [live for kept in self._objects.values() for live in kept]:
            self.lost(live.ref, live.uid, live.version)
        self.synced.set()

    def _is_served(self) -> None:
        """Take in that it does, and let everything be looked at anew if it has just come."""
        if not self.served:
            self.served = True
            self._changed(self._namespace, None, None)

    async def _relist(self) -> None:
        """List page by page, so that the bodies of all installations are never in memory at once."""
        present: set[Ref] = set()
        listed = ""
        self._since = ""
        async for items, version in self._kube.pages(
            self._kind, namespace=self._namespace, labels=self._labels, name=self._name
        ):
            self.alive_at, listed = self._clock(), version
            for body in items:
                self.saw(body)
                present.add(Ref(self._kind, body["metadata"]["namespace"], body["metadata"]["name"]))
        absent = [live for kept in self._objects.values() for live in kept if live.ref not in present]
        for live in absent:
            if live.version <= int(listed):
                self.lost(live.ref, live.uid, int(listed))
        self._since = listed

    async def _watch(self) -> None:
        """Follow one watch to its end."""
        async for kind, body in self._kube.watch(
            self._kind, namespace=self._namespace, since=self._since, labels=self._labels, name=self._name
        ):
            self.alive_at = self._clock()
            version = self._since = body["metadata"]["resourceVersion"]
            if kind == "DELETED":
                metadata = body["metadata"]
                ref = Ref(self._kind, metadata["namespace"], metadata["name"])
                self.lost(ref, metadata["uid"], int(version))
            elif kind != "BOOKMARK":
                self.saw(body)
        self.alive_at = self._clock()
