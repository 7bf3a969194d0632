"""Builders of situations for the operator's tests: valid by default, a test names only what matters."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from novacore_contracts.releases import CURRENT
from novacore_operator.api.spec import Spec
from novacore_operator.plan import Plan, Verb, plan, setting_of
from novacore_operator.rotation import forms, mint
from novacore_operator.state import (
    JobFacts,
    Live,
    Manifest,
    Material,
    Nova,
    Observed,
    PodFacts,
    Ref,
    Referenced,
    ReleaseFacts,
    Sealed,
    Trial,
    WorkloadFacts,
    ref_of,
)
from novacore_operator.state.names import ANNOTATION_DESIRED, ANNOTATION_TEMPLATE
from novacore_operator.state.ownership import fingerprint

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"


class Chance:
    """Random bytes that are the same in each run, and counted."""

    def __init__(self, seed: str = "seed") -> None:
        self.seed, self.calls = seed, 0

    def __call__(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        self.calls += 1
        return hashlib.shake_256(f"{self.seed}/{self.calls}".encode()).digest(size)


def no_chance(size: int) -> bytes:
    """Fail: nothing may be minted."""
    raise AssertionError(f"{size} random bytes were asked for")


def make_nova(*, uid: str = UID, name: str = "nova", generation: int = 1, status: Any = None, **spec: Any) -> Nova:
    """Return a resource; keyword arguments are fields of its spec, as users write them."""
    return Nova(
        name=name,
        namespace="test",
        uid=uid,
        generation=generation,
        created="2026-03-01T11:00:00Z",
        version=1,
        spec=Spec.model_validate({"version": CURRENT, **spec}),
        status=status or {},
    )


@cache
def _material(namespace: str) -> Material:
    return mint.complete({}, mint.Setting(namespace), now=NOW, entropy=Chance(namespace))


def make_material(namespace: str = "test") -> Material:
    """Return complete material of a fresh installation, a copy."""
    return deepcopy(dict(_material(namespace)))


ADMIN = {
    "host": b"db.example.org",
    "port": b"5433",
    "user": b"root",
    "password": b"p" * 32,
    "database": b"nova",
    "ca": forms.new_ca(Chance("elsewhere"), name="elsewhere", now=NOW)[0],
}
REDIS = {"host": b"cache.example.org", "port": b"6380", "user": b"shop", "password": b"short", "ca": ADMIN["ca"]}


class World:
    """A cluster as far as the operator looks at it: applies plans, and plays the built-in controllers when asked."""

    def __init__(self) -> None:
        self.objects: dict[Ref, Live] = {}
        self.pods: tuple[PodFacts, ...] = ()
        self.siblings: tuple[tuple[str, str], ...] = ()
        self.referenced: dict[str, Referenced] = {}
        self.trials: dict[str, Trial] = {}
        self.unserved: set[str] = set()
        self.version = 10

    def seen(self) -> Observed:
        """Return the observation."""
        return Observed(
            dict(self.objects),
            self.pods,
            self.siblings,
            dict(self.referenced),
            trials=dict(self.trials),
            unserved=frozenset(self.unserved),
        )

    def grant(self, name: str, **data: bytes) -> None:
        """Make a Secret that the spec may name."""
        self.referenced[name] = Referenced(name, Sealed(data))

    def apply(self, manifest: Manifest, *, owner: str | None = None) -> Live:
        """Store an object as server-side apply does."""
        self.version += 1
        ref = ref_of(manifest)
        before = self.objects.get(ref)
        owners = manifest["metadata"].get("ownerReferences", [])
        annotations = manifest["metadata"].get("annotations", {})
        live = Live(
            ref=ref,
            uid=before.uid if before else f"uid-{self.version}",
            version=self.version,
            generation=(before.generation if before else 0) + 1,
            owner=owner or (owners[0]["uid"] if owners else None),
            desired=annotations.get(ANNOTATION_DESIRED),
            owned=fingerprint(manifest),
            template=annotations.get(ANNOTATION_TEMPLATE),
            facts=_fresh_facts(manifest, before),
        )
        self.objects[ref] = live
        return live

    def carry_out(self, intended: Plan) -> None:
        """Carry out a plan."""
        for action in intended.actions:
            if action.verb is Verb.DELETE:
                assert self.objects[action.ref].uid == action.uid
                del self.objects[action.ref]
            else:
                assert action.manifest is not None
                self.apply(action.manifest)

    def settle(self, *kinds: str, but: tuple[str, ...] = ()) -> None:
        """Play the controllers: workloads become available, Jobs end well."""
        for ref, live in self.objects.items():
            if (kinds and ref.kind not in kinds) or ref.name in but:
                continue
            if isinstance(live.facts, WorkloadFacts):
                n = live.facts.replicas
                facts = replace(live.facts, observed_generation=live.generation, total=n, updated=n, available=n)
                self.objects[ref] = replace(live, facts=facts)
            elif isinstance(live.facts, JobFacts):
                self.objects[ref] = replace(live, facts=JobFacts(complete=True, failed=False))

    def edit(self, ref: Ref) -> None:
        """Have somebody change a field that the operator owns."""
        self.version += 1
        self.objects[ref] = replace(self.objects[ref], owned="edited", version=self.version)

    def install(self, nova: Nova, material: Material | None = None, *, turns: int = 12) -> Plan:
        """Take turns until nothing is left to write; return the last plan."""
        material = material or make_material(nova.namespace)
        for _ in range(turns):
            intended = plan(nova, self.seen(), material)
            if not intended.actions and not intended.held:
                return intended
            self.carry_out(intended)
            self.settle()
        raise AssertionError(f"not settled after {turns} turns: {intended.actions} held {intended.held}")


def _fresh_facts(manifest: Manifest, before: Live | None) -> Any:
    if manifest["kind"] in ("Deployment", "StatefulSet", "Cluster"):
        old = before.facts if before is not None and isinstance(before.facts, WorkloadFacts) else None
        new = WorkloadFacts(
            replicas=manifest["spec"].get("instances", manifest["spec"].get("replicas", old.replicas if old else 1)),
            observed_generation=old.observed_generation if old else 0,
            total=old.total if old else 0,
            updated=0,
            available=old.available if old else 0,
        )
        if manifest["kind"] == "StatefulSet":
            for claim in manifest["spec"].get("volumeClaimTemplates", ()):
                new = replace(new, storage=claim["spec"]["resources"]["requests"]["storage"])
        return new
    if manifest["kind"] == "ControllerRevision":
        return ReleaseFacts.of(manifest["revision"], "2026-03-01T12:00:00Z", manifest["data"])
    if manifest["kind"] == "Job":
        return before.facts if before is not None else JobFacts(complete=False, failed=False)
    return None


def plan_of(nova: Nova, world: World, material: Material | None = None) -> Plan:
    """Plan for a world, with material that fits the spec."""
    if material is None:
        material = mint.complete(
            make_material(nova.namespace), setting_of(nova, world.seen()), now=NOW, entropy=Chance("more")
        )
    return plan(nova, world.seen(), material)


def deployment(name: str) -> Ref:
    """Return the address of a service's Deployment."""
    return Ref("Deployment", "test", f"novacore-{name}")
