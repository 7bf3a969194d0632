"""`make soak-plan`: the sweep of test_plan.py for longer, and its figures as JSON under loadtest/results/."""

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
from tests.kit.operator_process import OperatorProcess
from tests.kit.planner import Planner
from tests.kit.plansweep import PlanSweep, Report, Statuses
from tests.kit.specs import ALL, MISSING_SECRET, SECRETS

STREAMS = 6
EACH = 100
"""Cases of one installation: an installation costs as much as some ten changes."""
TOLD_EVERY = 100
PLAN_MS = 200
ALONE = 100


@contextmanager
def swept(folder: Path) -> Iterator[PlanSweep]:
    """Yield a sweep over a control plane and an operator of its own."""
    with bench(folder, referencedSecrets=[*SECRETS, MISSING_SECRET]) as ground:
        operator = OperatorProcess(ground.plane)
        operator.start()
        try:
            with Planner(ground.plane) as planner, Statuses(ground) as statuses:
                yield PlanSweep(ground, operator, planner, statuses)
        finally:
            operator.child.stop()


def run(
    sweep: PlanSweep,
    *,
    cases: int,
    seed: int,
    within_s: float,
    at_least: int = 0,
    each: int = EACH,
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """Sweep until there were this many cases or the time is over."""
    said = wrong = 0

    def tell() -> None:
        nonlocal said, wrong
        for mismatch in sweep.report.mismatches[wrong:]:
            wrong += 1
            told(str(mismatch))
        if sweep.report.cases - said >= TOLD_EVERY:
            said = sweep.report.cases
            told(sweep.report.line())

    sweep.run(cases=cases, at_least=at_least, seed=seed, streams=STREAMS, each=each, within_s=within_s, told=tell)
    return sweep.report


def document(report: Report, alone: list[float], *, seed: int, seconds: float) -> dict[str, Any]:
    """Return a run as JSON."""
    return {
        "scenario": "plan",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_id(),
        "machine": machine(),
        "seed": seed,
        "seconds": round(seconds),
        "cases": report.cases,
        "ended": dict(report.outcomes.most_common()),
        "mismatches": [str(mismatch) for mismatch in report.mismatches],
        "errors": report.errors,
        "writes": dict(report.writes),
        "fields_compared": report.fields,
        "dry_runs": report.dry_runs,
        "handovers_of_scale": report.handovers,
        "candidates_refused_by_the_api_server": report.refused_candidates,
        "fields_of_the_resource": {"changed": len(ALL) - len(report.unreached()), "of": len(ALL)},
        "fields_not_changed": report.unreached(),
        "plan_alone_ms": {
            "what": "a change of all nine services, with its dry runs, while no other plan is made",
            "plans": len(alone),
            "p50": round(1000 * alone[len(alone) // 2], 1),
            "p99": round(1000 * alone[len(alone) * 99 // 100], 1),
            "max": round(1000 * alone[-1], 1),
            "goal": PLAN_MS,
        },
        "plan_ms": {
            "p50": round(report.percentile(0.5), 1),
            "p99": round(report.percentile(0.99), 1),
            "max": round(report.percentile(1), 1),
            "at_the_same_time": STREAMS,
        },
        "passed": not report.mismatches and not report.errors and not report.unreached(),
    }


def say(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)


def main() -> None:
    """Entry point. Exit 1 after a mismatch. Ctrl-C ends it early, with the figures so far."""
    parser = argparse.ArgumentParser(description="Plan and apply random spec changes, and compare")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=240)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, swept(Path(folder) / "plane") as sweep:
        try:
            report = run(sweep, cases=given.cases, seed=given.seed, within_s=60 * given.minutes, told=say)
        except KeyboardInterrupt:  # what was taken so far counts
            sweep.stop.set()
            report = sweep.report
        result = document(report, sweep.alone(ALONE), seed=given.seed, seconds=time.monotonic() - began)
    file = given.folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{result['commit']}-plan.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    print(report.line())
    print("\n".join([*map(str, report.mismatches), *report.errors]))
    print(file)
    sys.exit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
