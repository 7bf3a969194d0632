"""PersistentVolumeClaims of the data stores. The StatefulSet controller makes them; we let them grow."""

from __future__ import annotations

from collections.abc import Iterator

from novacore_operator.api.spec import Spec
from novacore_operator.build.common import amount, canonical, selector
from novacore_operator.build.site import Site
from novacore_operator.state import ClaimFacts, Kind, Manifest, Nova, stores
from novacore_operator.state.names import LABEL_MANAGED_BY, MANAGER

PERSISTENT_VOLUME_CLAIM = Kind(
    "PersistentVolumeClaim", "v1", "persistentvolumeclaims", wave=6, verbs=("list", "watch", "patch")
)
"""Late in the order of writes: a class that cannot grow holds nothing else up."""
DATA = "data"
"""Name of the volume in a store's pod."""


def persistent_volume_claims(site: Site) -> Iterator[Manifest | None]:
    """Return the claims that must grow, or that were grown before; one that fits is not touched."""
    for store, size in claimed(site.nova.spec).items():
        yield _grown(site, store, size)


def claimed(spec: Spec) -> dict[str, str]:
    """Return the size of each volume of ours, by store."""
    sizes = {stores.POSTGRES: spec.postgres.storage.size, stores.REDIS: spec.redis.storage.size}
    return {store: sizes[store] for store in stores.run_by_us(spec) if store in sizes}


def _grown(site: Site, component: str, size: str) -> Manifest | None:
    live = site.seen.get(PERSISTENT_VOLUME_CLAIM.name, site.nova.namespace, claim_name(component))
    if live is None or not isinstance(live.facts, ClaimFacts) or not live.facts.requested:
        return None
    if live.desired is None and amount(live.facts.requested) >= amount(canonical(size)):
        return None
    return build_claim(site.nova, component, size)


def claim_name(component: str) -> str:
    """Return the name of the store's one volume claim."""
    return f"{DATA}-novacore-{component}-0"


def claim_labels(component: str) -> dict[str, str]:
    """Return the labels of a volume claim. Neither instance nor version: the volume outlives both."""
    return {**selector(component), LABEL_MANAGED_BY: MANAGER}


def build_claim(nova: Nova, component: str, size: str) -> Manifest:
    """Return a volume claim that is to grow to `size`. The claim itself is made by the StatefulSet controller."""
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
        "kind": PERSISTENT_VOLUME_CLAIM.name,
        "metadata": {"name": claim_name(component), "namespace": nova.namespace},
        "spec": {"resources": {"requests": {"storage": canonical(size)}}},
    }
