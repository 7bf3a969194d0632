"""What is remembered is what would be built."""

import gc
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacore_operator.made import Made
from novacore_operator.plan import build, plan
from novacore_operator.state import ClaimFacts, Manifest, Ref, names
from tests.unit.operator.make import World, make_material, make_nova
from tests.unit.operator.test_plan import SPECS


def installed(**spec: Any) -> World:
    world = World()
    world.install(make_nova(**spec))
    return world


WORLDS = tuple(installed(**spec) for spec in ({}, {"redis": {"cache": "Separate"}}))
LIVE = next(iter(WORLDS[0].objects.values()))
CLAIM = Ref("PersistentVolumeClaim", "test", "data-novacore-postgres-0")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("spec"), SPECS),
        st.tuples(st.just("world"), st.sampled_from(WORLDS)),
        st.tuples(st.just("gone"), st.sampled_from(sorted(WORLDS[1].objects))),
        st.tuples(st.just("claim"), st.sampled_from(["1Gi", "100Gi"])),
        st.tuples(st.just("material"), st.sampled_from(sorted(make_material()[names.MIGRATE_CREDS]))),
        st.tuples(st.just("operator namespace"), st.sampled_from(["novacore-system", "elsewhere"])),
        st.tuples(st.just("uid"), st.sampled_from(["one", "two", "three"])),
    ),
    max_size=12,
)


@pytest.mark.invariant("MADE-1")
@given(STEPS)
@settings(max_examples=25, deadline=None)
def test_what_is_remembered_is_what_would_be_built(steps: list[tuple[str, Any]]) -> None:
    made = Made(kept=2)
    nova, seen, material = make_nova(), WORLDS[0].seen(), make_material()
    for what, value in [("spec", {}), *steps]:
        if what == "spec":
            nova = make_nova(uid=nova.uid, **value)
        elif what == "world":
            seen = replace(value.seen(), operator_namespace=seen.operator_namespace)
        elif what == "gone":
            seen = replace(seen, objects={ref: live for ref, live in seen.objects.items() if ref != value})
        elif what == "claim":
            claim = replace(LIVE, ref=CLAIM, facts=ClaimFacts(value, bound=True))
            seen = replace(seen, objects={**seen.objects, CLAIM: claim})
        elif what == "material":
            changed = material[names.MIGRATE_CREDS] | {value: b"other"}
            material = {**material, names.MIGRATE_CREDS: changed}
        elif what == "operator namespace":
            seen = replace(seen, operator_namespace=value)
        elif what == "uid":
            nova = replace(nova, uid=value)
        assert made.of(nova, seen, material) == build(nova, seen, material)


def test_a_workload_that_reports_its_pods_makes_nothing_to_be_built_anew() -> None:
    world = installed()
    made, nova, material = Made(), make_nova(), make_material()
    first = made.of(nova, world.seen(), material)
    later = {
        ref: replace(live, version=live.version + 1) if ref.kind == "Deployment" else live
        for ref, live in world.objects.items()
    }
    assert made.of(replace(nova, version=2, status={"any": 1}), replace(world.seen(), objects=later), material) is first


def test_a_plan_leaves_what_was_built_as_it_is() -> None:
    nova, material = make_nova(), make_material()
    built: Mapping[Ref, Manifest] = build(nova, World().seen(), material)
    before = deepcopy(dict(built))
    left = {ref: frozenset({"metadata.labels"}) for ref in built}
    plan(nova, World().seen(), material, built=built, left=left, canaries=True)
    assert built == before


def test_only_the_last_few_installations_are_remembered() -> None:
    made, seen, material = Made(kept=2), World().seen(), make_material()
    resources = [make_nova(uid=uid) for uid in ("one", "two", "three")]
    first, second, third = (made.of(nova, seen, material) for nova in resources)
    assert made.of(resources[2], seen, material) is third
    assert made.of(resources[1], seen, material) is second
    assert made.of(resources[0], seen, material) is not first


def test_of_a_deleted_installation_nothing_is_kept() -> None:
    made, seen, material = Made(), World().seen(), make_material()
    made.of(make_nova(uid="one"), seen, material)
    made.of(make_nova(uid="two"), seen, material)
    made.forget("test")
    assert not gc_keeps(made, material[names.MIGRATE_CREDS]["admin.json"])


def gc_keeps(root: object, value: bytes) -> bool:
    """Return whether a value can be reached from an object."""
    known, waiting = {id(root)}, [root]
    while waiting:
        for item in gc.get_referents(waiting.pop()):
            if item is value:
                return True
            if id(item) not in known and not isinstance(item, type | ModuleType | FunctionType):
                known.add(id(item))
                waiting.append(item)
    return False
