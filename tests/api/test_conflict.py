"""A second field manager that insists, on a real API server: it is named, it gets the field, and the rest stays ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.kit.api import Api, Manifest
from tests.kit.auditlog import AuditLog
from tests.kit.nova import NAME, await_condition, await_ready, condition, nova
from tests.kit.operator_process import OperatorProcess
from tests.kit.wait import until

RIVAL = "rival-controller"
DEPLOYMENT = "novacore-memory"
THEIRS, OURS = 3, 1
FIGHTS_MAX = 5
CALM_S = 3


class Rival:
    """Another controller with a wish of its own for one field: it takes the field back whenever it has lost it."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._insist, name="rival", daemon=True)
        self.takes = 0

    def __enter__(self) -> Rival:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _insist(self) -> None:
        body: Manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": DEPLOYMENT, "namespace": self._namespace},
            "spec": {"replicas": THEIRS},
        }
        while not self._stop.is_set():
            if self._api.must("Deployment", DEPLOYMENT, self._namespace)["spec"]["replicas"] != THEIRS:
                self._api.apply(body, manager=RIVAL)
                self.takes += 1
            self._stop.wait(0.02)


@pytest.fixture
def fought_over(api: Api, operator: OperatorProcess, namespace: str) -> str:
    """A namespace in which a rival has just won."""
    api.create(nova(namespace))
    await_ready(api, namespace, report=operator.report)
    return namespace


@pytest.mark.invariant("APPLY-1")
def test_who_insists_gets_the_field_and_is_named(
    api: Api, operator: OperatorProcess, audit: AuditLog, fought_over: str, say: Callable[[str], None]
) -> None:
    namespace, mark, began = fought_over, audit.position(), time.monotonic()

    def writes() -> int:
        """Count the operator's writes to the Deployment, each forced one after the conflict it answers."""
        found = audit.writes(user=operator.user, since=mark)
        return sum((w.resource, w.name, w.namespace) == ("deployments", DEPLOYMENT, namespace) for w in found)

    with Rival(api, namespace) as rival:
        resource = await_condition(api, namespace, "FieldConflict", within_s=60, report=operator.report)
        seconds = time.monotonic() - began
        said = condition(resource, "FieldConflict")["message"]
        assert f'"{RIVAL}" sets .spec.replicas' in said
        assert f"Deployment {DEPLOYMENT}" in said
        ready = await_condition(api, namespace, "Ready", status="False", reason="FieldConflict", within_s=10)
        assert condition(ready, "Ready")["observedGeneration"] == ready["metadata"]["generation"]

        def quiet() -> bool:
            """Whether neither side wrote for a while: the observation itself."""
            before = writes(), rival.takes
            threading.Event().wait(CALM_S)
            return (writes(), rival.takes) == before

        until(quiet, within_s=20, what="nobody writes any more", report=operator.report)
        forced = sum(
            w.code == 200 and (w.resource, w.name, w.namespace) == ("deployments", DEPLOYMENT, namespace)
            for w in audit.writes(user=operator.user, since=mark)
        )
        say(
            f"conflict: {RIVAL} took .spec.replicas {rival.takes} times; the operator took it back {forced - 1} times, "
            f"then left it and said so after {seconds:.1f} s; {CALM_S} s without a write of either"
        )
        assert forced - 1 == FIGHTS_MAX - 1  # the last write is of the rest, without the field
        live = api.must("Deployment", DEPLOYMENT, namespace)
        assert live["spec"]["replicas"] == THEIRS
        _rest_is_ours(api, namespace, operator)
        assert api.must("Deployment", DEPLOYMENT, namespace)["spec"]["replicas"] == THEIRS

    taken = rival.takes
    api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"services": {"memory": {"replicas": OURS}}}})
    resource = await_ready(api, namespace, report=operator.report)
    assert condition(resource, "FieldConflict")["status"] == "False"
    assert api.must("Deployment", DEPLOYMENT, namespace)["spec"]["replicas"] == OURS, "a new spec takes the field back"
    assert rival.takes == taken


def _rest_is_ours(api: Api, namespace: str, operator: OperatorProcess) -> None:
    """Somebody changes another field of the same object: that one is put back."""
    body = {"spec": {"revisionHistoryLimit": 7}}
    before = api.must("Deployment", DEPLOYMENT, namespace)["spec"]["revisionHistoryLimit"]
    api.patch("Deployment", DEPLOYMENT, namespace, body, manager="somebody")
    until(
        lambda: api.must("Deployment", DEPLOYMENT, namespace)["spec"]["revisionHistoryLimit"] == before,
        within_s=10,
        what="a field that nobody fights over is repaired",
        report=operator.report,
    )
