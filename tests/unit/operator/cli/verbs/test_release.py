"""`history`, `rollback`, `pause` and `resume` against a cluster that answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.operator.cli.cluster import FakeCluster, resource, revision

OLD: dict[str, Any] = {"version": "0.1.0", "limits": {"authPerMinute": 5}, "paused": False}


def with_releases(cluster: FakeCluster, found: dict[str, Any], *revisions: dict[str, Any]) -> FakeCluster:
    cluster.answers("get controllerrevisions.apps", out={"items": list(revisions)})
    cluster.answers("replace", out={})
    cluster.answers("patch", out={})
    return cluster.has(found)


def writes(cluster: FakeCluster) -> list[Any]:
    return [call for call in cluster.calls if " replace " in call.line or " patch " in call.line]


def test_rollback_replaces_the_spec_and_says_how_to_wait(cluster: FakeCluster) -> None:
    with_releases(cluster, resource(spec={"paused": True}), revision(1, OLD), revision(2, {"version": "0.1.0"}))
    answer = cluster.run("rollback", "--yes")
    assert answer.exit_code == 0
    assert "spec.limits.authPerMinute  10 → 5" in answer.stderr
    assert "kubectl novacore wait -n shop-ns --name shop" in answer.stdout
    assert "It is paused" in answer.stdout
    (write,) = writes(cluster)
    sent = json.loads(write.stdin)
    assert sent["spec"] == {"version": "0.1.0", "limits": {"authPerMinute": 5}, "mode": "Apply", "paused": True}
    assert sent["metadata"]["resourceVersion"] == "77", "or it would overwrite what somebody wrote meanwhile"
    assert "status" not in sent
    assert "--field-manager=kubectl-novacore" in write.arguments


def test_rollback_to_what_is_live_changes_nothing(cluster: FakeCluster) -> None:
    with_releases(cluster, resource(), revision(1, {"version": "0.1.0"}))
    answer = cluster.run("rollback", "--to", "1", "-o", "json")
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["changed"] is False
    assert writes(cluster) == []


def test_rollback_asks_and_without_anybody_to_answer_does_nothing(cluster: FakeCluster) -> None:
    with_releases(cluster, resource(), revision(1, OLD))
    answer = cluster.run("rollback", stdin="")
    assert answer.exit_code == 64
    assert "add --yes" in answer.stderr
    assert writes(cluster) == []


def test_rollback_to_a_release_that_is_not_stored_names_those_that_are(cluster: FakeCluster) -> None:
    with_releases(cluster, resource(), revision(1, OLD), revision(3, OLD))
    answer = cluster.run("rollback", "--to", "2")
    assert answer.exit_code == 64
    assert "there are 3, 1" in answer.stderr


def test_a_refused_rollback_is_told_in_one_line(cluster: FakeCluster) -> None:
    cluster.answers(
        "replace",
        error="Error from server (Conflict): error when replacing: the object has been modified; please apply\n",
        code=1,
    )
    with_releases(cluster, resource(), revision(1, OLD))
    answer = cluster.run("rollback", "--yes")
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1].endswith("somebody changed it meanwhile: run the command again")


@pytest.mark.parametrize(("verb", "paused"), [("pause", True), ("resume", False)])
def test_pause_and_resume_patch_one_field_and_only_when_needed(
    cluster: FakeCluster, verb: str, *, paused: bool
) -> None:
    with_releases(cluster, resource(spec={"paused": not paused}))
    assert cluster.run(verb).exit_code == 0
    (write,) = writes(cluster)
    assert f'--patch={{"spec": {{"paused": {json.dumps(paused)}}}}}' in write.arguments
    again = FakeCluster(cluster.here)
    with_releases(again, resource(spec={"paused": paused}))
    answer = json.loads(again.run(verb, "-o", "json").stdout)
    assert (answer["paused"], answer["changed"]) == (paused, False)
    assert len(writes(again)) == 1


def test_history_is_a_table_for_people_and_a_document_for_machines(cluster: FakeCluster) -> None:
    entry = {
        "generation": 3,
        "version": "0.2.0",
        "outcome": "RolledBack",
        "revision": 1,
        "at": "2026-03-05T00:00:00Z",
        "reason": "ImagePullFailed",
        "message": "memory: [bold]no image",
    }
    with_releases(cluster, resource(status={"history": [entry]}), revision(1, OLD), revision(2, {"version": "0.1.0"}))
    table = cluster.run("history").stdout
    assert "ImagePullFailed memory: [bold]no image" in table, "text of a cluster is not markup"
    rows = json.loads(cluster.run("history", "-o", "json").stdout)["history"]
    assert [(row["revision"], row["outcome"], row["live"]) for row in rows] == [
        (1, "RolledBack", False),
        (2, None, True),
    ]


def test_a_line_in_a_pipe_is_never_folded(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = "memory: " + "a long message " * 30
    entry = {
        "generation": 3,
        "version": "0.2.0",
        "outcome": "RolledBack",
        "revision": 1,
        "reason": "X",
        "message": said,
    }
    with_releases(cluster, resource(status={"history": [entry]}), revision(1, OLD), revision(2, {"version": "0.1.0"}))
    assert said.strip() in cluster.run("history").stdout


def test_history_of_a_new_installation_says_that_there_is_none(cluster: FakeCluster) -> None:
    with_releases(cluster, resource())
    assert "No release has been recorded yet" in cluster.run("history").stdout
