"""`Cluster` of CloudNativePG (mode CloudNativePG): a database that another operator runs as we ask.

The administrator's password and the server's certificate are ours and go to it as Secrets, so nothing of what it makes
has to be read: no right to the Secret with its authority's private key, and clients trust the same authority in each
mode. Of its API only what stands here is used (API group `postgresql.cnpg.io`, version v1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from novacore_contracts.services import DATABASE, POSTGRES_NAME
from novacore_operator.api.stores import CloudNativePG
from novacore_operator.build.common import canonical, manifest, size_bytes
from novacore_operator.build.pod import image_pull_secrets
from novacore_operator.build.resources import build_resources
from novacore_operator.build.site import Site
from novacore_operator.build.store_config import memory_settings
from novacore_operator.state import Kind, Manifest, Nova, names, stores

CLUSTER = Kind(
    stores.CLUSTER_KIND,
    "postgresql.cnpg.io/v1",
    "clusters",
    wave=2,
    verbs=("list", "watch", "create", "patch"),
    foreign=True,
)
"""Never deleted by us: it goes with its owner or stays with the data."""
PRIVACY = {
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
"""As in mode Simple: no statement and no value in a log."""


def clusters(site: Site) -> Iterator[Manifest | None]:
    """Return the database of an installation, in mode CloudNativePG."""
    if site.nova.spec.postgres.mode == "CloudNativePG":
        yield build_cluster(site.nova)


def build_cluster(nova: Nova) -> Manifest:
    """Return the Cluster. With `storage.reclaim: Retain` it has no owner: deleting it would delete its volumes."""
    postgres = nova.spec.postgres
    wanted = postgres.cloud_native_pg or CloudNativePG()
    resources = build_resources("postgres", postgres.resources)
    storage: dict[str, Any] = {"size": canonical(postgres.storage.size)}
    if postgres.storage.class_name:
        storage["storageClass"] = postgres.storage.class_name
    spec: dict[str, Any] = {
        "instances": wanted.instances,
        "imagePullPolicy": nova.spec.image.pull_policy,
        "enableSuperuserAccess": True,
        "superuserSecret": {"name": names.POSTGRES_ADMIN},
        "certificates": {"serverTLSSecret": names.POSTGRES_TLS, "serverCASecret": names.POSTGRES_TLS},
        "bootstrap": {
            "initdb": {
                "database": DATABASE,
                "owner": DATABASE,
                "encoding": "UTF8",
                "localeCollate": "C.UTF-8",
                "localeCType": "C.UTF-8",
            }
        },
        "storage": storage,
        "resources": resources,
        "postgresql": {"parameters": {**memory_settings(size_bytes(resources["limits"]["memory"])), **PRIVACY}},
    }
    if wanted.image_name:
        spec["imageName"] = wanted.image_name
    spec |= image_pull_secrets(nova.spec.image.pull_secrets)
    owned = postgres.storage.reclaim == "Delete"
    return manifest(CLUSTER, nova, POSTGRES_NAME, component=stores.POSTGRES, owned=owned, spec=spec)
