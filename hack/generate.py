"""`python -m hack.generate`: write every generated file; `--check`: fail when a committed one differs from it.

A generator is a function `files(root)` that returns the text of each file it owns. It lives with what it describes;
this list is the only thing here.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GENERATORS = (
    "novacore_operator.api.generate",  # first: the chart's schema is read from the same models
    "novacore_operator.rbac",
    "novacore_operator.reasons",
    "novacore.common.openapi",
    "hack.gen.api",
    "hack.gen.charts",
    "hack.gen.invariants",
    "hack.gen.permissions",
    "hack.gen.rotation_tests",
)
SHOWN_LINES = 12

Files = Callable[[Path], dict[Path, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(prog="hack.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail on a difference")
    options = parser.parse_args(arguments)
    wanted = collect(ROOT)
    stale = {path: text for path, text in wanted.items() if current(path) != text}
    if not options.check:
        for path, text in stale.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
        print(f"{len(wanted)} generated files, {len(stale)} changed")
        return 0
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)} is not what its generator writes:")
        print("\n".join(difference(current(path), text)))
    if stale:
        print("run: make gen")
        return 1
    print(f"{len(wanted)} generated files are up to date")
    return 0


def collect(root: Path) -> dict[Path, str]:
    """Return path and text of every generated file."""
    wanted: dict[Path, str] = {}
    for name in GENERATORS:
        files: Files = importlib.import_module(name).files
        for path, text in files(root).items():
            if path in wanted:
                raise ValueError(f"{path.relative_to(root)} has two generators, the second is {name}")
            wanted[path] = text
    return wanted


def current(path: Path) -> str:
    """Return the file's text, or an empty one if it is not there."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def difference(old: str, new: str) -> list[str]:
    """Return the first lines of a diff."""
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "committed", "generated", lineterm="", n=0))
    more = len(lines) - SHOWN_LINES
    return lines[:SHOWN_LINES] + ([f"… and {more} more lines"] if more > 0 else [])


if __name__ == "__main__":
    sys.exit(main())
