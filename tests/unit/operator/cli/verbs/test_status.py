"""`status` and `wait` against a cluster that answers."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.unit.operator.cli.cluster import FakeCluster, condition, failing, resource


def test_one_screen_holds_conditions_components_release_and_the_next_step(cluster: FakeCluster) -> None:
    cluster.has(failing())
    screen = cluster.run("status").stdout
    for word in ("Not ready: CrashLooping", "8/9 services", "last good release 2", "CONDITION", "memory", "0/2"):
        assert word in screen
    assert "`kubectl logs deploy/novacore-memory --previous`" in screen.split("What to do next")[1]


def test_json_and_yaml_are_the_same_document(cluster: FakeCluster) -> None:
    cluster.has(resource())
    one = json.loads(cluster.run("status", "-o", "json").stdout)
    assert one == yaml.safe_load(cluster.run("status", "-o", "yaml").stdout)
    assert one["apiVersion"] == "novacore.ai/status/v1"


def test_wait_ends_at_once_when_it_is_ready(cluster: FakeCluster) -> None:
    cluster.has(resource())
    answer = cluster.run("wait")
    assert (answer.exit_code, answer.stdout) == (0, "shop is ready after 0 s\n")


def test_wait_gives_up_in_time_with_the_reason(cluster: FakeCluster) -> None:
    cluster.has(failing())
    answer = cluster.run("wait", "--timeout", "1s", "-o", "json")
    assert answer.exit_code == 1
    told = json.loads(answer.stdout)
    assert told["outcome"] == "timed-out"
    assert told["reason"] == "CrashLooping"
    assert "not ready (CrashLooping) 8/9 memory: CrashLoopBackOff" in answer.stderr


@pytest.mark.parametrize("what", ["rolled back", "mode Plan"])
def test_wait_does_not_wait_for_what_cannot_come(cluster: FakeCluster, what: str) -> None:
    found = failing()
    if what == "mode Plan":
        found["spec"]["mode"] = "Plan"
    else:
        found["status"]["conditions"].append(condition("RolledBack", "True", "ImagePullFailed", "memory: no image"))
    cluster.has(found)
    answer = cluster.run("wait", "--timeout", "1h")
    assert answer.exit_code == 3
    assert what in answer.stderr
