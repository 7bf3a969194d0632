"""Which image runs: of all services, and of one with an image of its own."""

from __future__ import annotations

from typing import Any

import pytest

from novacore_contracts.releases import CURRENT
from tests.unit.operator.build.objects import build

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def container(service: str, **spec: Any) -> dict[str, Any]:
    """Return the container of a service."""
    found: dict[str, Any] = build(**spec)["Deployment", f"novacore-{service}"]["spec"]["template"]["spec"]
    return {**found["containers"][0], "pullSecrets": found.get("imagePullSecrets", [])}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, f"novacore/workloads:{CURRENT}"),
        ({"tag": "dev-1"}, "novacore/workloads:dev-1"),
        ({"repository": "registry.example.org/w"}, f"registry.example.org/w:{CURRENT}"),
        ({"digest": DIGEST}, f"novacore/workloads@{DIGEST}"),
    ],
)
def test_image_is_by_digest_then_tag_then_release(image: dict[str, str], expected: str) -> None:
    assert container("gateway", image=image)["image"] == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, f"registry.example.org/w@{DIGEST}"),
        ({"tag": "trial"}, "registry.example.org/w:trial"),
        ({"digest": OTHER}, f"registry.example.org/w@{OTHER}"),
        ({"repository": "trial/w"}, f"trial/w@{DIGEST}"),
        ({"repository": "trial/w", "tag": "1"}, "trial/w:1"),
    ],
)
def test_a_service_takes_from_its_own_image_what_that_says(own: dict[str, str], expected: str) -> None:
    spec: dict[str, Any] = {
        "image": {"repository": "registry.example.org/w", "digest": DIGEST},
        "services": {"memory": {"image": own}},
    }
    assert container("memory", **spec)["image"] == expected
    assert container("gateway", **spec)["image"] == f"registry.example.org/w@{DIGEST}"


def test_how_an_image_is_pulled_is_said_for_one_service_too() -> None:
    spec: dict[str, Any] = {
        "image": {"pullSecrets": ["all"]},
        "services": {"memory": {"image": {"pullPolicy": "Always", "pullSecrets": ["own"]}}},
    }
    assert (container("memory", **spec)["imagePullPolicy"], container("memory", **spec)["pullSecrets"]) == (
        "Always",
        [{"name": "own"}],
    )
    assert container("gateway", **spec)["pullSecrets"] == [{"name": "all"}]


def arguments(name: str, **spec: Any) -> list[str]:
    """Return the arguments of a workload's container."""
    found = next(body for (kind, n), body in build(**spec).items() if kind in ("Deployment", "Job") and name in n)
    return list(found["spec"]["template"]["spec"]["containers"][0]["args"])


def test_a_pod_is_told_which_release_it_must_be() -> None:
    assert arguments("memory") == ["serve", "memory", f"--release={CURRENT}"]
    assert arguments("migrate") == ["migrate", f"--release={CURRENT}"]
    assert arguments("memory", image={"repository": "registry.example.org/w"})[-1] == f"--release={CURRENT}"


@pytest.mark.parametrize("image", [{"tag": "dev-1"}, {"digest": DIGEST}])
def test_a_pod_whose_image_is_named_by_tag_or_digest_is_not(image: dict[str, str]) -> None:
    assert arguments("memory", image=image) == ["serve", "memory"]
    assert arguments("migrate", image=image) == ["migrate"]
    one = {"services": {"memory": {"image": image}}}
    assert arguments("memory", **one) == ["serve", "memory"]
    assert arguments("gateway", **one) == ["serve", "gateway", f"--release={CURRENT}"]


def test_the_pods_of_0_1_0_are_not_told() -> None:
    assert arguments("memory", version="0.1.0") == ["serve", "memory"]
    assert arguments("migrate", version="0.1.0") == ["migrate"]


def test_a_migration_by_an_image_of_another_release_is_not_tried_again() -> None:
    job = next(body for (kind, _), body in build().items() if kind == "Job")
    rule = job["spec"]["podFailurePolicy"]["rules"][0]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "migrate", "operator": "In", "values": [64, 78]},
    }
    assert all("podFailurePolicy" not in b["spec"] for (k, _), b in build(version="0.1.0").items() if k == "Job")
