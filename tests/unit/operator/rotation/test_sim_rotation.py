"""Rotations in virtual time, 27 pods: what a scheduled or asked-for rotation must hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novacore_operator.rotation import report
from novacore_operator.rotation.actions import Step, WriteDocument, is_write
from novacore_operator.rotation.history import Outcome, faults
from novacore_operator.rotation.report import Phase
from novacore_operator.rotation.schedule import RingPolicy
from novacore_operator.rotation.timing import PRODUCTION, TEST
from tests.kit.rotationsim.driver import Operator
from tests.kit.rotationsim.pods import SIGNER, SimPod, Token
from tests.kit.rotationsim.runs import Run
from tests.kit.rotationsim.world import Faults, World

TTL_S = 1800
SHORT = replace(PRODUCTION, destroy_private_s=600.0)


def make_run(
    *, faults: Faults | None = None, ttl_s: int = TTL_S, policy: RingPolicy | None = None, seed: int = 1
) -> Run:
    """Return a run whose first standby is proven: a rotation may begin."""
    world = World(seed, ttl_s=ttl_s, timing=SHORT, faults=faults, policy=policy)
    run = Run(world)
    run.until(run.ready, within_s=600)
    return run


def some(world: World, service: str) -> SimPod:
    return next(pod for pod in world.pods if pod.service == service)


def told(run: Run) -> report.Report:
    """Return what the operator tells now."""
    assert run.operator.seen is not None
    return report.report(run.operator.seen, run.world.now)


@pytest.mark.invariant("ROT-1")
@pytest.mark.invariant("ROT-3")
@pytest.mark.invariant("ROT-7")
def test_r02_a_hundred_rotations_back_to_back_fail_no_request_and_never_trust_five_keys() -> None:
    world = World(2, ttl_s=10, timing=TEST, faults=Faults(mount_s=(0.0, 2.0)))
    run = Run(world)
    run.until(run.ready, within_s=60, dt=0.5)
    for number in range(100):
        before = run.active
        run.rotate(f"n{number}")
        run.until(lambda before=before: run.active != before, within_s=60, dt=1.0)  # type: ignore[misc]
    assert run.watch.violations == []
    assert run.watch.visible == []
    assert [step for _, step in run.operator.wrote].count(Step.SWITCH) == 100
    assert run.watch.trusted_max == 4
    assert 101 <= world.document.seq <= len(world.minted) <= 102
    assert run.watch.requests > 15_000
    assert faults(world.history) == ()
    switches = [entry for entry in world.history if entry.outcome is Outcome.ACTIVATED]
    assert len(switches) >= 4
    assert all(entry.acked == "27/27" and len(entry.acks_sha256) == 64 for entry in switches)


@pytest.mark.invariant("GUARD-1")
@pytest.mark.invariant("PROOF-3")
def test_r03_a_frozen_pod_is_named_within_15_s_and_holds_the_switch_until_it_answers() -> None:
    run = make_run()
    frozen, old = some(run.world, "memory"), run.active
    frozen.frozen_until = run.world.now + 60
    run.rotate("now")
    named = run.until(lambda: any(frozen.name in text for text in told(run).blocked), within_s=15.5, dt=0.5)
    assert named >= SHORT.blocked_after_s - 1  # it was not named for being late by a moment
    took = run.until(lambda: run.active != old, within_s=120, dt=0.5)
    assert named + took > 60 + SHORT.hold_s - 1
    run.until(run.settled, within_s=3 * TTL_S)
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 5_000


@pytest.mark.invariant("GUARD-1")
def test_r04_a_pod_that_never_acknowledges_is_never_switched_over_by_schedule() -> None:
    policy = RingPolicy(ttl_max_s=TTL_S, interval_s=3600.0)
    world = World(4, ttl_s=TTL_S, timing=SHORT, policy=policy)
    just_now = tuple(replace(key, since=int(world.now)) for key in world.document.keys)
    world.document = world.stored = replace(world.document, keys=just_now)
    run = Run(world)
    silent, old = some(world, "intelligence"), run.active
    silent.cut_off_until = silent.mount_stuck_until = float("inf")
    run.pass_by(3 * 3600, dt=30)
    found = told(run)
    assert found.next_rotation is not None
    assert found.next_rotation < world.now - 3600  # due for more than an hour
    assert run.active == old
    assert Step.SWITCH not in [step for _, step in run.operator.wrote]
    assert found.phase is Phase.PUBLISH or found.phase is Phase.ACTIVATE
    assert any(silent.name in text for text in found.blocked)
    assert "ack_timeout" in found.failures
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 9_000


class BirthAtTheSwitch(Operator):
    """Between the list of pods and the switch a pod is born, on a mount that is three seconds old."""

    born: SimPod | None = None

    def act(self, actions: list) -> None:
        if self.born is None and any(isinstance(item, WriteDocument) and item.step is Step.SWITCH for item in actions):
            self.born = self.world.spawn("gateway", running=True)
            super().act(actions)
            self.world.wanted += 1
        else:
            super().act(actions)


def test_r05_a_pod_born_between_acknowledgement_and_switch_refuses_nothing_and_is_caught_up() -> None:
    world = World(5, ttl_s=TTL_S, timing=SHORT, faults=Faults(mount_s=(60.0, 120.0)))
    operator = BirthAtTheSwitch(world)
    run = Run(world, [operator])
    run.until(run.ready, within_s=600)
    run.rotate("now")
    run.until(lambda: operator.born is not None, within_s=60, dt=0.5)
    born = operator.born
    assert born is not None
    assert born.view is not None
    switched = next(doc for _, doc in world.documents if doc.last_trigger == "rotate/now")
    caught = run.until(lambda: born.view.document.generation >= switched.generation, within_s=1.0, dt=0.5)  # type: ignore[union-attr]
    assert caught <= 1.0  # the mount comes after a minute: it was the second list
    run.until(run.settled, within_s=3 * TTL_S)
    assert next(entry for entry in world.history if entry.trigger == "rotate/now").acked in ("27/27", "28/28")
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 2_000


def test_r06_all_nine_services_may_be_rolled_out_meanwhile() -> None:
    run = make_run()
    world, old = run.world, run.active
    before = {pod.uid for pod in world.pods}
    world.roll(sorted({pod.service for pod in world.pods}), each_s=4)
    run.rotate("now")
    run.until(lambda: not before & {pod.uid for pod in world.pods}, within_s=600)
    run.until(lambda: run.active != old, within_s=600)
    run.until(run.settled, within_s=3 * TTL_S)
    assert len(world.pods) == 27
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 2_000


class SplitAtTheSwitch(Operator):
    """From the switch on, one signer is out of reach, and its mount is late."""

    split: SimPod | None = None

    def act(self, actions: list) -> None:
        if self.split is None and any(isinstance(item, WriteDocument) and item.step is Step.SWITCH for item in actions):
            self.split = some(self.world, SIGNER)
            self.split.cut_off_until = self.split.mount_stuck_until = self.world.now + 120
        super().act(actions)


@pytest.mark.invariant("ROT-5")
def test_r11_while_signers_disagree_tokens_of_both_keys_are_accepted() -> None:
    world = World(11, ttl_s=TTL_S, timing=SHORT)
    operator = SplitAtTheSwitch(world)
    run = Run(world, [operator])
    run.until(run.ready, within_s=600)
    old = run.active
    run.rotate("now")
    run.until(lambda: run.active != old, within_s=60, dt=0.5)
    signed: set[str] = set()
    for _ in range(60):
        run.step()
        signed |= {token.kid for signer in world.signers() if (token := signer.sign("x", world.now)) is not None}
    assert signed == {old, run.active}
    assert operator.seen is not None
    assert operator.seen.switched_at is None  # t0 has not begun: one signer still signs with the old key
    run.until(run.settled, within_s=3 * TTL_S)
    entry = next(entry for entry in world.history if entry.trigger == "rotate/now")
    assert dict(entry.times)["t0"] - dict(entry.times)["activated"] >= 119
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 3_000


@pytest.mark.parametrize("skew_s", [-25.0, 25.0])
def test_r20_a_clock_that_is_25_s_off_stops_nothing(skew_s: float) -> None:
    run = make_run()
    old = run.active
    some(run.world, "noble-spirit").skew_s = skew_s
    run.rotate("now")
    run.until(lambda: run.active != old, within_s=60)
    run.until(run.settled, within_s=3 * TTL_S)
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 1_500


def test_r20_a_clock_that_is_45_s_off_blocks_the_switch_and_is_named() -> None:
    run = make_run()
    old, pod = run.active, some(run.world, "noble-spirit")
    pod.skew_s = 45.0
    run.rotate("now")
    run.pass_by(300)
    assert run.active == old
    assert any(pod.name in text and "+45 s" in text for text in told(run).blocked)
    assert "clock_skew" in told(run).failures
    pod.skew_s = 0.0
    run.until(lambda: run.active != old, within_s=60)
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 1_000


@pytest.mark.invariant("GUARD-2")
def test_r25_a_key_that_is_still_used_is_not_retired() -> None:
    run = make_run()
    world, old = run.world, run.active
    run.rotate("now")
    run.until(lambda: run.active != old, within_s=60)
    used_until = world.now + TTL_S + SHORT.overlap_margin_s + 3600
    user = some(world, "memory")

    def use() -> None:
        """Somebody the operator does not know of signs with the old key."""
        iat = int(world.now)
        if user.verify(Token(old, iat, iat + TTL_S, "stranger"), world.now) == "ok":
            user.last_ok[old] = world.now
            world.happened["uses"] += 1
        if world.now < used_until:
            world.later(60, use)

    use()
    run.pass_by(TTL_S + SHORT.overlap_margin_s + 1800)
    assert any(user.name in text and old in text for text in told(run).overdue)
    assert told(run).phase is Phase.RETIRE
    assert "retire_overdue" in told(run).failures
    run.until(run.settled, within_s=3 * 3600)
    assert world.now >= used_until + SHORT.quiet_s - 60
    assert world.happened["uses"] > 60
    assert run.watch.violations == run.watch.visible == []
    assert run.watch.requests > 2_000


def test_r27_pods_that_are_restarted_together_do_not_ask_for_tokens_together() -> None:
    """In any twelfth of a token's life, over five of them, at most three times the mean."""
    world = World(27, ttl_s=86_400)
    run = Run(world)
    before = {pod.uid for pod in world.pods}
    for pod in list(world.pods):
        world.remove(pod)
    asked = world.happened["token_requests"]
    fresh = lambda: [pod for pod in world.pods if pod.uid not in before and pod.serves(world.now) and pod.token]  # noqa: E731
    run.until(lambda: len(fresh()) == 27, within_s=60, dt=0.5)
    assert world.happened["token_requests"] - asked <= 3 * 27  # no storm of retries while no signer was there
    begin, span_s, buckets = world.now, 86_400 / 12, [0] * 60
    while world.now < begin + 5 * 86_400 - 60:
        world.advance(60)
        for pod in world.pods:
            if pod.is_due(world.now, world.draw):
                assert world.renew(pod)
                buckets[int((world.now - begin) // span_s)] += 1
    assert sum(buckets) > 5 * 27
    assert max(buckets) <= 3 * sum(buckets) / len(buckets)


def test_a_write_that_is_due_is_never_more_than_one_to_each_of_document_private_secret_and_history() -> None:
    run = make_run()
    old = run.active
    run.rotate("now")
    seen = 0
    while not run.settled() or run.active == old:
        run.world.advance(5)
        actions = run.operator.decide()
        writes = [item.step for item in actions if is_write(item)]
        assert len(writes) <= 1, writes
        seen += len(writes)
        run.operator.act(actions)
        run.watch.step()
    assert seen == 7  # W3, W1, W2, W4, W5, W6, W7
    assert run.watch.violations == run.watch.visible == []
