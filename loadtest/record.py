"""A run as a JSON file in `loadtest/results/`: the figures with the machine and the commit they belong to."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.verdict import Figures

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results")


def write(
    figures: Sequence[Figures], *, users: int, seconds: int, faults: Sequence[str], folder: Path = RESULTS
) -> Path:
    """Write the run's JSON and return its path."""
    commit = commit_id()
    now = datetime.now(UTC)
    document = {
        "scenario": "first-cut",
        "at": now.isoformat(timespec="seconds"),
        "commit": commit,
        "machine": machine(),
        "users": users,
        "seconds": seconds,
        "passed": not faults,
        "faults": list(faults),
        "operations": [asdict(figure) for figure in figures],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y%m%d-%H%M%S}-{commit}-{users}u.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def machine() -> dict[str, Any]:
    """Return what a figure depends on: cores, memory, kernel, Python."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(pages * page_bytes / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "python": platform.python_version(),
    }


def commit_id() -> str:
    """Return the short commit id, with `-dirty` when the tree differs from it; `unknown` outside a repository."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"
