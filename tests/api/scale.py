"""`make bench-scale`: the operator with 1,000 installations on etcd and kube-apiserver, figures under loadtest/results/.

All objects are the operator's own writes; pods are played. Times are the API server's, from its audit log: an edit counts
from when it was stored, the operator's write from when it arrived. Ranges are in loadtest/ranges/scale.json: outside of
one the bench fails.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.record import RESULTS, commit_id, machine
from novacore_contracts.services import SERVICES
from tests.kit.api import Api, Manifest
from tests.kit.auditlog import Request, seconds
from tests.kit.bench import Bench, bench
from tests.kit.nova import NAME, condition, nova
from tests.kit.operator_process import OperatorProcess, namespace_of
from tests.kit.wait import until

RANGES = Path(__file__).resolve().parents[2] / "loadtest/ranges/scale.json"
SEED = 4
CREATING = 4
CALM_S = 5.0
IDLE_S = 5.0
RESYNC_S = 20.0
EDIT_WITHIN_S = 30.0
START_WITHIN_S = 300.0
EACH_INSTALL_S = 3.0
"""Bound of the time for an installation, on a slow machine."""
KINDS = (
    "ServiceAccount",
    "Service",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "Job",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "ControllerRevision",
)


@dataclass
class Figures:
    """What was measured, by name."""

    values: dict[str, float] = field(default_factory=dict)
    told: Callable[[str], None] = print

    def put(self, name: str, value: float, digits: int = 1) -> None:
        """Note a figure, and say it."""
        self.values[name] = round(value, digits)
        self.told(f"  {name}: {self.values[name]:g}")

    def percentiles(self, name: str, times: list[float]) -> None:
        """Note p50, p99 and the worst of some times, in milliseconds."""
        times = sorted(times)
        for word, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            self.put(f"{name}_ms_{word}", 1000 * times[min(int(len(times) * share), len(times) - 1)])
        self.put(f"{name}_cases", len(times), 0)


def verdict(values: dict[str, float], ranges: dict[str, dict[str, float]]) -> list[str]:
    """Return a sentence for each figure that is missing or outside of its range."""
    faults = []
    for name, bounds in ranges.items():
        value = values.get(name)
        if value is None:
            faults.append(f"{name} was not measured")
        elif not bounds.get("min", float("-inf")) <= value <= bounds.get("max", float("inf")):
            faults.append(f"{name} is {value:g}, expected {bounds}")
    return faults


class Scale:
    """One bench: the steps, in order."""

    def __init__(self, ground: Bench, figures: Figures, installations: int) -> None:
        self._ground, self._figures, self._count = ground, figures, installations
        self._operator = OperatorProcess(ground.plane)
        self._draw = random.Random(SEED)
        self._restarts = 0
        self._namespaces = [f"scale-{number:04}" for number in range(installations)]

    def run(self, *, edits: int, drifts: int) -> None:
        """Measure everything."""
        try:
            self._idle()
            self._install()
            self._reaction(edits)
            self._drift(drifts)
            self._restart()
        finally:
            self._operator.child.stop()

    # --- steps --------------------------------------------------------------------------------------------------------

    def _idle(self) -> None:
        self._operator.start()
        threading.Event().wait(IDLE_S)  # what start-up needs is given back by then
        self._figures.put("memory_mib_idle", self._operator.memory_mib())

    def _install(self) -> None:
        api, began = self._ground.api, time.monotonic()
        with ThreadPoolExecutor(CREATING) as pool:
            list(pool.map(lambda name: self._create(api, name), self._namespaces))
        self._figures.told(f"  created after {time.monotonic() - began:.0f} s")
        until(
            self._all_ready,
            within_s=60 + EACH_INSTALL_S * self._count,
            what=f"{self._count} installations are Ready",
            report=self._operator.report,
            every_s=5.0,
        )
        self._figures.put("restarts_while_installing", self._restarts, 0)
        took = time.monotonic() - began
        self._figures.put("installations", self._count, 0)
        self._figures.put("install_all_s", took, 0)
        self._figures.put("operator_cpu_ms_per_installation", 1000 * self._operator.cpu_s() / self._count, 0)
        self._calm()
        self._figures.put("objects", sum(self._objects(kind) for kind in KINDS), 0)
        self._figures.put("memory_mib_installed", self._operator.memory_mib())
        self._figures.put("memory_mib_installed_most", self._operator.memory_mib("VmHWM"))

    def _reaction(self, edits: int) -> None:
        """Edit one resource after the other; the operator's first write of that namespace is its reaction."""
        stored, arrived = [], []
        for number in range(edits):
            namespace = self._draw.choice(self._namespaces)
            service = self._draw.choice(SERVICES).name
            mark = self._ground.audit.position()
            spec = {"services": {service: {"env": {"TZ": f"Etc/GMT+{number % 12 + 1}:{number}"}}}}
            self._ground.api.patch("NovaCoreDeployment", NAME, namespace, {"spec": spec}, manager="bench")
            edit = self._edit(mark, namespace)
            write = self._await_write(mark, namespace, lambda _: True)
            stored.append(seconds(write.at) - seconds(edit.until))
            arrived.append(seconds(write.at) - seconds(edit.at))
            self._await_ready(namespace)
        self._figures.percentiles("edit_stored_to_first_write", stored)
        self._figures.percentiles("edit_sent_to_first_write", arrived)

    def _drift(self, drifts: int) -> None:
        """Change a field that the operator owns; until the write that puts it back is stored."""
        took = []
        for number in range(drifts):
            namespace, service = self._draw.choice(self._namespaces), self._draw.choice(SERVICES)
            kind, patch = self._draw.choice(DRIFTS)
            mark = self._ground.audit.position()
            self._ground.api.patch(kind, service.full_name, namespace, patch(number), manager="bench")
            edit = self._edit(mark, namespace)
            write = self._await_write(mark, namespace, lambda one, name=service.full_name: one.name == name)
            took.append(seconds(write.until) - seconds(edit.until))
            self._await_ready(namespace)
        self._figures.percentiles("drift_repaired", took)

    def _restart(self) -> None:
        """Restart with a short resync: no write in the first turn of each, nor in a thousand resyncs."""
        self._calm()
        mark, began = self._ground.audit.position(), time.monotonic()
        self._operator.stop()
        self._operator = OperatorProcess(self._ground.plane, name="again", options=(f"--resync={RESYNC_S:g}",))
        self._operator.start(within_s=START_WITHIN_S)
        self._figures.put("restart_to_caches_full_s", time.monotonic() - began)
        self._await_turns(self._count)
        self._figures.put("restart_to_all_looked_at_s", time.monotonic() - began)
        self._figures.put("restart_writes", len(self._writes(mark)), 0)
        self._figures.put("memory_mib_restarted", self._operator.memory_mib())
        self._figures.put("memory_mib_restarted_most", self._operator.memory_mib("VmHWM"))
        mark, before = self._ground.audit.position(), self._turns()
        self._await_turns(before + max(1000, self._count))
        self._figures.put("resyncs", self._turns() - before, 0)
        self._figures.put("resync_writes", len(self._writes(mark)), 0)
        self._figures.put("memory_mib_after_resyncs", self._operator.memory_mib())

    # --- inside -------------------------------------------------------------------------------------------------------

    def _create(self, api: Api, namespace: str) -> None:
        api.apply(namespace_of(namespace))
        api.create(nova(namespace))

    def _all_ready(self) -> bool:
        """Ask the operator first: the list of all resources is 20 MB, and what makes it is what is being measured."""
        self._keep_running()
        if self._operator.metric("novacore_platform_condition", status="True") < self._count:
            return False
        done = sum(self._is_ready(item) for item in self._ground.api.list("NovaCoreDeployment"))
        return done >= self._count

    def _keep_running(self) -> None:
        """Start an operator again that has ended, as its Deployment would: it ends when it cannot renew its Lease."""
        if not self._operator.child.runs():
            self._restarts += 1
            self._operator.start(within_s=START_WITHIN_S)

    @staticmethod
    def _is_ready(item: Manifest) -> bool:
        ready = condition(item, "Ready")
        return bool(ready.get("status") == "True" and ready["observedGeneration"] == item["metadata"]["generation"])

    def _await_ready(self, namespace: str) -> None:
        api = self._ground.api
        until(
            lambda: self._is_ready(api.must("NovaCoreDeployment", NAME, namespace)),
            within_s=EDIT_WITHIN_S,
            what=f"{namespace} is Ready",
            report=self._operator.report,
        )

    def _objects(self, kind: str) -> int:
        return self._ground.api.count(kind)

    def _edit(self, mark: int, namespace: str) -> Request:
        return until(
            lambda: next((one for one in self._requests(mark, "test-admin", namespace)), None),
            within_s=EDIT_WITHIN_S,
            what="the edit is in the audit log",
        )

    def _await_write(self, mark: int, namespace: str, wanted: Callable[[Request], bool]) -> Request:
        return until(
            lambda: next((one for one in self._requests(mark, self._operator.user, namespace) if wanted(one)), None),
            within_s=EDIT_WITHIN_S,
            what=f"a write in {namespace}",
            report=self._operator.report,
            every_s=0.05,
        )

    def _requests(self, mark: int, user: str, namespace: str) -> Iterator[Request]:
        found = self._ground.audit.writes(user=user, since=mark)
        by_manager = (one for one in found if one.namespace == namespace and not one.resource.endswith("/status"))
        return iter(sorted(by_manager, key=lambda one: one.at))

    def _writes(self, mark: int) -> list[Request]:
        return self._ground.audit.writes(user=self._operator.user, since=mark)

    def _calm(self) -> None:
        mark, since = self._ground.audit.position(), time.monotonic()

        def calm() -> bool:
            nonlocal mark, since
            if self._writes(mark):
                mark, since = self._ground.audit.position(), time.monotonic()
            return time.monotonic() - since >= CALM_S

        until(calm, within_s=120, what="calm", report=self._operator.report, every_s=0.5)

    def _turns(self) -> float:
        return self._operator.metric("novacore_operator_reconcile_total")

    def _await_turns(self, count: float) -> None:
        until(
            lambda: self._turns() >= count,
            within_s=START_WITHIN_S,
            what=f"{count:g} turns",
            report=self._operator.report,
            every_s=0.2,
        )


def _labelled(number: int) -> Manifest:
    return {"metadata": {"labels": {"app.kubernetes.io/part-of": f"drift-{number}"}}}


DRIFTS: tuple[tuple[str, Callable[[int], Manifest]], ...] = (
    ("ServiceAccount", lambda _: {"automountServiceAccountToken": True}),
    ("ServiceAccount", _labelled),
    ("Deployment", lambda number: {"spec": {"revisionHistoryLimit": number + 11}}),
    ("Deployment", _labelled),
    ("NetworkPolicy", _labelled),
)


def document(figures: Figures, faults: list[str], took_s: float) -> dict[str, Any]:
    """Return a run as JSON."""
    return {
        "scenario": "scale",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_id(),
        "machine": machine(),
        "seconds": round(took_s),
        "figures": figures.values,
        "ranges": json.loads(RANGES.read_text()),
        "faults": faults,
        "passed": not faults,
    }


def main() -> None:
    """Entry point. Exit 1 when a figure is outside of its range."""
    parser = argparse.ArgumentParser(description="Measure the operator with many installations")
    parser.add_argument("--installations", type=int, default=1000)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--drifts", type=int, default=200)
    given = parser.parse_args()
    began = time.monotonic()
    figures = Figures(told=lambda text: print(text, flush=True))
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder) / "plane") as ground:
        Scale(ground, figures, given.installations).run(edits=given.edits, drifts=given.drifts)
    faults = verdict(figures.values, json.loads(RANGES.read_text()))
    result = document(figures, faults, time.monotonic() - began)
    file = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{result['commit']}-scale-{given.installations}.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join([*faults, str(file.relative_to(Path.cwd()))]))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
