"""`admin create` against a cluster that answers."""

from __future__ import annotations

import json

import pytest

from tests.unit.operator.cli.cluster import FakeCluster, resource

MADE = '{"ts": "t", "level": "info", "event": "started"}\nAdministrator made. Password, shown this once: s3cr3t-word\n'


@pytest.mark.invariant("CLI-3")
def test_the_password_comes_back_and_never_goes_in(cluster: FakeCluster) -> None:
    cluster.has(resource()).answers("exec", out=MADE)
    answer = cluster.run("admin", "create", "--email", "ada@example.org")
    assert answer.stdout == "Administrator made. Password, shown this once: s3cr3t-word\n"
    assert not any("s3cr3t" in call.line + call.stdin for call in cluster.calls)
    command = cluster.calls[-1].arguments
    assert command[command.index("--") + 1 :] == ["novacore", "admin", "create", "--email", "ada@example.org"]


def test_machines_get_the_password_as_a_field(cluster: FakeCluster) -> None:
    cluster.has(resource()).answers("exec", out=MADE)
    told = json.loads(cluster.run("admin", "create", "--email", "ada@example.org", "-o", "json").stdout)
    assert (told["made"], told["password"], told["message"]) == (True, "s3cr3t-word", "Administrator made.")


def test_an_existing_account_keeps_its_password(cluster: FakeCluster) -> None:
    said = "This account is an administrator now. Its password is unchanged; it has to log in again."
    cluster.has(resource()).answers("exec", out=f"{said}\n")
    told = json.loads(cluster.run("admin", "create", "--email", "ada@example.org", "-o", "json").stdout)
    assert (told["made"], told["password"], told["message"]) == (False, None, said)


def test_the_pods_own_sentence_is_the_error(cluster: FakeCluster) -> None:
    said = "novacore admin: the address cannot be used\ncommand terminated with exit code 1\n"
    cluster.has(resource()).answers("exec", error=said, code=1)
    answer = cluster.run("admin", "create", "--email", "ada@example.org")
    assert (answer.exit_code, answer.stderr) == (1, "kubectl novacore: novacore admin: the address cannot be used\n")


def test_no_pod_to_run_in_is_told(cluster: FakeCluster) -> None:
    said = 'Error from server (NotFound): deployments.apps "novacore-auth-billing" not found\n'
    cluster.has(resource()).answers("exec", error=said, code=1)
    answer = cluster.run("admin", "create", "--email", "ada@example.org")
    assert answer.exit_code == 1
    assert len(answer.stderr.splitlines()) == 1
