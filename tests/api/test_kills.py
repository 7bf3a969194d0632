"""SIGKILL at a random moment of a roll-out, a new process each time: the end is the same as of an undisturbed one."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.kit.bench import Bench, bench
from tests.kit.faultsweep import release_lease
from tests.kit.invariants import broken, generations, jobs, key_ids
from tests.kit.nova import NAME, await_ready, nova
from tests.kit.operator_process import OperatorProcess, namespace_of
from tests.kit.wait import until
from tests.kit.witness import KINDS, Witness

KILLS = 20
SEED = 7
READY_S = 90
INSTALLS_EVERY = 4
"""Of the kills, each n-th hits a first installation; the others hit a new image for an installed one."""


@dataclass(frozen=True)
class End:
    """What two runs of the same wishes must have in common. Of random values: that they are there."""

    generations: dict[str, int] = field(default_factory=dict)
    jobs: int = 0
    entries: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


NOTHING = End()


@dataclass
class Ground:
    """What the kills need."""

    bench: Bench
    operator: OperatorProcess
    witness: Witness

    def install(self, namespace: str) -> None:
        """Ask for an installation."""
        self.bench.api.apply(namespace_of(namespace))
        self.bench.api.create(nova(namespace))

    def edit(self, namespace: str, tag: str) -> None:
        """Ask for another image: nine roll-outs and a Job."""
        self.bench.api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"image": {"tag": tag}}})

    def ready(self, namespace: str) -> float:
        """Wait until it is Ready for what was asked last; return how long that took."""
        began = time.monotonic()
        await_ready(self.bench.api, namespace, within_s=READY_S, report=self.operator.report)
        return time.monotonic() - began

    def end(self, namespace: str) -> End:
        """Return what is there now, as soon as the witness has seen all of it."""
        version = int(self.bench.api.must("NovaCoreDeployment", NAME, namespace)["metadata"]["resourceVersion"])
        until(
            lambda: max(s.version for s in self.witness.states(*KINDS, namespace=namespace)) >= version,
            within_s=10,
            what="the witness has seen all",
        )
        others = sorted(
            f"{kind} {item['metadata']['name']}"
            for kind in ("Service", "ServiceAccount", "ConfigMap", "NetworkPolicy", "PodDisruptionBudget")
            for item in self.bench.api.list(kind, namespace)
        )
        entries = sorted((name.replace(namespace, "*"), entry) for name, entry in key_ids(self.witness, namespace))
        return End(generations(self.witness, namespace), len(jobs(self.witness, namespace)), entries, others)


def difference(before: End, expected_before: End, expected: End, found: End) -> list[str]:
    """Return how a change ended otherwise than the undisturbed one did. Generations and Jobs are counted from before."""
    lines = []
    for name, generation in expected.generations.items():
        steps = generation - expected_before.generations.get(name, 0)
        if found.generations.get(name, 0) - before.generations.get(name, 0) != steps:
            lines.append(f"{name}: generation {before.generations.get(name)} -> {found.generations.get(name)}")
    if found.jobs - before.jobs != expected.jobs - expected_before.jobs:
        lines.append(f"{found.jobs - before.jobs} Jobs instead of {expected.jobs - expected_before.jobs}")
    if found.entries != expected.entries:
        lines.append(f"entries of Secrets: {set(found.entries) ^ set(expected.entries)}")
    if found.others != expected.others:
        lines.append(f"objects: {set(found.others) ^ set(expected.others)}")
    return lines


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A control plane, an operator and a witness of this module's own."""
    with bench(tmp_path_factory.mktemp("kills") / "plane") as made:
        operator = OperatorProcess(made.plane)
        operator.start()
        with Witness(made.api) as witness:
            yield Ground(made, operator, witness)
        operator.child.stop()


@pytest.mark.timeout(600)
@pytest.mark.invariant("PLAN-2")
def test_a_roll_out_that_is_killed_ends_as_an_undisturbed_one(ground: Ground, say: Callable[[str], None]) -> None:
    draw = random.Random(SEED)
    ground.install("undisturbed")
    install_s = ground.ready("undisturbed")
    installed = ground.end("undisturbed")
    ground.edit("undisturbed", "next")
    edit_s = ground.ready("undisturbed")
    edited = ground.end("undisturbed")
    ground.install("edited")
    ground.ready("edited")
    before, wrong, times, begun = ground.end("edited"), [], [], 0
    for kill in range(KILLS):
        first = kill % INSTALLS_EVERY == 0
        namespace, mark = f"killed-{kill}" if first else "edited", ground.bench.audit.position()
        began = time.monotonic()
        if first:
            ground.install(namespace)
        else:
            ground.edit(namespace, f"next-{kill}")
        at = began + draw.uniform(0.02, 1.0) * (install_s if first else edit_s)
        threading.Event().wait(max(0.0, at - time.monotonic()))  # a moment like any other, hence no condition
        ground.operator.kill()
        begun += bool(ground.bench.audit.writes(user=ground.operator.user, since=mark))
        release_lease(ground.bench)
        ground.operator.start()
        times.append(ground.ready(namespace))
        end = ground.end(namespace)
        compared = (NOTHING, NOTHING, installed) if first else (before, installed, edited)
        wrong += [f"kill {kill}: {line}" for line in (*difference(*compared, end), *broken(ground.witness, namespace))]
        before = before if first else end
    times.sort()
    say(
        f"kills: {KILLS} x SIGKILL ({begun} after the first write), undisturbed install {install_s:.2f} s, edit "
        f"{edit_s:.2f} s; Ready after the restart p50 {times[len(times) // 2]:.2f} s, max {times[-1]:.2f} s; "
        f"{len(wrong)} differences"
    )
    assert not ground.witness.errors
    assert not wrong, "\n".join(wrong)
    assert begun >= KILLS // 2, "hardly a kill was in the middle of anything"
