"""One installation's picture: caches, the memory of Secrets, the Secrets that the spec names.

Invariants: OBS-1 material that was once complete is remembered, so a deleted or edited Secret comes back as it was.
OBS-2 nothing is taken for missing on the word of a cache alone: before material is minted, each absent Secret is asked
for by name.
OBS-3 entries that somebody else owns are handed on apart (`Observed.foreign`), and only of a Secret that memory does
not know: while memory lasts, an edit is undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from novacore_operator.build.installation import KINDS
from novacore_operator.kube import Forbidden, Kube
from novacore_operator.observe.informer import Changed, Informer
from novacore_operator.observe.projection import decoded, foreign_data, owned_data, project
from novacore_operator.observe.traffic import Traffic
from novacore_operator.state import (
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
    stores,
)
from novacore_operator.state.names import LABEL_MANAGED_BY, MANAGER
from novacore_operator.telemetry import Metrics

ROOT_PREFIX = names.root_secret("")


class Observer:
    """All informers, for the whole cluster or for some namespaces."""

    def __init__(
        self,
        kube: Kube,
        metrics: Metrics,
        *,
        operator_namespace: str,
        namespaces: Iterable[str],
        changed: Changed,
        traffic: Traffic | None = None,
    ) -> None:
        self._kube = kube
        self._traffic = traffic  # None: nobody looks at what canaries serve
        self._operator_namespace = operator_namespace
        self._material: dict[str, Material] = {}
        self._normal: dict[str, dict[Ref, tuple[str, str]]] = {}  # by namespace
        self._informers: list[tuple[str, str | None, Informer]] = []
        self._root_informers: list[tuple[str | None, Informer]] = []
        selector = f"{LABEL_MANAGED_BY}={MANAGER}"
        everywhere: tuple[str | None, ...] = (*namespaces,) or (None,)
        for namespace in everywhere:
            for kind in KINDS.values():
                if kind.watched:
                    informer = Informer(
                        kube,
                        metrics,
                        kind.name,
                        namespace=namespace,
                        changed=changed,
                        labels=selector,
                        foreign=kind.foreign,
                    )
                    self._informers.append((kind.name, None, informer))
            for name in names.SECRETS:
                informer = Informer(
                    kube, metrics, "Secret", namespace=namespace, changed=changed, name=name, memory=self._remembered
                )
                self._informers.append(("Secret", name, informer))

        def root_changed(_: str | None, before: Live | None, now: Live | None) -> None:
            live = now or before
            if live is not None and live.ref.name.startswith(ROOT_PREFIX):
                changed(live.ref.name.removeprefix(ROOT_PREFIX), before, now)

        for namespace in everywhere:  # by label in cluster mode; by name where RBAC grants single names
            root = None if namespace is None else names.root_secret(namespace)
            informer = Informer(
                kube,
                metrics,
                "Secret",
                namespace=operator_namespace,
                changed=root_changed,
                labels=selector if root is None else None,
                name=root,
                memory=self._remembered,
            )
            self._root_informers.append((root, informer))

    def start(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Begin all watches; return their tasks."""
        return [
            tasks.create_task(informer.run(), name=f"informer {kind} {name or ''}")
            for kind, name, informer in (*self._informers, *(("Root", *one) for one in self._root_informers))
        ]

    async def synced(self) -> None:
        """Return when every cache has been filled once."""
        for informer in self._all():
            await informer.synced.wait()

    def alive_at(self) -> float:
        """Return when the watch that has been silent for longest was heard last."""
        return min(informer.alive_at for informer in self._all())

    def _all(self) -> tuple[Informer, ...]:
        return (*(one for _, _, one in self._informers), *(one for _, one in self._root_informers))

    def saw(self, body: Manifest, *, hashed: str | None = None, wanted: str | None = None) -> None:
        """Take in the answer to our own write, and what form the API server gave the values (OWN-1)."""
        ref = ref_of(body)
        live = project(ref.kind, body)
        if hashed is not None and wanted is not None:
            if live.owned != wanted:
                self._normal.setdefault(ref.namespace, {})[ref] = (hashed, live.owned)
            else:
                self._normal.get(ref.namespace, {}).pop(ref, None)
        for kind, name, informer in self._informers:
            if kind == ref.kind and name in (None, ref.name) and informer.covers(ref.namespace):
                informer.saw(body)
        for name, informer in self._root_informers:
            if ref.kind == "Secret" and ref.name.startswith(ROOT_PREFIX) and name in (None, ref.name):
                informer.saw(body)

    def lost(self, ref: Ref, uid: str) -> None:
        """Take in that our own delete was accepted."""
        for kind, name, informer in self._informers:
            if kind == ref.kind and name in (None, ref.name) and informer.covers(ref.namespace):
                informer.lost(ref, uid, 0)

    def remember(self, namespace: str, material: Material) -> None:
        """Keep complete material (OBS-1). Nobody changes it: it is not copied."""
        self._material[namespace] = material

    def amend(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Keep one Secret's entries as they were written beside the plan (`loop.rings`), if there is a memory."""
        known = self._material.get(namespace)
        if known is not None:
            self._material[namespace] = {**known, name: data}

    def _remembered(self, ref: Ref) -> Mapping[str, bytes] | None:
        root = ref.namespace == self._operator_namespace and ref.name.startswith(ROOT_PREFIX)
        namespace = ref.name.removeprefix(ROOT_PREFIX) if root else ref.namespace
        return self._material.get(namespace, {}).get(ref.name)

    def forget(self, namespace: str) -> None:
        """Drop what is kept of an installation whose resource is gone."""
        self._material.pop(namespace, None)
        if self._traffic is not None:
            self._traffic.forget(namespace)
        self._normal.pop(namespace, None)

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
        self._root(nova.namespace, objects, material, foreign)
        await self._confirm_absent(nova, objects, material, foreign)
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
            normal=dict(self._normal.get(nova.namespace, {})),
            trials=await self._traffic.trials(nova.namespace, objects, pods) if self._traffic is not None else {},
            unserved=frozenset(kind for kind, _, informer in self._informers if not informer.served),
            foreign={name: sealed for name, sealed in foreign.items() if name not in remembered},
        )
        return seen, material

    def _root(
        self,
        namespace: str,
        objects: dict[Ref, Live],
        material: dict[str, dict[str, bytes]],
        foreign: dict[str, Sealed],
    ) -> None:
        """Take in the root Secret, which lies in the operator's namespace."""
        ref = self._root_ref(namespace)
        for _, informer in self._root_informers:
            sealed = informer.sealed(ref)
            if sealed is not None:
                live = informer.get(ref)
                if live is not None:
                    objects[ref] = live
                material[ref.name] = dict(sealed.reveal())
                others = informer.foreign(ref)
                foreign[ref.name] = others if others is not None else Sealed({})

    def _root_ref(self, namespace: str) -> Ref:
        return Ref("Secret", self._operator_namespace, names.root_secret(namespace))

    async def _confirm_absent(
        self,
        nova: Nova,
        objects: dict[Ref, Live],
        material: dict[str, dict[str, bytes]],
        foreign: dict[str, Sealed],
    ) -> None:
        """Ask by name for each Secret that the caches lack and memory does not know (OBS-2)."""
        known = self._material.get(nova.namespace, {})
        wanted = (Ref("Secret", nova.namespace, name) for name in stores.secrets_of(nova.spec))
        for ref in (*wanted, self._root_ref(nova.namespace)):
            if ref.name in material or ref.name in known:
                continue
            body = await self._kube.get(ref)
            if body is not None:
                objects[ref] = project("Secret", body)
                material[ref.name] = dict(owned_data(body).reveal())
                foreign[ref.name] = foreign_data(body)

    async def _referenced(self, nova: Nova) -> dict[str, Referenced]:
        """Read the Secrets that the spec names. They are not watched: the next event or resync looks again."""
        wanted = {login.name for login in stores.logins(nova.spec)}
        if nova.spec.models.llm.api_key_secret_ref is not None:
            wanted.add(nova.spec.models.llm.api_key_secret_ref.name)
        wanted |= {ref.name for _, ref in nova.spec.stripe.secrets()}
        found = {}
        for name in sorted(wanted):
            try:
                body = await self._kube.get(Ref("Secret", nova.namespace, name))
            except Forbidden:
                found[name] = Referenced(name, None, forbidden=True)
            else:
                found[name] = Referenced(name, Sealed(decoded(body)) if body is not None else None)
        return found
