"""Seeded runs of three processes over one Lease (`lease_model`): never do two write at once. A thousand and more of
them: `make soak-lease`."""

from __future__ import annotations

import pytest

from novacore_operator.loop import lease
from tests.unit.operator.loop.lease_model import runs

RUNS = 100
SEED = 20261128


@pytest.mark.invariant("LEASE-1")
@pytest.mark.invariant("LEASE-3")
@pytest.mark.invariant("LEASE-4")
def test_two_never_write_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = runs(RUNS, SEED)
    overlaps = [f"seed {SEED + number}: {text}" for number, one in enumerate(outcomes) for text in one.overlaps]
    writes, holders = sum(one.writes for one in outcomes), sum(one.holders for one in outcomes)
    with capsys.disabled():
        print(
            f"\nLease: {RUNS} runs, {writes} writes, {holders} holders, {len(overlaps)} overlapping writes", flush=True
        )
    assert overlaps == []
    assert writes > 50 * RUNS
    assert holders > 3 * RUNS


def test_the_model_finds_a_belief_that_lasts_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model is worth: of processes that believe in their Lease for too long, two write at once."""
    monkeypatch.setattr(lease, "MARGIN_S", -6.0)
    assert any(one.overlaps for one in runs(40, SEED))
