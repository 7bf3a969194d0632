"""A resource becomes Ready in order; then the operator is silent, also after its own restart."""

from __future__ import annotations

import threading
import time
from datetime import datetime

import pytest

from novacore_contracts.services import SERVICES
from tests.kit.api import Api
from tests.kit.auditlog import AuditLog
from tests.kit.nova import NAME, await_condition, await_ready, condition, nova
from tests.kit.operator_process import OperatorProcess
from tests.kit.player import Behaviour, Player
from tests.kit.wait import until

QUIET_S = 5
CALM_S = 1
INSTALL_S = 30


def test_a_resource_becomes_ready(api: Api, operator: OperatorProcess, namespace: str) -> None:
    made = api.create(nova(namespace))
    resource = await_ready(api, namespace, within_s=INSTALL_S)
    assert resource["status"]["services"] == f"{len(SERVICES)}/{len(SERVICES)}"
    assert resource["metadata"]["uid"] == made["metadata"]["uid"]
    assert "finalizers" not in resource["metadata"]
    assert "annotations" not in resource["metadata"]


@pytest.mark.invariant("PLAN-5")
def test_objects_are_written_in_the_order_of_an_installation(
    api: Api, operator: OperatorProcess, audit: AuditLog, namespace: str
) -> None:
    mark = audit.position()
    api.create(nova(namespace))
    await_ready(api, namespace, within_s=INSTALL_S)
    first: dict[str, datetime] = {}
    last: dict[str, datetime] = {}
    for write in audit.writes(user=operator.user, since=mark):
        if write.namespace == namespace and write.code == 201:
            at = datetime.fromisoformat(write.at)
            first.setdefault(write.resource, at)
            last[write.resource] = at
    assert last["secrets"] < first["statefulsets"] < first["jobs"] < first["deployments"]


@pytest.mark.invariant("STATUS-1")
@pytest.mark.parametrize("component", ["postgres", "migrate", "memory"])
@pytest.mark.parametrize("behaviour", [Behaviour.STARTING, Behaviour.FAILED])
def test_what_does_not_become_ready_is_never_called_ready(
    api: Api, operator: OperatorProcess, player: Player, namespace: str, component: str, behaviour: Behaviour
) -> None:
    expected = {
        ("postgres", Behaviour.STARTING): ("DataStoresReady", "DataStoresStarting"),
        ("postgres", Behaviour.FAILED): ("DataStoresReady", "DataStoresStarting"),
        ("migrate", Behaviour.STARTING): ("MigrationsApplied", "MigrationRunning"),
        ("migrate", Behaviour.FAILED): ("MigrationsApplied", "MigrationFailed"),
        ("memory", Behaviour.STARTING): ("Ready", ""),
        ("memory", Behaviour.FAILED): ("Progressing", "ProgressDeadlineExceeded"),
    }
    player.behave(component, behaviour, namespace=namespace)
    api.create(nova(namespace))
    kind, reason = expected[(component, behaviour)]
    if component == "memory":
        done = f"{len(SERVICES) - 1}/{len(SERVICES)}"
        until(
            lambda: (api.must("NovaCoreDeployment", NAME, namespace).get("status") or {}).get("services") == done,
            within_s=INSTALL_S,
            what=f"{done} services",
            report=operator.report,
        )
    resource = await_condition(api, namespace, kind, status="False", reason=reason, within_s=INSTALL_S)
    assert condition(resource, "Ready")["status"] == "False"
    if component != "memory":
        assert api.list("Deployment", namespace) == [], "no service before the stores and the migration"
    if (component, behaviour) != ("migrate", Behaviour.FAILED):  # a failed Job does not come back to life
        player.behave(component, Behaviour.READY, namespace=namespace)
        await_ready(api, namespace, within_s=INSTALL_S)


def test_the_steady_state_writes_nothing(
    api: Api, operator: OperatorProcess, audit: AuditLog, installation: str
) -> None:
    await_quiet(api, operator, audit, installation)
    mark = audit.position()
    threading.Event().wait(QUIET_S)  # the observation itself
    assert [str(write) for write in audit.writes(user=operator.user, since=mark)] == []
    leases = [request for request in audit.requests(user=operator.user, since=mark) if request.resource == "leases"]
    assert leases, "the log does record what the operator asks"


def test_an_operator_restart_writes_nothing(
    api: Api, operator: OperatorProcess, audit: AuditLog, installation: str
) -> None:
    await_quiet(api, operator, audit, installation)
    mark = audit.position()
    operator.stop()
    operator.start()
    await_first_turns(api, operator)
    assert [str(write) for write in audit.writes(user=operator.user, since=mark)] == []


def test_a_killed_operator_is_replaced_and_writes_nothing(
    api: Api, operator: OperatorProcess, audit: AuditLog, installation: str
) -> None:
    await_quiet(api, operator, audit, installation)
    mark = audit.position()
    operator.kill()
    operator.start()  # it waits until the dead one's Lease is over
    await_first_turns(api, operator)
    assert [str(write) for write in audit.writes(user=operator.user, since=mark)] == []


def await_quiet(api: Api, operator: OperatorProcess, audit: AuditLog, namespace: str) -> None:
    """Wait until an installation is Ready and the operator has written nothing for a second: the tests before are over."""
    await_ready(api, namespace, report=operator.report)
    mark, since = audit.position(), time.monotonic()

    def quiet() -> bool:
        nonlocal mark, since
        if audit.writes(user=operator.user, since=mark):
            mark, since = audit.position(), time.monotonic()
        return time.monotonic() - since >= CALM_S

    until(quiet, within_s=20, what="a second without a write", report=operator.report, every_s=0.1)


def await_first_turns(api: Api, operator: OperatorProcess) -> None:
    """Wait until an operator that was started has looked at every resource once."""
    resources = len(api.list("NovaCoreDeployment"))
    until(
        lambda: operator.metric("novacore_operator_reconcile_total") >= resources,
        within_s=20,
        what=f"a first turn for each of {resources} resources",
        report=operator.report,
    )
