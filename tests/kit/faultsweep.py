"""Seeded cases of an operator behind a fault proxy: what is asked of it, what happens to it, and what must hold.

A wave is some installations changed at the same time, faults for some seconds, and then the judgement. All
that is random comes from the wave's seed.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from novacore_contracts.releases import RELEASES
from novacore_contracts.services import SERVICES
from tests.kit.bench import Bench
from tests.kit.faultproxy import Fault, FaultProxy
from tests.kit.invariants import broken, generations, jobs
from tests.kit.nova import NAME, await_ready, condition, nova
from tests.kit.operator_process import SYSTEM, OperatorProcess, namespace_of
from tests.kit.wait import until
from tests.kit.witness import Witness

CONVERGE_S = 60.0
FAULT_S = (2.0, 4.5)
CALM_S = 1.0
QUIET_S = 1.5
EDITS = ("tag", "version", *("replicas", "environment") * 4)
"""A new image or version rolls nine Deployments and costs as much as six of the others."""
ONE_POD = "distillation-worker"
HARD = (0.05, 0.25)
"""Range of a request's chance to meet each fault that a wave has."""


@dataclass(frozen=True, slots=True)
class Case:
    """One change of one installation under faults."""

    seed: str
    namespace: str
    what: str
    patch: dict[str, Any]
    after_s: float  # from the wave's begin
    changed: frozenset[str]  # Deployments of which the spec changes, once
    jobs: int  # Jobs that the change needs


@dataclass
class Report:
    """What the waves came to."""

    seeds: list[int] = field(default_factory=list)
    cases: Counter[str] = field(default_factory=Counter)
    converged_s: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    restarts: int = 0

    def percentile(self, share: float) -> float:
        """Return a percentile of the time from the faults' end to Ready; 0 where Ready came before."""
        times = sorted(self.converged_s)
        return times[min(int(len(times) * share), len(times) - 1)] if times else 0.0

    def line(self) -> str:
        """Say it in a line."""
        return (
            f"{sum(self.cases.values())} cases in {len(self.seeds)} waves {dict(self.cases)}: Ready after the faults' "
            f"end p50 {self.percentile(0.5):.2f} s, p99 {self.percentile(0.99):.2f} s, "
            f"max {self.percentile(1):.2f} s; {self.restarts} ends of the operator; {len(self.violations)} violations"
        )


def rates(seed: int) -> dict[Fault, float]:
    """Return which faults a wave has, and how often."""
    draw = random.Random(f"rates {seed}")
    chosen = draw.sample(list(Fault), draw.randint(3, 7))
    # A watch is asked four times a second, and there are dozens.
    return {fault: draw.uniform(*HARD) * (0.3 if fault.startswith("watch-") else 1.0) for fault in chosen}


class Sweep:
    """The waves over one operator and a herd of installations."""

    def __init__(self, bench: Bench, operator: OperatorProcess, proxy: FaultProxy, witness: Witness) -> None:
        self._bench, self._operator, self._proxy, self._witness = bench, operator, proxy, witness
        self._herd: dict[str, dict[str, Any]] = {}  # namespace -> spec as it should be
        self._made = 0
        self.report = Report()

    def settle(self, size: int) -> None:
        """Install the first installations, undisturbed."""
        for _ in range(size):
            namespace = self._new()
            self._bench.api.create(nova(namespace, version=RELEASES[0]))
            self._herd[namespace] = {"version": RELEASES[0]}
        for namespace in self._herd:
            await_ready(self._bench.api, namespace, within_s=10 * size + 60, report=self._operator.report)

    def wave(self, seed: int, *, installs: int) -> None:
        """Change every installation and make some new ones under faults; judge."""
        draw = random.Random(f"wave {seed}")
        self._witness.forget()
        cases = [self._edit(f"{seed}.{number}", name) for number, name in enumerate(self._herd)]
        cases += [self._install(f"{seed}.{len(cases) + number}") for number in range(installs)]
        before = {case.namespace: generations(self._witness, case.namespace) for case in cases}
        made = {case.namespace: len(jobs(self._witness, case.namespace)) for case in cases}
        self.report.seeds.append(seed)
        self.report.cases.update(case.what for case in cases)
        self._disturbed(seed, cases, draw.uniform(*FAULT_S))
        ended = time.monotonic()
        for case in cases:
            self._converged(case, ended)
        self._silent(seed)
        for case in cases:
            self._judge(case, before[case.namespace], made[case.namespace])
        self._witness_was_there()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _new(self) -> str:
        self._made += 1
        name = f"herd-{self._made}"
        self._bench.api.apply(namespace_of(name))
        return name

    def _install(self, seed: str) -> Case:
        spec = {"version": random.Random(seed).choice(RELEASES)}
        namespace = self._new()
        self._herd[namespace] = dict(spec)
        all_of_them = frozenset(service.full_name for service in SERVICES)
        return Case(seed, namespace, "install", spec, random.Random(seed).uniform(0, 1), all_of_them, 1)

    def _edit(self, seed: str, namespace: str) -> Case:
        draw, spec = random.Random(seed), self._herd[namespace]
        what = draw.choice(EDITS)
        service = draw.choice([one for one in SERVICES if one.name != ONE_POD])
        if what == "version" and spec["version"] == RELEASES[-1]:
            what = "tag"
        replicas = draw.choice([n for n in (1, 2, 3) if n != spec.get(service.name, 1)])
        zone = draw.choice([n for n in range(1, 13) if n != spec.get(f"zone of {service.name}")])
        changes: dict[str, dict[str, Any]] = {
            "tag": {"image": {"tag": f"t{seed}"}},
            # A tag would hide the version from the image.
            "version": {"version": RELEASES[-1]},
            "replicas": {"services": {service.name: {"replicas": replicas}}},
            "environment": {"services": {service.name: {"env": {"TZ": f"Etc/GMT+{zone}"}}}},
        }
        if what == "version":
            spec["version"] = RELEASES[-1]
        if what == "replicas":
            spec[service.name] = replicas
        if what == "environment":
            spec[f"zone of {service.name}"] = zone
        whole = what in ("tag", "version")
        changed = frozenset(one.full_name for one in SERVICES) if whole else frozenset({service.full_name})
        return Case(seed, namespace, what, changes[what], draw.uniform(0, 1.5), changed, int(whole))

    def _disturbed(self, seed: int, cases: list[Case], lasting_s: float) -> None:
        began, clock = time.monotonic(), threading.Event()
        self._proxy.begin(seed, rates(seed))
        for case in sorted(cases, key=lambda one: one.after_s):
            clock.wait(max(0.0, began + case.after_s - time.monotonic()))
            if case.what == "install":
                self._bench.api.create(nova(case.namespace, **case.patch))
            else:
                self._bench.api.patch("NovaCoreDeployment", NAME, case.namespace, {"spec": case.patch})
        clock.wait(max(0.0, began + lasting_s - time.monotonic()))
        self._proxy.end()

    def _converged(self, case: Case, ended: float) -> None:
        def ready() -> float | None:
            self._stays_alive(case.seed)
            last = self._witness.states("NovaCoreDeployment", namespace=case.namespace)[-1:]
            for state in last:
                found = condition(state.body, "Ready")
                of = found.get("observedGeneration") == state.body["metadata"]["generation"]
                if of and found["status"] == "True" and state.body["metadata"]["generation"] == self._generation(case):
                    return max(state.at - ended, 1e-9)
            return None

        try:
            took = until(ready, within_s=max(0.1, ended + CONVERGE_S - time.monotonic()), what="Ready", every_s=0.1)
        except AssertionError:
            body = self._bench.api.must("NovaCoreDeployment", NAME, case.namespace)
            said = condition(body, "Ready")
            self._violated(case, f"not Ready {CONVERGE_S:.0f} s after the faults: {said}\n{self._operator.report()}")
            took = CONVERGE_S
        self.report.converged_s.append(took)

    def _generation(self, case: Case) -> int:
        return int(self._bench.api.must("NovaCoreDeployment", NAME, case.namespace)["metadata"]["generation"])

    def _stays_alive(self, seed: str) -> None:
        if self._operator.child.runs():
            return
        self.report.restarts += 1
        self.report.violations.append(f"case {seed}: the operator ended\n{self._operator.child.tail(30)}")
        release_lease(self._bench)
        self._operator.start()

    def _silent(self, seed: int) -> None:
        """Wait for a second without a write, and then there is none."""
        audit, user = self._bench.audit, self._operator.user
        mark, since = audit.position(), time.monotonic()

        def calm() -> bool:
            nonlocal mark, since
            if audit.writes(user=user, since=mark):
                mark, since = audit.position(), time.monotonic()
            return time.monotonic() - since >= CALM_S

        until(calm, within_s=CONVERGE_S, what="a second without a write", report=self._operator.report, every_s=0.1)
        mark = audit.position()
        threading.Event().wait(QUIET_S)  # the observation itself
        late = [str(write) for write in audit.writes(user=user, since=mark)]
        if late:
            self.report.violations.append(f"wave {seed}: not silent: {late}")

    def _judge(self, case: Case, before: dict[str, int], jobs_before: int) -> None:
        for sentence in broken(self._witness, case.namespace):
            self._violated(case, sentence)
        now = generations(self._witness, case.namespace)
        expected = {f"Deployment {name}" for name in case.changed}
        deployments = [name for name in now if name.startswith("Deployment")]
        wrong = {name: now[name] - before.get(name, 0) for name in deployments}
        wrong = {name: by for name, by in wrong.items() if by != int(name in expected)}
        if wrong:
            self._violated(case, f"specs changed otherwise than once where asked: {wrong}")
        made = len(jobs(self._witness, case.namespace)) - jobs_before
        if made > case.jobs:
            self._violated(case, f"{made} Jobs were made, {case.jobs} needed")

    def _violated(self, case: Case, sentence: str) -> None:
        self.report.violations.append(f"case {case.seed} ({case.what} {case.namespace}): {sentence}")

    def _witness_was_there(self) -> None:
        assert not self._witness.errors, self._witness.errors


def release_lease(bench: Bench) -> None:
    """Take a dead operator's Lease away, so that a test need not wait for its end."""
    bench.api.delete("Lease", "novacore-operator", SYSTEM)
