"""The table of CEL cases fits the CRD: a rule without a case, or a case without a rule, is a fault."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from novacore_operator.api.crd import custom_resource_definition
from tests.api.cel_cases import CASES, Case, rules_of

SCHEMA: dict[str, Any] = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


ALL_RULES = list(rules_of(SCHEMA))


def strict(node: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with unknown fields refused, as `kubectl apply` does."""
    node = copy.copy(node)
    if "properties" in node:
        node["properties"] = {name: strict(child) for name, child in node["properties"].items()}
        node.setdefault("additionalProperties", False)
    elif isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = strict(node["additionalProperties"])
    if "items" in node:
        node["items"] = strict(node["items"])
    return node


SPEC = Draft202012Validator(strict(SCHEMA["properties"]["spec"]))


@pytest.mark.parametrize(("path", "rule"), ALL_RULES, ids=[f"{path}: {rule['message']}" for path, rule in ALL_RULES])
def test_a_rule_has_exactly_one_case(path: str, rule: dict[str, str]) -> None:
    found = [case for case in CASES if case.path == path and case.says in rule["message"]]
    assert len(found) == 1, f"tests/api/cel_cases.py needs one case for {path!r}: {rule['message']!r}"
    assert found[0].is_transition == ("oldSelf" in rule["rule"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_belongs_to_one_rule(case: Case) -> None:
    assert sum(case.path == path and case.says in rule["message"] for path, rule in ALL_RULES) == 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_only_a_rule_can_refuse_a_case(case: Case) -> None:
    """Types, patterns, enums and unknown fields are no part of it: the API server would not come to the rules."""
    for spec in (case.accepted, case.refused, *([case.old] if case.old is not None else [])):
        assert [error.message for error in SPEC.iter_errors(spec)] == []


def test_there_are_as_many_rules_as_promised() -> None:
    assert len({rule["message"] for _, rule in ALL_RULES}) >= 40
