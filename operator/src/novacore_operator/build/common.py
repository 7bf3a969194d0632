"""What every object shares: metadata, labels, selectors, quantities."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Any

from novacore_operator.api import API_VERSION, KIND
from novacore_operator.state import Kind, Manifest, Nova
from novacore_operator.state.names import (
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_PART_OF,
    LABEL_VERSION,
    MANAGER,
)

PRODUCT = "novacore"
CONFIG_MAP = Kind("ConfigMap", "v1", "configmaps", wave=1)
"""Here, because three files make some."""


def selector(component: str) -> dict[str, str]:
    """Return the labels that select a component's pods. They never change once created."""
    return {LABEL_NAME: PRODUCT, LABEL_COMPONENT: component}


def labels(nova: Nova, component: str, *, version: str | None = None) -> dict[str, str]:
    """Return the recommended labels of an object of `component`."""
    return {
        LABEL_NAME: PRODUCT,
        LABEL_INSTANCE: nova.name,
        LABEL_COMPONENT: component,
        LABEL_PART_OF: PRODUCT,
        LABEL_MANAGED_BY: MANAGER,
        LABEL_VERSION: version or nova.spec.version,
    }


def owner(nova: Nova) -> dict[str, Any]:
    """Return the controller reference. Without blockOwnerDeletion: that would need rights on finalizers."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": nova.name, "uid": nova.uid, "controller": True}


def manifest(
    kind: Kind,
    nova: Nova,
    name: str,
    *,
    component: str,
    owned: bool = True,
    annotations: dict[str, str] | None = None,
    **parts: Any,
) -> Manifest:
    """Return an object of the installation. `owned=False` leaves it behind when the resource is deleted."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": nova.namespace,
        "labels": labels(nova, component),
    }
    if annotations:
        metadata["annotations"] = annotations
    if owned:
        metadata["ownerReferences"] = [owner(nova)]
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **parts}


POWERS: dict[str, int] = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}
TENS: dict[str, Decimal] = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
}


@lru_cache(maxsize=1024)
def amount(quantity: str) -> Decimal:
    """Return a quantity as a number (cores or bytes)."""
    for suffix, power in POWERS.items():
        if quantity.endswith(suffix):
            return Decimal(quantity.removesuffix(suffix)) * power
    suffix = quantity[-1] if quantity[-1] in TENS else ""
    return Decimal(quantity.removesuffix(suffix)) * TENS[suffix]


@lru_cache(maxsize=1024)
def canonical(quantity: str) -> str:
    """Return a quantity as the API server writes it back: the largest suffix that needs no fraction.

    Source: apimachinery `resource.Quantity`: 0.5 -> 500m, 1000m -> 1, 1024Mi -> 1Gi, 1536Mi stays.
    """
    value = amount(quantity)
    if any(quantity.endswith(suffix) for suffix in POWERS) and value == value.to_integral_value():
        for suffix, power in reversed(POWERS.items()):
            if value and value % power == 0:
                return f"{int(value // power)}{suffix}"
        return str(int(value))
    for suffix, ten in reversed(TENS.items()):
        if value and value % ten == 0:
            return f"{int(value / ten)}{suffix}"
    return "0"


def size_bytes(quantity: str) -> int:
    """Return a memory quantity in bytes."""
    return int(amount(quantity))
