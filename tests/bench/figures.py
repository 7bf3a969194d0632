"""What a bench measured: judged by its ranges, printed, and kept under loadtest/results/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.record import RESULTS, commit_id, machine

RANGES = Path(__file__).resolve().parents[2] / "loadtest/ranges"


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the sorted values lies."""
    return sorted_values[min(int(len(sorted_values) * share), len(sorted_values) - 1)]


def faults(values: dict[str, float], ranges: dict[str, dict[str, float]]) -> list[str]:
    """Return a sentence for each figure that is missing or outside of its range."""
    found = []
    for name, bounds in ranges.items():
        value = values.get(name)
        if value is None:
            found.append(f"{name} was not measured")
        elif not bounds.get("min", value) <= value <= bounds.get("max", value):
            found.append(f"{name} is {value:g}, outside of {bounds}")
    return found


def finish(scenario: str, what: str, values: dict[str, float], **more: Any) -> int:
    """Print the figures, write the run's JSON, and return the exit code: 1 outside of a range."""
    broken = faults(values, json.loads((RANGES / f"{scenario}.json").read_text()))
    now, commit = datetime.now(UTC), commit_id()
    document = {
        "scenario": scenario, "what": what, "at": now.isoformat(timespec="seconds"), "commit": commit,
        "machine": machine(), **more, "figures": values, "faults": broken, "passed": not broken,
    }  # fmt: skip
    file = RESULTS / f"{now:%Y%m%d-%H%M%S}-{commit}-{scenario}.json"
    file.write_text(json.dumps(document, indent=2) + "\n")
    for name, value in values.items():
        print(f"  {name}: {value:g}")
    for line in broken:
        print(f"FAIL   {line}")
    print(f"{'FAIL' if broken else 'PASS'}   {file.relative_to(RESULTS.parents[1])}")
    return 1 if broken else 0
