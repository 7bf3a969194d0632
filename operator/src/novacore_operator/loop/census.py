"""Which resources there are: kopf's events, and a list past kopf that says what its events left out.

kopf lists anew whenever its watch is too old, and of what was deleted meanwhile it says nothing: such a resource would
be kept, and its objects made again, for ever.
Invariants: CENSUS-1 a resource that is gone leaves the store at the latest with the next census; one that the list is
too old to know of stays. CENSUS-2 when the list knows a generation that kopf has not told, and kopf stays silent, it is
deaf: whoever runs it begins it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from novacore_operator.api import KIND
from novacore_operator.errors import NovaError
from novacore_operator.kube import Kube
from novacore_operator.loop.store import Key, Store
from novacore_operator.telemetry import Log

log = Log(__name__)

EACH_S = 600.0
CALM_S = 5.0
"""After kopf's list: by then its events are in, so that the list past it is the younger one."""
DEAF_S = 20.0
PAUSE_S = 1.0


class Census:
    """Fills the store. `changed(key)`: its spec is new; `gone(key)`: it is deleted."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        *,
        namespaces: Sequence[str],
        changed: Callable[[Key], None],
        gone: Callable[[Key], None],
    ) -> None:
        self._kube = kube
        self._store = store
        self._namespaces: tuple[str | None, ...] = (*namespaces,) or (None,)
        self._changed = changed
        self._gone = gone
        self._listed = asyncio.Event()
        self._told = 0
        self.deaf = asyncio.Event()

    def heard(self, kind: str | None, body: dict[str, Any]) -> None:
        """Take in an event of kopf's watch. `kind` is None for what was there when a watch began."""
        self._told += 1
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if kind is None:
            self.expect_list()
        if kind == "DELETED":
            if self._store.drop(key, metadata["uid"]):
                self._gone(key)
        else:
            self._take(key, body)

    def expect_list(self) -> None:
        """Say that kopf lists: a census follows."""
        self._listed.set()

    async def run(self) -> None:
        """Count for ever: soon after each list of kopf's, and now and then (CENSUS-1)."""
        while True:
            try:
                async with asyncio.timeout(EACH_S):
                    await self._listed.wait()
                await asyncio.sleep(CALM_S)
            except TimeoutError:
                pass
            self._listed.clear()
            told = self._told
            if await self.take() and told == self._told:
                await asyncio.sleep(DEAF_S)
                if told == self._told:
                    log.warning("kopf_deaf", waited_s=DEAF_S)
                    self.deaf.set()

    async def take(self) -> list[Key]:
        """List; drop what is gone, take in what is new. Returns the latter."""
        new: list[Key] = []
        for namespace in self._namespaces:
            while True:
                if await self._taken(namespace, new):
                    break
                await asyncio.sleep(PAUSE_S)
        return new

    async def _taken(self, namespace: str | None, new: list[Key]) -> bool:
        """List one namespace. False after what passes by itself, an absent definition too: waited out, as caches do."""
        present: set[Key] = set()
        listed = 0
        try:
            async for items, version in self._kube.pages(KIND, namespace=namespace):
                listed = int(version)
                for body in items:
                    key = (body["metadata"]["namespace"], body["metadata"]["name"])
                    present.add(key)
                    if self._take(key, body):
                        new.append(key)
        except NovaError as error:
            log.warning("list_failed", reason=error.message)
            return False
        for key in set(self._store.keys(namespace)) - present:
            known = self._store.get(key)
            # A younger one was made while we asked.
            if known is not None and known.version <= listed and self._store.drop(key, known.uid):
                self._gone(key)
        return True

    def _take(self, key: Key, body: dict[str, Any]) -> bool:
        new = self._store.put(body)
        if new:
            self._changed(key)
        return new
