"""`logs` against a cluster that answers."""

from __future__ import annotations

import json

import pytest

from novacore_contracts.services import SERVICES
from tests.unit.operator.cli.cluster import FakeCluster

ID = "0198f3c2-5d1e-7c44-9f0a-2b1c3d4e5f60"


def line(service: str, second: int, event: str, request_id: str = ID) -> str:
    body = {
        "ts": f"2026-03-01T12:00:{second:02}.000Z",
        "level": "info",
        "service": service,
        "version": "0.1.0",
        "pod": f"novacore-{service}-x",
        "event": event,
        "request_id": request_id,
    }
    return f"[pod/novacore-{service}-x/{service}] {json.dumps(body)}\n"


def test_a_request_is_followed_through_all_nine_services_in_order_of_time(cluster: FakeCluster) -> None:
    text = line("memory", 2, "stored") + line("gateway", 1, "received") + line("gateway", 3, "other", "another")
    cluster.answers("logs", out=text)
    answer = cluster.run("logs", "--request-id", ID)
    assert answer.exit_code == 0
    first, second = answer.stdout.splitlines()
    assert first.split() == ["12:00:01.000", "INFO", "gateway", "received"]
    assert second.split() == ["12:00:02.000", "INFO", "memory", "stored"]
    (call,) = cluster.calls
    for service in SERVICES:
        assert service.name in call.line
    assert "--since=3600s" in call.arguments
    assert "--tail=-1" in call.arguments


@pytest.mark.invariant("CLI-2")
def test_json_is_one_object_a_line_whatever_the_pod_wrote(cluster: FakeCluster) -> None:
    cluster.answers("logs", out="[pod/novacore-postgres-0/postgres] LOG:  ready\n" + line("memory", 1, "started"))
    answer = cluster.run("logs", "postgres", "-o", "json")
    plain, parsed = (json.loads(row) for row in answer.stdout.splitlines())
    assert plain == {"pod": "novacore-postgres-0", "container": "postgres", "text": "LOG:  ready"}
    assert parsed["event"] == "started"


def test_following_passes_lines_on(cluster: FakeCluster) -> None:
    cluster.answers("logs", "--follow", out=line("memory", 2, "b") + line("memory", 1, "a"))
    answer = cluster.run("logs", "memory", "-f")
    assert [row.split()[-2] for row in answer.stdout.splitlines()] == ["b", "a"]


def test_no_line_is_a_failure_that_says_where_to_look(cluster: FakeCluster) -> None:
    cluster.answers("logs", error="No resources found in shop namespace.\n")
    answer = cluster.run("logs", "--request-id", ID, "-n", "shop")
    assert answer.exit_code == 1
    assert f"no line in namespace shop carries {ID}" in answer.stderr
    assert "is it running" in cluster.run("logs", "memory").stderr


def test_what_kubectl_refuses_is_told(cluster: FakeCluster) -> None:
    cluster.answers("logs", error='Error from server (Forbidden): pods is forbidden: User "x" cannot list\n', code=1)
    answer = cluster.run("logs", "memory")
    assert answer.exit_code == 1
    assert "ask for this right" in answer.stderr


def test_the_operators_log_is_found_in_its_own_namespace(cluster: FakeCluster) -> None:
    found = {
        "metadata": {"name": "novacore-operator", "namespace": "system"},
        "spec": {"selector": {"matchLabels": {"app.kubernetes.io/name": "novacore-operator"}}},
    }
    cluster.answers("get deployments.apps", out={"items": [found]}).answers("logs", out=line("operator", 1, "ready"))
    assert "ready" in cluster.run("logs", "operator", "-n", "shop").stdout
    assert "--namespace=system" in cluster.calls[-1].arguments
