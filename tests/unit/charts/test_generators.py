"""The generators of schemas and tables refuse what they cannot describe."""

from __future__ import annotations

import pytest

from hack.gen import resource, table
from hack.gen.values import ValuesError, schema_of

GOOD = """\
# Top.
top:
  # A port.
  # @schema {"minimum": 1}
  port: 5
  # Words
  # on two lines.
  words: [a]
# Free.
# @schema {"additionalProperties": {"type": "string"}}
free: {}
"""


def test_a_comment_becomes_the_description_and_a_default_the_type() -> None:
    top = schema_of(GOOD, "t")["properties"]["top"]
    assert top["additionalProperties"] is False
    assert top["properties"]["port"] == {"description": "A port.", "type": "integer", "default": 5, "minimum": 1}
    assert top["properties"]["words"]["description"] == "Words on two lines."


def test_a_free_mapping_is_free_only_when_said() -> None:
    assert schema_of(GOOD, "t")["properties"]["free"]["additionalProperties"] == {"type": "string"}


@pytest.mark.parametrize("text", ["a: 1\n", "# A.\na:\n  b: 1\n", "# A.\n\na: 1\n"])
def test_a_value_without_a_comment_is_refused(text: str) -> None:
    with pytest.raises(ValuesError, match="has no comment above it"):
        schema_of(text, "t")


def test_a_default_of_no_type_is_refused() -> None:
    with pytest.raises(ValuesError, match="has a default of type NoneType"):
        schema_of("# A.\na:\n", "t")


def test_rules_of_the_api_server_stay_there_and_fields_are_closed() -> None:
    node = {
        "type": "object",
        "description": "D.",
        "x-kubernetes-validations": [{"rule": "true"}],
        "properties": {"n": {"type": "integer", "format": "int64", "description": "N."}},
    }
    assert resource.convert(node) == {
        "type": "object",
        "description": "D.",
        "additionalProperties": False,
        "properties": {"n": {"type": "integer", "description": "N."}},
    }


def test_a_table_has_a_row_per_value_and_escapes_its_separator() -> None:
    document = {"properties": {"a": {"type": "string", "enum": ["x", "y"], "default": "x", "description": "p|q"}}}
    assert table.markdown(document).splitlines()[2] == '| `a` | `x` \\| `y` | `"x"` | p\\|q |'


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(table.MarksError):
        table.fill("# Title\n", {"properties": {}})
