"""A user's walk through `kubectl novacore` on the real cluster: look, foresee, change, take back, follow, administer."""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from novacore_contracts.services import BY_NAME
from novacore_operator.cli.app import VERBS
from tests.cluster.client import PlatformUser
from tests.cluster.conftest import merged, ready
from tests.cluster.kube import Kube, condition, until
from tests.cluster.plugin import Plugin, Ran

HERE = ("-n", "novacore")


@pytest.fixture(autouse=True)
def as_found(kube: Kube, platform: str) -> None:
    """Each step begins with a Ready installation."""
    ready(kube)


def one_line(ran: Ran, code: int) -> str:
    """Return what a command that did not end well said: one line on standard error, nothing else."""
    assert (ran.code, ran.out) == (code, ""), ran
    lines = ran.error.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("kubectl novacore: ")
    return lines[0]


def changed(kube: Kube, tmp_path: Path, **spec: Any) -> str:
    """Return the name of a file with the live resource and a change."""
    live = kube.must("nova", "novacore", "novacore")
    body = {key: live[key] for key in ("apiVersion", "kind")} | {
        "metadata": {"name": "novacore", "namespace": "novacore"},
        "spec": merged(live["spec"], spec),
    }
    file = tmp_path / "cr.yaml"
    file.write_text(yaml.safe_dump(body))
    return str(file)


# --- the command itself -----------------------------------------------------------------------------------------------


def test_kubectl_finds_the_plugin_and_completes_it(command: Plugin) -> None:
    listed = command.kubectl("plugin", "list")
    assert listed.code == 0, listed.error
    assert [Path(line).name for line in listed.out.splitlines() if "novacore" in line] == ["kubectl-novacore"]
    assert "warning" not in (listed.out + listed.error).lower()
    completed = command.kubectl("__complete", "novacore", "ro")
    assert completed.out.splitlines()[0].startswith("rollback\t")
    assert completed.out.splitlines()[-1] == ":4"
    assert "mcp-server" in command.kubectl("__complete", "novacore", "logs", "m").out
    for shell in ("bash", "zsh", "fish"):
        script = command("completion", shell)
        assert (script.code, script.error) == (0, "")
        assert "kubectl-novacore" in script.out


def test_each_verb_teaches_by_examples(command: Plugin) -> None:
    with ThreadPoolExecutor(4) as pool:
        pages = dict(zip(VERBS, pool.map(lambda verb: command(verb, "--help"), VERBS), strict=True))
    for verb, page in (pages | {"admin": command("admin", "create", "--help")}).items():
        assert page.code == 0, verb
        assert "Example" in page.out, verb
        assert f"kubectl novacore {verb}" in page.out, verb


def test_bad_input_is_one_line_and_exit_64(command: Plugin, tmp_path: Path) -> None:
    file = tmp_path / "cr.yaml"
    file.write_text("kind: Pod\n")
    for arguments in (("fly",), ("status", "--namespace", "--all"), ("rollback", "--to", "0"), ("wait", "--timeout=x")):
        one_line(command(*arguments), 64)
    assert command("plan", "-f", str(file)).code == 64
    assert "there is no context 'none'" in one_line(command("status", "--context", "none"), 64)


# --- look -------------------------------------------------------------------------------------------------------------


def test_status_shows_every_component_and_what_to_do_next(command: Plugin) -> None:
    screen = command("status", *HERE)
    assert (screen.code, screen.error) == (0, "")
    assert all(name in screen.out for name in (*BY_NAME, "postgres", "redis", "9/9", "Nothing to do."))
    told = command("status", *HERE, "-o", "json").json
    assert (told["apiVersion"], told["ready"], told["services"]) == ("novacore.ai/status/v1", True, "9/9")
    assert told["generation"] == told["observedGeneration"]
    assert yaml.safe_load(command("status", *HERE, "-o", "yaml").out).keys() == told.keys()


def test_wait_ends_at_once_when_it_is_ready(command: Plugin) -> None:
    told = command("wait", *HERE, "--timeout=30s", "-o", "json")
    assert told.code == 0
    assert (told.json["outcome"], told.json["reason"]) == ("ready", "Ready")


def test_wait_tells_why_it_is_of_no_use(kube: Kube, command: Plugin, namespace: str) -> None:
    assert f"no NovaCoreDeployment in namespace {namespace}" in one_line(command("wait", "-n", namespace), 1)
    spec = {"version": "0.1.0", "mode": "Plan"}
    kube.apply(resource(namespace, spec))
    until(
        lambda: condition(kube.must("nova", "novacore", namespace), "Ready"),
        within_s=20,
        what="the operator has looked",
    )
    in_plan = command("wait", "-n", namespace, "--timeout=30s", "-o", "json")
    assert (in_plan.code, in_plan.json["outcome"]) == (3, "blocked")
    kube.apply(resource(namespace, spec | {"version": "9.9.9", "mode": "Apply"}))
    late = command("wait", "-n", namespace, "--timeout=3s", "-o", "json")
    assert (late.code, late.json["outcome"], late.json["reason"]) == (1, "timed-out", "VersionUnknown")
    assert "VersionUnknown" in command("status", "-n", namespace).out


def resource(namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a resource."""
    return {
        "apiVersion": "novacore.ai/v1alpha1",
        "kind": "NovaCoreDeployment",
        "metadata": {"name": "novacore", "namespace": namespace},
        "spec": spec,
    }


# --- foresee ----------------------------------------------------------------------------------------------------------


def test_a_plan_of_what_is_there_is_empty(command: Plugin) -> None:
    for verb in ("plan", "diff"):
        assert command(verb, *HERE).code == 0, verb
    assert command("plan", *HERE, "-o", "json").json["changes"] == []


def test_a_plan_names_what_restarts_and_writes_nothing(kube: Kube, command: Plugin, tmp_path: Path) -> None:
    before = kube.must("nova", "novacore", "novacore")["metadata"]["resourceVersion"]
    file = changed(kube, tmp_path, services={"noble-spirit": {"logLevel": "debug"}})
    plan = command("plan", "-f", file)
    assert plan.code == 2, plan
    assert "restarts noble-spirit (1 pod" in plan.out
    told = command("plan", "-f", file, "-o", "json")
    names = {(change["kind"], change["name"]) for change in told.json["changes"]}
    stored = {name for kind, name in names if kind == "ControllerRevision"}
    assert len(stored) == 1, "when it is Ready it is kept as a release"
    assert (told.code, {name for _, name in names} - stored) == (
        2,
        {"novacore-noble-spirit", "novacore-noble-spirit-settings"},
    )
    diff = command("diff", "-f", file)
    assert diff.code == 2
    assert [line for line in diff.out.splitlines() if line.startswith("+") and "debug" in line]
    assert kube.must("nova", "novacore", "novacore")["metadata"]["resourceVersion"] == before


def test_a_plan_that_cannot_be_carried_out_ends_with_3(kube: Kube, command: Plugin, tmp_path: Path) -> None:
    plan = command("plan", "-f", changed(kube, tmp_path, version="9.9.9"), "-o", "json")
    assert plan.code == 3, plan
    assert plan.json["blocked"]["reason"] == "VersionUnknown"
    refused = command("plan", "-f", changed(kube, tmp_path, services={"gateway": {"replicas": -1}}))
    assert "replicas must be 0 or more" in one_line(refused, 64)


# --- change and take back ---------------------------------------------------------------------------------------------


def test_nothing_is_repaired_until_a_pause_ends(kube: Kube, command: Plugin, platform: str) -> None:
    paused = command("pause", *HERE, "-o", "json")
    assert (paused.code, paused.json["paused"], paused.json["changed"]) == (0, True, True)
    assert command("pause", *HERE, "-o", "json").json["changed"] is False
    until(
        lambda: condition(kube.must("nova", "novacore", platform), "Paused").get("status") == "True",
        within_s=20,
        what="the operator has seen the pause",
    )
    kube.delete("networkpolicy", "novacore-memory", platform)
    plan = command("plan", *HERE, "-o", "json")
    assert [(c["verb"], c["name"]) for c in plan.json["changes"]] == [("create", "novacore-memory")], plan
    assert plan.code in (2, 3)
    assert "PAUSED" in command("status", *HERE).out
    assert kube.get("networkpolicy", "novacore-memory", platform) is None
    resumed = command("resume", *HERE)
    assert (resumed.code, resumed.out) == (0, "novacore is running.\n")
    until(lambda: kube.get("networkpolicy", "novacore-memory", platform), within_s=20, what="it is repaired")


def test_a_change_is_taken_back_by_its_number(kube: Kube, command: Plugin, platform: str, tmp_path: Path) -> None:
    def annotations() -> dict[str, str]:
        pods = kube.must("deployment", "novacore-noble-spirit", platform)
        return pods["spec"]["template"]["metadata"].get("annotations", {})

    old = live_release(command)
    file = changed(kube, tmp_path, services={"noble-spirit": {"podAnnotations": {"example.test/walk": "1"}}})
    command.kubectl("replace", "-f", file)
    assert command("wait", *HERE, "--timeout=2m").code == 0
    assert annotations()["example.test/walk"] == "1"
    new = until(lambda: number if (number := live_release(command)) != old else None, within_s=20, what="it is stored")
    assert new > old
    assert "add --yes" in command("rollback", *HERE, "--to", str(old)).error
    assert "is not stored" in one_line(command("rollback", *HERE, "--to", "9999"), 64)
    back = command("rollback", *HERE, "--to", str(old), "--yes", "-o", "json")
    assert (back.code, back.json["to"], back.json["changed"]) == (0, old, True), back
    assert all(change["path"].startswith("spec.services.noble-spirit") for change in back.json["changes"])
    assert command("wait", *HERE, "--timeout=2m").code == 0
    assert "example.test/walk" not in annotations()
    again = command("rollback", *HERE, "--to", str(old), "--yes")
    assert (again.code, "nothing to do" in again.out) == (0, True)


def live_release(command: Plugin) -> int:
    """Return the number of the stored release that the live spec asks for, from `history`."""
    rows = command("history", *HERE, "-o", "json").json["history"]
    return int(next(row["revision"] for row in rows if row["live"]))


def test_history_is_a_table_for_people(command: Plugin) -> None:
    table = command("history", *HERE)
    assert table.code == 0
    head = table.out.splitlines()[0].split()
    assert head == ["RELEASE", "GENERATION", "VERSION", "AT", "OUTCOME", "STORED", "MESSAGE"]
    assert " (live)" in table.out
    assert "Succeeded" in table.out


# --- follow, administer -----------------------------------------------------------------------------------------------


def test_one_request_is_followed_through_its_services(command: Plugin, user: PlatformUser) -> None:
    request_id = f"walk-{uuid.uuid4().hex[:16]}"
    answer = user.http.get("/api/memory", headers={**user.headers, "X-Request-ID": request_id})
    assert answer.status_code == 200
    found = until(lambda: _lines(command, request_id), within_s=20, what=f"{request_id} in two services")
    assert {line["service"] for line in found} >= {"gateway", "memory"}
    assert request_id not in command("logs", *HERE, "memory", "--tail", "0", "--since", "1s").out
    nothing = one_line(command("logs", *HERE, "--request-id", "none-such-id"), 1)
    assert "--since" in nothing
    assert command("logs", *HERE, "memory", "--tail", "3").code == 0
    assert '"event"' in command("logs", *HERE, "operator", "--tail", "3", "-o", "json").out


def _lines(command: Plugin, request_id: str) -> list[dict[str, Any]] | None:
    ran = command("logs", *HERE, "--request-id", request_id, "-o", "json")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    return lines if len({line.get("service") for line in lines}) >= 2 else None


def test_the_first_administrator_is_made_and_logs_in(kube: Kube, command: Plugin, url: str, platform: str) -> None:
    email = f"admin-{uuid.uuid4().hex[:8]}@example.test"
    made = command("admin", "create", *HERE, "--email", email, "-o", "json")
    assert (made.code, made.json["made"]) == (0, True), made
    password = made.json["password"]
    with httpx.Client(base_url=url, timeout=30, transport=httpx.HTTPTransport(retries=5)) as http:
        login = http.post("/api/auth/login", json={"email": email, "password": password})
        assert login.status_code == 200, login.text
        me = http.get("/api/auth/me", headers={"Authorization": f"Bearer {login.json()['access_token']}"})
    assert me.json()["role"] == "admin"
    again = command("admin", "create", *HERE, "--email", email, "-o", "json")
    assert (again.code, again.json["made"], again.json["password"]) == (0, False, None)
    logged = kube.logs("deploy/novacore-auth-billing", platform, "--since=2m")
    assert logged.strip()
    assert password not in logged
    assert email not in logged
    assert "is not an e-mail address" in one_line(command("admin", "create", *HERE, "--email", "ada"), 64)


def test_the_cluster_being_away_is_one_line(command: Plugin, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(command.environment["KUBECONFIG"]).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    started = time.monotonic()
    said = one_line(command("status", "--kubeconfig", str(tmp_path / "config")), 1)
    assert "the API server does not answer" in said
    assert time.monotonic() - started < 30
