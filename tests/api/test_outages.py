"""What the operator stands on goes away and comes back: the API server, a namespace under way, its own definition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.kit.bench import Bench, bench
from tests.kit.invariants import broken, generations, jobs, key_ids
from tests.kit.nova import NAME, await_ready, nova
from tests.kit.operator_process import SYSTEM, OperatorProcess, namespace_of
from tests.kit.wait import until
from tests.kit.witness import Witness

CONVERGE_S = 60
DEFINITION = "novacoredeployments.novacore.ai"


@dataclass
class Ground:
    """A control plane of this module's own, and an operator on it."""

    bench: Bench
    operator: OperatorProcess

    def install(self, namespace: str) -> None:
        """Ask for an installation and wait for it."""
        self.bench.api.apply(namespace_of(namespace))
        self.bench.api.create(nova(namespace))
        self.ready(namespace)

    def ready(self, namespace: str) -> None:
        """Wait until it is Ready for what was asked last."""
        self.revive()
        await_ready(self.bench.api, namespace, within_s=CONVERGE_S, report=self.operator.report)

    def revive(self) -> None:
        """Start the operator if it has ended, as the kubelet does: without an API server its Lease is over in 10 s."""
        until(
            lambda: self.operator.child.runs() == self.operator.ready(),
            within_s=CONVERGE_S,
            what="it stands by, or has ended",
            report=self.operator.report,
            every_s=0.2,
        )
        if not self.operator.child.runs():
            self.operator.start()

    def known(self, namespace: str) -> bool:
        """Whether the operator still tells of an installation."""
        return f'platform="{namespace}"' in (self.operator.page("/metrics") or "")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A control plane with the garbage collector and the namespace controller, and an operator."""
    with bench(tmp_path_factory.mktemp("outages") / "plane") as made:
        made.plane.start_controllers()
        operator = OperatorProcess(made.plane)
        operator.start()
        yield Ground(made, operator)
        operator.child.stop()


@pytest.mark.invariant("INF-2")
def test_an_edit_before_the_api_server_crashes_is_carried_out_when_it_is_back(
    ground: Ground, say: Callable[[str], None]
) -> None:
    ground.install("crashed")
    before = key_ids_of(ground, "crashed")
    ground.bench.api.patch("NovaCoreDeployment", NAME, "crashed", {"spec": {"image": {"tag": "next"}}})
    ground.bench.plane.server.kill()
    ground.bench.plane.start_server()
    ground.ready("crashed")
    with Witness(ground.bench.api) as witness:
        assert broken(witness, "crashed") == []
        assert dict(key_ids(witness, "crashed")) == before
        assert len(jobs(witness, "crashed")) == 2
        again = {name: number for name, number in generations(witness, "crashed").items() if number != 2}
    assert again == {"StatefulSet novacore-postgres": 1, "StatefulSet novacore-redis": 1}
    say("outage: SIGKILL of the API server in the middle of a roll-out: one change of each Deployment, one more Job")


@pytest.mark.invariant("CENSUS-1")
def test_a_namespace_that_is_deleted_in_the_middle_of_a_roll_out_is_let_go(ground: Ground) -> None:
    api = ground.bench.api
    api.apply(namespace_of("leaving"))
    api.create(nova("leaving"))
    until(lambda: api.list("Secret", "leaving"), within_s=CONVERGE_S, what="the roll-out has begun")
    api.delete("Namespace", "leaving")
    until(
        lambda: api.get("Namespace", "leaving") is None,
        within_s=CONVERGE_S,
        what="the namespace is gone",
        report=ground.operator.report,
        every_s=0.2,
    )
    until(lambda: not ground.known("leaving"), within_s=CONVERGE_S, what="forgotten", report=ground.operator.report)
    mark = ground.bench.audit.position()
    ground.install("coming")
    late = ground.bench.audit.writes(user=ground.operator.user, since=mark)
    assert [str(write) for write in late if write.namespace == "leaving"] == []
    assert api.get("Secret", "novacore-root-leaving", SYSTEM) is not None, "kept: a namesake may want its data"


@pytest.mark.invariant("KOPF-1")
@pytest.mark.invariant("CENSUS-1")
def test_its_own_definition_may_go_and_come_back(ground: Ground) -> None:
    api = ground.bench.api
    ground.install("defined")
    definition = next(item for item in ground.bench.chart if item["kind"] == "CustomResourceDefinition")
    api.delete("CustomResourceDefinition", DEFINITION)
    until(
        lambda: api.get("CustomResourceDefinition", DEFINITION) is None and not api.list("Deployment", "defined"),
        within_s=CONVERGE_S,
        what="the definition is gone, and what its resources owned",
        report=ground.operator.report,
        every_s=0.2,
    )
    mark = ground.bench.audit.position()
    api.apply(definition, manager="helm")
    until(ground.bench.served, within_s=CONVERGE_S, what="it is served again")
    api.create(nova("defined"))
    ground.ready("defined")
    made = ground.bench.audit.writes(user=ground.operator.user, since=mark)
    assert {write.namespace for write in made} <= {"defined", SYSTEM}, "nothing is made for resources that are gone"
    assert ground.operator.child.runs()


def key_ids_of(ground: Ground, namespace: str) -> dict[tuple[str, str], str]:
    """Return the digests of an installation's keys and passwords."""
    with Witness(ground.bench.api) as witness:
        return dict(key_ids(witness, namespace))
