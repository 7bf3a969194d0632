"""Make the CustomResourceDefinition from the models.

Pydantic writes JSON Schema 2020-12; Kubernetes takes a *structural* schema: no `$ref`, no `anyOf` with null, no titles,
integers of format int64. This module translates, and fails on a field without a description.
"""

from __future__ import annotations

from typing import Any

from novacore_operator.api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from novacore_operator.api.fields import RULES
from novacore_operator.api.spec import Spec
from novacore_operator.api.status import Status

KEPT = (
    "type",
    "format",
    "description",
    "default",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    RULES,
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)

COLUMNS: tuple[tuple[str, str, str, int, str], ...] = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0, "Whether all of it runs as asked."),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0, "Why it is ready or not."),
    ("Version", "string", ".spec.version", 0, "Release of the services."),
    ("Services", "string", ".status.services", 0, "Ready services of all that are enabled."),
    ("Postgres", "string", '.status.conditions[?(@.type=="DataStoresReady")].status', 0, "Whether the stores answer."),
    ("Secrets", "string", '.status.conditions[?(@.type=="SecretsReady")].status', 0, "Whether all keys are in place."),
    ("Progressing", "string", '.status.conditions[?(@.type=="Progressing")].reason', 1, "What is under way."),
    ("Migrations", "string", '.status.conditions[?(@.type=="MigrationsApplied")].status', 1, "Whether schemas fit."),
    ("Profile", "string", ".spec.profile", 1, "Development or Production."),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1, "What is wrong and what to do."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since it was made."),
)


def structural(model: type[Any]) -> dict[str, Any]:
    """Return the structural schema of a model, by the names users write."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    return _node(schema, definitions, path=model.__name__)


def _node(schema: dict[str, Any], definitions: dict[str, Any], *, path: str) -> dict[str, Any]:
    """Translate one node."""
    schema = _resolved(schema, definitions, path=path)
    node = {key: schema[key] for key in KEPT if key in schema}
    if node.get("default", "") is None:
        del node["default"]  # absent is absent: null is not a value of these types
    if "const" in schema:
        node |= {"type": "string", "enum": [schema["const"]]}
    if node.get("type") == "integer":
        node["format"] = "int64"
    if "properties" in schema:
        _add_properties(node, schema["properties"], definitions, path=path)
    elif isinstance(schema.get("additionalProperties"), dict) and "x-kubernetes-preserve-unknown-fields" not in node:
        node["additionalProperties"] = _node(schema["additionalProperties"], definitions, path=f"{path}.*")
    if "items" in schema:
        node["items"] = _node(schema["items"], definitions, path=f"{path}[]")
    return node


def _resolved(schema: dict[str, Any], definitions: dict[str, Any], *, path: str) -> dict[str, Any]:
    """Replace a `$ref` by its target (what stands beside it wins), and `anyOf` with null by its one real option."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        both = {RULES: [*target[RULES], *beside[RULES]]} if RULES in target and RULES in beside else {}
        return _resolved({**target, **beside, **both}, definitions, path=path)
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"{path}: a structural schema cannot say 'one of several types'")
        beside = {key: value for key, value in schema.items() if key != "anyOf"}
        return _resolved({**options[0], **beside}, definitions, path=path)
    return schema


def _add_properties(
    node: dict[str, Any], properties: dict[str, Any], definitions: dict[str, Any], *, path: str
) -> None:
    node["type"] = "object"
    node["properties"] = {name: _field(value, definitions, path=f"{path}.{name}") for name, value in properties.items()}
    if "default" in node:  # in full: the API server checks the rules on it before it fills in the parts' defaults
        node["default"] = {name: part["default"] for name, part in node["properties"].items() if "default" in part}


def _field(schema: dict[str, Any], definitions: dict[str, Any], *, path: str) -> dict[str, Any]:
    node = _node(schema, definitions, path=path)
    if "description" not in node:
        raise ValueError(f"{path} has no description")
    return node


def custom_resource_definition() -> dict[str, Any]:
    """Return the CRD as a manifest."""
    spec = structural(Spec)
    spec["description"] = "The installation you want."
    status = structural(Status)
    status["description"] = "What the operator observed."
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["nova", "novacore"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority, "description": text}
                        for name, kind, path, priority, text in COLUMNS
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "One NovaCore installation: nine services, their data stores and keys. "
                            f"One per namespace. API version {API_VERSION}.",
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string", "description": "Version of this schema."},
                                "kind": {"type": "string", "description": f"Always {KIND}."},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                            RULES: [
                                {
                                    "rule": "size(self.metadata.name) <= 63",
                                    "message": "metadata.name must be 63 characters or fewer: it becomes a label",
                                }
                            ],
                        }
                    },
                }
            ],
        },
    }
