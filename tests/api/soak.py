"""`make soak-faults`: the sweep of test_faults.py for longer, and its figures as JSON under loadtest/results/."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.record import RESULTS, commit_id, machine
from tests.kit.bench import bench
from tests.kit.controlplane import service_account
from tests.kit.faultproxy import FaultProxy
from tests.kit.faultsweep import Report, Sweep
from tests.kit.operator_process import NAME, SYSTEM, OperatorProcess
from tests.kit.witness import Witness

HERD = 25
NEW_EACH = 6
"""One new installation in each wave of this number: an installation costs as much as some ten edits."""


@contextmanager
def swept(folder: Path) -> Iterator[tuple[Sweep, FaultProxy]]:
    """Yield a sweep over a control plane, a proxy and an operator of its own."""
    with bench(folder) as ground, FaultProxy(ground.plane, service_account(SYSTEM, NAME)) as proxy:
        operator = OperatorProcess(proxy.plane)
        operator.start()
        try:
            with Witness(ground.api) as witness:
                yield Sweep(ground, operator, proxy, witness), proxy
        finally:
            operator.child.stop()


def run(
    sweep: Sweep, *, cases: int, seed: int, within_s: float, told: Callable[[str], None] = lambda _: None
) -> Report:
    """Sweep until there were this many cases or the time is over."""
    began = time.monotonic()
    sweep.settle(HERD)
    number = 0
    while sum(sweep.report.cases.values()) < cases and time.monotonic() - began < within_s:
        sweep.wave(seed + number, installs=int(number % NEW_EACH == 0))
        number += 1
        told(sweep.report.line())
    return sweep.report


def document(report: Report, counts: dict[str, int], seconds: float) -> dict[str, Any]:
    """Return a run as JSON."""
    return {
        "scenario": "faults",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_id(),
        "machine": machine(),
        "seconds": round(seconds),
        "cases": dict(report.cases) | {"all": sum(report.cases.values())},
        "wave_seeds": [report.seeds[0], report.seeds[-1]] if report.seeds else [],
        "faults_done": counts | {"all": sum(counts.values())},
        "ready_after_faults_s": {
            "p50": round(report.percentile(0.5), 3),
            "p99": round(report.percentile(0.99), 3),
            "max": round(report.percentile(1), 3),
            "limit": 60,
        },
        "operator_ends": report.restarts,
        "violations": report.violations,
        "passed": not report.violations,
    }


def main() -> None:
    """Entry point. Exit 1 after a violation."""
    parser = argparse.ArgumentParser(description="Sweep the operator with faults")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=120)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, swept(Path(folder) / "plane") as (sweep, proxy):
        report = run(sweep, cases=given.cases, seed=given.seed, within_s=60 * given.minutes, told=print)
        result = document(report, proxy.counts(), time.monotonic() - began)
    file = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{result['commit']}-faults.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    print(report.line())
    print("\n".join(report.violations))
    print(file.relative_to(Path.cwd()))
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
