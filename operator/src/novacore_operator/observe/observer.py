"""One installation's picture: caches, the memory of Secrets, the Secrets that the spec names.

Invariants: OBS-1 material that was once complete is remembered, so a deleted or edited Secret comes back as it was.
OBS-2 nothing is taken for missing on the word of a cache alone: before material is minted, each absent Secret is asked
for by name.
OBS-3 entries that somebody else owns are handed on apart (`Observed.foreign`), and only of a Secret that memory does
not know: while memory lasts, an edit is undone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from novacore_operator.kube import Forbidden, Kube
from novacore_operator.observe.informer import Informer
from novacore_operator.observe.projection import decoded, foreign_data, owned_data, project
from novacore_operator.state import (
    WATCHED,
    Live,
    Manifest,
    Material,
    Nova,
    Observed,
    PodFacts,
    Ref,
    Referenced,
    Sealed,
    names,
    ref_of,
)
from novacore_operator.state.names import LABEL_MANAGED_BY, MANAGER
from novacore_operator.telemetry import Metrics

ROOT_AGE_S = 600


class Observer:
    """All informers, for the whole cluster or for some namespaces."""

    def __init__(
        self,
        kube: Kube,
        metrics: Metrics,
        *,
        operator_namespace: str,
        namespaces: Iterable[str],
        changed: Callable[[str, Live | None, Live | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._operator_namespace = operator_namespace
        self._material: dict[str, dict[str, dict[str, bytes]]] = {}
        self._normal: dict[Ref, tuple[str, str]] = {}
        self._roots: dict[str, tuple[float, Live | None]] = {}
        self._informers: list[tuple[str, str | None, Informer]] = []
        selector = f"{LABEL_MANAGED_BY}={MANAGER}"
        everywhere: tuple[str | None, ...] = (*namespaces,) or (None,)
        for namespace in everywhere:
            for kind in WATCHED:
                informer = Informer(kube, metrics, kind, namespace=namespace, changed=changed, labels=selector)
                self._informers.append((kind, None, informer))
            for name in names.SECRETS:
                informer = Informer(kube, metrics, "Secret", namespace=namespace, changed=changed, name=name)
                self._informers.append(("Secret", name, informer))

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin all watches."""
        for kind, name, informer in self._informers:
            tasks.create_task(informer.run(), name=f"informer {kind} {name or ''}")

    async def synced(self) -> None:
        """Return when every cache has been filled once."""
        for _, _, informer in self._informers:
            await informer.synced.wait()

    def saw(self, body: Manifest, *, hashed: str | None = None, wanted: str | None = None) -> None:
        """Take in the answer to our own write, and what form the API server gave the values (OWN-1)."""
        ref = ref_of(body)
        live = project(ref.kind, body)
        if ref.namespace == self._operator_namespace and ref.name.startswith("novacore-root-"):
            self._roots[ref.name] = (self._clock(), live)
        if hashed is not None and wanted is not None:
            if live.owned != wanted:
                self._normal[ref] = (hashed, live.owned)
            else:
                self._normal.pop(ref, None)
        for kind, name, informer in self._informers:
            if kind == ref.kind and name in (None, ref.name):
                informer.saw(body)

    def lost(self, ref: Ref, uid: str) -> None:
        """Take in that our own delete was accepted."""
        for kind, name, informer in self._informers:
            if kind == ref.kind and name in (None, ref.name):
                informer.lost(ref, uid, 0)

    def remember(self, namespace: str, material: Material) -> None:
        """Keep complete material (OBS-1)."""
        self._material[namespace] = {name: dict(data) for name, data in material.items()}

    def forget(self, namespace: str) -> None:
        """Drop what is kept of an installation whose resource is gone."""
        self._material.pop(namespace, None)
        self._roots.pop(names.root_secret(namespace), None)
        self._normal = {ref: value for ref, value in self._normal.items() if ref.namespace != namespace}

    async def observe(self, nova: Nova, siblings: tuple[tuple[str, str], ...]) -> tuple[Observed, Material]:
        """Return the picture, and the material as found: in the cluster, else in memory."""
        objects: dict[Ref, Live] = {}
        pods: list[PodFacts] = []
        material: dict[str, dict[str, bytes]] = {}
        foreign: dict[str, Sealed] = {}
        for kind, _, informer in self._informers:
            for live in informer.objects(nova.namespace):
                if kind == "Pod":
                    if isinstance(live.facts, PodFacts) and not live.deleting:
                        pods.append(live.facts)
                    continue
                objects[live.ref] = live
                sealed = informer.sealed(live.ref)
                if sealed is not None:
                    material[live.ref.name] = dict(sealed.reveal())
                others = informer.foreign(live.ref)
                if others is not None:
                    foreign[live.ref.name] = others
        await self._root(nova.namespace, objects, material, foreign)
        await self._confirm_absent(nova.namespace, objects, material, foreign)
        remembered = self._material.get(nova.namespace, {})
        for name, data in remembered.items():
            found = material.setdefault(name, {})
            for key, value in data.items():
                found.setdefault(key, value)
        referenced = await self._referenced(nova)
        seen = Observed(
            objects=objects,
            pods=tuple(pods),
            siblings=siblings,
            referenced=referenced,
            operator_namespace=self._operator_namespace,
            normal=dict(self._normal),
            foreign={name: sealed for name, sealed in foreign.items() if name not in remembered},
        )
        return seen, material

    async def _root(
        self,
        namespace: str,
        objects: dict[Ref, Live],
        material: dict[str, dict[str, bytes]],
        foreign: dict[str, Sealed],
    ) -> None:
        """Read the root Secret when it is not known, and again now and then: its name rules out a watch."""
        ref = Ref("Secret", self._operator_namespace, names.root_secret(namespace))
        at, live = self._roots.get(ref.name, (0.0, None))
        if live is None or self._clock() - at > ROOT_AGE_S or namespace not in self._material:
            body = await self._kube.get(ref)
            live = project("Secret", body) if body is not None else None
            self._roots[ref.name] = (self._clock(), live)
            if body is not None:
                material[ref.name] = dict(owned_data(body).reveal())
                foreign[ref.name] = foreign_data(body)
        if live is not None:
            objects[ref] = live

    async def _confirm_absent(
        self,
        namespace: str,
        objects: dict[Ref, Live],
        material: dict[str, dict[str, bytes]],
        foreign: dict[str, Sealed],
    ) -> None:
        """Ask by name for each Secret that the caches lack and memory does not know (OBS-2)."""
        known = self._material.get(namespace, {})
        for name in names.SECRETS:
            if name in material or name in known:
                continue
            body = await self._kube.get(Ref("Secret", namespace, name))
            if body is not None:
                objects[Ref("Secret", namespace, name)] = project("Secret", body)
                material[name] = dict(owned_data(body).reveal())
                foreign[name] = foreign_data(body)

    async def _referenced(self, nova: Nova) -> dict[str, Referenced]:
        """Read the Secrets that the spec names. They are not watched: the next event or resync looks again."""
        wanted = set()
        if nova.spec.postgres.mode == "External" and nova.spec.postgres.external is not None:
            wanted.add(nova.spec.postgres.external.admin_secret_ref.name)
        if nova.spec.models.llm.api_key_secret_ref is not None:
            wanted.add(nova.spec.models.llm.api_key_secret_ref.name)
        found = {}
        for name in sorted(wanted):
            try:
                body = await self._kube.get(Ref("Secret", nova.namespace, name))
            except Forbidden:
                found[name] = Referenced(name, None, forbidden=True)
            else:
                found[name] = Referenced(name, Sealed(decoded(body)) if body is not None else None)
        return found
