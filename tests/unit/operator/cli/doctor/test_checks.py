"""What each check makes of what was read."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from hack.cluster.tools import KUBERNETES
from novacore_operator.api.crd import custom_resource_definition
from novacore_operator.cli.doctor import Facts
from novacore_operator.cli.doctor.checks import CHECKS, examine
from novacore_operator.cli.doctor.cluster import TESTED
from novacore_operator.cli.errors import VERSION
from novacore_operator.reasons import Reason
from tests.unit.operator.cli.cluster import failing, resource
from tests.unit.operator.cli.doctor.make import NOW, at, claim, crd, lease, operator, pod, slices, storage_class

GOOD = Facts(
    namespace="shop-ns",
    version=VERSION,
    local_time=NOW,
    server_time=NOW,
    crd=crd(),
    operators=(operator(),),
    lease=lease(-3),
    rights={"deployments.apps in shop-ns": ()},
    server={"serverVersion": {"major": "1", "minor": "35+"}},
    classes=(storage_class("standard", default=True),),
    resources=(resource(),),
    pods=(pod(),),
    claims=(claim("Bound"),),
    dns=slices(True, True),
    policies=({},),
)


def result(facts: Facts, check: str) -> tuple[str, str, str]:
    return next((j.result, j.message, j.remedy) for c, j in examine(facts) if c.id == check)


def test_a_sound_cluster_passes_every_check() -> None:
    results = {check.id: judged.result for check, judged in examine(GOOD)}
    assert results.pop("network-policy") == "info"
    assert results.pop("autoscaling") == "info"
    assert set(results.values()) == {"ok"}
    assert len(CHECKS) >= 10


def test_the_version_that_is_said_to_be_tested_is_that_of_the_test_cluster() -> None:
    assert KUBERNETES.startswith(f"v{TESTED}.")


def without_field(path: tuple[str, ...]) -> dict[str, Any]:
    body = deepcopy(crd())
    node = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in path[:-1]:
        node = node["properties"][name]
    del node["properties"][path[-1]]
    return body


def bare(**storage: Any) -> dict[str, Any]:
    return resource(spec={"postgres": {"storage": storage}, "redis": {"storage": storage}})


SCALED = resource(spec={"services": {"gateway": {"autoscaling": {"maxReplicas": 3}}, "memory": {"replicas": 2}}})
CASES = [
    ("crd", {"crd": None}, "fail", "does not know NovaCoreDeployment"),
    ("crd", {"crd": crd() | {"spec": {"versions": [{"name": "v9", "served": True}]}}}, "fail", "is not served"),
    ("crd", {"crd": custom_resource_definition()}, "fail", "not established"),
    ("crd", {"crd": without_field(("spec", "rollout", "maxParallel"))}, "warn", "lacks spec.rollout.maxParallel"),
    ("operator", {"operators": ()}, "fail", "no operator is installed"),
    ("operator", {"operators": (operator(status={}),)}, "fail", "none of 2 pods"),
    ("operator", {"operators": (operator(status={"availableReplicas": 1}),)}, "warn", "1 of 2 pods"),
    ("operator", {"version": "0.9.0"}, "warn", f"is of version {VERSION}, this command of 0.9.0"),
    (
        "operator-rights",
        {"rights": {"secrets/a in x": ("get", "patch"), "pods in x": ()}},
        "fail",
        "may not: get, patch secrets/a in x",
    ),
    ("operator-rights", {"operators": ()}, "unknown", "no operator"),
    ("kubernetes-version", {"server": {"serverVersion": {"major": "1", "minor": "29"}}}, "fail", "1.29 is too old"),
    ("kubernetes-version", {"server": {"serverVersion": {"major": "1", "minor": "38"}}}, "warn", "newer than"),
    ("kubernetes-version", {"server": {}}, "unknown", "does not say"),
    ("clock", {"local_time": at(9)}, "warn", "9 s ahead of the API server's"),
    ("clock", {"local_time": at(-9)}, "warn", "9 s behind the API server's"),
    ("clock", {"lease": lease(8)}, "warn", "operator's clock is 8 s ahead"),
    ("clock", {"lease": lease(-100)}, "warn", "renewed 100 s ago"),
    ("clock", {"server_time": None, "lease": None}, "unknown", "neither"),
    ("dns", {"dns": ()}, "unknown", "elsewhere"),
    ("dns", {"dns": slices(False)}, "fail", "no DNS server is ready (1 known)"),
    ("dns", {"dns": [{"endpoints": None}]}, "fail", "no DNS server is ready (0 known)"),
    ("storage-class", {"classes": (), "claims": ()}, "fail", "no default StorageClass (there are: none)"),
    ("storage-class", {"classes": ()}, "warn", "no default StorageClass"),
    ("storage-class", {"resources": (bare(className="fast"),)}, "fail", "StorageClass fast does not exist"),
    (
        "storage-class",
        {"classes": (storage_class("a", default=True), storage_class("b", default=True))},
        "warn",
        "several defaults: a, b",
    ),
    ("one-resource", {"resources": (resource(), resource(name="two"))}, "fail", "only the oldest"),
    ("images", {"pods": (pod("ImagePullBackOff", "x:missing"),)}, "fail", "x:missing (novacore-memory-x"),
    ("images", {"pods": ()}, "info", "no pod"),
    ("volume-claims", {"claims": (claim("Pending"),)}, "fail", "data-novacore-postgres-0 is Pending (class default)"),
    ("volume-claims", {"claims": ()}, "info", "no volume claim"),
    ("network-policy", {}, "info", "is unknown"),
    ("autoscaling", {"resources": (SCALED,)}, "ok", "scaled by load: gateway"),
    ("autoscaling", {"resources": (SCALED,), "metrics": "it has none"}, "warn", "gateway will not grow: it has none"),
    ("autoscaling", {"metrics": "it has none"}, "info", "no service has autoscaling"),
    ("conditions", {"resources": (failing(),)}, "fail", "shop is not ready: CrashLooping"),
    ("conditions", {"resources": (failing("Installing", "7 of 11"),)}, "warn", "Installing"),
    ("conditions", {"resources": (resource(generation=4),)}, "warn", "has not acted on generation 4"),
    ("conditions", {"resources": ()}, "info", "no NovaCoreDeployment"),
]


@pytest.mark.parametrize(("check", "changes", "wanted", "words"), CASES)
def test_each_fault_is_named_with_a_remedy(check: str, changes: dict[str, Any], wanted: str, words: str) -> None:
    found, message, remedy = result(replace(GOOD, **changes), check)
    assert found == wanted
    assert words in message
    assert remedy or found in ("ok", "info", "unknown")


def test_named_classes_need_no_default() -> None:
    facts = replace(GOOD, classes=(storage_class("fast"),), resources=(bare(className="fast"),), claims=())
    assert result(facts, "storage-class")[0] == "ok"


def test_stores_of_somebody_else_need_no_class() -> None:
    outside = resource(spec={"postgres": {"mode": "External"}, "redis": {"mode": "External"}})
    assert result(replace(GOOD, classes=(), resources=(outside,), claims=()), "storage-class")[0] == "ok"


def test_the_remedy_of_a_condition_names_its_component() -> None:
    assert "deploy/novacore-memory" in result(replace(GOOD, resources=(failing(),)), "conditions")[2]
    assert result(replace(GOOD, pods=(pod("ErrImagePull"),)), "images")[2] == Reason.IMAGE_PULL_FAILED.remedy


@pytest.mark.parametrize("check", [check for check in CHECKS if check.reads], ids=lambda check: check.id)
def test_what_could_not_be_read_is_unknown_and_never_a_failure(check: Any) -> None:
    for key in check.reads:
        found, message, _ = result(replace(GOOD, unread={key: "pods is forbidden"}), check.id)
        assert (found, message) == ("unknown", "could not be read: pods is forbidden")
