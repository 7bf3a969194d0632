"""Releases are stored when Ready, and a roll-out that fails goes back to the last one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from novacore_contracts.releases import CURRENT
from novacore_operator.errors import Blocked
from novacore_operator.reasons import Reason
from novacore_operator.state import JobFacts, PodFacts, Ref, ReleaseFacts, WorkloadFacts
from tests.unit.operator.loop.simulation import Simulation, pod

NEW = {"image": {"tag": "new"}}


async def installed(**spec: Any) -> Simulation:
    """Return a simulation that is Ready."""
    simulation = Simulation(**spec)
    await simulation.run()
    assert simulation.condition("Ready")["status"] == "True"
    return simulation


def releases_of(simulation: Simulation) -> dict[int, Any]:
    """Return the stored specs by number."""
    facts = (live.facts for live in simulation.world.objects.values())
    return {fact.number: fact.spec for fact in facts if isinstance(fact, ReleaseFacts)}


def image_of(simulation: Simulation, component: str) -> str:
    """Return what the status says of a component's image."""
    parts = {part["name"]: part["image"] for part in simulation.status["components"]}
    return str(parts[component])


@pytest.mark.invariant("REL-1")
async def test_a_release_is_stored_once_when_all_is_ready() -> None:
    simulation = await installed()
    assert list(releases_of(simulation)) == [1]
    assert simulation.status["release"]["lastGood"] == 1
    await simulation.run()
    assert list(releases_of(simulation)) == [1]
    simulation.edit(rollout={"maxParallel": 3})  # how, not what
    await simulation.run()
    assert list(releases_of(simulation)) == [1]
    assert [entry["outcome"] for entry in simulation.status["history"]] == ["Succeeded"]


@pytest.mark.invariant("REL-1")
async def test_the_oldest_release_goes_when_there_are_more_than_ten() -> None:
    simulation = await installed()
    for n in range(12):
        simulation.edit(image={"tag": f"t{n}"})
        await simulation.run()
    assert sorted(releases_of(simulation)) == list(range(4, 14))
    assert len(simulation.status["history"]) == 10


FAILURES = {
    "image": (pod("memory", "ImagePullBackOff"), Reason.IMAGE_PULL_FAILED),
    "crash": (pod("memory", "CrashLoopBackOff", restarts=2), Reason.CRASH_LOOPING),
}


@pytest.mark.invariant("REL-2")
@pytest.mark.parametrize("kind", FAILURES)
async def test_a_roll_out_that_cannot_succeed_is_taken_back(kind: str) -> None:
    trouble, reason = FAILURES[kind]
    simulation = await installed()
    before = simulation.template("memory"), simulation.template("auth-billing")
    simulation.edit(**NEW)
    simulation.broken["memory"] = trouble
    while simulation.condition("RolledBack").get("status") != "True":
        await simulation.turn()
        simulation.play()
    del simulation.broken["memory"]
    await simulation.run()
    assert simulation.condition("RolledBack")["reason"] == reason
    assert "memory: words" in simulation.condition("RolledBack")["message"]
    assert (simulation.template("memory"), simulation.template("auth-billing")) == before
    assert simulation.condition("Ready")["status"] == "False"
    assert simulation.condition("Ready")["reason"] == Reason.ROLLED_BACK
    assert simulation.condition("Progressing")["reason"] == Reason.ROLLED_BACK
    assert image_of(simulation, "memory").endswith(f":{CURRENT}")
    assert simulation.status["history"][0]["outcome"] == "RolledBack"
    assert list(releases_of(simulation)) == [1]


@pytest.mark.invariant("REL-2")
async def test_what_was_taken_back_is_not_tried_again_until_the_spec_changes() -> None:
    simulation = await installed()
    simulation.edit(**NEW)
    simulation.broken["memory"] = pod("memory", "ImagePullBackOff")
    while simulation.condition("RolledBack").get("status") != "True":
        await simulation.turn()
        simulation.play()
    simulation.broken.clear()
    simulation.restart()
    await simulation.run()
    quiet = len(simulation.writes)
    simulation.restart()
    await simulation.run()
    assert len(simulation.writes) == quiet
    simulation.edit(image={"tag": "newer"})
    await simulation.run()
    assert simulation.condition("Ready")["status"] == "True"
    assert simulation.condition("RolledBack")["status"] == "False"
    assert sorted(releases_of(simulation)) == [1, 2]


@pytest.mark.invariant("PLAN-6")
async def test_the_way_back_goes_in_reverse_order() -> None:
    simulation = await installed()
    simulation.edit(**NEW)
    simulation.broken["gateway"] = pod("gateway", "CrashLoopBackOff", restarts=2)
    while simulation.condition("RolledBack").get("status") != "True":
        await simulation.turn()
        simulation.play()
    simulation.broken.clear()
    start = len(simulation.writes)
    await simulation.run()
    order = [w.removeprefix("Deployment novacore-") for w in simulation.writes[start:] if w.startswith("Deployment")]
    assert order[0] == "gateway"
    assert order[-1] == "auth-billing"
    assert order.index("intelligence") < order.index("memory")


async def test_a_failed_migration_is_taken_back_and_nothing_restarts() -> None:
    simulation = await installed()
    before = simulation.template("memory")
    simulation.edit(**NEW)
    await simulation.turn()
    job = next(
        ref
        for ref, live in simulation.world.objects.items()
        if isinstance(live.facts, JobFacts) and not live.facts.complete
    )
    live = simulation.world.objects[job]
    simulation.world.objects[job] = replace(live, facts=JobFacts(complete=False, failed=True, message="BackoffLimit"))
    simulation.world.pods = tuple(  # that of an earlier Job has stayed for its log
        PodFacts("migrate", ready=False, trouble="Failed", message=f"words of {name}", name=name)
        for name in ("novacore-migrate-earlier-x", f"{job.name}-x")
    )
    start = len(simulation.writes)
    await simulation.run()
    assert simulation.condition("RolledBack")["reason"] == Reason.MIGRATION_FAILED
    assert f"words of {job.name}-x" in simulation.condition("RolledBack")["message"]
    assert simulation.template("memory") == before
    assert not [write for write in simulation.writes[start:] if write.startswith("Deployment")]


async def test_a_service_that_is_late_is_taken_back() -> None:
    simulation = await installed()
    simulation.edit(services={"memory": {"logLevel": "debug"}})
    simulation.broken["memory"] = PodFacts("memory", ready=False, trouble="", message="")
    for _ in range(4):
        await simulation.turn()
        simulation.play()
    assert simulation.condition("RolledBack")["status"] == "False"
    ref = Ref("Deployment", "test", "novacore-memory")
    live = simulation.world.objects[ref]
    assert isinstance(live.facts, WorkloadFacts)
    simulation.world.objects[ref] = replace(live, facts=replace(live.facts, overdue=True, stalled="timed out"))
    await simulation.turn()
    assert simulation.condition("RolledBack")["reason"] == Reason.PROGRESS_DEADLINE_EXCEEDED


async def test_a_data_store_that_does_not_start_is_taken_back_after_the_deadline() -> None:
    simulation = await installed()
    simulation.edit(postgres={"image": "example.org/none:1"})
    simulation.broken["postgres"] = PodFacts("postgres", ready=False, trouble="", message="")
    for _ in range(3):
        await simulation.turn()
        simulation.play()
    assert simulation.condition("RolledBack")["status"] == "False"
    past = datetime.now(UTC) - timedelta(seconds=700)
    simulation.status["release"]["since"] = past.strftime("%Y-%m-%dT%H:%M:%SZ")
    simulation.restart()
    await simulation.turn()
    assert simulation.condition("RolledBack")["reason"] == Reason.PROGRESS_DEADLINE_EXCEEDED


async def test_a_write_that_is_refused_for_too_long_is_taken_back() -> None:
    simulation = await installed()
    simulation.edit(**NEW)
    simulation.refuse["Job"] = Blocked(Reason.APPLY_REFUSED, "exceeded quota")
    await simulation.turn()
    assert simulation.condition("Ready")["reason"] == Reason.APPLY_REFUSED
    past = datetime.now(UTC) - timedelta(seconds=700)
    simulation.status["release"]["since"] = past.strftime("%Y-%m-%dT%H:%M:%SZ")
    simulation.restart()
    await simulation.turn()
    assert simulation.condition("RolledBack")["reason"] == Reason.APPLY_REFUSED


@pytest.mark.invariant("REL-3")
async def test_the_last_good_release_itself_is_never_taken_back() -> None:
    simulation = await installed()
    simulation.edit(**NEW)
    await simulation.run()
    simulation.broken["memory"] = pod("memory", "CrashLoopBackOff", restarts=9)
    simulation.down.add("memory")
    for _ in range(5):
        await simulation.turn()
        simulation.play()
    assert simulation.condition("RolledBack")["status"] == "False"
    assert simulation.condition("Ready")["reason"] == Reason.CRASH_LOOPING
    assert simulation.condition("Degraded")["status"] == "True"


async def test_the_first_installation_has_nothing_to_go_back_to() -> None:
    simulation = Simulation()
    simulation.broken["memory"] = pod("memory", "ImagePullBackOff")
    for _ in range(8):
        await simulation.turn()
        simulation.play()
    assert simulation.condition("RolledBack")["status"] == "False"
    assert simulation.condition("Ready")["reason"] == Reason.IMAGE_PULL_FAILED


async def test_auto_rollback_can_be_switched_off() -> None:
    simulation = await installed(rollout={"autoRollback": False})
    simulation.edit(**NEW, rollout={"autoRollback": False})
    simulation.broken["memory"] = pod("memory", "ImagePullBackOff")
    for _ in range(8):
        await simulation.turn()
        simulation.play()
    assert simulation.condition("RolledBack")["status"] == "False"
    assert simulation.condition("Ready")["reason"] == Reason.IMAGE_PULL_FAILED


async def test_a_spec_that_is_blocked_leaves_the_last_good_release_in_force_and_repaired() -> None:
    simulation = await installed()
    simulation.edit(version="9.9.9")
    await simulation.run()
    assert simulation.condition("Ready")["reason"] == Reason.VERSION_UNKNOWN
    assert simulation.status["services"] == "9/9"
    del simulation.world.objects[Ref("Deployment", "test", "novacore-memory")]
    await simulation.run()
    assert Ref("Deployment", "test", "novacore-memory") in simulation.world.objects


async def test_a_change_that_replaces_pods_waits_for_its_window() -> None:
    simulation = await installed()
    month = (datetime.now(UTC) + timedelta(days=62)).month
    closed = {"windows": [{"cron": f"0 2 1 {month} *", "duration": "1h"}]}
    before = simulation.template("memory")
    simulation.edit(**NEW, maintenance=closed)
    await simulation.run()
    assert simulation.condition("Ready")["reason"] == Reason.MAINTENANCE_WAIT
    assert simulation.template("memory") == before
    simulation.edit(**NEW, maintenance={"windows": [{"cron": "* * * * *", "duration": "1h"}]})
    await simulation.run()
    assert simulation.condition("Ready")["status"] == "True"
    assert simulation.template("memory") != before


async def test_a_change_that_replaces_no_pod_does_not_wait() -> None:
    month = (datetime.now(UTC) + timedelta(days=62)).month
    closed = {"windows": [{"cron": f"0 2 1 {month} *", "duration": "1h"}]}
    simulation = await installed(maintenance=closed)
    simulation.edit(services={"memory": {"replicas": 3}}, maintenance=closed)
    await simulation.run()
    assert simulation.condition("Ready")["status"] == "True"


async def test_a_workload_that_the_roll_out_does_not_change_is_no_reason_to_go_back() -> None:
    simulation = await installed()
    simulation.broken["postgres"] = pod("postgres", "CrashLoopBackOff", restarts=9)
    simulation.play()
    simulation.edit(**NEW)
    for _ in range(6):
        await simulation.turn()
        simulation.play()
    assert simulation.condition("RolledBack")["status"] == "False"
    assert simulation.condition("Ready")["reason"] == Reason.CRASH_LOOPING


async def test_what_somebody_changed_about_a_stored_release_is_put_back() -> None:
    simulation = await installed()
    simulation.world.edit(Ref("ControllerRevision", "test", "novacore-release-1"))
    done = len(simulation.writes)
    await simulation.run()
    assert simulation.writes[done:] == ["ControllerRevision novacore-release-1"]


async def test_a_deleted_release_is_stored_again() -> None:
    simulation = await installed()
    del simulation.world.objects[Ref("ControllerRevision", "test", "novacore-release-1")]
    await simulation.run()
    assert list(releases_of(simulation)) == [1]


async def test_pausing_does_not_try_the_failed_release_again_and_a_longer_deadline_does() -> None:
    simulation = await installed()
    simulation.edit(**NEW)
    simulation.broken["memory"] = pod("memory", "ImagePullBackOff")
    while simulation.condition("RolledBack").get("status") != "True":
        await simulation.turn()
        simulation.play()
    simulation.broken.clear()
    await simulation.run()
    done = len(simulation.writes)
    for change in ({"paused": True}, {}, {"maintenance": {"windows": [{"cron": "* * * * *", "duration": "1h"}]}}):
        simulation.edit(**NEW, **change)
        await simulation.run()
        assert simulation.condition("Ready")["reason"] == Reason.ROLLED_BACK
    assert len(simulation.writes) == done
    assert len(simulation.status["history"]) == 2
    simulation.edit(**NEW, rollout={"progressDeadlineSeconds": 900})
    await simulation.run()
    assert simulation.condition("Ready")["status"] == "True"
    assert simulation.condition("RolledBack")["status"] == "False"


@pytest.mark.parametrize("change", [NEW, {}])
async def test_a_window_that_no_calendar_knows_blocks_the_change_and_not_the_repair(change: dict[str, Any]) -> None:
    simulation = await installed()
    simulation.edit(**change, maintenance={"windows": [{"cron": "0 2 31 2 *", "duration": "1h"}]})
    await simulation.run()
    assert simulation.condition("Ready")["reason"] == Reason.SPEC_INVALID
    del simulation.world.objects[Ref("Deployment", "test", "novacore-memory")]
    await simulation.run()
    assert Ref("Deployment", "test", "novacore-memory") in simulation.world.objects


async def test_a_paused_resource_that_this_operator_cannot_read_stays_paused() -> None:
    simulation = await installed()
    simulation.edit(paused=True, later={"field": 1})
    del simulation.world.objects[Ref("Deployment", "test", "novacore-memory")]
    await simulation.run()
    assert Ref("Deployment", "test", "novacore-memory") not in simulation.world.objects
