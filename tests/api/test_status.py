"""The status as users and their tools read it: `kubectl wait`, `kubectl get`, Events."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from novacore_operator.reasons import Reason
from tests.api.test_drift import SOMEBODY
from tests.kit.api import Api
from tests.kit.controlplane import ControlPlane, binary
from tests.kit.nova import NAME, await_condition, await_ready, condition, nova
from tests.kit.operator_process import OperatorProcess
from tests.kit.player import Behaviour, Player
from tests.kit.wait import until

USER = "test-kubectl"
COLUMNS = ("NAME", "READY", "REASON", "VERSION", "SERVICES", "POSTGRES", "SECRETS", "AGE")
WIDE = ("PROGRESSING", "MIGRATIONS", "PROFILE", "MESSAGE")


@pytest.fixture(scope="module")
def config(control_plane: ControlPlane) -> Path:
    """A kubeconfig for kubectl."""
    return control_plane.kubeconfig(USER, "system:masters")


def kubectl(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl."""
    command = [binary("kubectl"), "--kubeconfig", config, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def waiting(config: Path, namespace: str, seconds: int, what: str = "Ready") -> subprocess.CompletedProcess[str]:
    """Run `kubectl wait` on the resource."""
    return kubectl(config, "-n", namespace, "wait", f"nova/{NAME}", f"--for=condition={what}", f"--timeout={seconds}s")


def test_kubectl_wait_ends_when_the_resource_is_ready_and_not_before(
    config: Path, api: Api, operator: OperatorProcess, player: Player, namespace: str
) -> None:
    player.behave("memory", Behaviour.STARTING, namespace=namespace)
    api.create(nova(namespace))
    early = waiting(config, namespace, 3)
    assert early.returncode == 1
    assert "timed out" in early.stderr
    player.behave("memory", Behaviour.READY, namespace=namespace)
    done = waiting(config, namespace, 60)
    assert done.returncode == 0, done.stderr + operator.report()
    assert "condition met" in done.stdout
    assert condition(api.must("NovaCoreDeployment", NAME, namespace), "Ready")["status"] == "True"


def test_kubectl_wait_does_not_take_the_last_generations_ready(
    config: Path, api: Api, operator: OperatorProcess, player: Player, namespace: str
) -> None:
    """`kubectl wait` compares `observedGeneration` where a condition has one: each of ours has."""
    api.create(nova(namespace))
    await_ready(api, namespace, report=operator.report)
    operator.freeze()  # the status is of the old generation, and says Ready
    try:
        player.behave("memory", Behaviour.STARTING, namespace=namespace)
        api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"services": {"memory": {"image": {"tag": "x"}}}}})
        resource = api.must("NovaCoreDeployment", NAME, namespace)
        assert condition(resource, "Ready")["status"] == "True"
        assert condition(resource, "Ready")["observedGeneration"] < resource["metadata"]["generation"]
        assert waiting(config, namespace, 1).returncode == 1
    finally:
        operator.thaw()
        player.behave("memory", Behaviour.READY, namespace=namespace)
    assert waiting(config, namespace, 60).returncode == 0


@pytest.mark.invariant("STATUS-1")
def test_every_condition_has_its_generation_and_a_documented_reason(
    api: Api, operator: OperatorProcess, installation: str
) -> None:
    resource = await_ready(api, installation, report=operator.report)
    conditions = resource["status"]["conditions"]
    assert len(conditions) >= 9
    known = (Path(__file__).parents[2] / "docs/reference/conditions.md").read_text()
    for item in conditions:
        assert item["observedGeneration"] == resource["metadata"]["generation"], item
        assert Reason(item["reason"])
        assert f"## {item['reason']}\n" in known
    assert resource["status"]["observedGeneration"] == resource["metadata"]["generation"]


def test_kubectl_get_shows_what_matters(config: Path, installation: str, operator: OperatorProcess) -> None:
    short = kubectl(config, "-n", installation, "get", "nova").stdout.splitlines()
    assert tuple(short[0].split()) == COLUMNS
    assert len(COLUMNS) - 1 + len(WIDE) >= 8
    assert short[1].split()[:5] == [NAME, "True", "Ready", "0.1.0", "9/9"]
    wide = kubectl(config, "-n", installation, "get", "nova", "-o", "wide").stdout.splitlines()[0].split()
    assert set(wide) == {*COLUMNS, *WIDE}


def test_the_same_event_is_posted_once(api: Api, operator: OperatorProcess, namespace: str) -> None:
    """An object that is changed again and again is told once in ten minutes, each other object for itself."""
    api.create(nova(namespace))
    await_ready(api, namespace, report=operator.report)
    names = ("novacore-memory-settings", "novacore-gateway-settings")
    for number in range(4):
        for name in names:
            body = {"metadata": {"labels": {"app.kubernetes.io/component": f"changed-{number}"}}}
            api.patch("ConfigMap", name, namespace, body, manager=SOMEBODY)
            until(
                lambda name=name: api.must("ConfigMap", name, namespace)["metadata"]["labels"][
                    "app.kubernetes.io/component"
                ] in name,
                within_s=10,
                what=f"{name} is put back",
                report=operator.report,
            )  # fmt: skip
    api.patch("NovaCoreDeployment", NAME, namespace, {"spec": {"version": "9.9.9"}})
    await_condition(api, namespace, "Ready", status="False", reason="VersionUnknown", within_s=20)

    def told() -> Counter[tuple[str, str]]:
        return Counter((event["reason"], event["note"]) for event in api.list("Event", namespace))

    until(lambda: any(reason == "VersionUnknown" for reason, _ in told()), within_s=10, what="the last Event")
    repaired = [note for reason, note in told() if reason == "DriftRepaired"]
    assert {name for name in names if any(name in note for note in repaired)} == {*names}
    assert {mark: count for mark, count in told().items() if count > 1} == {}
