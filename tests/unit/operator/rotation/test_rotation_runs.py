"""Seeded random runs: late mounts, lost pushes, conflicts, stale reads, deaths, skewed clocks, stragglers, emergencies.

I1-I8 hold in each of them; ten thousand and more: `make soak-rotation`. And what the runs are worth: with one guard
altered, the same check fails.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from novacore_contracts.keyset import RingKey
from novacore_operator.rotation import rings
from novacore_operator.rotation.guards import (
    GUARDS,
    Guards,
    Objection,
    Why,
    not_held,
    still_used,
    tokens_live,
    unproven,
)
from novacore_operator.rotation.seen import Seen
from novacore_operator.rotation.timing import Timing
from novacore_operator.rotation.triggers import Trigger
from tests.kit.rotationsim.runs import TIMING, TTL_S, Result, random_run

RUNS = 240
PARTS = 3
SEED = 20261128


def check(seeds: range, *, guard: Guards = GUARDS, timing: Timing = TIMING) -> list[Result]:
    """Run all seeds. AssertionError with the first that broke an invariant or did not end."""
    results = []
    for seed in seeds:
        result = random_run(seed, guard=guard, timing=timing)
        assert result.violations == [], f"seed {seed}: {result.violations[0]}"
        assert not result.unfinished, f"seed {seed}: {result.unfinished}"
        results.append(result)
    return results


@pytest.mark.invariant("ROT-1")
@pytest.mark.invariant("ROT-2")
@pytest.mark.invariant("ROT-3")
@pytest.mark.invariant("ROT-4")
@pytest.mark.invariant("ROT-5")
@pytest.mark.invariant("ROT-6")
@pytest.mark.invariant("ROT-7")
@pytest.mark.invariant("ROT-8")
@pytest.mark.parametrize("part", range(PARTS))
def test_no_valid_token_is_refused_and_no_revoked_one_accepted_whatever_goes_wrong(part: int) -> None:
    count = RUNS // PARTS
    results = check(range(SEED + part * count, SEED + (part + 1) * count))
    happened: Counter[str] = Counter()
    for result in results:
        happened.update(result.happened)
    assert sum(result.requests for result in results) > 1_000 * count
    assert sum(result.switches for result in results) > 1.5 * count
    assert sum(result.revoked for result in results) > count / 5
    for what in ("crashes", "conflicts", "stale_reads", "lost_pushes", "fenced", "outages", "roll-outs", "pods lost"):
        assert happened[what] > 0, what
    for kind in ("late", "frozen", "deaf"):
        assert happened[f"straggler {kind}"] > count / 20, kind


# --- what the guards are worth ----------------------------------------------------------------------------------------


def acknowledged_only(seen: Seen, now: float, trigger: Trigger) -> Objection | None:
    """As others do it: every pod says that it holds the generation."""
    del now, trigger
    told = all(pod.report is not None and pod.report.generation >= seen.good.generation for pod in seen.consumers)
    return None if told and rings.pending(seen.good) is not None else Objection(Why.UNPROVEN, "not acknowledged")


def delayed(seen: Seen, now: float, trigger: Trigger) -> Objection | None:
    """As most do it: wait for two minutes, the longest that a mount takes."""
    del trigger
    standby = rings.pending(seen.good)
    return None if standby is not None and now >= standby.since + 120 else Objection(Why.UNPROVEN, "too early")


def soon(seen: Seen, now: float, key: RingKey) -> Objection | None:
    """As it goes when a grace period is shorter than a token."""
    del seen
    return None if now >= key.since + 120 else Objection(Why.TOKENS_LIVE, "too early")


def instead(guard: object) -> Guards:
    """Return the chain before a switch with another check in place of the proof."""
    kept = tuple(item for item in GUARDS.switch if item not in (unproven, not_held))
    return replace(GUARDS, switch=(*kept, guard))  # type: ignore[arg-type]


MUTATIONS: dict[str, tuple[Guards, Timing]] = {
    "skip the canary": (instead(acknowledged_only), TIMING),
    "fixed delay instead of proof": (instead(delayed), TIMING),
    "early retire": (replace(GUARDS, retire=(soon,)), TIMING),
    "retire without the time of the last token": (
        replace(GUARDS, retire=tuple(item for item in GUARDS.retire if item is not tokens_live)),
        TIMING,
    ),
    "margins below zero": (GUARDS, replace(TIMING, clock_margin_s=-float(TTL_S), quiet_s=1.0)),
    "one look is enough and no canary": (
        replace(GUARDS, switch=tuple(item for item in GUARDS.switch if item not in (unproven, not_held))),
        TIMING,
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutated_guard_is_caught(mutation: str) -> None:
    guard, timing = MUTATIONS[mutation]
    with pytest.raises(AssertionError, match=r"seed \d+: .* I[156]: "):
        check(range(SEED, SEED + 60), guard=guard, timing=timing)


def test_the_mutations_leave_the_other_guards_as_they_are() -> None:
    assert set(GUARDS.switch) - set(instead(delayed).switch) == {unproven, not_held}
    assert {tokens_live, still_used} <= set(GUARDS.retire)
