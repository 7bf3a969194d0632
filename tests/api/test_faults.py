"""Installations changed while the operator's every connection may be refused, delayed, cut, hung or repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.api.soak import run, swept
from tests.kit.faultproxy import Fault, FaultProxy
from tests.kit.faultsweep import Sweep

CASES = 200
LONGEST_S = 800.0
"""For a machine that is busy with other things; two idle cores need a sixth of it."""
SEED = 20261124


@pytest.fixture(scope="module")
def swept_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sweep, FaultProxy]]:
    """A sweep over a control plane, a proxy and an operator of this module's own."""
    with swept(tmp_path_factory.mktemp("faults") / "plane") as made:
        yield made


@pytest.mark.timeout(1000)
@pytest.mark.invariant("INF-1")
@pytest.mark.invariant("INF-2")
@pytest.mark.invariant("OBS-2")
@pytest.mark.invariant("STATUS-1")
def test_every_case_of_the_sweep_ends_ready_with_the_same_keys(
    swept_here: tuple[Sweep, FaultProxy], say: Callable[[str], None]
) -> None:
    sweep, proxy = swept_here
    began = time.monotonic()
    report = run(sweep, cases=CASES, seed=SEED, within_s=LONGEST_S)
    done = proxy.counts()
    say(f"faults: {report.line()}; in {time.monotonic() - began:.0f} s; faults done: {done}")
    assert not report.violations, "\n".join(report.violations)
    assert sum(report.cases.values()) >= CASES, f"not {CASES} cases within {LONGEST_S:g} s"
    assert len(done) >= len(Fault) // 2, "hardly a fault was done: the sweep would prove nothing"
