"""Rotations in virtual time while the operator dies, is there twice, or cannot reach the API server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novacore_operator.rotation import rings
from novacore_operator.rotation.actions import Step
from novacore_operator.rotation.history import Outcome, faults
from novacore_operator.rotation.timing import PRODUCTION
from novacore_operator.rotation.triggers import Mode, Trigger, Verb
from tests.kit.rotationsim.driver import Operator
from tests.kit.rotationsim.runs import Run
from tests.kit.rotationsim.world import RING, Faults, World

TTL_S = 1800
SHORT = replace(PRODUCTION, destroy_private_s=600.0)
WRITES = list(Step)[:12]


def make_run(*, dies: dict[Step, str] | None = None, seed: int = 7, faults: Faults | None = None) -> Run:
    world = World(seed, ttl_s=TTL_S, timing=SHORT, faults=faults)
    run = Run(world, [Operator(world)])
    run.until(run.ready, within_s=600)
    run.operator.dies = dict(dies or {})
    return run


@pytest.mark.invariant("ROT-7")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", WRITES, ids=lambda step: f"{step.value}-{step.name.lower()}")
def test_r07_an_operator_that_dies_at_a_write_finishes_with_one_key_for_each_number(step: Step, when: str) -> None:
    run = make_run(dies={step: when})
    world, old = run.world, run.active
    if step in (Step.REVOKE, Step.UNLABEL, Step.DELETE_POD, Step.DESTROY_REVOKED):
        cut_off = next(pod for pod in world.pods if pod.service == "memory")
        cut_off.cut_off_until = cut_off.mount_stuck_until = world.now + 600
        run.annotate(Trigger(Verb.REVOKE, RING, "leak", (old,), Mode.IMMEDIATE, "drill"))
        done = lambda: any(entry.outcome is Outcome.REVOKED for entry in world.history)  # noqa: E731
    else:
        run.rotate("now")
        run.until(lambda: run.active != old or run.operator.down != [], within_s=120)
        run.until(lambda: run.active != old, within_s=120)
        if step is Step.ROLL_BACK:
            run.until(run.ready, within_s=120)
            run.annotate(Trigger(Verb.ROLLBACK, RING, "back"))
        done = lambda: (run.active == old) is (step is Step.ROLL_BACK)  # noqa: E731
    run.until(lambda: done() and run.settled() and run.operator.down != [], within_s=3 * TTL_S)
    assert len(run.operator.down) == 1  # it did die
    assert [step for _, step in run.operator.wrote].count(Step.SWITCH) <= 1
    assert [len(kids) for kids in world.minted.values()] == [1] * len(world.minted)
    assert len(world.minted) == world.document.seq
    assert faults(world.history) == ()
    assert run.watch.violations == []
    assert run.watch.requests > 500


def test_a_pod_that_is_born_before_any_signer_has_the_newest_document_gets_a_token() -> None:
    """The operator dies between writing a standby and pushing it; mounts take a minute."""
    run = make_run(dies={Step.STANDBY: "after"}, faults=Faults(mount_s=(60.0, 120.0), restart_s=(40.0, 50.0)))
    world = run.world
    run.rotate("now")
    run.until(lambda: run.operator.down != [], within_s=60, dt=0.5)
    born = world.spawn("gateway")
    run.until(lambda: born.serves(world.now), within_s=12, dt=0.5)
    newest = world.document.generation
    assert born.view is not None
    assert born.view.document.generation == newest
    assert {signer.view.document.generation for signer in world.signers() if signer.view} == {newest - 1}
    run.pass_by(10, dt=0.5)
    assert born.token is not None
    assert not run.operator.alive  # nobody has helped
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 1_000


@pytest.mark.invariant("ROT-7")
def test_r08_two_operators_at_once_make_one_key_for_each_rotation() -> None:
    world = World(8, ttl_s=TTL_S, timing=SHORT)
    run = Run(world, [Operator(world), Operator(world)])
    run.until(run.ready, within_s=600)
    for number in range(3):
        old = run.active
        run.rotate(f"n{number}")
        run.until(lambda old=old: run.active != old, within_s=2 * TTL_S)  # type: ignore[misc]
    run.until(run.settled, within_s=3 * TTL_S)
    wrote = [step for operator in run.operators for _, step in operator.wrote]
    assert world.happened["conflicts"] >= 1
    assert wrote.count(Step.SWITCH) == 3
    assert [len(kids) for kids in world.minted.values()] == [1] * world.document.seq
    assert faults(world.history) == ()
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 3_000


@pytest.mark.parametrize("phase", ["before the switch", "after the switch"])
def test_r09_five_minutes_without_the_api_server_only_delay_a_rotation(phase: str) -> None:
    run = make_run(faults=Faults(lost_push=0.5))
    world, old = run.world, run.active
    if phase == "after the switch":
        run.rotate("now")
        run.until(lambda: run.active != old, within_s=120, dt=0.5)
    else:
        run.rotate("now")
    generation = world.document.generation
    world.take_api_down(300)
    back = world.api_down_until
    run.pass_by(299)
    assert world.document.generation == generation
    run.until(lambda: world.document.generation > generation, within_s=31)
    assert world.now - back <= 30
    run.until(lambda: run.active != old and run.settled(), within_s=3 * TTL_S)
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 1_500


@pytest.mark.invariant("ROT-4")
@pytest.mark.parametrize("what", ["deleted", "replaced by an older one"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_document_that_is_deleted_or_put_back_by_hand_is_restored_above_all_that_pods_have_seen(
    what: str, restarted: bool
) -> None:
    run = make_run()
    world, old = run.world, run.active
    run.rotate("now")
    run.until(lambda: run.active != old, within_s=120)
    run.until(run.ready, within_s=300)
    newest, first = world.document, world.documents[0][1]
    if restarted:
        run.operators[0] = Operator(world)
    world.lose_document() if what == "deleted" else world.put_back(first)
    run.until(lambda: world.document.generation > newest.generation, within_s=5)
    assert [key.kid for key in world.document.keys] == [key.kid for key in newest.keys]
    run.until(run.settled, within_s=3 * TTL_S)
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 1_500


def test_a_private_half_that_is_lost_comes_back_from_memory() -> None:
    run = make_run()
    world, before = run.world, dict(run.world.halves)
    world.put_halves({})
    run.until(lambda: world.halves.keys() == before.keys(), within_s=5)
    assert world.halves == before
    assert run.watch.violations == []


def test_a_signing_key_whose_private_half_is_lost_for_good_is_rotated_away() -> None:
    run = make_run()
    world, old = run.world, run.active
    standby = rings.pending(world.document)
    assert standby is not None
    run.operators[0] = Operator(world)
    world.faults.mount_s = (60.0, 120.0)  # signers go on from their mounts meanwhile
    world.put_halves({name: half for name, half in world.halves.items() if half.kid == standby.kid})
    run.until(lambda: run.active == standby.kid, within_s=60)
    assert world.document.last_trigger == f"repair/{RING}-{standby.n}"
    run.until(run.settled, within_s=3 * TTL_S)
    assert old not in {half.kid for half in world.halves.values()}
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 1_500
