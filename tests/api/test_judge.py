"""The judge of the fault tests says nothing of a sound history, and names each broken promise of a spoilt one."""

from __future__ import annotations

import copy
from itertools import count
from typing import Any, cast

import pytest

from novacore_contracts.services import SERVICES
from tests.kit.api import Api, Manifest
from tests.kit.invariants import broken
from tests.kit.operator_process import SYSTEM
from tests.kit.witness import Witness

NAMESPACE = "judged"
STORES = ("novacore-postgres", "novacore-redis")
WORKLOADS = [("StatefulSet", name) for name in STORES] + [("Deployment", one.full_name) for one in SERVICES]


class History:
    """States in the order of their making."""

    def __init__(self) -> None:
        self.witness = Witness(cast("Api", None))  # it is told, it does not watch
        self._versions = count(1)

    def add(self, kind: str, name: str, *, uid: str = "", gone: bool = False, at: str = NAMESPACE, **body: Any) -> None:
        """Store a state."""
        generation = body.pop("generation", 1)
        metadata = {"name": name, "namespace": at, "uid": uid or name, "generation": generation}
        metadata["resourceVersion"] = str(next(self._versions))
        self.witness.take(kind, {"metadata": metadata, **copy.deepcopy(body)}, gone=gone)

    def workload(self, kind: str, name: str, *, image: str = "novacore/workloads:0.1.0", up: int = 1) -> None:
        """Store a workload with so many pods up."""
        counts = {"replicas": up, "updatedReplicas": up, "availableReplicas": up}
        template = {"spec": {"containers": [{"image": image}]}}
        spec = {"replicas": 1, "template": template}
        self.add(kind, name, spec=spec, status={"observedGeneration": 1, **counts})

    def nova(self, *, of: int = 1, generation: int = 1, ready: bool = True, version: str = "0.1.0") -> None:
        """Store the resource as Ready."""
        condition = {"type": "Ready", "status": "True", "observedGeneration": of}
        parts = [{"name": name, "ready": ready} for _, name in WORKLOADS]
        status = {"observedGeneration": of, "components": parts, "conditions": [condition]}
        self.add("NovaCoreDeployment", "novacore", generation=generation, spec={"version": version}, status=status)

    def verdict(self) -> list[str]:
        """Return what was broken."""
        return broken(self.witness, NAMESPACE)


@pytest.fixture
def history() -> History:
    """A sound installation, without its last word."""
    made = History()
    made.add("Secret", "novacore-root-judged", at=SYSTEM, data={"root.jwk": "a"})
    made.add("Secret", "novacore-userjwt-private", data={"userJwt-1.jwk": "b"})
    made.add("Job", "novacore-migrate-1")
    for kind, name in WORKLOADS:
        made.workload(kind, name)
    return made


def test_a_sound_history_is_not_found_fault_with(history: History) -> None:
    history.nova()
    assert history.verdict() == []


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (("Secret", "novacore-root-judged", {"data": {"root.jwk": "z"}, "at": SYSTEM}), "changed after"),
        (("Secret", "novacore-userjwt-private", {"data": {}}), "changed after"),
        (("Secret", "novacore-userjwt-private", {"data": {"userJwt-1.jwk": "b"}, "uid": "2"}), "second time"),
        (("Job", "novacore-migrate-1", {"uid": "2"}), "made 2 times"),
        (("Deployment", "novacore-gateway", {"spec": {"replicas": 1}, "status": {}}), "had no pod"),
        (("Deployment", "novacore-gateway", {"spec": {"replicas": 1}, "gone": True}), "had no pod"),
    ],
)
def test_a_broken_promise_is_named(history: History, event: tuple[str, str, Manifest], words: str) -> None:
    history.nova()
    kind, name, body = event
    history.add(kind, name, **body)
    assert [sentence for sentence in history.verdict() if words in sentence]


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"ready": False}, "Ready=True at"),
        ({"version": "0.2.0"}, "are not of novacore/workloads:0.2.0"),
    ],
)
def test_a_lie_about_ready_is_named(history: History, lie: dict[str, Any], words: str) -> None:
    history.nova(**lie)
    assert [sentence for sentence in history.verdict() if words in sentence]


def test_ready_beside_a_workload_that_is_not_up_is_named(history: History) -> None:
    history.workload("Deployment", "novacore-memory", up=0)
    history.nova()
    assert [sentence for sentence in history.verdict() if "Ready=True at" in sentence]
