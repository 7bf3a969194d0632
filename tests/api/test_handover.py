"""Two operators, one Lease: who may write passes from one to the other, and never do both.

Each process has a user name of its own with the chart's rights, so that the audit log tells them apart.
"""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from tests.kit.auditlog import WRITE_VERBS, Request, seconds
from tests.kit.bench import Bench, bench
from tests.kit.controlplane import groups_of, service_account
from tests.kit.nova import NAME, await_ready, nova
from tests.kit.operator_process import NAME as OPERATOR
from tests.kit.operator_process import SYSTEM, OperatorProcess, namespace_of
from tests.kit.wait import until

TERM_S = 2.0
KILL_S = 15.0
NAMESPACES = ("busy-1", "busy-2", "busy-3")
EDIT_EACH_S = 0.3
AFTER_S = 3.0
"""How long a process that lost the Lease is watched for a late write."""


class OwnUser(OperatorProcess):
    """An operator with a user name of its own and the same rights."""

    def __init__(self, ground: Bench, name: str) -> None:
        account = f"{OPERATOR}-{name}"
        for manifest in ground.chart:
            if manifest["kind"] in ("ClusterRoleBinding", "RoleBinding"):
                binding = copy.deepcopy(manifest)
                binding["metadata"]["name"] += f"-{name}"
                binding["subjects"] = [{"kind": "ServiceAccount", "name": account, "namespace": SYSTEM}]
                ground.api.apply(binding)
        plane = replace(ground.plane, folder=ground.plane.folder / name, _users={})
        plane.folder.mkdir()
        super().__init__(plane, name=name)
        written = plane.kubeconfig(self.user, *groups_of(self.user))
        self.user = service_account(SYSTEM, account)
        plane.kubeconfig(self.user, *groups_of(self.user)).replace(written)


@dataclass
class Pair:
    """Two operators on one control plane."""

    ground: Bench
    first: OperatorProcess
    second: OperatorProcess

    def other(self, one: OperatorProcess) -> OperatorProcess:
        """Return the one that is not this one."""
        return self.second if one is self.first else self.first

    def holder(self) -> OperatorProcess:
        """Return the process that the Lease names, and that runs."""

        def named() -> OperatorProcess | None:
            lease = self.ground.api.get("Lease", OPERATOR, SYSTEM) or {}
            name = str((lease.get("spec") or {}).get("holderIdentity") or "").rpartition("_")[0]
            return next((one for one in (self.first, self.second) if one.name == name and one.child.runs()), None)

        return until(named, within_s=20, what="one of the two holds the Lease", every_s=0.05)

    def both(self) -> None:
        """See that both run with full caches."""
        for one in (self.first, self.second):
            if not one.child.runs():
                one.start(leads=False)
        self.holder()

    def writes(self, one: OperatorProcess, since: int) -> list[Request]:
        """Return what a process asked to be written, whatever the answer."""
        return self.ground.audit.writes(user=one.user, since=since)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A control plane, two operators, and three installations that somebody edits all the time."""
    with bench(tmp_path_factory.mktemp("handover") / "plane") as ground:
        two = Pair(ground, OwnUser(ground, "first"), OwnUser(ground, "second"))
        two.both()
        for namespace in NAMESPACES:
            ground.api.apply(namespace_of(namespace))
            ground.api.create(nova(namespace))
        for namespace in NAMESPACES:
            await_ready(ground.api, namespace, within_s=60, report=two.first.report)
        stop = threading.Event()
        editor = threading.Thread(target=_edit, args=(ground, stop), daemon=True)
        editor.start()
        yield two
        stop.set()
        editor.join(10)
        for one in (two.first, two.second):
            one.child.stop()


def _edit(ground: Bench, stop: threading.Event) -> None:
    """Give the operators something to write, without end."""
    number = 0
    while not stop.wait(EDIT_EACH_S):
        number += 1
        spec = {"image": {"tag": f"edit-{number // len(NAMESPACES)}"}}
        ground.api.patch("NovaCoreDeployment", NAME, NAMESPACES[number % len(NAMESPACES)], {"spec": spec})


def taken_over(pair: Pair, before: OperatorProcess, mark: int, *, within_s: float) -> float:
    """Wait for the other's first write; return its time."""
    after = pair.other(before)
    until(lambda: pair.writes(after, mark), within_s=within_s, what=f"{after.name} writes", report=after.report)
    return seconds(pair.writes(after, mark)[0].at)


def overlaps(pair: Pair, before: OperatorProcess, mark: int) -> list[str]:
    """Return what the old holder asked to be written after the new one took the Lease."""
    after = pair.other(before)
    took = min(
        seconds(request.at)
        for request in pair.ground.audit.requests(user=after.user, since=mark)
        if request.resource == "leases" and request.verb in WRITE_VERBS and request.code in (200, 201)
    )
    return [
        f"{write} at +{seconds(write.at) - took:.3f} s"
        for write in pair.writes(before, mark)
        if seconds(write.at) > took
    ]


@pytest.mark.invariant("LEASE-4")
def test_a_holder_that_stops_is_followed_within_two_seconds(pair: Pair, say: Callable[[str], None]) -> None:
    pair.both()
    before, mark, began = pair.holder(), pair.ground.audit.position(), time.time()
    before.child.signal(signal.SIGTERM)
    took = taken_over(pair, before, mark, within_s=20) - began
    code = before.child.stop()
    late = overlaps(pair, before, mark)
    say(f"hand-over: SIGTERM -> the other's first write {took:.2f} s; exit {code}; overlapping writes: {len(late)}")
    assert late == []
    assert code == 0
    assert took <= TERM_S


@pytest.mark.invariant("LEASE-3")
def test_a_holder_that_crashes_is_followed_within_fifteen_seconds(pair: Pair, say: Callable[[str], None]) -> None:
    pair.both()
    before, mark, began = pair.holder(), pair.ground.audit.position(), time.time()
    before.kill()
    took = taken_over(pair, before, mark, within_s=30) - began
    late = overlaps(pair, before, mark)
    say(f"hand-over: SIGKILL -> the other's first write {took:.2f} s; overlapping writes: {len(late)}")
    assert late == []
    assert took <= KILL_S


@pytest.mark.invariant("LEASE-1")
@pytest.mark.invariant("LEASE-2")
def test_a_holder_that_hung_for_longer_than_its_lease_writes_nothing_when_it_wakes(
    pair: Pair, say: Callable[[str], None]
) -> None:
    pair.both()
    before, mark, began = pair.holder(), pair.ground.audit.position(), time.time()
    before.freeze()
    try:
        took = taken_over(pair, before, mark, within_s=30) - began
    finally:
        before.thaw()
    woke = time.monotonic()
    until(lambda: not before.child.runs(), within_s=20, what="the one that hung ends", report=before.report)
    ended = time.monotonic() - woke
    threading.Event().wait(AFTER_S)  # a late write, were there one, is in the log by then
    late = overlaps(pair, before, mark)
    say(
        f"hand-over: SIGSTOP -> the other's first write {took:.2f} s; SIGCONT -> exit after {ended:.2f} s with "
        f"{before.child.stop()}; overlapping writes: {len(late)}"
    )
    assert late == []
    assert took <= KILL_S
