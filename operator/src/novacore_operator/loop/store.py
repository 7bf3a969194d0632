"""The NovaCoreDeployments, as kopf's watch and our own status writes show them."""

from __future__ import annotations

import sys
from typing import Any

from pydantic import ValidationError

from novacore_operator.api.spec import Spec
from novacore_operator.policies import Finding
from novacore_operator.reasons import Reason
from novacore_operator.state import Nova

Key = tuple[str, str]


def _shared(value: Any) -> Any:
    """Return a JSON value with one string for all that are the same: the statuses of 1,000 resources are much alike."""
    if isinstance(value, dict):
        return {sys.intern(key): _shared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shared(item) for item in value]
    return sys.intern(value) if isinstance(value, str) else value


class Store:
    """All resources by key. A spec that does not parse is kept as a finding, so that a condition can say so."""

    def __init__(self) -> None:
        self._novas: dict[Key, Nova] = {}
        self._names: dict[str, set[str]] = {}  # by namespace
        self._invalid: dict[Key, Finding] = {}

    def put(self, body: dict[str, Any]) -> bool:
        """Take in a resource; return whether its spec (its generation) is new. An older version changes nothing.

        Not even one of a namesake that is gone: kopf hands the events of two uids over in any order.
        """
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        before = self._novas.get(key)
        version = int(metadata["resourceVersion"])
        if before is not None and before.version >= version:
            return False
        self._invalid.pop(key, None)
        try:
            spec = Spec.model_validate(body.get("spec") or {})
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
            spec = Spec(version="0.0.0", mode=mode, paused=raw.get("paused") is True)
        self._names.setdefault(key[0], set()).add(key[1])
        self._novas[key] = Nova(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=int(metadata["generation"]),
            created=metadata["creationTimestamp"],
            version=version,
            spec=spec,
            status=_shared(body.get("status") or {}),
        )
        return before is None or before.uid != metadata["uid"] or before.generation != int(metadata["generation"])

    def drop(self, key: Key, uid: str) -> bool:
        """Take out a deleted resource; return whether it was there."""
        if key in self._novas and self._novas[key].uid == uid:
            del self._novas[key]
            self._names[key[0]].discard(key[1])
            if not self._names[key[0]]:
                del self._names[key[0]]
            self._invalid.pop(key, None)
            return True
        return False

    def get(self, key: Key) -> Nova | None:
        """Return one resource."""
        return self._novas.get(key)

    def invalid(self, key: Key) -> Finding | None:
        """Return why a resource's spec could not be read, or None."""
        return self._invalid.get(key)

    def keys(self, namespace: str | None = None) -> list[Key]:
        """Return the keys, of one namespace or of all."""
        if namespace is None:
            return list(self._novas)
        return [(namespace, name) for name in sorted(self._names.get(namespace, ()))]

    def siblings(self, nova: Nova) -> tuple[tuple[str, str], ...]:
        """Return age and name of the namespace's other resources."""
        others = (self._novas[key] for key in self.keys(nova.namespace) if key != nova.key)
        return tuple(sorted((other.created, other.name) for other in others))
