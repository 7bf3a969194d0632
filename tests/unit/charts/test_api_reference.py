"""docs/reference/api.md names every field, its default and every sentence with which a value is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hack.gen.api import page
from novacore_operator.api.crd import custom_resource_definition
from novacore_operator.api.fields import RULES

SCHEMA: dict[str, Any] = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
PAGE = page(SCHEMA)


def walk(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and schema of every field, and of the items of maps and lists under an empty name."""
    for name, child in node.get("properties", {}).items():
        yield name, child
        yield from walk(child)
    for key in ("additionalProperties", "items"):
        if isinstance(node.get(key), dict):
            yield "", node[key]
            yield from walk(node[key])


FIELDS = [found for part in ("spec", "status") for found in walk(SCHEMA["properties"][part])]


def test_every_field_is_named_and_described() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for name, node in FIELDS:
        if name:
            text = node["description"].replace("|", "\\|")
            assert any(name in row and text in row for row in rows), name


def test_every_sentence_of_a_rule_is_there() -> None:
    for node in [SCHEMA, *(node for _, node in FIELDS)]:
        for rule in node.get(RULES, ()):
            assert f"▸ {rule['message']}" in PAGE


def test_a_field_stands_under_its_path_with_type_default_and_rule() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| `<name>.autoscaling.targetCPUUtilization`"))
    assert "| integer | `80` |" in row
    assert "▸ autoscaling.targetCPUUtilization must be 10 to 100, in percent" in row


def test_a_field_that_must_be_given_is_bold() -> None:
    assert "| **`version`** | string |" in PAGE
    assert "| **`<name>.autoscaling.maxReplicas`** |" in PAGE


def test_links_to_sections_have_a_target() -> None:
    targets = {line.lstrip("# ").replace(".", "").lower() for line in PAGE.splitlines() if line.startswith("#")}
    links = {part.split(")")[0] for part in PAGE.split("](#")[1:]}
    assert links <= targets


def test_a_bar_in_a_pattern_does_not_end_the_cell() -> None:
    node = {
        "type": "object",
        "description": "D.",
        "properties": {"a": {"type": "string", "pattern": "x|y", "description": "p|q"}},
    }
    schema = {"description": "R.", "properties": {"spec": node, "status": node}}
    assert "| `a` | string |  | p\\|q (matches `x\\|y`) |" in page(schema)
