"""The installation's chart: one resource, whose spec is what the operator's own models accept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from novacore_contracts.releases import CURRENT
from novacore_contracts.services import BY_NAME, GATEWAY_NODE_PORT
from novacore_operator.api.spec import Spec
from tests.unit.charts.conftest import PLATFORM, ROOT, Helm, HelmError, named, one, values_files

COMMITTED = [ROOT / "loadtest/values-load.yaml", ROOT / "hack/demo/values-kind.yaml"]


def spec(helm: Helm, values: dict[str, Any] | None = None, *, file: Path | None = None) -> dict[str, Any]:
    (found,) = helm.render(PLATFORM, values, file=file)
    assert found["kind"] == "NovaCoreDeployment"
    assert found["apiVersion"] == "novacore.ai/v1alpha1"
    rendered: dict[str, Any] = found["spec"]
    return rendered


@pytest.mark.parametrize("file", [*values_files(PLATFORM), *COMMITTED], ids=named)
def test_the_operators_models_accept_the_spec(helm: Helm, file: Path | None) -> None:
    Spec.model_validate(spec(helm, file=file))


def test_the_defaults_are_those_of_the_api(helm: Helm) -> None:
    assert Spec.model_validate(spec(helm)) == Spec(version=CURRENT)


def test_every_field_of_the_api_is_a_value_under_the_same_name(helm: Helm) -> None:
    declared = yaml.safe_load((PLATFORM / "values.yaml").read_text())
    fields = {field.alias or name for name, field in Spec.model_fields.items()}
    assert set(declared) - {"name", "commonLabels", "annotations"} == fields
    assert set(spec(helm)) == fields


def test_values_reach_the_spec_as_they_are(helm: Helm) -> None:
    file = PLATFORM / "ci/production-values.yaml"
    given = yaml.safe_load(file.read_text())
    found = spec(helm, file=file)
    assert found["services"] == given["services"]
    assert found["image"] | given["image"] == found["image"]
    assert found["models"]["llm"] | given["models"]["llm"] == found["models"]["llm"]


def test_large_numbers_stay_whole(helm: Helm) -> None:
    found = spec(helm, {"tiers": {"pro": {"tokensPerDay": 123456789012}}, "limits": {"anonPerMinute": 1000000}})
    assert found["tiers"]["pro"]["tokensPerDay"] == 123456789012
    assert found["limits"]["anonPerMinute"] == 1000000
    assert isinstance(found["limits"]["anonPerMinute"], int)


def test_a_version_is_a_string_even_when_it_looks_like_a_number(helm: Helm) -> None:
    assert spec(helm, {"version": "2.10"})["version"] == "2.10"


def test_an_unknown_service_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmError, match="additional properties 'gatewy' not allowed"):
        spec(helm, {"services": {"gatewy": {"replicas": 1}}})
    all_nine = {name: {"replicas": 1} for name in BY_NAME}
    assert spec(helm, {"services": all_nine})["services"] == all_nine


@pytest.mark.parametrize(
    "values",
    [
        {"profile": "Staging"},
        {"expose": {"nodePort": "30500"}},
        {"postgres": {"storage": {"size": "five"}}},
        {"paused": "yes"},
        {"services": []},
        {"name": "Nova Core"},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_refused(helm: Helm, values: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match="values don't meet the specifications of the schema"):
        spec(helm, values)


def test_the_resource_is_named_and_labelled(helm: Helm) -> None:
    found = one(
        helm.render(PLATFORM, {"name": "mine", "commonLabels": {"a": "b"}, "annotations": {"c": "d"}}),
        "NovaCoreDeployment",
    )
    assert found["metadata"]["name"] == "mine"
    assert found["metadata"]["labels"]["a"] == "b"
    assert found["metadata"]["annotations"] == {"c": "d"}


def test_the_kind_values_use_the_port_that_the_cluster_maps(helm: Helm) -> None:
    expose = spec(helm, file=ROOT / "hack/demo/values-kind.yaml")["expose"]
    assert expose["type"] == "NodePort"
    assert expose.get("nodePort", GATEWAY_NODE_PORT) == GATEWAY_NODE_PORT


def test_the_load_values_use_the_echo_model_and_no_limit_that_the_load_meets(helm: Helm) -> None:
    found = Spec.model_validate(spec(helm, file=ROOT / "loadtest/values-load.yaml"))
    assert found.models.llm.provider == "echo"
    assert found.tiers.free_trial.tokens_per_day == -1
    assert found.limits.auth_per_minute >= 2 * 500  # a registration and a log-in of the most users the load test takes
