"""The CRD is made from the models, and says what to do."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from novacore_contracts.services import BY_NAME
from novacore_operator.api.crd import custom_resource_definition
from novacore_operator.api.fields import RULES
from novacore_operator.api.generate import files
from novacore_operator.api.spec import Spec

ROOT = Path(__file__).parents[4]


def schema() -> dict[str, Any]:
    """Return the schema of `spec`."""
    version = custom_resource_definition()["spec"]["versions"][0]
    result: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return result


def nodes(node: dict[str, Any], path: str = "spec") -> list[tuple[str, dict[str, Any]]]:
    """Return every node of a schema with its path."""
    found = [(path, node)]
    for name, child in node.get("properties", {}).items():
        found += nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            found += nodes(node[key], f"{path}.*")
    return found


def test_committed_files_are_what_the_models_say() -> None:
    for path, text in files(ROOT).items():
        assert path.read_text() == text, "run: make gen"


def test_every_field_is_described() -> None:
    for path, node in nodes(schema()):
        for name, child in node.get("properties", {}).items():
            assert len(child.get("description", "")) > 9, f"{path}.{name}"


def test_schema_is_structural() -> None:
    for path, node in nodes(schema()):
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "$defs"} & node.keys(), path
        assert "type" in node, path


def test_every_rule_has_a_sentence_that_says_what_to_do() -> None:
    rules = [(path, rule) for path, node in nodes(schema()) for rule in node.get(RULES, ())]
    assert len(rules) >= 40
    for path, rule in rules:
        assert len(rule["message"].split()) >= 6, (path, rule["message"])


def test_defaults_are_in_the_schema_and_nowhere_else() -> None:
    """API-1: what the API server fills in is what the models assume."""

    def fill(node: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        for name, child in node.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = child["default"]
            if isinstance(value.get(name), dict):
                value[name] = fill(child, dict(value[name]))
        return value

    filled = fill(schema(), {"version": "0.1.0"})
    assert Spec.model_validate(filled) == Spec(version="0.1.0")
    assert Spec(version="0.1.0").model_dump(by_alias=True, exclude_none=True) == filled


def test_default_of_an_object_holds_all_its_parts() -> None:
    """The API server checks CEL rules on a default before it fills in nested ones: an empty default is refused."""
    for path, node in nodes(schema()):
        if "default" in node and "properties" in node:
            parts = {name for name, child in node["properties"].items() if "default" in child}
            assert parts == node["default"].keys(), path


@pytest.mark.parametrize("name", list(BY_NAME))
def test_services_are_known_by_name(name: str) -> None:
    rule = schema()["properties"]["services"][RULES][0]
    assert f"'{name}'" in rule["rule"]
    assert name in rule["message"]


@pytest.mark.parametrize("absent", ["monitoring", "backup"])
def test_fields_without_effect_are_refused(absent: str) -> None:
    assert absent not in schema()["properties"]
    with pytest.raises(ValidationError):
        Spec.model_validate({"version": "0.1.0", absent: {}})


def test_printer_columns_are_there() -> None:
    columns = custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if column["priority"] == 0]
    assert shown == ["Ready", "Reason", "Version", "Services", "Postgres", "Secrets", "Age"]
