"""docs/reference/api.md: every field of the resource, its type, default, meaning and rules, from the CRD."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from hack.gen.values import Schema
from novacore_operator.api import API_VERSION, KIND
from novacore_operator.api.crd import COLUMNS, custom_resource_definition
from novacore_operator.api.fields import RULES

OPEN = "x-kubernetes-preserve-unknown-fields"
BOUNDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
    "pattern": "matches `{}`",
}
HEAD = ["| field | type | default | meaning |", "|---|---|---|---|"]


def files(root: Path) -> dict[Path, str]:
    """Return the page."""
    version = custom_resource_definition()["spec"]["versions"][0]
    return {root / "docs/reference/api.md": page(version["schema"]["openAPIV3Schema"])}


def page(schema: Schema) -> str:
    """Return the page for the schema of the whole resource."""
    lines = [
        "<!-- written by hack/gen/api.py; run: make gen -->",
        f"# {KIND}",
        "",
        f"`apiVersion: {API_VERSION}`, `kind: {KIND}`, short names `nova` and `novacore`. {schema['description']}",
        "",
        "`<name>` stands for a key of a map, `[]` for an item of a list. A field in bold must be given. The sentences "
        "after a triangle (▸) are what the API server answers when it refuses a value.",
        "",
        *(f"▸ {rule['message']}" for rule in schema.get(RULES, ())),
        "",
        *_part("spec", schema["properties"]["spec"]),
        *_part("status", schema["properties"]["status"]),
        *_columns(),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _part(name: str, node: Schema) -> Iterator[str]:
    """Yield a section for the plain fields of a part, then one for each field that has fields of its own."""
    required = node.get("required", ())
    children = node["properties"]
    groups = {field: child for field, child in children.items() if any(True for _ in _below(child, field))}
    yield from (f"## {name}", "", node["description"], "", *HEAD)
    for field, child in children.items():
        if field in groups:
            yield _row(field, child, required=field in required, link=f"{name}.{field}")
        else:
            yield _row(field, child, required=field in required)
    yield ""
    for field, child in groups.items():
        yield from (f"### {name}.{field}", "", child["description"], "")
        for rule in child.get(RULES, ()):
            yield f"- ▸ {rule['message']}"
        if child.get(RULES):
            yield ""
        yield from HEAD
        yield from (_row(path, inner, required=needed) for path, inner, needed in _below(child, ""))
        yield ""


def _below(node: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Yield path, schema and whether it must be given, of every field below a node."""
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, child, name in required
        yield from _below(child, here)
    for key, mark in (("additionalProperties", "<name>"), ("items", "[]")):
        inner = node.get(key)
        if isinstance(inner, dict) and ("properties" in inner or RULES in inner):
            here = f"{path}[]" if mark == "[]" else f"{path}.{mark}".lstrip(".")
            if RULES in inner:
                yield here, inner, False
            yield from _below(inner, here)


def _row(path: str, node: Schema, *, required: bool, link: str = "") -> str:
    name = f"**`{path}`**" if required else f"`{path}`"
    if link:
        return f"| {name} | {_type(node)} | | {_text(node)} See [below](#{link.replace('.', '').lower()}). |"
    parts = [_text(node), *(f"▸ {_cell(rule['message'])}" for rule in node.get(RULES, ()))]
    default = f"`{_cell(json.dumps(node['default']))}`" if "default" in node and "properties" not in node else ""
    return f"| {name} | {_type(node)} | {default} | {'<br>'.join(part for part in parts if part)} |"


def _text(node: Schema) -> str:
    """Return the description, and the bounds that the schema itself states."""
    bounds = _bounds(node)
    inner = node.get("additionalProperties", node.get("items"))
    if isinstance(inner, dict) and "properties" not in inner:
        bounds += [f"each {bound}" for bound in _bounds(inner)]
    said = _cell(node.get("description", ""))
    return f"{said} ({', '.join(bounds)})" if bounds else said


def _bounds(node: Schema) -> list[str]:
    found = [text.format(_cell(str(node[key]))) for key, text in BOUNDS.items() if key in node]
    return ["not empty" if bound == BOUNDS["minLength"].format(1) else bound for bound in found]


def _type(node: Schema) -> str:
    """Return the type in words."""
    if "enum" in node:
        return " or ".join(f"`{word}`" for word in node["enum"])
    if node.get(OPEN):
        return "object, as in Kubernetes"
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of string to {_type(node['additionalProperties'])}"
    return str(node.get("format") if node.get("format") == "date-time" else node["type"])


def _cell(text: str) -> str:
    """Return text that does not end a table's cell."""
    return text.replace("|", "\\|")


def _columns() -> Iterator[str]:
    """Yield the section on what `kubectl get` shows."""
    yield from ("## Columns of `kubectl get nova`", "", "| column | shown | meaning |", "|---|---|---|")
    for name, _, _, priority, text in COLUMNS:
        yield f"| {name} | {'always' if priority == 0 else 'with `-o wide`'} | {text} |"
