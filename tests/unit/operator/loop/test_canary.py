"""A change goes through its canaries, or is taken back before an old pod was touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novacore_contracts.services import SERVICES
from novacore_operator.reasons import Reason
from novacore_operator.state import Counted, Ref, Served, Trial, WorkloadFacts
from tests.unit.operator.loop.simulation import Simulation, pod
from tests.unit.operator.test_releases import installed

CANARY = {"rollout": {"canary": {"enabled": True}}}
NEW: dict[str, Any] = {**CANARY, "image": {"tag": "new"}}
ONE: dict[str, Any] = {**CANARY, "services": {"memory": {"podAnnotations": {"a": "b"}}}}
ROUTE = ("GET", "/x")


def trial(elapsed_s: float, *, errors: int = 0) -> Trial:
    """Return a trial with a hundred requests on both sides."""
    canary, stable = ({ROUTE: Served(100, failed, (100, 100))} for failed in (errors, 0))
    return Trial("", elapsed_s, (Counted({}, canary),), (Counted({}, stable),))


def writes_of(simulation: Simulation, since: int, kind: str = "Deployment") -> list[str]:
    """Return the writes to Deployments, in order."""
    return [write.replace("novacore-", "") for write in simulation.writes[since:] if kind in write]


async def until_taken_back(simulation: Simulation) -> None:
    """Take turns until the change is taken back."""
    for _ in range(60):
        await simulation.turn()
        if simulation.condition("RolledBack").get("status") == "True":
            return
        simulation.play()
    raise AssertionError(simulation.condition("Ready"))


@pytest.mark.invariant("PLAN-7")
async def test_a_canary_goes_before_each_service_with_requests_and_none_stays() -> None:
    simulation = await installed(**CANARY)
    assert not [write for write in simulation.writes if "canary" in write]  # not at first install
    done = len(simulation.writes)
    simulation.edit(**NEW)
    await simulation.run(turns=80)
    assert simulation.condition("Ready")["status"] == "True"
    order = writes_of(simulation, done)
    for service in SERVICES:
        if service.port is None:
            assert f"Deployment {service.name}-canary" not in order
            continue
        steps = [f"Deployment {service.name}-canary", f"Deployment {service.name}"]
        steps.append(f"delete Deployment {service.name}-canary")
        assert [write for write in order if write in steps] == steps
    assert not [ref for ref in simulation.world.objects if "canary" in ref.name]


async def test_without_it_nothing_is_different() -> None:
    simulation = await installed()
    done = len(simulation.writes)
    simulation.edit(image={"tag": "new"})
    await simulation.run()
    assert not [write for write in simulation.writes[done:] if "canary" in write]


@pytest.mark.invariant("PLAN-7")
async def test_the_old_pods_stay_until_the_time_is_over() -> None:
    simulation = await installed(**CANARY)
    before = simulation.template("memory")
    simulation.edit(**ONE)
    simulation.traffic["memory"] = trial(34.0)
    await simulation.run()
    assert simulation.template("memory") == before
    told = simulation.condition("Progressing")
    assert (told["status"], told["reason"]) == ("True", Reason.CANARY_RUNNING)
    assert told["message"].startswith("canary of memory: 34 of 60 s, 0.0 % 5xx of 100 requests against 0.0 %")
    assert simulation.condition("Ready")["reason"] == Reason.CANARY_RUNNING
    quiet = len(simulation.writes)
    status = simulation.status
    await simulation.run()
    assert (len(simulation.writes), simulation.status) == (quiet, status)  # nothing new, nothing written
    simulation.traffic["memory"] = trial(60.0)
    simulation.play()
    await simulation.run()
    assert simulation.template("memory") != before
    assert simulation.condition("Ready")["status"] == "True"


@pytest.mark.invariant("PLAN-7")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("worse", Reason.CANARY_WORSE),
        ("unread", Reason.CANARY_UNREAD),
        ("crash", Reason.CRASH_LOOPING),
        ("image", Reason.IMAGE_PULL_FAILED),
        ("late", Reason.PROGRESS_DEADLINE_EXCEEDED),
    ],
)
async def test_a_bad_canary_is_taken_back_and_no_old_pod_was_touched(kind: str, reason: Reason) -> None:
    simulation = await installed(**CANARY)
    done = len(simulation.writes)
    simulation.edit(**ONE)
    if kind == "worse":
        simulation.traffic["memory"] = trial(10.0, errors=50)
    elif kind == "unread":
        simulation.traffic["memory"] = Trial("", 200.0)
    elif kind == "late":
        await simulation.turn()
        canary = Ref("Deployment", "test", "novacore-memory-canary")
        live = simulation.world.objects[canary]
        facts = WorkloadFacts(1, 99, 1, 1, 0, stalled="timed out progressing", overdue=True)
        simulation.world.objects[canary] = replace(live, facts=facts)
    else:
        trouble = "CrashLoopBackOff" if kind == "crash" else "ImagePullBackOff"
        simulation.broken["memory-canary"] = pod("memory", trouble, restarts=2)
    await until_taken_back(simulation)
    told = simulation.condition("RolledBack")
    assert told["reason"] == reason
    assert "memory: " in told["message"]
    assert "canary" in told["message"]
    simulation.broken.clear()
    await simulation.run()
    assert writes_of(simulation, done) == ["Deployment memory-canary", "delete Deployment memory-canary"]
    assert simulation.condition("Progressing")["reason"] == Reason.ROLLED_BACK
    assert simulation.condition("Degraded")["status"] == "False"


async def test_a_bad_canary_without_roll_back_stops_there() -> None:
    rollout = {"autoRollback": False, "canary": {"enabled": True}}
    simulation = await installed(rollout=rollout)
    before = simulation.template("memory")
    simulation.edit(**{**ONE, "rollout": rollout})
    simulation.traffic["memory"] = trial(100.0, errors=50)
    await simulation.run()
    assert simulation.template("memory") == before
    assert simulation.condition("Ready")["reason"] == Reason.CANARY_WORSE
    assert simulation.condition("RolledBack")["status"] == "False"


async def test_a_restarted_operator_goes_on_with_the_same_canary() -> None:
    simulation = await installed(**CANARY)
    done = len(simulation.writes)
    simulation.edit(**ONE)
    simulation.traffic["memory"] = trial(34.0)
    await simulation.run()
    simulation.restart()
    simulation.traffic["memory"] = trial(0.0)  # what the new process knows
    simulation.play()
    await simulation.run()
    assert writes_of(simulation, done) == ["Deployment memory-canary"]
    simulation.traffic.clear()
    simulation.play()
    await simulation.run()
    assert writes_of(simulation, done)[1:] == ["Deployment memory", "delete Deployment memory-canary"]


async def test_an_edit_back_to_the_good_release_takes_the_canary_away() -> None:
    simulation = await installed(**CANARY)
    done = len(simulation.writes)
    simulation.edit(**ONE)
    simulation.traffic["memory"] = trial(5.0)
    await simulation.run()
    simulation.edit(**CANARY)
    await simulation.run()
    assert writes_of(simulation, done) == ["Deployment memory-canary", "delete Deployment memory-canary"]
    assert simulation.condition("Ready")["status"] == "True"


async def test_an_edit_in_the_middle_makes_another_canary() -> None:
    simulation = await installed(**CANARY)
    simulation.edit(**ONE)
    simulation.traffic["memory"] = trial(5.0)
    await simulation.run()
    done = len(simulation.writes)
    simulation.edit(**{**CANARY, "services": {"memory": {"podAnnotations": {"a": "c"}}}})
    await simulation.run()
    assert writes_of(simulation, done) == ["Deployment memory-canary"]


async def test_repairs_and_changes_of_number_have_no_canary() -> None:
    simulation = await installed(**CANARY)
    done = len(simulation.writes)
    simulation.world.edit(Ref("Deployment", "test", "novacore-memory"))
    await simulation.run()
    simulation.edit(**CANARY, services={"gateway": {"replicas": 3}})
    await simulation.run()
    assert writes_of(simulation, done) == ["Deployment memory", "Deployment gateway"]


async def test_a_service_that_does_not_run_has_no_canary() -> None:
    simulation = await installed(**CANARY, services={"memory": {"replicas": 0}})
    done = len(simulation.writes)
    simulation.edit(**CANARY, services={"memory": {"replicas": 1, "podAnnotations": {"a": "b"}}})
    await simulation.run()
    assert writes_of(simulation, done) == ["Deployment memory"]


async def test_canaries_count_for_max_parallel() -> None:
    rollout = {"maxParallel": 1, "canary": {"enabled": True}}
    simulation = await installed(rollout=rollout)
    simulation.edit(rollout=rollout, image={"tag": "new"})
    most = 0
    for _ in range(80):
        await simulation.turn()
        present = {ref.name for ref in simulation.world.objects if "canary" in ref.name}
        most = max(most, len(present))
        simulation.play()
    assert simulation.condition("Ready")["status"] == "True"
    assert most == 1


async def test_a_canary_that_serves_alone_stays_until_the_others_are_there() -> None:
    """Its service's own pods are gone meanwhile: capacity must not fall further because it has passed."""
    simulation = await installed(**CANARY)
    memory = Ref("Deployment", "test", "novacore-memory")
    simulation.edit(**ONE)
    simulation.traffic["memory"] = trial(5.0)
    await simulation.run()
    live = simulation.world.objects[memory]
    assert isinstance(live.facts, WorkloadFacts)
    simulation.world.objects[memory] = replace(live, facts=replace(live.facts, available=0))
    canary = Ref("Deployment", "test", "novacore-memory-canary")
    simulation.world.trials["memory"] = replace(simulation.world.trials["memory"], elapsed_s=60.0)
    for _ in range(3):
        await simulation.turn()
        assert canary in simulation.world.objects
    simulation.play()
    await simulation.run()
    assert canary not in simulation.world.objects


async def test_a_pause_in_the_middle_writes_nothing_and_the_canary_goes_on_after_it() -> None:
    simulation = await installed(**CANARY)
    simulation.edit(**ONE)
    simulation.traffic["memory"] = trial(5.0)
    await simulation.run()
    done = len(simulation.writes)
    simulation.edit(**ONE, paused=True)
    simulation.traffic["memory"] = trial(90.0)
    simulation.play()
    await simulation.run()
    assert len(simulation.writes) == done
    simulation.edit(**ONE)
    await simulation.run()
    assert writes_of(simulation, done) == ["Deployment memory", "delete Deployment memory-canary"]


async def test_a_canary_whose_pod_is_refused_says_so() -> None:
    simulation = await installed(**CANARY)
    simulation.edit(**ONE)
    await simulation.turn()
    canary = Ref("Deployment", "test", "novacore-memory-canary")
    facts = WorkloadFacts(1, 1, 0, 0, 0, stalled="FailedCreate: exceeded quota")
    simulation.world.objects[canary] = replace(simulation.world.objects[canary], facts=facts)
    await simulation.turn()
    assert simulation.condition("Progressing")["message"].endswith("to be ready: FailedCreate: exceeded quota")
