"""Helpers for the models: field kinds used more than once, and CEL rules with a sentence each.

A rule's message says what to do, because it is all that a user of `kubectl apply` sees. Bounds that JSON Schema could
express are CEL rules where its own message ("should be greater than or equal to 0") would leave the reader alone.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

RULES = "x-kubernetes-validations"


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return the schema extension for CEL rules, given as (rule, message)."""
    return {RULES: [{"rule": rule, "message": message} for rule, message in pairs]}


class Model(BaseModel):
    """Base of every part of the resource: camelCase outside, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )


QUANTITY = r"^[0-9]{1,12}(\.[0-9]{1,6})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"

Quantity = Annotated[str, Field(pattern=QUANTITY, max_length=24)]
"""A Kubernetes quantity in its plain forms: 250m, 1.5, 512Mi, 10Gi."""

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)]
Labels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)]
EnvValue = Annotated[str, Field(max_length=4096)]
Annotations = Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)]
FreeForm = Annotated[
    dict[str, Any],
    Field(json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""Passed to Kubernetes as it is; its own validation applies."""

SCHEDULE_FORM = r"self.matches('^[0-9A-Za-z*,/#-]+( [0-9A-Za-z*,/#-]+){4}$')"
"""CEL: five fields of a schedule. Whether a calendar knows it, `policies.maintenance` says."""
ZONE_FORM = r"self.matches('^[A-Za-z][-A-Za-z0-9_+]*(/[-A-Za-z0-9_+]+)*$')"
"""CEL: the form of an IANA time zone's name."""

GUIDE = 'docs/guides/install.md, "Moving to another data store"'


def immutable_mode(store: str, how: str) -> tuple[str, str]:
    """Return the rule that a store's mode stays, with the way by which the data move."""
    return (
        "self.mode == oldSelf.mode",
        f"{store}.mode cannot be changed in place, because the data would stay behind: "
        f"make a new installation in another namespace, {how} ({GUIDE})",
    )


NO_SHRINK = (
    "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
    "storage.size cannot shrink, because volumes only grow: set it back to at least the old size",
)
SAME_CLASS = (
    "has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)",
    "storage.className cannot be changed, because a volume keeps its class: set it back",
)
