"""What is foreseen is what is done."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacore_operator.loop.preview import outline
from novacore_operator.preview import HIDDEN, Change, Preview, with_fields
from novacore_operator.reasons import Reason
from novacore_operator.state import Nova, Ref
from tests.unit.operator.loop.simulation import KEY, Simulation
from tests.unit.operator.make import World, make_material, make_nova


def foreseen(simulation: Simulation) -> Preview:
    """Return the preview of a simulation's present spec."""
    nova = simulation.store.get(KEY)
    assert isinstance(nova, Nova)
    preview, _ = outline(nova, simulation.world.seen(), copy.deepcopy(dict(simulation.material)))
    return preview


def writes_of(preview: Preview) -> list[str]:
    """Return the foreseen writes as the simulation counts them."""
    return sorted(f"delete {c.ref}" if c.verb == "delete" else str(c.ref) for c in preview.changes)


SERVICE = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 3),
        "logLevel": st.sampled_from(["debug", "info"]),
        "podAnnotations": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"]), max_size=2),
        "resources": st.just({"limits": {"memory": "900Mi"}}),
    },
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "profile": st.sampled_from(["Development", "Production"]),
        "image": st.fixed_dictionaries({"tag": st.sampled_from(["t1", "t2"])}),
        "services": st.dictionaries(st.sampled_from(["memory", "gateway", "intelligence"]), SERVICE, max_size=3),
        "networkPolicy": st.fixed_dictionaries({"enabled": st.booleans()}),
        "expose": st.fixed_dictionaries({"type": st.sampled_from(["ClusterIP", "LoadBalancer"])}),
        "limits": st.fixed_dictionaries({"authPerMinute": st.integers(1, 99)}),
        "postgres": st.fixed_dictionaries({"storage": st.fixed_dictionaries({"size": st.just("8Gi")})}),
    },
)


@pytest.mark.invariant("PREVIEW-1")
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(SPECS, min_size=1, max_size=3))
async def test_what_is_foreseen_is_what_is_written(steps: list[dict[str, Any]]) -> None:
    simulation = Simulation()
    first = foreseen(simulation)
    await simulation.run()
    assert sorted(simulation.writes) == writes_of(first)
    for spec in steps:
        simulation.edit(**spec)
        expected, done = foreseen(simulation), len(simulation.writes)
        await simulation.run()
        assert sorted(simulation.writes[done:]) == writes_of(expected)
        assert foreseen(simulation).changes == ()


@pytest.mark.invariant("PREVIEW-1")
async def test_canaries_are_foreseen_as_they_are_written() -> None:
    canary = {"rollout": {"canary": {"enabled": True}}}
    simulation = Simulation(**canary)
    await simulation.run()
    simulation.edit(**canary, image={"tag": "new"})
    expected, done = foreseen(simulation), len(simulation.writes)
    await simulation.run(turns=80)
    assert sorted(simulation.writes[done:]) == writes_of(expected)
    memory = [(c.verb, c.consequence, c.waits_for) for c in expected.changes if c.ref.name == "novacore-memory-canary"]
    assert memory == [
        ("create", "starts a canary of memory (1 pod)", "waits for the migration"),
        ("delete", "stops the canary of memory", "waits for the migration"),
    ]


async def test_mode_plan_writes_nothing_but_the_plan() -> None:
    simulation = Simulation()
    await simulation.run()
    done = len(simulation.writes)
    simulation.edit(mode="Plan", image={"tag": "new"})
    await simulation.run()
    assert len(simulation.writes) == done
    assert simulation.condition("Ready")["reason"] == Reason.PLANNED
    planned = simulation.status["plan"]
    assert {
        "verb": "update",
        "kind": "Deployment",
        "name": "novacore-memory",
        "consequence": "restarts memory (1 pod)",
    } in (planned["actions"])
    assert planned["update"] >= 9
    simulation.edit(image={"tag": "new"})
    await simulation.run()
    assert "plan" not in simulation.status
    assert len(simulation.writes) == done + planned["create"] + planned["update"] + planned["delete"]


async def test_a_plan_says_the_same_twice_also_on_an_empty_cluster() -> None:
    simulation = Simulation(mode="Plan")
    await simulation.run()
    first = simulation.status["plan"]
    simulation.restart()
    await simulation.run()
    assert simulation.status["plan"] == first
    assert simulation.writes == []


def test_a_blocked_spec_has_a_plan_that_says_so() -> None:
    preview, _ = outline(make_nova(version="9.9.9"), World().seen(), make_material())
    assert preview.blocked is not None
    assert preview.as_dict()["blocked"]["reason"] == Reason.VERSION_UNKNOWN


def test_fields_are_named_and_told_apart_by_the_name_of_a_list_item() -> None:
    before = {
        "metadata": {"labels": {"a": "1"}, "annotations": {"novacore.ai/desired": "x"}, "resourceVersion": "7"},
        "spec": {"containers": [{"name": "main", "image": "a:1"}, {"name": "side", "image": "s:1"}]},
        "status": {"x": 1},
    }
    after = copy.deepcopy(before)
    after["spec"]["containers"][0]["image"] = "a:2"  # type: ignore[index]
    after["metadata"]["annotations"]["novacore.ai/desired"] = "y"  # type: ignore[index]
    change = with_fields(Change("update", Ref("Deployment", "n", "d"), "changed"), before, after)
    assert [(field.path, field.old, field.new) for field in change.fields] == [
        ("spec.containers[main].image", "a:1", "a:2")
    ]


@pytest.mark.invariant("PREVIEW-2")
def test_values_of_secrets_do_not_appear() -> None:
    before = {"metadata": {"labels": {}}, "data": {"password": "b2xk"}}
    after = {"metadata": {"labels": {}}, "data": {"password": "bmV3", "more": "eA=="}}
    change = with_fields(Change("update", Ref("Secret", "n", "s"), "changed"), before, after)
    assert {(field.old, field.new) for field in change.fields} == {(HIDDEN, HIDDEN)}
    assert "bmV3" not in str(Preview((change,)).as_dict())
