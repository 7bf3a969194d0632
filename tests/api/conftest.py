"""One control plane and one operator for the run, a namespace per test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.kit import cnpg
from tests.kit.api import Api, Manifest
from tests.kit.auditlog import AuditLog
from tests.kit.controlplane import ControlPlane, running
from tests.kit.nova import await_ready, nova
from tests.kit.operator_process import OperatorProcess, install_chart, namespace_of
from tests.kit.player import Player

INSTALLATION = "installed"
# Much of what a spec can say, so that the objects have many fields.
RICH = {
    "profile": "Production",
    "expose": {"type": "NodePort"},
    "image": {"pullSecrets": ["registry"]},
    "services": {
        "gateway": {
            "podAnnotations": {"example.org/note": "a"},
            "podLabels": {"example.org/team": "a"},
            "nodeSelector": {"example.org/pool": "a"},
            "tolerations": [{"key": "example.org/pool", "operator": "Equal", "value": "a", "effect": "NoSchedule"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "example.org/zone", "operator": "In", "values": ["a"]}]}
                        ]
                    }
                }
            },
            "priorityClassName": "system-cluster-critical",
            "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "256Mi"}},
        }
    },
}


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver."""
    with running(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def chart(control_plane: ControlPlane) -> list[Manifest]:
    """The operator's chart in cluster mode: CRD and roles are applied."""
    return install_chart(control_plane)


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane, chart: list[Manifest]) -> Api:
    """The API server as an administrator, with the CRD served."""
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "example.org/none",
        "allowVolumeExpansion": True,
    }
    control_plane.admin.apply(storage)
    cnpg.install(control_plane.admin)
    return control_plane.admin


@pytest.fixture(scope="session")
def audit(control_plane: ControlPlane) -> AuditLog:
    """What the API server recorded."""
    return AuditLog(control_plane.audit_log)


@pytest.fixture(scope="session")
def player(api: Api) -> Iterator[Player]:
    """Kubelets and workload controllers, played, in all namespaces."""
    with Player(api) as playing:
        yield playing


@pytest.fixture(scope="session")
def operator(control_plane: ControlPlane, api: Api, player: Player) -> Iterator[OperatorProcess]:
    """The operator, for the whole cluster, with the rights that the chart gives."""
    process = OperatorProcess(control_plane)
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def installation(api: Api, operator: OperatorProcess) -> str:
    """A Ready installation with many fields, shared by tests that leave it as it was. Returns its namespace."""
    api.apply(namespace_of(INSTALLATION))
    api.create(nova(INSTALLATION, **RICH))
    await_ready(api, INSTALLATION, report=operator.report)
    return INSTALLATION


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A namespace of the test's own. Its resources are deleted; the rest goes with the control plane."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    api.apply(namespace_of(name))
    yield name
    for item in api.list("NovaCoreDeployment", name):
        api.delete("NovaCoreDeployment", item["metadata"]["name"], name)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Return a function that prints a measurement, also when the test passes."""

    def write(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return write


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Attach the operator's and the player's last words to a failed test's report."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined] # pluggy's result object
    if not report.failed:
        return
    for value in getattr(item, "funcargs", {}).values():
        if isinstance(value, OperatorProcess):
            report.sections.append((value.name, value.report()))
        elif isinstance(value, Player) and value.errors:
            report.sections.append(("player", "\n".join(value.errors[-20:])))
        elif isinstance(value, ControlPlane):
            report.sections.append(("API server", value.server.tail(20)))
