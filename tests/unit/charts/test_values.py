"""Both charts: each declared value is used, an unknown one is refused, and the schemas are strict and described."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.unit.charts.conftest import (
    OPERATOR,
    PLATFORM,
    Helm,
    HelmError,
    closed_objects,
    leaves,
    merged,
    nested,
    schema,
)

DIGEST = "sha256:" + "0" * 64
SAMPLES: dict[str, Any] = {
    "image.digest": DIGEST,
    "podDisruptionBudget.maxUnavailable": 2,
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "networkPolicy.metricsFrom": [{"podSelector": {}}],
    "podSecurityContext": {"runAsUser": 7},
    "securityContext": {"runAsUser": 7},
    "resources.requests": {"cpu": "9m"},
    "resources.limits": {"cpu": "9m"},
    "affinity": {"nodeAffinity": {}},
}
"""Values of the operator's chart for which a word or a list of words will not do."""


def operator_leaves() -> list[Any]:
    return [pytest.param(path, field, id=".".join(path)) for path, field in leaves(schema(OPERATOR))]


def other_value(path: tuple[str, ...], field: dict[str, Any]) -> Any:
    """Return a valid value that is not the default."""
    name = ".".join(path)
    if name in SAMPLES:
        return SAMPLES[name]
    if "enum" in field:
        return next(word for word in field["enum"] if word != field["default"])
    match field["type"]:
        case "boolean":
            return not field["default"]
        case "integer":
            return field["default"] + 1
        case "array":
            return ["sample"]
        case "object":
            return {"example.test/sample": "sample"}
        case _:
            return "sample"


@pytest.mark.parametrize(("path", "field"), operator_leaves())
def test_each_value_of_the_operators_chart_changes_what_is_rendered(
    helm: Helm, path: tuple[str, ...], field: dict[str, Any]
) -> None:
    changed = nested(path, other_value(path, field))
    if path == ("serviceAccount", "create"):
        changed = merged(changed, nested(("serviceAccount", "name"), "sample"))
    assert helm.text(OPERATOR, changed) != helm.text(OPERATOR, {})


@pytest.mark.parametrize("chart", [OPERATOR, PLATFORM], ids=lambda chart: chart.name)
def test_each_value_that_a_template_reads_is_declared(chart: Path) -> None:
    declared = yaml.safe_load((chart / "values.yaml").read_text())
    for template in sorted((chart / "templates").iterdir()):
        for path in re.findall(r"\.Values((?:\.\w+)+)", template.read_text()):
            found = declared
            for name in path.strip(".").split("."):
                assert name in found, f"{template.name} reads .Values{path}, which values.yaml does not declare"
                found = found[name]


def unknown_keys() -> list[Any]:
    return [
        pytest.param(chart, path, id=f"{chart.name}:{'.'.join(path) or '(top)'}")
        for chart in (OPERATOR, PLATFORM)
        for path in closed_objects(schema(chart))
    ]


@pytest.mark.parametrize(("chart", "path"), unknown_keys())
def test_an_unknown_key_is_against_the_schema_at_every_level(chart: Path, path: tuple[str, ...]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="nonsense"):
        jsonschema.validate(nested((*path, "nonsense"), 1), schema(chart))


@pytest.mark.parametrize(
    ("chart", "path"),
    [(OPERATOR, ()), (OPERATOR, ("image",)), (PLATFORM, ()), (PLATFORM, ("services", "memory", "resources"))],
    ids=str,
)
def test_helm_refuses_an_unknown_key(helm: Helm, chart: Path, path: tuple[str, ...]) -> None:
    with pytest.raises(HelmError, match=r"additional properties 'nonsense' not allowed"):
        helm.text(chart, nested((*path, "nonsense"), 1))


@pytest.mark.parametrize("chart", [OPERATOR, PLATFORM], ids=lambda chart: chart.name)
def test_every_value_is_described_and_every_object_closed_or_free_on_purpose(chart: Path) -> None:
    document = schema(chart)
    assert document["additionalProperties"] is False
    for path in closed_objects(document):
        node = document
        for name in path:
            node = node["properties"][name]
        assert node["additionalProperties"] is False, path
        for name, field in node["properties"].items():
            assert field.get("description", "").strip(), (*path, name)
    for path, field in leaves(document):
        if field["type"] == "object":
            assert "additionalProperties" in field, path


@pytest.mark.parametrize("chart", [OPERATOR, PLATFORM], ids=lambda chart: chart.name)
def test_helm_lint_finds_nothing(helm: Helm, chart: Path) -> None:
    done = subprocess.run([helm.binary, "lint", "--strict", str(chart)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("chart", [OPERATOR, PLATFORM], ids=lambda chart: chart.name)
def test_a_chart_may_be_a_dependency_of_another(helm: Helm, chart: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    (parent / "charts").mkdir(parents=True)
    (parent / "Chart.yaml").write_text("apiVersion: v2\nname: parent\nversion: 1.0.0\n")
    (parent / "charts" / chart.name).symlink_to(chart)
    assert helm.render(parent, {"global": {"anything": 1}})
