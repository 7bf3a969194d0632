"""The reconciler over a `World`: every turn is the product's own, only the API server behind it is in memory.

For sequences that are too long or too many for a real API server (tests/api has those that are not).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from novacore_contracts.releases import CURRENT
from novacore_operator.api import API_VERSION, KIND
from novacore_operator.errors import NovaError
from novacore_operator.kube import Conflict
from novacore_operator.loop.reconcile import Reconciler, Turn
from novacore_operator.loop.store import Store
from novacore_operator.reasons import Reason
from novacore_operator.state import (
    Counted,
    Manifest,
    Material,
    Nova,
    Observed,
    PodFacts,
    Ref,
    Trial,
    WorkloadFacts,
    names,
)
from novacore_operator.state.fieldpath import without
from novacore_operator.state.names import MANAGER
from novacore_operator.status import condition_of
from novacore_operator.telemetry import Metrics
from tests.unit.operator.make import UID, World, make_material

KEY = ("test", "nova")


PASSED = Trial("", 3600.0, (Counted({}, {}),), (Counted({}, {}),))


class Simulation:
    """One resource in one namespace. `components` in `broken` never become available with their present template."""

    def __init__(self, **spec: Any) -> None:
        self.world = World()
        self.store = Store()
        self.material: Material = make_material()
        self.broken: dict[str, PodFacts] = {}  # component -> what the kubelet says of its new pods
        self.traffic: dict[str, Trial] = {}  # service -> what its canary serves; else enough, and well
        self.down: set[str] = set()  # broken components without a pod of an older revision
        self.rivals: dict[str, list[str]] = {}  # object name -> fields that another manager holds
        self.refuse: dict[str, NovaError] = {}  # kind -> error of its next applies
        self.writes: list[str] = []
        self.events: list[str] = []
        self.deleted = False  # the resource, and nobody was told
        self.generation = 0
        self.version = 1000
        self.status: dict[str, Any] = {}
        self.spec: dict[str, Any] = {}
        self.edit(**spec)
        self.restart()

    # --- the user -----------------------------------------------------------------------------------------------------

    def edit(self, **spec: Any) -> None:
        """Apply a new spec."""
        self.spec = {"version": CURRENT, **spec}
        self.generation += 1
        self._put()

    def restart(self) -> None:
        """Start the operator anew: nothing but the cluster is remembered."""
        fake: Any = self
        self.store = Store()
        self._put()
        self.reconciler = Reconciler(fake, fake, self.store, Metrics(), identity="me")

    def _put(self) -> None:
        self.version += 1
        self.store.put(
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {
                    "name": KEY[1],
                    "namespace": KEY[0],
                    "uid": UID,
                    "generation": self.generation,
                    "creationTimestamp": "2026-03-01T11:00:00Z",
                    "resourceVersion": str(self.version),
                },
                "spec": copy.deepcopy(self.spec),
                "status": copy.deepcopy(self.status),
            }
        )

    # --- the operator -------------------------------------------------------------------------------------------------

    async def turn(self) -> Turn:
        """Take one turn."""
        return await self.reconciler.turn(KEY)

    async def run(self, *, turns: int = 40) -> None:
        """Take turns, with the controllers playing between them, until a turn writes nothing."""
        for _ in range(turns):
            before = len(self.writes)
            turn = await self.turn()
            changed = self.play()
            if len(self.writes) == before and not changed and turn.again_s != 0:
                return
        raise AssertionError(f"not settled after {turns} turns: {self.condition('Ready')}")

    def play(self) -> bool:
        """Play the controllers and kubelets once; return whether anything changed."""
        before = (dict(self.world.objects), self.world.pods)
        bad = {Ref(kind, "test", f"novacore-{name}") for name in self.broken for kind in ("Deployment", "StatefulSet")}
        broken = tuple(ref.name for ref in bad)
        self.world.settle(but=broken)
        pods = []
        for ref in bad & set(self.world.objects):
            live = self.world.objects[ref]
            pod = self.broken[ref.name.removeprefix("novacore-")]
            if pod.template not in ("", live.template):  # another revision: this one is sound
                self.world.settle(ref.kind, but=tuple(r.name for r in self.world.objects if r != ref))
                continue
            pods.append(replace(pod, template=live.template or ""))
            if isinstance(live.facts, WorkloadFacts):
                n = live.facts.replicas
                old = 0 if ref.kind == "StatefulSet" or ref.name.removeprefix("novacore-") in self.down else n
                facts = replace(
                    live.facts, observed_generation=live.generation, updated=n, total=n + old, available=old
                )
                self.world.objects[ref] = replace(live, facts=facts)
        self.world.pods = tuple(pods)
        self.world.trials = {}
        for name, service in names.CANARIES.items():
            canary = self.world.objects.get(Ref("Deployment", "test", name))
            if canary is not None and isinstance(canary.facts, WorkloadFacts) and canary.facts.available:
                self.world.trials[service] = replace(self.traffic.get(service, PASSED), template=canary.template or "")
        return before != (self.world.objects, self.world.pods)

    def condition(self, kind: str) -> Any:
        """Return one condition of the status."""
        return condition_of(self.status, kind)

    def template(self, component: str) -> str | None:
        """Return the digest of a service's pod template."""
        return self.world.objects[Ref("Deployment", "test", f"novacore-{component}")].template

    # --- what the reconciler sees as Kube and Observer ------------------------------------------------------------------

    async def observe(self, nova: Nova, siblings: Any) -> tuple[Observed, Material]:
        """Return the world."""
        return self.world.seen(), copy.deepcopy(dict(self.material))

    def remember(self, namespace: str, material: Material) -> None:
        """Keep the material."""
        self.material = material

    async def apply(self, body: Manifest, *, force: bool, subresource: str = "", manager: str = MANAGER) -> Manifest:
        """Store an object, or the status."""
        if manager != MANAGER:
            return body  # the number of pods is handed over: the world keeps it anyway
        if subresource:
            self.status = body["status"]
            self._put()
            stored = self.store.get(KEY)
            assert stored is not None
            return {
                **body,
                "metadata": {
                    **body["metadata"],
                    "generation": self.generation,
                    "creationTimestamp": stored.created,
                    "resourceVersion": str(self.version),
                },
                "spec": copy.deepcopy(self.spec),
            }
        if not force and body["metadata"]["name"] in self.rivals:
            conflict = Conflict(Reason.APPLY_REFUSED, "conflict")
            conflict.holders = tuple((path, "rival") for path in self._contested(body))
            if conflict.holders:
                raise conflict
        if body["kind"] in self.refuse:
            raise self.refuse[body["kind"]]
        live = self.world.apply(body)
        self.writes.append(f"{body['kind']} {body['metadata']['name']}")
        return {**body, "metadata": {**body["metadata"], "uid": live.uid, "resourceVersion": str(live.version)}}

    def _contested(self, body: Manifest) -> list[str]:
        return [path for path in self.rivals[body["metadata"]["name"]] if without(body, [path]) != body]

    async def find(self, _: Ref) -> Manifest | None:
        """Return the resource."""
        return None if self.deleted else {"metadata": {"uid": UID}}

    async def delete(self, ref: Ref, *, uid: str) -> bool:
        """Delete an object."""
        assert self.world.objects[ref].uid == uid
        del self.world.objects[ref]
        self.writes.append(f"delete {ref}")
        return True

    async def create_event(self, body: Manifest) -> None:
        """Keep the Event's reason."""
        self.events.append(body["reason"])

    def saw(self, body: Manifest, **_: Any) -> None:
        """The world has it already."""

    def lost(self, ref: Ref, uid: str) -> None:
        """The world has it already."""


def pod(component: str, trouble: str, *, restarts: int = 0, template: str = "") -> PodFacts:
    """Return a pod in trouble. `template`: only while the workload has this one."""
    return PodFacts(component, ready=False, trouble=trouble, message="words", restarts=restarts, template=template)
