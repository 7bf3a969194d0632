"""Which image runs: of all services, and of one with an image of its own."""

from __future__ import annotations

from typing import Any

import pytest

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
        ({}, "novacore/workloads:0.1.0"),
        ({"tag": "dev-1"}, "novacore/workloads:dev-1"),
        ({"repository": "registry.example.org/w"}, "registry.example.org/w:0.1.0"),
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
