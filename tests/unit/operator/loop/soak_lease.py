"""`make soak-lease`: 1,000 runs of test_lease_runs.py, and their figures as JSON under loadtest/results/."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from loadtest.record import RESULTS, commit_id, machine
from tests.unit.operator.loop.lease_model import runs


def main() -> None:
    """Entry point. Exit 1 when two wrote at once."""
    parser = argparse.ArgumentParser(description="Let processes compete for the Lease under faults")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    outcomes = runs(given.runs, given.seed)
    happened: Counter[str] = Counter()
    for one in outcomes:
        happened.update(one.happened)
    took = sorted(time for one in outcomes for time in one.crash_to_take_s)
    overlaps = [f"seed {given.seed + n}: {text}" for n, one in enumerate(outcomes) for text in one.overlaps]
    document = {
        "scenario": "lease",
        "what": "the operator's Lease in virtual time over a model of the API server (tests/unit/operator/loop/lease_model.py)",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_id(),
        "machine": machine(),
        "runs": given.runs,
        "seeds": [given.seed, given.seed + given.runs - 1],
        "happened": dict(happened),
        "holders": sum(one.holders for one in outcomes),
        "writes": sum(one.writes for one in outcomes),
        "crash_to_next_holder_s": {"p50": round(took[len(took) // 2], 2), "cases": len(took)},
        "overlapping_writes": overlaps,
        "passed": not overlaps,
    }
    file = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{document['commit']}-lease.json"
    file.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps({key: document[key] for key in ("runs", "writes", "holders", "overlapping_writes")}))
    print(file.relative_to(Path.cwd()))
    sys.exit(1 if overlaps else 0)


if __name__ == "__main__":
    main()
