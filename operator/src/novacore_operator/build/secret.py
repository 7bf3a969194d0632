"""Secrets. Content comes from `rotation`; this gives it its place and its life span."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

from novacore_operator.build.common import manifest
from novacore_operator.build.site import Site
from novacore_operator.state import Kind, Manifest, Nova, names
from novacore_operator.state.names import LABEL_MANAGED_BY, LABEL_NAME, MANAGER

SECRET = Kind("Secret", "v1", "secrets", wave=1, verbs=(), watched=False)
"""Granted and watched by name only: see `rbac` and `observe.observer`."""


FOR_CLOUD_NATIVE_PG = {names.POSTGRES_ADMIN: "kubernetes.io/basic-auth", names.POSTGRES_TLS: "kubernetes.io/tls"}
"""Secrets that CloudNativePG is given, and the types it asks for."""
RELOAD = {"cnpg.io/reload": ""}
"""It takes in what changes in a Secret with this label."""


def secrets(site: Site) -> Iterator[Manifest | None]:
    """Return all Secrets of an installation, the root key's among them."""
    root = names.root_secret(site.nova.namespace)
    yield build_root_secret(site.nova, site.seen.operator_namespace, site.contents.material[root])
    for name, data in sorted(site.contents.material.items()):
        if name != root:
            yield build_secret(site.nova, name, data)


def build_secret(nova: Nova, name: str, data: Mapping[str, bytes]) -> Manifest:
    """Return one Secret of the installation. Those of the data are left behind with `storage.reclaim: Retain`."""
    keep = name in names.DATA_SECRETS and nova.spec.postgres.storage.reclaim == "Retain"
    given = nova.spec.postgres.mode == "CloudNativePG" and name in FOR_CLOUD_NATIVE_PG
    kind = FOR_CLOUD_NATIVE_PG[name] if given else "Opaque"
    secret = manifest(SECRET, nova, name, component="keyset", owned=not keep, type=kind, data=_encoded(data))
    if given:
        secret["metadata"]["labels"] |= RELOAD
    return secret


def build_root_secret(nova: Nova, operator_namespace: str, data: Mapping[str, bytes]) -> Manifest:
    """Return the Secret with the root private key, in the operator's own namespace.

    It has no owner, which cannot lie in another namespace; it stays when the resource is deleted, so that the retained
    credentials of an installation applied again still verify.
    """
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.name,
        "metadata": {
            "name": names.root_secret(nova.namespace),
            "namespace": operator_namespace,
            "labels": {LABEL_NAME: "novacore-root", LABEL_MANAGED_BY: MANAGER},
        },
        "type": "Opaque",
        "data": _encoded(data),
    }


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in sorted(data.items())}
