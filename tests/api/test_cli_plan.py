"""`kubectl novacore plan`, the installed command, against a real API server: what it says, how it ends, what it leaves.

The exit codes are a promise to CI: 0 no change, 2 changes, 3 blocked, 1 an error, 64 bad input.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from novacore_contracts.services import SERVICES
from tests.kit.api import Api, Manifest
from tests.kit.auditlog import AuditLog
from tests.kit.cli import Ran, run
from tests.kit.controlplane import ROOT, ControlPlane, binary, write_kubeconfig
from tests.kit.nova import NAME, await_ready, nova
from tests.kit.operator_process import OperatorProcess, namespace_of

USER, STRANGER = "test-command", "test-stranger"
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/reference/plan.schema.json").read_text()))


@pytest.fixture(scope="module")
def config(control_plane: ControlPlane) -> Path:
    """A kubeconfig of somebody who may do everything, and whose name nobody else uses."""
    return control_plane.kubeconfig(USER, "system:masters")


@pytest.fixture(scope="module")
def live(api: Api, operator: OperatorProcess) -> str:
    """A Ready installation that is planned for and not changed. Returns its namespace."""
    namespace = "planned"
    api.apply(namespace_of(namespace))
    api.create(nova(namespace, version="0.2.0"))
    await_ready(api, namespace, report=operator.report)
    return namespace


def plan(config: Path, namespace: str, *words: str, spec: dict[str, Any] | None = None) -> Ran:
    """Run the verb, for the live resource or for a spec in its place."""
    if spec is None:
        return run("plan", "-n", namespace, *words, config=config)
    body = nova(namespace, **{"version": "0.2.0", **spec})
    return run("plan", "-n", namespace, "-f", "-", *words, config=config, stdin=json.dumps(body))


def planned(config: Path, namespace: str, **spec: Any) -> Ran:
    """Return `-o json` of a spec, held against its schema."""
    ran = plan(config, namespace, "-o", "json", spec=spec)
    assert [error.message for error in SCHEMA.iter_errors(ran.json)] == []
    return ran


def test_no_change_ends_with_0(config: Path, live: str) -> None:
    ran = plan(config, live)
    assert ran.code == 0, ran
    assert "No changes" in ran.out


def test_changes_end_with_2_and_say_what_restarts(config: Path, live: str) -> None:
    ran = planned(config, live, services={"memory": {"image": {"tag": "trial"}}})
    assert ran.code == 2, ran
    (change,) = (item for item in ran.json["changes"] if item["kind"] == "Deployment")
    assert (change["verb"], change["name"]) == ("update", "novacore-memory")
    assert change["consequence"] == "restarts memory (1 pod)"
    assert {
        "path": "spec.template.spec.containers[memory].image",
        "old": "novacore/workloads:0.2.0",
        "new": "novacore/workloads:trial",
    } in change["fields"]
    text = plan(config, live, spec={"services": {"memory": {"image": {"tag": "trial"}}}})
    assert text.code == 2, text
    assert "restarts memory (1 pod)" in text.out
    assert ran.json["hash"] in text.out


def test_a_first_installation_ends_with_2_and_names_what_cannot_be_known(config: Path, namespace: str) -> None:
    first, second = (planned(config, namespace) for _ in range(2))
    assert first.code == 2, first
    kinds = [item["kind"] for item in first.json["changes"] if item["verb"] == "create"]
    assert kinds.count("Deployment") == len(SERVICES)
    assert first.json["hash"] == second.json["hash"], "the same plan twice, though keys would be other ones"
    assert [item["name"] for item in first.json["changes"] if item["kind"] == "Job"] == [
        "novacore-migrate-0-2-0-(made at apply)"
    ]


def test_a_blocked_spec_ends_with_3_and_says_why(config: Path, live: str) -> None:
    ran = planned(config, live, version="9.9.9")
    assert ran.code == 3, ran
    assert ran.json["blocked"]["reason"] == "VersionUnknown"
    assert plan(config, live, spec={"version": "9.9.9"}).code == 3


def test_what_the_api_server_would_refuse_ends_with_3_and_holds_the_rest(config: Path, live: str) -> None:
    ran = planned(config, live, services={"memory": {"affinity": {"nodeAffinity": "near"}}})
    assert ran.code == 3, ran
    assert ran.json["blocked"]["reason"] == "ApplyRefused"
    waits = {item["name"]: item["waitsFor"] for item in ran.json["changes"]}
    assert waits["novacore-memory"].startswith("the API server refuses it: ")
    assert waits["novacore-release-2"] == "Deployment novacore-memory, which the API server refuses"


def test_a_second_resource_in_the_namespace_is_blocked(config: Path, live: str) -> None:
    body = nova(live, name="another", version="0.2.0")
    ran = run("plan", "-f", "-", "-o", "json", config=config, stdin=json.dumps(body))
    assert ran.code == 3, ran
    assert ran.json["blocked"]["reason"] == "NamespaceTaken"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"services": {"memory": {"replica": 2}}}, "replica"),
        ({"services": {"memory": {"replicas": -1}}}, "0 stops the service"),
        ({"postgres": {"mode": "External"}}, "adminSecretRef"),
    ],
    ids=["unknown field", "a rule", "a rule over two fields"],
)
def test_bad_input_ends_with_64_and_one_line(config: Path, live: str, spec: dict[str, Any], says: str) -> None:
    ran = plan(config, live, spec=spec)
    assert ran.code == 64, ran
    assert says in ran.error
    assert "Traceback" not in ran.error
    assert ran.out == ""


def test_a_file_that_is_no_resource_ends_with_64(config: Path, tmp_path: Path) -> None:
    assert run("plan", "-f", str(tmp_path / "missing.yaml"), config=config).code == 64
    assert run("plan", "-f", "-", config=config, stdin="kind: [").code == 64
    assert run("plan", "-f", "-", config=config, stdin="kind: Pod\n").code == 64


def test_an_error_ends_with_1_and_one_line(control_plane: ControlPlane, live: str, tmp_path: Path) -> None:
    stranger = plan(control_plane.kubeconfig(STRANGER), live, spec={})
    assert stranger.code == 1, stranger
    nowhere = write_kubeconfig(tmp_path, control_plane.authority, "https://127.0.0.1:9", USER, ("system:masters",))
    away = plan(nowhere, live)
    assert away.code == 1, away
    for ran in (stranger, away):
        assert len(ran.error.strip().splitlines()) == 1, ran
        assert "Traceback" not in ran.error


def test_who_may_read_and_not_write_is_told_so(control_plane: ControlPlane, api: Api, live: str) -> None:
    for manifest in reader():
        api.apply(manifest)
    ran = plan(control_plane.kubeconfig("test-reader"), live, spec={"limits": {"authPerMinute": 11}})
    assert ran.code == 1, ran
    assert "forbidden" in ran.error
    assert len(ran.error.strip().splitlines()) == 1, ran


def test_planning_writes_nothing(config: Path, api: Api, audit: AuditLog, operator: OperatorProcess, live: str) -> None:
    before, mark = api.must("NovaCoreDeployment", NAME, live), audit.position()
    assert planned(config, live, profile="Production", networkPolicy={"enabled": False}).code == 2
    deletes = [request for request in audit.requests(user=USER, since=mark) if request.verb == "delete"]
    assert deletes, "deletes are tried too"
    writes = [request for request in audit.writes(user=USER, since=mark) if request.verb != "delete"]
    assert [str(write) for write in writes] == []
    assert [str(write) for write in audit.writes(user=operator.user, since=mark) if write.namespace == live] == []
    assert api.must("NovaCoreDeployment", NAME, live) == before
    for request in deletes:  # the log does not have the body, which says that it is a dry run
        kind = {"networkpolicies": "NetworkPolicy"}[request.resource]
        api.must(kind, request.name, live)
    assert plan(config, live).code == 0


def test_the_status_of_mode_plan_and_the_command_have_one_hash(
    config: Path, api: Api, operator: OperatorProcess, namespace: str
) -> None:
    api.create(nova(namespace, version="0.2.0"))
    await_ready(api, namespace, report=operator.report)
    change = {"version": "0.2.0", "image": {"tag": "new"}}
    ran = planned(config, namespace, **change)
    api.apply(nova(namespace, **change, mode="Plan"))
    done = subprocess.run(
        [binary("kubectl"), "--kubeconfig", config, "-n", namespace, "wait", f"nova/{NAME}", "--timeout=30s",
         "--for=jsonpath={.status.plan.hash}=" + ran.json["hash"]],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stderr, api.must("NovaCoreDeployment", NAME, namespace)["status"].get("plan"))


def reader() -> list[Manifest]:
    """Return the role of somebody who may look at everything and change the resource, but none of its objects."""
    rbac = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["novacore.ai"], "resources": ["novacoredeployments"], "verbs": ["*"]},
    ]
    subject = {"kind": "User", "name": "test-reader", "apiGroup": rbac}
    ref = {"apiGroup": rbac, "kind": "ClusterRole", "name": "test-reader"}
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": "test-reader"}, "rules": rules},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "test-reader"},
         "subjects": [subject], "roleRef": ref},
    ]  # fmt: skip
