"""`doctor` against a cluster that answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from novacore_operator.cli.doctor.rights import lacking, needs
from novacore_operator.rbac import namespaced_rules, own_namespace_rules
from tests.unit.operator.cli.cluster import FakeCluster, resource
from tests.unit.operator.cli.doctor.make import claim, crd, operator, pod, slices, storage_class


def sound(cluster: FakeCluster) -> FakeCluster:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    account = {"template": {"spec": {"serviceAccountName": "novacore-operator"}}}
    body = operator(spec={"replicas": 2} | account)
    cluster.answers(" version ", out=SERVER).answers("version --output=json", out=SERVER)
    cluster.answers("config view", out="shop-ns")
    cluster.answers("auth whoami", out={"metadata": {"creationTimestamp": now}})
    cluster.answers("create --filename=-", out=review([*namespaced_rules(), *own_namespace_rules()]))
    cluster.answers("get leases", out={"spec": {"renewTime": now}})
    cluster.answers("get --raw", out={})
    for kind, items in {
        "deployments.apps": [body],
        "storageclasses": [storage_class("standard", default=True)],
        "pods": [pod()],
        "persistentvolumeclaims": [claim("Bound")],
        "endpointslices": slices(True),
        "networkpolicies": [{}],
    }.items():
        cluster.answers(f"get {kind}", out={"items": items})
    return cluster.answers("get crd", out=crd()).has(resource())


def review(rules: Any, *, incomplete: bool = False) -> dict[str, Any]:
    return {"status": {"resourceRules": rules, "incomplete": incomplete}}


SERVER = {"serverVersion": {"major": "1", "minor": "35"}}


def checks(cluster: FakeCluster, *arguments: str) -> tuple[int, dict[str, Any]]:
    answer = cluster.run("doctor", "-o", "json", *arguments)
    told = json.loads(answer.stdout)
    assert told["ok"] is (answer.exit_code == 0)
    return answer.exit_code, {check["id"]: check for check in told["checks"]}


def test_a_sound_cluster_ends_with_0_and_nothing_is_written(cluster: FakeCluster) -> None:
    code, found = checks(sound(cluster))
    assert code == 0, found
    assert {check["result"] for check in found.values()} == {"ok", "info"}
    reading = ("get", "version", "config view", "auth whoami")
    for call in cluster.calls:
        asked = '"kind": "SelfSubjectRulesReview"' in call.stdin  # a question, though kubectl creates it
        assert asked or any(f" {word} " in f" {call.line} " for word in reading), call


def without(resource_name: str, *verbs: str) -> list[Any]:
    """Return the rights of the operator but for some verbs on a resource."""
    rules = []
    for rule in [*namespaced_rules(), *own_namespace_rules()]:
        kept = [verb for verb in rule["verbs"] if resource_name not in rule["resources"] or verb not in verbs]
        rules.append({**rule, "verbs": kept})
    return rules


def test_a_right_that_the_operator_lacks_is_named(cluster: FakeCluster) -> None:
    cluster.answers("create --filename=-", out=review(without("jobs", "create", "delete")))
    code, found = checks(sound(cluster))
    assert code == 1
    assert found["operator-rights"]["message"] == "the operator may not: create, delete jobs.batch in shop-ns"
    asked = [call for call in cluster.calls if "create" in call.arguments]
    assert all("--as=system:serviceaccount:system:novacore-operator" in call.arguments for call in asked)
    assert {json.loads(call.stdin)["spec"]["namespace"] for call in asked} == {"shop-ns", "system"}


def test_rights_that_cannot_be_listed_are_asked_for_by_name(cluster: FakeCluster) -> None:
    cluster.answers("auth can-i", "delete jobs.batch", out="no - no RBAC policy matched\n", code=1)
    cluster.answers("auth can-i", "create jobs.batch", out="yes\n")
    cluster.answers("create --filename=-", out=review(without("jobs", "create", "delete"), incomplete=True))
    _, found = checks(sound(cluster))
    assert found["operator-rights"]["message"] == "the operator may not: delete jobs.batch in shop-ns"


def test_who_may_not_look_is_told_and_the_rest_is_checked(cluster: FakeCluster) -> None:
    cluster.answers("--as=", error='Error from server (Forbidden): users "x" cannot impersonate\n', code=1)
    cluster.answers("get storageclasses", error="Error from server (Forbidden): storageclasses is forbidden\n", code=1)
    code, found = checks(sound(cluster), "-n", "shop-ns")
    assert code == 0
    assert found["operator-rights"]["result"] == found["storage-class"]["result"] == "unknown"
    assert "cannot impersonate" in found["operator-rights"]["message"]
    assert found["images"]["result"] == "ok"


def test_an_empty_cluster_names_what_is_missing(cluster: FakeCluster) -> None:
    cluster.answers("version --output=json", out=SERVER)
    missing = 'error: the server doesn\'t have a resource type "novacoredeployments"\n'
    cluster.answers("get novacoredeployments", error=missing, code=1)
    cluster.answers("auth whoami", out={"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}})
    for kind in ("deployments", "storageclasses", "pods", "persistentvolumeclaims", "endpointslices", "networkpol"):
        cluster.answers(f"get {kind}", out={"items": []})
    code, found = checks(cluster, "-n", "shop-ns")
    assert code == 1
    failed = {key for key, check in found.items() if check["result"] == "fail"}
    assert failed == {"crd", "operator", "storage-class"}
    assert found["clock"]["result"] == "warn"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("Error from server (NotFound): the server could not find the requested resource\n", "has no metrics.k8s.io"),
        ("Error from server (ServiceUnavailable): the server is unable to handle the request\n", "does not answer"),
    ],
)
def test_autoscaling_without_metrics_is_told(cluster: FakeCluster, error: str, words: str) -> None:
    cluster.answers("get --raw", error=error, code=1)
    cluster.has(resource(spec={"services": {"gateway": {"autoscaling": {"maxReplicas": 3}}}}))
    code, found = checks(sound(cluster))
    assert (code, found["autoscaling"]["result"]) == (0, "warn")
    assert words in found["autoscaling"]["message"]


def test_people_get_a_sign_a_sentence_and_a_remedy(cluster: FakeCluster) -> None:
    cluster.answers("get pods", out={"items": [pod("ErrImagePull", "x:missing")]})
    answer = sound(cluster).run("doctor")
    assert answer.exit_code == 1
    assert "✗ Images               cannot be pulled: x:missing" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "checks: 13, failed: 1, warnings: 0"


ALL = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}


@pytest.mark.parametrize("need", needs(namespace="shop", own_namespace="system"), ids=str)
def test_each_verb_of_each_right_is_held_against_what_is_given(need: Any) -> None:
    exact = {"apiGroups": [need.group], "resources": [need.path], "verbs": list(need.verbs)}
    if need.name:
        exact["resourceNames"] = [need.name]
    assert lacking(need, [ALL]) == lacking(need, [exact]) == ()
    assert lacking(need, []) == need.verbs
    for verb in need.verbs:
        assert lacking(need, [exact | {"verbs": [other for other in need.verbs if other != verb]}]) == (verb,)
    for wrong in ({"apiGroups": ["x"]}, {"resources": ["x"]}, {"resourceNames": ["x"]}):
        assert lacking(need, [exact | wrong]) == need.verbs
