"""What is foreseen is what is done."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacore_contracts.services import SERVICES
from novacore_operator.loop.preview import PAUSED, _until_refused, outline
from novacore_operator.preview import ALLOCATED, HIDDEN, UNMADE, Change, Preview, with_fields
from novacore_operator.reasons import Reason
from novacore_operator.state import Nova, Ref
from tests.unit.operator.loop.simulation import KEY, Simulation, pod
from tests.unit.operator.make import World, make_material, make_nova

SHUT = {"maintenance": {"windows": [{"cron": "0 0 29 2 *", "duration": "10m"}]}}


def foreseen(simulation: Simulation) -> Preview:
    """Return the preview of a simulation's present spec."""
    nova = simulation.store.get(KEY)
    assert isinstance(nova, Nova)
    return outline(nova, simulation.world.seen(), copy.deepcopy(dict(simulation.material)))


def writes_of(preview: Preview, *, waiting: str = "") -> list[str]:
    """Return the foreseen writes as the simulation counts them. `waiting`: leave out what waits for this."""
    changes = [c for c in preview.changes if not waiting or waiting not in c.waits_for]
    return sorted(f"delete {c.ref}" if c.verb == "delete" else str(c.ref) for c in changes)


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
    preview = outline(make_nova(version="9.9.9"), World().seen(), make_material())
    assert preview.blocked is not None
    assert preview.as_dict()["blocked"]["reason"] == Reason.VERSION_UNKNOWN


@pytest.mark.invariant("PREVIEW-1")
async def test_what_waits_for_a_window_is_told_apart_from_what_is_written_at_once() -> None:
    simulation = Simulation(**SHUT)
    await simulation.run()
    simulation.edit(**SHUT, image={"tag": "new"}, rollout={"progressDeadlineSeconds": 900})
    expected, done = foreseen(simulation), len(simulation.writes)
    await simulation.run()
    assert simulation.condition("Ready")["reason"] == Reason.MAINTENANCE_WAIT
    at_once = writes_of(expected, waiting="maintenance window")
    assert len([name for name in at_once if name.startswith("Deployment")]) == len(SERVICES)  # the deadline's
    assert sorted(simulation.writes[done:]) == at_once
    later, done = foreseen(simulation), len(simulation.writes)
    assert writes_of(later, waiting="maintenance window") == []
    assert {c.waits_for for c in later.changes} == {
        next(c.waits_for for c in expected.changes if "maintenance window" in c.waits_for)
    }
    simulation.edit(image={"tag": "new"}, rollout={"progressDeadlineSeconds": 900})
    await simulation.run()
    assert sorted(simulation.writes[done:]) == writes_of(later)


@pytest.mark.invariant("PREVIEW-1")
async def test_what_waits_for_the_end_of_a_pause_is_written_when_it_ends() -> None:
    simulation = Simulation()
    await simulation.run()
    simulation.edit(paused=True, image={"tag": "new"})
    expected, done = foreseen(simulation), len(simulation.writes)
    assert {c.waits_for for c in expected.changes} == {PAUSED}
    await simulation.run()
    assert simulation.writes[done:] == []
    simulation.edit(image={"tag": "new"})
    await simulation.run()
    assert sorted(simulation.writes[done:]) == writes_of(expected)


@pytest.mark.invariant("PREVIEW-1")
async def test_a_blocked_spec_shows_what_is_done_for_the_release_that_stays() -> None:
    simulation = Simulation()
    await simulation.run()
    simulation.world.edit(Ref("Service", "test", "novacore-memory"))
    simulation.edit(version="9.9.9", rollout={"progressDeadlineSeconds": 900})
    expected, done = foreseen(simulation), len(simulation.writes)
    assert expected.blocked is not None
    assert expected.blocked.reason is Reason.VERSION_UNKNOWN
    await simulation.run()
    assert sorted(simulation.writes[done:]) == writes_of(expected)
    assert "Service novacore-memory" in writes_of(expected)


@pytest.mark.invariant("PREVIEW-1")
async def test_a_spec_that_was_taken_back_shows_the_way_back() -> None:
    simulation = Simulation()
    await simulation.run()
    simulation.edit(image={"tag": "bad"})
    simulation.broken["auth-billing"] = pod("auth-billing", "CrashLoopBackOff", restarts=3)
    while simulation.condition("RolledBack")["status"] != "True":
        await simulation.turn()
        simulation.play()
    simulation.broken.clear()
    expected, done = foreseen(simulation), len(simulation.writes)
    assert expected.blocked is not None
    assert "Deployment novacore-auth-billing" in writes_of(expected)
    await simulation.run()
    assert sorted(simulation.writes[done:]) == writes_of(expected)
    assert foreseen(simulation).changes == ()


def test_a_second_resource_in_a_namespace_is_told_that_it_is_taken() -> None:
    world = World()
    world.siblings = (("2020-01-01T00:00:00Z", "older"),)
    preview = outline(make_nova(), world.seen(), make_material())
    assert preview.blocked is not None
    assert preview.blocked.reason is Reason.NAMESPACE_TAKEN
    assert preview.changes == ()


def test_what_follows_from_passwords_that_do_not_exist_yet_has_no_name() -> None:
    first, second = (outline(make_nova(), World().seen(), {}) for _ in range(2))
    assert first.hash == second.hash
    assert first.as_dict() == second.as_dict()
    (job,) = (change for change in first.changes if change.ref.kind == "Job")
    assert job.ref.name == f"novacore-migrate-0-2-0-{UNMADE}"
    assert job.manifest is not None
    assert UNMADE not in job.manifest["metadata"]["name"], "a dry run needs a name that may be"


def test_a_node_port_that_the_api_server_chooses_is_not_foretold() -> None:
    def service(port: int | None) -> dict[str, Any]:
        return {
            "metadata": {},
            "spec": {"ports": [{"name": "http", "port": 80} | ({"nodePort": port} if port else {})]},
        }

    change = Change("update", Ref("Service", "n", "s"), "changed", manifest=service(None))
    (found,) = with_fields(change, service(None), service(31_234)).fields
    assert (found.path, found.new) == ("spec.ports[http].nodePort", ALLOCATED)
    change = Change("update", Ref("Service", "n", "s"), "changed", manifest=service(30_500))
    (found,) = with_fields(change, service(None), service(30_500)).fields
    assert found.new == 30_500


@pytest.mark.parametrize("profile", ["Development", "Production"])
async def test_manifests_are_built_anew_when_a_builder_would_see_something_else(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan with manifests kept between the passes is the plan without."""
    simulation = Simulation(profile=profile)
    kept = foreseen(simulation)
    monkeypatch.setattr("novacore_operator.made._Looked.same", lambda *_: False)
    assert foreseen(simulation) == kept


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


def test_what_waits_for_a_service_that_an_autoscaler_makes_larger_is_foreseen() -> None:
    """Without the autoscaler's pods the service never settled, and the plan ended before what comes after it."""
    world = World()
    world.install(make_nova())
    scaled = {"autoscaling": {"minReplicas": 2, "maxReplicas": 5}}
    later = {"image": {"pullSecrets": ["a"]}}
    nova = make_nova(generation=2, services={"ngs-curriculum": scaled, "reflection-worker": later})
    changes = [(change.verb, change.ref.name) for change in outline(nova, world.seen(), make_material()).changes]
    assert ("update", "novacore-reflection-worker") in changes
    assert changes[-1] == ("create", "novacore-release-1")


def test_a_refused_write_holds_up_later_waves_what_waits_for_its_pods_and_the_release() -> None:
    def change(step: int, kind: str) -> Change:
        return Change("update", Ref(kind, "n", f"{kind}-{step}"), "changed", step=step)

    changes = [change(4, "Deployment"), change(6, "PersistentVolumeClaim"), change(14, "Deployment")]
    changes += [change(19, "Service"), change(21, "ControllerRevision")]

    def waiting(step: int) -> list[int]:
        refused = {step: next(one.ref for one in changes if one.step == step)}
        return [one.step for one in _until_refused(changes, refused) if one.waits_for]

    assert waiting(6) == [19, 21]
    assert waiting(4) == [6, 14, 19, 21]
