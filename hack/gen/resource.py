"""The resource's spec, from the CRD, as a chart's values: a strict JSON schema and a commented values.yaml."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

from hack.gen.values import COMMENT, Schema
from novacore_contracts.services import BY_NAME

KEPT = ("type", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "required")
OPEN = "x-kubernetes-preserve-unknown-fields"
WIDTH = 110
PLAIN = re.compile(r"[A-Za-z][-\w./]*(:\w[-\w.]*)?")
RESERVED = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""Words that YAML 1.1 reads as something else than a string."""

OWN: dict[str, Schema] = {
    "name": {
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "default": "novacore",
        "description": "Name of the NovaCoreDeployment. There is one per namespace.",
    },
    "commonLabels": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "default": {},
        "description": "Extra labels of the resource.",
    },
    "annotations": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "default": {},
        "description": "Annotations of the resource.",
    },
}
"""Values of the chart itself; every other one is a field of the spec."""


def properties(crd: dict[str, Any]) -> dict[str, Schema]:
    """Return the schema of each value: the chart's own, then the fields of the resource's spec."""
    fields = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    converted = {name: convert(field) for name, field in fields.items()}
    converted["version"] |= {
        "default": "",
        "description": f"{fields['version']['description']} Empty: the chart's appVersion.",
    }
    service = fields["services"]["additionalProperties"]
    converted["services"] = {
        "description": fields["services"]["description"],
        "type": "object",
        "default": {},
        "additionalProperties": False,
        "properties": {name: convert(service) | {"description": f"Settings of {name}."} for name in BY_NAME},
    }
    return {**OWN, **converted}


def convert(node: dict[str, Any]) -> Schema:
    """Return a node of a structural schema as strict JSON schema: no unknown field where fields are listed.

    CEL rules stay with the API server: it answers with the rule's own sentence.
    """
    schema: Schema = {}
    if "description" in node:
        schema["description"] = node["description"]
    schema |= {key: node[key] for key in KEPT if key in node}
    if "default" in node:
        schema["default"] = node["default"]
    if "properties" in node:
        schema["additionalProperties"] = False
        schema["properties"] = {name: convert(field) for name, field in node["properties"].items()}
    elif node.get(OPEN):
        schema["additionalProperties"] = True
    elif "additionalProperties" in node:
        schema["additionalProperties"] = convert(node["additionalProperties"])
    if "items" in node:
        schema["items"] = convert(node["items"])
    return schema


def values_yaml(schemas: dict[str, Schema]) -> str:
    """Return a values.yaml with every field, its description and its default; what has no default is a comment."""
    head = (
        f"# {COMMENT}\n"
        "# All values but name, commonLabels and annotations are fields of the spec of a NovaCoreDeployment.\n"
        "# A field that is shown as a comment has no default: absent means what its description says.\n\n"
    )
    return head + "\n\n".join("\n".join(_lines(name, schema, 0)) for name, schema in schemas.items()) + "\n"


def _lines(name: str, schema: Schema, depth: int) -> list[str]:
    """Return the lines of one value: its comment, then the key with its default or, without one, as a comment."""
    pad = "  " * depth
    fields = schema.get("properties", {})
    text = schema.get("description", "")
    if len(schema.get("enum", ())) > 1:
        text += f" One of: {', '.join(schema['enum'])}."
    if fields and "default" not in schema:
        text += f" Fields: {', '.join(_paths(fields))}."
    wrapped = textwrap.wrap(text, WIDTH - len(pad), break_on_hyphens=False)
    lines = [f"{pad}# {line}" for line in wrapped]
    if "default" not in schema:
        empty = "{}" if fields else f"<{schema.get('type', 'any')}>"
        return [*lines, f"{pad}# {name}: {empty}"]
    if not fields or name == "services":
        return [*lines, f"{pad}{name}: {_scalar(schema['default'])}"]
    inner = [line for field, value in fields.items() for line in _lines(field, value, depth + 1)]
    holds_values = any(not line.lstrip().startswith("#") for line in inner)
    return [*lines, f"{pad}{name}:{'' if holds_values else ' {}'}", *inner]


def _paths(fields: dict[str, Schema], prefix: str = "") -> list[str]:
    """Return the dotted names of all leaves."""
    found: list[str] = []
    for name, field in fields.items():
        inner = field.get("properties", {})
        found += _paths(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def _scalar(value: Any) -> str:
    """Return a value as YAML on one line; a plain word needs no quotes."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value not in RESERVED:
        return value
    return json.dumps(value)
