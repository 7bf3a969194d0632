"""StatefulSets of Postgres and Redis (mode Simple): one pod each, a volume, our own start script, TLS only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from novacore_contracts.services import POSTGRES_PORT, REDIS_PORT
from novacore_operator.api.resources import Resources
from novacore_operator.api.stores import Storage
from novacore_operator.build.common import canonical, labels, manifest, selector
from novacore_operator.build.persistent_volume_claim import DATA, PERSISTENT_VOLUME_CLAIM, claim_labels
from novacore_operator.build.pod import (
    config_volume,
    container_security,
    empty_dir,
    image_pull_secrets,
    pod_security,
    secret_volume,
)
from novacore_operator.build.resources import build_resources
from novacore_operator.build.site import Site
from novacore_operator.build.store_config import build_store_config
from novacore_operator.state import Kind, Manifest, Nova, WorkloadFacts, names, stores
from novacore_operator.state.names import ANNOTATION_TEMPLATE, LABEL_VERSION
from novacore_operator.state.ownership import digest

STATEFUL_SET = Kind("StatefulSet", "apps/v1", "statefulsets", wave=2, verbs=("list", "watch", "create", "patch"))
"""Deleted is only the one without a volume (`rbac`): a data store goes with its owner."""
STORE_USER = 999
"""User of the well-known Postgres and Redis images."""


def stateful_sets(site: Site) -> Iterator[Manifest | None]:
    """Return the data stores of an installation. Their configuration is read at start: its hash replaces the pod."""
    nova, contents = site.nova, site.contents
    for store in stores.run_by_us(nova.spec):
        config = build_store_config(nova, store, contents.redis_users)
        mark = digest([config["data"], contents.store_hash[store]])
        created = _created(site, stores.FULL_NAME[store])
        if store == stores.POSTGRES:
            yield build_postgres(nova, config_hash=mark, created=created)
        else:
            yield build_redis(nova, store, config_hash=mark, created=created)


def _created(site: Site, name: str) -> WorkloadFacts | None:
    live = site.seen.get(STATEFUL_SET.name, site.nova.namespace, name)
    return live.facts if live is not None and isinstance(live.facts, WorkloadFacts) else None


def build_postgres(nova: Nova, *, config_hash: str, created: WorkloadFacts | None = None) -> Manifest:
    """Return the StatefulSet of Postgres.

    `config_hash`: of configuration, password and certificate, which are read at start. `created`: of the live object,
    for what cannot be changed there: the size in its claim template (growth goes through the claim), its way of
    managing pods.
    """
    postgres = nova.spec.postgres
    volumes = [
        config_volume("config", names.POSTGRES_CONFIG),
        secret_volume("admin", names.POSTGRES_ADMIN),
        secret_volume("tls", names.POSTGRES_TLS),
        empty_dir("run", size="16Mi"),
        empty_dir("tmp", size="256Mi"),
    ]
    mounts = [
        {"name": DATA, "mountPath": "/var/lib/postgresql"},
        {"name": "config", "mountPath": "/etc/novacore/postgres", "readOnly": True},
        {"name": "admin", "mountPath": "/etc/novacore/admin", "readOnly": True},
        {"name": "tls", "mountPath": "/etc/novacore/tls", "readOnly": True},
        {"name": "run", "mountPath": "/var/run/postgresql"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of its own
    ]
    container = {
        "name": "postgres",
        "image": postgres.image,
        "command": ["/bin/sh", "/etc/novacore/postgres/start.sh"],
        "ports": [{"name": "postgres", "containerPort": POSTGRES_PORT, "protocol": "TCP"}],
        # SIGTERM would wait for every client to leave; SIGINT closes their connections and writes a checkpoint.
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "kill -INT 1"]}}},
        "startupProbe": _exec("/etc/novacore/postgres/ready.sh", period_s=1, failures=300),
        "readinessProbe": _exec("/etc/novacore/postgres/ready.sh", period_s=3, failures=3),
        "livenessProbe": {
            "tcpSocket": {"port": "postgres"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "volumeMounts": mounts,
    }
    return _store(
        nova,
        "postgres",
        container,
        volumes,
        storage=postgres.storage,
        resources=postgres.resources,
        config_hash=config_hash,
        created=created,
    )


def build_redis(
    nova: Nova, store: str = stores.REDIS, *, config_hash: str, created: WorkloadFacts | None = None
) -> Manifest:
    """Return the StatefulSet of a Redis. The one for caches has no volume: it keeps nothing."""
    redis = nova.spec.redis
    lasts = store == stores.REDIS
    volumes = [
        config_volume("config", names.REDIS_CONFIG if lasts else names.REDIS_CACHE_CONFIG),
        secret_volume("tls", stores.TLS[store]),
        empty_dir("tmp", size="64Mi"),
    ]
    container = {
        "name": "redis",
        "image": redis.image,
        "command": ["redis-server", "/etc/novacore/redis/redis.conf"],
        "ports": [{"name": "redis", "containerPort": REDIS_PORT, "protocol": "TCP"}],
        "startupProbe": _exec("/etc/novacore/redis/ready.sh", period_s=1, failures=300),
        "readinessProbe": _exec("/etc/novacore/redis/ready.sh", period_s=3, failures=3),
        # Not by a bare connection: Redis logs each one that ends without a TLS handshake.
        "livenessProbe": _exec("/etc/novacore/redis/ready.sh", period_s=20, failures=6),
        "volumeMounts": [
            *([{"name": DATA, "mountPath": "/data"}] if lasts else []),
            {"name": "config", "mountPath": "/etc/novacore/redis", "readOnly": True},
            {"name": "tls", "mountPath": "/etc/novacore/tls", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of its own
        ],
    }
    return _store(
        nova,
        store,
        container,
        volumes,
        storage=redis.storage if lasts else None,
        resources=redis.resources,
        config_hash=config_hash,
        created=created,
    )


def _exec(script: str, *, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "exec": {"command": ["/bin/sh", script]},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _store(
    nova: Nova,
    component: str,
    container: dict[str, Any],
    volumes: list[dict[str, Any]],
    *,
    storage: Storage | None,
    resources: Resources | None,
    config_hash: str,
    created: WorkloadFacts | None,
) -> Manifest:
    container |= {
        "imagePullPolicy": nova.spec.image.pull_policy,
        "resources": build_resources(component, resources),
        "securityContext": container_security(),
    }
    pod: dict[str, Any] = {
        "serviceAccountName": f"novacore-{component}",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": pod_security(STORE_USER),
        "containers": [container],
        "volumes": volumes,
    }
    pod |= image_pull_secrets(nova.spec.image.pull_secrets)
    template = {
        # Without version label: a store does not restart because the services got a new release.
        "metadata": {
            "labels": {k: v for k, v in labels(nova, component).items() if k != LABEL_VERSION},
            "annotations": {"novacore.ai/config": config_hash},
        },
        "spec": pod,
    }
    return manifest(
        STATEFUL_SET,
        nova,
        f"novacore-{component}",
        component=component,
        annotations={ANNOTATION_TEMPLATE: digest(template)},
        spec={
            "serviceName": stores.FULL_NAME[component],
            "replicas": 1,
            "podManagementPolicy": _pod_management(created),
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(component)},
            "template": template,
            **_volume(component, storage, created.storage if created is not None else None),
        },
    )


def _volume(component: str, storage: Storage | None, created_size: str | None) -> dict[str, Any]:
    if storage is None:
        return {}
    return {
        "volumeClaimTemplates": [_claim_template(component, storage, created_size)],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": storage.reclaim, "whenScaled": "Retain"},
    }


def _pod_management(created: WorkloadFacts | None) -> str:
    """Return Parallel: OrderedReady does not replace a pod that never became ready, so nothing leads back from a bad
    image. Release 0.1.0 made its StatefulSets with OrderedReady, and the field cannot be changed."""
    return "OrderedReady" if created is not None and created.ordered else "Parallel"


def _claim_template(component: str, storage: Storage, created_size: str | None) -> dict[str, Any]:
    """Return the claim template with the fields that the API server fills in: the list is atomic (OWN-1)."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": created_size or canonical(storage.size)}},
        "volumeMode": "Filesystem",
    }
    if storage.class_name:
        spec["storageClassName"] = storage.class_name
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
        "kind": PERSISTENT_VOLUME_CLAIM.name,
        "metadata": {"name": DATA, "labels": claim_labels(component)},
        "spec": spec,
        "status": {"phase": "Pending"},
    }
