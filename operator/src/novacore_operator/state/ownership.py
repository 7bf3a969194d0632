"""What of an object is ours, and is it as we left it?

The informers keep no bodies. When an object passes by, `owned_fingerprint` reads from `managedFields` which fields the
field manager `novacore-operator` holds by server-side apply, takes their values from the body, and hashes them.
`fingerprint` of the manifest we would write must be the same. Whoever changes a value takes the field away from us, and
whoever deletes one takes it out: both change the hash. Fields of others are never looked at.
Why not compare `metadata.generation`: ConfigMaps and Secrets have none, and labels do not move it. See ADR 0003.

Invariant OWN-1: `owned_fingerprint(applied body) == fingerprint(manifest)` right after an apply; a builder whose values
the API server rewrites (1000m -> 1) breaks it, and the cluster test that counts writes in the steady state shows which.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from novacore_operator.state import Manifest
from novacore_operator.state.names import ANNOTATION_DESIRED, MANAGER

HEX_DIGITS = 20
_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Return a short hash of any JSON value; the order of keys does not matter, the order of lists does."""
    text = _encoder.encode(value)
    return hashlib.sha256(text.encode()).hexdigest()[:HEX_DIGITS]


def desired_hash(manifest: Manifest) -> str:
    """Return the hash that goes into the annotation: all of the manifest but that annotation."""
    return digest(_without_annotation(manifest))


def fingerprint(manifest: Manifest) -> str:
    """Return the hash of the values a manifest asks for, in the form of `owned_fingerprint`.

    Remembered for a while under the annotation, which is a hash of all of the manifest: a turn asks for it three times.
    """
    mark = manifest.get("metadata", {}).get("annotations", {}).get(ANNOTATION_DESIRED)
    if mark is None:
        return _fingerprint(manifest)
    if mark not in _known:
        if len(_known) >= KNOWN_MAX:
            _known.clear()
        _known[mark] = _fingerprint(manifest)
    return _known[mark]


KNOWN_MAX = 2_000
_known: dict[str, str] = {}


def _fingerprint(manifest: Manifest) -> str:
    body = {key: value for key, value in _without_annotation(manifest).items() if key not in ("apiVersion", "kind")}
    body["metadata"] = {k: v for k, v in body["metadata"].items() if k not in ("name", "namespace")}
    return digest(_unordered(_pruned(body)))


def owned_fingerprint(body: Manifest) -> str:
    """Return the hash of those values of a live object that the operator's field manager still owns."""
    for entry in body.get("metadata", {}).get("managedFields", ()):
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            mine = _owned(body, entry.get("fieldsV1", {}))
            return digest(_unordered(_pruned(_without_annotation(mine))))
    return ""


def owned_keys(body: Manifest, field: str) -> frozenset[str]:
    """Return the keys of a map field (`data` of a Secret) that the operator's field manager still owns."""
    for entry in body.get("metadata", {}).get("managedFields", ()):
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return frozenset(key[2:] for key in entry.get("fieldsV1", {}).get(f"f:{field}", {}) if key != ".")
    return frozenset()


def _owned(value: Any, fields: dict[str, Any]) -> Any:
    """Return the part of `value` that a fieldsV1 tree names (KEP-555: `f:` field, `k:` item, `v:` set value)."""
    inner = {key: sub for key, sub in fields.items() if key != "."}
    if not inner:
        return value
    if isinstance(value, dict):
        return {key[2:]: _owned(value[key[2:]], sub) for key, sub in inner.items() if key[2:] in value}
    if isinstance(value, list):
        return [item for key, sub in inner.items() for item in _items(value, key, sub)]
    return value


def _items(value: list[Any], key: str, fields: dict[str, Any]) -> list[Any]:
    if key.startswith("v:"):
        wanted = json.loads(key[2:])
        return [item for item in value if item == wanted]
    wanted = json.loads(key[2:])
    return [
        _owned(item, fields)
        for item in value
        if isinstance(item, dict) and all(item.get(name, wanted[name]) == wanted[name] for name in wanted)
    ]


def _without_annotation(manifest: Manifest) -> Manifest:
    metadata = manifest.get("metadata", {})
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k != ANNOTATION_DESIRED}
    metadata = {k: v for k, v in metadata.items() if k != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    return {**manifest, "metadata": metadata}


def _pruned(value: Any) -> Any:
    """Drop empty maps and lists inside maps: whether the API server keeps them differs by field, and they say nothing.

    An `emptyDir: {}` says something, but only beside a name that stays, so losing it here loses no difference.
    """
    if isinstance(value, dict):
        pruned = {key: _pruned(item) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item not in ({}, [], None)}
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value


def _unordered(value: Any) -> Any:
    """Sort every list: fieldsV1 names keyed items in its own order. `desired_hash` is the one that minds order."""
    if isinstance(value, dict):
        return {key: _unordered(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_unordered(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value
