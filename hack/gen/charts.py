"""Generated files of both charts: values schemas, README tables, the installation's values, the operator's rights."""

from __future__ import annotations

import json
from pathlib import Path

from hack.gen import resource, table, values
from hack.gen.values import Schema
from novacore_operator.api.crd import custom_resource_definition

OPERATOR_TITLE = "Values of chart novacore-operator"
PLATFORM_TITLE = "Values of chart novacore"


def files(root: Path) -> dict[Path, str]:
    """Return path and text of every generated file of the charts."""
    operator, platform = root / "charts/novacore-operator", root / "charts/novacore"
    operator_schema = values.schema_of((operator / "values.yaml").read_text(), OPERATOR_TITLE)
    fields = resource.properties(custom_resource_definition())
    platform_schema = values.document(fields, PLATFORM_TITLE)
    return {
        operator / "values.schema.json": _json(operator_schema),
        operator / "README.md": table.fill((operator / "README.md").read_text(), operator_schema),
        platform / "values.schema.json": _json(platform_schema),
        platform / "values.yaml": resource.values_yaml(fields),
        platform / "README.md": table.fill((platform / "README.md").read_text(), platform_schema),
    }


def _json(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
