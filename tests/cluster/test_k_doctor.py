"""`kubectl novacore doctor` on a cluster that is broken in each of the ways that people meet, and on a sound one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.cluster.conftest import NAMESPACE, change_spec, ready
from tests.cluster.kube import Kube, until
from tests.cluster.plugin import Plugin, Ran

ROLE = "novacore-operator"
RULE = "jobs"
BROKEN = {
    "services": {"memory": {"image": {"tag": "none-such"}}},
    "rollout": {"autoRollback": False},
}
MISSING = "novacore/workloads:none-such"


@dataclass(frozen=True, slots=True)
class Broken:
    """What the command said of a broken cluster, of an installation that runs and of one that is new."""

    running: Ran
    behind: Ran
    new: Ran


@contextmanager
def no_default_storage_class(kube: Kube) -> Iterator[None]:
    """Delete the default StorageClass."""
    found = [
        item
        for item in kube.list("storageclasses", "default")
        if item["metadata"]["annotations"].get("storageclass.kubernetes.io/is-default-class") == "true"
    ]
    (saved,) = found
    for key in ("resourceVersion", "uid", "creationTimestamp"):
        del saved["metadata"][key]
    kube.run("delete", "storageclass", saved["metadata"]["name"])
    try:
        yield
    finally:
        kube.run("create", "-f", "-", stdin=json.dumps(saved))


@contextmanager
def a_rule_less(kube: Kube, resource: str) -> Iterator[None]:
    """Take the rule about a resource out of the operator's role."""
    rules = kube.must("clusterrole", ROLE, "default")["rules"]
    kept = [rule for rule in rules if resource not in rule["resources"]]
    assert len(kept) == len(rules) - 1
    _set_rules(kube, kept)
    try:
        yield
    finally:
        _set_rules(kube, rules)


def _set_rules(kube: Kube, rules: object) -> None:
    role = kube.must("clusterrole", ROLE, "default")
    kept = {key: value for key, value in role["metadata"].items() if key in ("name", "labels", "annotations")}
    # As Helm, which applied it: the next upgrade would find the rules in other hands.
    helm = ("--server-side", "--force-conflicts", "--field-manager=helm")
    body = {"apiVersion": role["apiVersion"], "kind": role["kind"], "metadata": kept, "rules": rules}
    kube.run("apply", *helm, "-f", "-", stdin=json.dumps(body))


@pytest.fixture(scope="module")
def broken(kube: Kube, platform: str, command: Plugin) -> Iterator[Broken]:
    """Break all at once, ask, mend."""
    ready(kube)
    new = "t-doctor"
    with ExitStack() as stack:
        stack.enter_context(no_default_storage_class(kube))
        kube.run("create", "namespace", new)
        stack.callback(kube.run, "delete", "namespace", new, "--wait=false")
        kube.apply(
            {
                "apiVersion": "novacore.ai/v1alpha1",
                "kind": "NovaCoreDeployment",
                "metadata": {"name": "novacore", "namespace": new},
                "spec": {"version": kube.must("nova", "novacore", platform)["spec"]["version"]},
            }
        )
        stack.enter_context(change_spec(kube, BROKEN))
        until(lambda: kube.list("pvc", new), within_s=30, what="the new installation claims volumes")
        until(lambda: _waits_for_an_image(kube), within_s=60, what="a pod waits for the missing image")
        stack.enter_context(a_rule_less(kube, RULE))
        yield Broken(
            running=command("doctor", "-n", platform, clock="+10m"),
            behind=command("doctor", "-n", platform, "-o", "json", clock="-10m"),
            new=command("doctor", "-n", new),
        )
    ready(kube, within_s=120)


def _waits_for_an_image(kube: Kube) -> bool:
    statuses = [s for pod in kube.list("pods", NAMESPACE) for s in pod["status"].get("containerStatuses", ())]
    return any("Pull" in (status["state"].get("waiting") or {}).get("reason", "") for status in statuses)


def told(ran: Ran, title: str) -> tuple[str, str]:
    """Return the line of a check and the remedy below it."""
    lines = ran.out.splitlines()
    number = next(n for n, line in enumerate(lines) if line[2:].startswith(title))
    below = lines[number + 1] if number + 1 < len(lines) else ""
    return lines[number], below.strip() if below.startswith("   ") else ""


def test_a_sound_cluster_passes_all_checks(kube: Kube, platform: str, command: Plugin) -> None:
    ready(kube)
    sound = command("doctor", "-n", platform, "-o", "json")
    assert sound.code == 0, sound.out
    checks = {check["id"]: check["result"] for check in sound.json["checks"]}
    assert len(checks) >= 10
    assert checks.pop("network-policy") == checks.pop("autoscaling") == "info"
    assert set(checks.values()) == {"ok"}, sound.out


@pytest.mark.parametrize(
    ("title", "sign", "words", "remedy"),
    [
        ("StorageClass", "!", "there is no default StorageClass (there are: none)", "is-default-class=true"),
        ("Images", "✗", f"cannot be pulled: {MISSING} (novacore-memory-", "Check `spec.image`"),
        (
            "Operator's rights",
            "✗",
            f"the operator may not: list, watch, create, patch, delete jobs.batch in {NAMESPACE}",
            "`helm upgrade` its chart",
        ),
        ("Clocks", "!", "s ahead of the API server's", "Set the clock by NTP"),
        ("Conditions", "✗", "novacore is not ready: ImagePullFailed", "Check `spec.image`"),
    ],
    ids=["no default StorageClass", "missing image", "missing right", "wrong clock", "not ready"],
)
def test_each_fault_is_named_with_its_remedy(broken: Broken, title: str, sign: str, words: str, remedy: str) -> None:
    line, below = told(broken.running, title)
    assert line.startswith(sign), broken.running.out
    assert words in line
    assert below.startswith("→")
    assert remedy in below


def test_it_ends_with_the_count_and_exit_1(broken: Broken, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        print(f"\n$ kubectl novacore doctor -n {NAMESPACE}\n{broken.running.out}")
    assert broken.running.code == 1
    assert broken.running.out.splitlines()[-1] == "checks: 13, failed: 3, warnings: 2"
    sound = {line[2:].split("  ")[0] for line in broken.running.out.splitlines() if line.startswith("✓")}
    assert sound >= {"Kubernetes version", "Resource definition", "Operator", "DNS", "Volume claims"}


def test_a_clock_that_is_behind_is_named_too(broken: Broken) -> None:
    (clock,) = (check for check in broken.behind.json["checks"] if check["id"] == "clock")
    assert clock["result"] == "warn"
    assert "s behind the API server's" in clock["message"]
    assert 590 < int(clock["message"].split(" s behind")[0].split()[-1]) < 610


def test_a_new_installation_without_a_storage_class_fails(broken: Broken) -> None:
    assert broken.new.code == 1
    line, below = told(broken.new, "StorageClass")
    assert line.startswith("✗")
    assert "spec.postgres.storage.className" in below
    line, below = told(broken.new, "Volume claims")
    assert line.startswith("✗")
    assert "data-novacore-postgres-0 is Pending (class default)" in line
    assert "describe pvc" in below
