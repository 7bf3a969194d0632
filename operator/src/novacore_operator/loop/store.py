"""The NovaCoreDeployments, as kopf's watch and our own status writes show them.

Kept as text, a quarter of what their values take: a thousand of them are 20 MiB less. The last few that were asked for
are kept as values too.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from novacore_operator.api.spec import Spec
from novacore_operator.policies import Finding
from novacore_operator.reasons import Reason
from novacore_operator.rotation.triggers import ANNOTATIONS
from novacore_operator.state import Nova

Key = tuple[str, str]
READ_MAX = 16
"""How many resources are kept as values: about those that workers hold at once."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """One resource."""

    uid: str
    generation: int
    created: str
    version: int
    spec: bytes = field(repr=False)  # JSON
    status: bytes = field(repr=False)  # JSON
    asked: tuple[tuple[str, str, str], ...] = ()  # annotation, value, who wrote it

    def read(self, key: Key) -> Nova:
        return Nova(
            name=key[1],
            namespace=key[0],
            uid=self.uid,
            generation=self.generation,
            created=self.created,
            version=self.version,
            spec=Spec.model_validate_json(self.spec),
            status=json.loads(self.status),
            asked={name: value for name, value, _ in self.asked},
            askers={name: who for name, _, who in self.asked},
        )


class Store:
    """All resources by key. A spec that does not parse is kept as a finding, so that a condition can say so."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, _Kept]] = {}  # by namespace, by name
        self._invalid: dict[Key, Finding] = {}
        self._read: OrderedDict[Key, Nova] = OrderedDict()

    def put(self, body: dict[str, Any]) -> bool:
        """Take in a resource; return whether its spec (its generation), or what a person asks for, is new.

        An older version changes nothing.

        Not even one of a namesake that is gone: kopf hands the events of two uids over in any order.
        """
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        before = self._find(key)
        version = int(metadata["resourceVersion"])
        if before is not None and before.version >= version:
            return False
        self._invalid.pop(key, None)
        spec = _text(body.get("spec") or {})
        try:
            Spec.model_validate_json(spec)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            self._invalid[key] = Finding(
                Reason.SPEC_INVALID,
                f"spec.{where}: {first['msg']}: the CRD and the operator are of different versions; "
                "upgrade the operator's chart with its CRD",
            )
            raw = body.get("spec") or {}
            mode = "Plan" if raw.get("mode") == "Plan" else "Apply"
            spec = _text({"version": "0.0.0", "mode": mode, "paused": raw.get("paused") is True})
        self._read.pop(key, None)
        self._kept.setdefault(key[0], {})[key[1]] = _Kept(
            uid=metadata["uid"],
            generation=int(metadata["generation"]),
            created=metadata["creationTimestamp"],
            version=version,
            spec=spec,
            status=_text(body.get("status") or {}),
            asked=_asked(metadata),
        )
        same = before is not None and (before.uid, before.generation) == (metadata["uid"], int(metadata["generation"]))
        return not same or before is None or before.asked != self._kept[key[0]][key[1]].asked

    def drop(self, key: Key, uid: str) -> bool:
        """Take out a deleted resource; return whether it was there."""
        kept = self._find(key)
        if kept is None or kept.uid != uid:
            return False
        del self._kept[key[0]][key[1]]
        if not self._kept[key[0]]:
            del self._kept[key[0]]
        self._invalid.pop(key, None)
        self._read.pop(key, None)
        return True

    def get(self, key: Key) -> Nova | None:
        """Return one resource."""
        kept = self._find(key)
        if kept is None:
            return None
        if key not in self._read:
            self._read[key] = kept.read(key)
            if len(self._read) > READ_MAX:
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        return self._read[key]

    def invalid(self, key: Key) -> Finding | None:
        """Return why a resource's spec could not be read, or None."""
        return self._invalid.get(key)

    def keys(self, namespace: str | None = None) -> list[Key]:
        """Return the keys, of one namespace or of all."""
        if namespace is None:
            return [(place, name) for place, names in self._kept.items() for name in names]
        return [(namespace, name) for name in sorted(self._kept.get(namespace, ()))]

    def siblings(self, nova: Nova) -> tuple[tuple[str, str], ...]:
        """Return age and name of the namespace's other resources."""
        others = self._kept.get(nova.namespace, {}).items()
        return tuple(sorted((kept.created, name) for name, kept in others if name != nova.name))

    def _find(self, key: Key) -> _Kept | None:
        return self._kept.get(key[0], {}).get(key[1])


def _asked(metadata: dict[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """Return the annotations by which a person asks for a rotation, each with the manager that wrote it."""
    annotations = metadata.get("annotations") or {}
    found = [name for name in ANNOTATIONS if name in annotations]
    return tuple((name, str(annotations[name]), _writer(metadata, name) if found else "") for name in found)


def _writer(metadata: dict[str, Any], annotation: str) -> str:
    for entry in metadata.get("managedFields") or ():
        fields = ((entry.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:annotations") or {}
        if f"f:{annotation}" in fields:
            return str(entry.get("manager", ""))[:128]
    return ""


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
