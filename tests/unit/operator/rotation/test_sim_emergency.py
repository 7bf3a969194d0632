"""Emergencies in virtual time: from any phase, over a pod that cannot be reached, and taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novacore_operator.rotation import report, rings
from novacore_operator.rotation.actions import Step
from novacore_operator.rotation.history import Outcome
from novacore_operator.rotation.report import Phase
from novacore_operator.rotation.timing import PRODUCTION
from novacore_operator.rotation.triggers import Mode, Trigger, Verb
from tests.kit.rotationsim.pods import Token
from tests.kit.rotationsim.runs import Run
from tests.kit.rotationsim.world import RING, World

TTL_S = 1800
SHORT = replace(PRODUCTION, destroy_private_s=600.0)
STEP_S = 0.5


def make_run(seed: int = 14) -> Run:
    world = World(seed, ttl_s=TTL_S, timing=SHORT)
    run = Run(world)
    run.until(run.ready, within_s=600)
    return run


def revoke(run: Run, *kids: str, mode: Mode = Mode.IMMEDIATE) -> float:
    """Ask for it; return when."""
    run.annotate(Trigger(Verb.REVOKE, RING, "leak", kids, mode, "drill"))
    return run.world.now


def phase(run: Run) -> Phase:
    assert run.operator.seen is not None
    return report.phase_of(run.operator.seen, run.world.now)


def closed(run: Run) -> bool:
    return any(entry.outcome is Outcome.REVOKED for entry in run.world.history)


@pytest.mark.invariant("ROT-2")
@pytest.mark.invariant("EMERG-1")
def test_an_immediate_revocation_is_one_generation_and_refused_everywhere_within_five_seconds() -> None:
    run = make_run()
    world, old = run.world, run.active
    generation, asked = world.document.generation, revoke(run, old)
    run.until(lambda: closed(run), within_s=30, dt=STEP_S)
    document = next(document for _, document in world.documents if document.generation == generation + 1)
    assert document.active_kid != old
    assert old in rings.revoked(document)
    assert world.now - asked <= 5
    assert run.watch.old_accepted_at.get(old, asked) <= asked + 1
    entry = world.history[-1]
    assert (entry.acked, entry.reason, entry.kids) == ("27/27", "drill", (old,))
    run.until(run.settled, within_s=600)
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 500


@pytest.mark.invariant("EMERG-3")
def test_r14_a_pod_that_cannot_be_reached_is_fenced_within_15_s_and_serves_no_old_key_after() -> None:
    run = make_run()
    world, old = run.world, run.active
    cut_off = next(pod for pod in world.pods if pod.service == "intelligence")
    cut_off.cut_off_until = cut_off.mount_stuck_until = float("inf")
    asked = revoke(run, old)
    fenced = run.until(lambda: cut_off.fenced, within_s=15, dt=STEP_S)
    assert fenced >= SHORT.fence_after_s  # it was given the time
    told = report.report(run.operator.seen, world.now) if run.operator.seen else None
    assert told is not None
    assert told.phase is Phase.REVOKE
    assert any(cut_off.name in text for text in told.incomplete)
    run.until(lambda: closed(run), within_s=60, dt=STEP_S)
    attacker = Token(old, int(world.now), int(world.now) + TTL_S, "gateway")
    answers = [pod.verify(attacker, world.now) for pod in world.pods if pod.serves(world.now)]
    assert answers == ["kid_revoked"] * len(answers)
    assert asked < run.watch.old_accepted_at[old] <= asked + 15
    assert cut_off not in world.pods
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 500


@pytest.mark.invariant("EMERG-3")
def test_an_operator_that_reaches_no_pod_at_all_fences_none() -> None:
    run = make_run()
    for pod in run.world.pods:
        pod.cut_off_until = run.world.now + 60
    old = run.active
    revoke(run, old)
    run.pass_by(55, dt=STEP_S)
    assert old in rings.revoked(run.world.document)
    assert run.world.happened["fenced"] == 0


PHASES = ["idle", "publish", "prove", "activate", "retire"]


def bring_to(run: Run, wanted: str) -> None:
    """Bring a ring into a phase, by what makes it last there."""
    world, old = run.world, run.active
    if wanted == "idle":
        assert phase(run) is Phase.IDLE
        return
    run.rotate("now")
    deaf = next(pod for pod in world.pods if pod.service == "memory")
    if wanted == "prove":
        deaf.deaf_s = 40.0
    if wanted == "publish":
        run.until(lambda: run.active != old, within_s=60, dt=STEP_S)
        deaf.cut_off_until = deaf.mount_stuck_until = world.now + 45
    run.until(lambda: run.active != old, within_s=60, dt=STEP_S)
    if wanted == "retire":
        run.pass_by(TTL_S + SHORT.overlap_margin_s - 60)

        def use() -> None:
            deaf.last_ok[old] = world.now
            if not world.triggers[1:]:  # until the emergency
                world.later(30, use)

        use()
    run.until(lambda: phase(run) == wanted, within_s=300, dt=STEP_S)


@pytest.mark.invariant("RDOC-2")
@pytest.mark.parametrize("which", ["active", "active and standby"])
@pytest.mark.parametrize("wanted", PHASES)
def test_r15_an_emergency_in_any_phase_mints_back_within_30_s_and_the_key_never_returns(
    wanted: str, which: str
) -> None:
    run = make_run(seed=15)
    world = run.world
    bring_to(run, wanted)
    assert phase(run) == wanted
    standby = rings.pending(world.document)
    kids = {run.active, *({standby.kid} if standby is not None and which != "active" else set())}
    asked = revoke(run, *kids)
    run.until(lambda: run.active not in kids, within_s=5, dt=STEP_S)

    def minting_back() -> bool:
        tokens = [pod.sign("x", world.now) for pod in world.signers()]
        return any(token is not None and token.kid not in kids for token in tokens)

    run.until(minting_back, within_s=30 - (world.now - asked), dt=STEP_S)
    run.until(lambda: closed(run) and run.settled(), within_s=4 * TTL_S)
    after = [document for _, document in world.documents if kids & rings.revoked(document)]
    assert len(after) >= 2
    assert not kids & {key.kid for document in after for key in document.keys}
    assert kids <= {kid for entry in world.history for kid in entry.kids if entry.outcome is Outcome.REVOKED}
    assert not kids & {half.kid for half in world.halves.values()}
    assert run.watch.minting_back_s <= 30
    assert run.watch.violations == []
    if which == "active" and wanted in ("idle", "retire"):
        assert run.watch.visible == []
    assert run.watch.requests > 700


def test_a_drain_refuses_nobody_on_the_way() -> None:
    run = make_run()
    world, old = run.world, run.active
    asked = revoke(run, old, mode=Mode.DRAIN)
    run.until(lambda: closed(run), within_s=15, dt=STEP_S)
    assert world.now - asked <= 15
    assert [step for _, step in run.operator.wrote if step in (Step.SWITCH, Step.REVOKE)] == [Step.SWITCH, Step.REVOKE]
    switched = next(document for _, document in world.documents if document.renew_now)
    assert switched.active_kid == run.active
    assert not world.document.renew_now
    assert world.happened["refused_once"] == 0  # no 401 on the wire
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 150


def test_a_denied_service_is_replaced_and_the_others_notice_nothing() -> None:
    run = make_run()
    world = run.world
    before = {pod.uid for pod in world.pods if pod.service == "memory"}
    stolen = next(pod.token for pod in world.pods if pod.service == "memory")
    assert stolen is not None
    run.world.advance(2)
    run.annotate(Trigger(Verb.DENY, RING, "stolen", ("memory",)))
    run.until(lambda: any(entry.outcome is Outcome.DENIED for entry in world.history), within_s=60, dt=STEP_S)
    assert not before & {pod.uid for pod in world.pods}
    assert {pod.verify(stolen, world.now) for pod in world.pods if pod.serves(world.now)} == {"denied"}
    assert [text for text in run.watch.visible if " memory-" not in text.split(" asked ")[0]] == []
    assert run.watch.violations == []
    generation = world.document.generation
    run.pass_by(120)
    assert world.document.generation == generation  # once for each nonce


# --- taking back ------------------------------------------------------------------------------------------------------


@pytest.mark.invariant("ROT-5")
@pytest.mark.parametrize("when", ["before the switch", "just after", "recorded", "next standby proven"])
def test_r23_a_rollback_in_every_phase_leaves_a_key_that_all_trust(when: str) -> None:
    run = make_run(seed=23)
    world, old = run.world, run.active
    if when == "before the switch":
        late = next(pod for pod in world.pods if pod.service == "gateway")
        late.frozen_until = world.now + 120
        run.rotate("now")
        run.pass_by(20)
        assert run.active == old
    else:
        run.rotate("now")
        run.until(lambda: run.active != old, within_s=60, dt=STEP_S)
        if when != "just after":
            run.until(lambda: phase(run) is not Phase.ACTIVATE, within_s=120)
        if when == "next standby proven":
            run.until(run.ready, within_s=300)
    newer = run.active
    run.annotate(Trigger(Verb.ROLLBACK, RING, "back"))
    run.until(lambda: "rollback/back" in world.document.last_trigger, within_s=30, dt=STEP_S)
    assert run.active == old
    signed = {token.kid for pod in world.signers() if (token := pod.sign("x", world.now)) is not None}
    assert old in signed
    run.until(run.settled, within_s=3 * TTL_S)
    assert run.active == old
    if newer != old:
        assert any(entry.outcome is Outcome.ROLLED_BACK and entry.kids[0] == old for entry in world.history)
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > (200 if newer == old else 1_000)


def test_r23_after_the_private_half_is_destroyed_there_is_nothing_to_roll_back_to() -> None:
    run = make_run(seed=23)
    world, old = run.world, run.active
    run.rotate("now")
    run.until(lambda: run.active != old, within_s=60)
    run.until(lambda: old not in {half.kid for half in world.halves.values()}, within_s=1200)
    newer, generation = run.active, world.document.generation
    run.annotate(Trigger(Verb.ROLLBACK, RING, "late"))
    run.pass_by(60)
    assert (run.active, world.document.generation) == (newer, generation + 1)  # that it is done with, and nothing else
    assert not any(entry.outcome is Outcome.ROLLED_BACK for entry in world.history)
    run.rotate("next")
    run.until(lambda: run.active != newer, within_s=120)
    latest = run.active
    run.pass_by(120)
    assert run.active == latest, "an old request takes no later switch back"
    assert run.watch.violations == []
