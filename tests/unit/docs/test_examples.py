"""Examples in the guides are accepted by what they are examples of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hack.gen.values import Schema
from loadtest import plan
from novacore_operator.api.spec import Spec

ROOT = Path(__file__).resolve().parents[3]
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def values_schema(chart: str) -> Schema:
    found: Schema = json.loads((ROOT / "charts" / chart / "values.schema.json").read_text())
    return found


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_yaml_is_a_resource_or_values_of_the_installation(page: Path) -> None:
    for block in blocks(page, "yaml"):
        example: dict[str, Any] = yaml.safe_load(block)
        if example.get("kind") == "NovaCoreDeployment":
            Spec.model_validate(example["spec"])
        else:
            jsonschema.validate(example, values_schema("novacore"))


@pytest.mark.parametrize("page", [*GUIDES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)", "\n".join(re.findall(r"`[^`]*`", page.read_text())))) <= targets


def test_values_set_on_the_command_line_are_declared() -> None:
    for command in re.findall(r"helm install .*?(?=\n\w|\Z)", (ROOT / "docs/guides/install.md").read_text(), re.DOTALL):
        chart = re.search(r"charts/([\w-]+)", command)
        for path in re.findall(r"--set '?([\w.]+)=", command):
            node = values_schema(chart[1]) if chart else {}
            for name in path.split("."):
                node = node["properties"][name]


def test_the_api_guide_shows_the_eight_operations_of_the_load_test() -> None:
    shown = set(re.findall(r"\$URL(/[\w/-]+)", (ROOT / "docs/guides/api.md").read_text()))
    assert {operation.path for operation in plan.OPERATIONS} <= shown
    assert shown <= {operation.path for operation in plan.OPERATIONS} | {"/api/chat/stream"}
