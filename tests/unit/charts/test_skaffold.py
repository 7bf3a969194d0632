"""skaffold.yaml cannot be run everywhere, so what it names is checked against the files that it names."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from hack.demo.kube import OPERATOR_NAMESPACE
from tests.unit.charts.conftest import ROOT, schema


@pytest.fixture(scope="module")
def skaffold() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    return found


def releases(skaffold: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {release["name"]: release for release in skaffold["deploy"]["helm"]["releases"]}


def test_every_image_has_its_dockerfile_and_its_files_in_the_context(skaffold: dict[str, Any]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for artifact in skaffold["build"]["artifacts"]:
        dockerfile = ROOT / artifact["context"] / artifact["docker"]["dockerfile"]
        copies = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.MULTILINE)
        for source in " ".join(copies).split():
            assert (ROOT / artifact["context"] / source).exists(), f"{dockerfile}: {source}"
            assert f"!{source.split('/')[0]}" in ignored, f".dockerignore hides {source}"


def test_images_are_the_charts_default_ones(skaffold: dict[str, Any]) -> None:
    built = {artifact["image"] for artifact in skaffold["build"]["artifacts"]}
    deployed = set()
    for release in releases(skaffold).values():
        image = schema(ROOT / release["chartPath"])["properties"]["image"]["properties"]
        deployed.add(image["repository"]["default"])
    assert built == deployed


def test_releases_are_those_of_the_demo(skaffold: dict[str, Any]) -> None:
    found = {name: (release["chartPath"], release["namespace"]) for name, release in releases(skaffold).items()}
    assert found == {
        "novacore-operator": ("charts/novacore-operator", OPERATOR_NAMESPACE),
        "novacore": ("charts/novacore", "novacore"),
    }


def test_charts_and_values_files_exist_and_values_are_declared(skaffold: dict[str, Any]) -> None:
    for release in releases(skaffold).values():
        assert (ROOT / release["chartPath"] / "Chart.yaml").is_file()
        for file in release.get("valuesFiles", []):
            assert (ROOT / file).is_file()
        for path in release["setValueTemplates"]:
            node = schema(ROOT / release["chartPath"])
            for name in path.split("."):
                node = node["properties"][name]


def test_each_release_takes_repository_and_tag_of_its_own_image(skaffold: dict[str, Any]) -> None:
    own = {"novacore-operator": "novacore_operator", "novacore": "novacore_workloads"}
    for name, release in releases(skaffold).items():
        assert release["setValueTemplates"] == {
            "image.repository": f"{{{{.IMAGE_REPO_{own[name]}}}}}",
            "image.tag": f"{{{{.IMAGE_TAG_{own[name]}}}}}",
        }


def test_the_version_is_the_same_everywhere() -> None:
    versions = {
        tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]["version"]
        for member in (".", "contracts", "operator", "workloads")
    }
    versions |= {
        yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())["version"]
        for chart in ("novacore-operator", "novacore")
    }
    assert len(versions) == 1
