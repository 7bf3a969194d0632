"""`python -m tests.removals`: take one behaviour out of the product, and see that its cluster test fails.

Each removal is a small edit on a throw-away copy of the committed tree. The copy's images are built, the named test runs
on the test cluster, and a test that still passes is a failure here: it would not have noticed. It takes about four
minutes per removal and writes `tests/removals.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from tests.kit.tree import ROOT, TREE, commit_of, copy_of

RESULT = ROOT / "tests/removals.json"
OPERATOR = "operator/src/novacore_operator"
TIME_OUT_S = 1200
TESTS_FAILED = 1
"""pytest's exit code for it. Any other is not the answer asked for: collected nothing, was interrupted."""


@dataclass(frozen=True, slots=True)
class Removal:
    """`old` becomes `new` in `file`; then `test` must fail."""

    behaviour: str
    file: str
    old: str
    new: str
    test: str


REMOVALS: dict[str, Removal] = {
    "drift": Removal(
        "an object that somebody changed is put back",
        f"{OPERATOR}/plan.py",
        "return Why.DRIFT if live.desired == hashed else Why.CHANGED",
        "return None if live.desired == hashed else Why.CHANGED",
        "test_a_changed_field_is_put_back and deployment",
    ),
    "quiet": Removal(
        "an operator that starts writes nothing to an installation that is as it should be",
        f"{OPERATOR}/plan.py",
        "if (why := difference(ref, manifest, seen)) is not None",
        "if (why := difference(ref, manifest, seen) or Why.CHANGED) is not None",
        "test_an_operator_restart_writes_and_restarts_nothing",
    ),
    "reaper": Removal(
        "the runs of a killed intelligence pod are closed, kept and billed",
        "workloads/src/novacore/intelligence/tasks.py",
        "            if run_id not in self._executor.live:\n                closed",
        "            if run_id in self._executor.live:\n                closed",
        "test_a_pod_kill_loses_no_acknowledged_message",
    ),
    "retain": Removal(
        "the volumes outlive the resource",
        f"{OPERATOR}/build/stateful_set.py",
        '"whenDeleted": storage.reclaim',
        '"whenDeleted": "Delete"',
        "test_delete_and_apply_again_keeps_the_data",
    ),
}


def prove(name: str, removal: Removal) -> dict[str, Any]:
    """Run one removal. Returns what is recorded of it; `noticed` says whether the test failed as it must."""
    source = TREE / removal.file
    text = source.read_text(encoding="utf-8")
    if text.count(removal.old) != 1:
        raise SystemExit(f"{name}: the code to remove is no longer in {removal.file}: mend tests/removals.py")
    source.write_text(text.replace(removal.old, removal.new), encoding="utf-8")
    started = time.monotonic()
    try:
        done = subprocess.run(
            ["bash", "tests/cluster/run.sh", "-x", "-k", removal.test],
            cwd=TREE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_OUT_S,
            check=False,
        )
    finally:
        source.write_text(text, encoding="utf-8")
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    noticed = done.returncode == TESTS_FAILED and bool(failures)
    if not noticed:
        print(done.stdout[-4000:], file=sys.stderr)
    return {**asdict(removal), "noticed": noticed, "seconds": round(time.monotonic() - started), "output": failures}


def main() -> int:
    """Run the named removals, or all; exit 1 when a test did not notice one."""
    parser = argparse.ArgumentParser(prog="python -m tests.removals", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(REMOVALS)}; default: all")
    names = parser.parse_args().names or list(REMOVALS)
    unknown = sorted(set(names) - set(REMOVALS))
    if unknown:
        parser.error(f"no such removal: {', '.join(unknown)}; there are {', '.join(REMOVALS)}")
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    with copy_of("HEAD"):
        run(names, results)
    return 0 if all(results[name]["noticed"] for name in names) else 1


def run(names: list[str], results: dict[str, Any]) -> None:
    """Run removals one after another; write the result after each."""
    for name in names:
        print(f"{name}: without '{REMOVALS[name].behaviour}' …", flush=True)
        found = prove(name, REMOVALS[name])
        results[name] = {"commit": commit_of(TREE), **found}
        print(f"{name}: {'noticed' if found['noticed'] else 'NOT NOTICED'}", *found["output"], sep="\n  ", flush=True)
        RESULT.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
