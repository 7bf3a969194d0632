"""`make soak-rotation`: ten thousand runs of test_rotation_runs.py, and their figures under loadtest/results/.

The figures are written after each batch, and `--resume FILE` goes on where a run ended.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.record import RESULTS, commit_id, machine
from novacore_operator.rotation.actions import Step
from tests.kit.rotationsim.runs import Result, random_run

BATCH = 500
SUMMED = ("requests", "canaries", "steps", "switches", "retired", "revoked", "visible")


def new(runs: int, seed: int) -> dict[str, Any]:
    """Return the document of a run that begins."""
    return {
        "scenario": "rotation",
        "what": "27 simulated pods, the product's rotation.machine.plan, faults drawn from each seed (tests/kit/rotationsim)",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_id(),
        "machine": machine(),
        "asked": runs,
        "first_seed": seed,
        "runs": 0,
        "seconds": 0.0,
        "figures": dict.fromkeys(SUMMED, 0),
        "happened": {},
        "violations": [],
        "unfinished": [],
        "passed": False,
    }


def add(document: dict[str, Any], results: list[Result], seconds: float) -> None:
    """Add a batch."""
    document["runs"] += len(results)
    document["seconds"] = round(document["seconds"] + seconds, 1)
    happened = Counter(document["happened"])
    for result in results:
        happened.update(result.happened)
        for name in SUMMED:
            document["figures"][name] += getattr(result, name)
        if result.violations:
            document["violations"].append(f"seed {result.seed}: {result.violations[0]}")
        if result.unfinished:
            document["unfinished"].append(f"seed {result.seed}: {result.unfinished}")
    document["happened"] = dict(sorted(happened.items()))
    complete = document["runs"] >= document["asked"]
    document["passed"] = complete and not document["violations"] and not document["unfinished"]
    died = {f"died {when} {step}" for when in ("before", "after") for step in list(Step)[:12]}
    document["writes_nobody_died_at"] = sorted(died - happened.keys())


def main() -> None:
    """Entry point. Exit 1 when an invariant was broken, or a run did not end."""
    parser = argparse.ArgumentParser(description="Rotate keys in virtual time among random faults")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--resume", type=Path, help="a file that an earlier run has begun")
    given = parser.parse_args()
    document = json.loads(given.resume.read_text()) if given.resume else new(given.runs, given.seed)
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{document['commit']}-rotation.json"
    file = given.resume or RESULTS / name
    with ProcessPoolExecutor(given.processes) as pool:
        while document["runs"] < document["asked"]:
            begin, first = time.monotonic(), document["first_seed"] + document["runs"]
            count = min(BATCH, document["asked"] - document["runs"])
            add(
                document,
                list(pool.map(random_run, range(first, first + count), chunksize=10)),
                time.monotonic() - begin,
            )
            file.write_text(json.dumps(document, indent=2) + "\n")
            print(f"{document['runs']}/{document['asked']} runs, {len(document['violations'])} violations", flush=True)
    print(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
    sys.exit(0 if document["passed"] else 1)


if __name__ == "__main__":
    main()
