"""Which fields of an object a field manager owns, where they are in its body, and how somebody might change them.

Read from `metadata.managedFields` as KEP-555 writes them (`f:` field, `k:` item of a keyed list, `v:` item of a set);
written apart from the product's own reading of them, which is under test here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.kit.api import Manifest

MANAGER = "novacore-operator"
NAMED = ("Secret", "ConfigMap")
MISSING = object()

Step = tuple[str, Any]
"""("f", name), ("k", keys of a list's item) or ("v", value in a set)."""


@dataclass(frozen=True, slots=True)
class Field:
    """A leaf field of one object that a manager owns."""

    kind: str
    namespace: str
    name: str
    steps: tuple[Step, ...]

    @property
    def path(self) -> str:
        """The path with list keys collapsed: `spec.template.spec.containers[].image`."""
        text = ""
        for sort, value in self.steps:
            text += f".{value}" if sort == "f" else "[]"
        return text.removeprefix(".")

    @property
    def pair(self) -> tuple[str, str]:
        """What the matrix counts: (kind, path), and of data the object too, because each holds something else."""
        is_data = self.kind in NAMED and self.steps[0] == ("f", "data")
        return (f"{self.kind} {self.name}" if is_data else self.kind), self.path

    @property
    def target(self) -> tuple[Step, ...]:
        """What a change is made of. A key of a list's item stands for the item: to rename it is to take it out."""
        is_key = len(self.steps) > 1 and self.steps[-2][0] == "k" and self.steps[-1][1] in self.steps[-2][1]
        return self.steps[:-1] if is_key else self.steps

    def value(self, body: Manifest) -> Any:
        """Return the field's value in a body, or MISSING."""
        found = pointer(body, self.steps)
        return MISSING if found is None else found[1]


def owned_fields(body: Manifest, manager: str = MANAGER) -> Iterator[Field]:
    """Yield the leaf fields that a manager owns by server-side apply."""
    metadata = body["metadata"]
    for entry in metadata.get("managedFields", ()):
        if entry["manager"] == manager and entry["operation"] == "Apply" and not entry.get("subresource"):
            for steps in _leaves(entry["fieldsV1"], ()):
                yield Field(body["kind"], metadata.get("namespace", ""), metadata["name"], steps)


def _leaves(tree: dict[str, Any], steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    inner = {key: sub for key, sub in tree.items() if key != "."}
    if not inner:
        yield steps
    for key, sub in inner.items():
        sort, _, text = key.partition(":")
        yield from _leaves(sub, (*steps, (sort, text if sort == "f" else json.loads(text))))


def pointer(body: Any, steps: tuple[Step, ...]) -> tuple[str, Any] | None:
    """Return the JSON pointer of a path in a body, and the value there; None where it leads nowhere."""
    path, value = "", body
    for sort, wanted in steps:
        if sort == "f":
            if not isinstance(value, dict) or wanted not in value:
                return None
            path, value = f"{path}/{wanted.replace('~', '~0').replace('/', '~1')}", value[wanted]
            continue
        index = _index(value, sort, wanted)
        if index is None:
            return None
        path, value = f"{path}/{index}", value[index]
    return path, value


def _index(items: Any, sort: str, wanted: Any) -> int | None:
    for number, item in enumerate(items or ()):
        if sort == "v" and item == wanted:
            return number
        # A key that has a default may be absent in the body: protocol TCP.
        if sort == "k" and all(item.get(key, value) == value for key, value in wanted.items()):
            return number
    return None


SWAPS = {
    "IfNotPresent": "Always",
    "ClusterIP": "NodePort",
    "NodePort": "ClusterIP",
    "TCP": "UDP",
    "Never": "OnFailure",
    "RuntimeDefault": "Unconfined",
    "RollingUpdate": "Recreate",
    "Retain": "Delete",
    "Delete": "Retain",
    "ScheduleAnyway": "DoNotSchedule",
    "NoSchedule": "NoExecute",
    "Equal": "Exists",
    "HTTP": "HTTPS",
    "OrderedReady": "Parallel",
    "ReadWriteOnce": "ReadWriteMany",
}


def changes(field: Field, body: Manifest) -> Iterator[list[Manifest]]:
    """Yield JSON patches that change a field, the most natural one first, its removal last."""
    found = pointer(body, field.target)
    assert found is not None, f"{field} is not in the object"
    path, value = found
    if field.target == field.steps and field.steps[-1][0] == "f":
        for other in _others(value, secret=field.kind == "Secret" and field.steps[0] == ("f", "data")):
            yield [{"op": "replace", "path": path, "value": other}]
    yield [{"op": "remove", "path": path}]


def _others(value: Any, *, secret: bool) -> list[Any]:
    if secret:
        return [base64.b64encode(b"changed").decode()]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, list):
        return [[*value, *value[:1]], value[:-1], ["changed"]]
    if isinstance(value, dict):
        return [{**value, "changed": "x"}, {}]
    if value in SWAPS:
        return [SWAPS[value]]
    quantity = re.fullmatch(r"(\d+)([a-zA-Z]*)", str(value))
    if quantity:
        return [f"{int(quantity[1]) + 1}{quantity[2]}", f"{value}x"]
    return [f"{value}-changed", f"{value}x"]
