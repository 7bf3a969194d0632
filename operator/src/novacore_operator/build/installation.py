"""All objects of one installation, in one list: operator.md §4 as code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from novacore_contracts.services import POSTGRES_NAME, POSTGRES_PORT, REDIS_NAME, REDIS_PORT
from novacore_operator.build.common import amount, canonical
from novacore_operator.build.config_map import build_ca, build_keyset_root
from novacore_operator.build.deployment import build_deployment
from novacore_operator.build.horizontal_pod_autoscaler import build_horizontal_pod_autoscaler
from novacore_operator.build.job import build_migrate_job
from novacore_operator.build.network_policy import build_migrate_policy, build_service_policy, build_store_policy
from novacore_operator.build.pod_disruption_budget import build_pod_disruption_budget
from novacore_operator.build.secret import build_root_secret, build_secret
from novacore_operator.build.service import build_public_service, build_service, build_store_service
from novacore_operator.build.service_account import build_service_account
from novacore_operator.build.settings import build_settings, settings_hash
from novacore_operator.build.stateful_set import build_claim, build_postgres, build_redis, claim_name
from novacore_operator.build.store_config import build_postgres_config, build_redis_config
from novacore_operator.state import ClaimFacts, Manifest, Material, Nova, Observed, WorkloadFacts, names
from novacore_operator.state.names import ANNOTATION_DESIRED
from novacore_operator.state.ownership import desired_hash, digest


@dataclass(frozen=True, slots=True)
class Contents:
    """What the builders need beside spec and observation: material, and what was derived from it."""

    material: Material = field(repr=False)
    root_jwks: str
    ca_bundle: str
    redis_users: Mapping[str, str]
    roles_hash: str
    postgres_hash: str
    redis_hash: str


def build_installation(nova: Nova, seen: Observed, contents: Contents) -> tuple[Manifest, ...]:
    """Return every object that must exist, each with its hash in the annotation."""
    objects: list[Manifest | None] = [
        *_identity(nova, seen, contents),
        *_stores(nova, seen, contents),
        build_migrate_job(nova, roles_hash=contents.roles_hash),
        *_services(nova, seen),
    ]
    return tuple(_stamped(item) for item in objects if item is not None)


def _stamped(manifest: Manifest) -> Manifest:
    annotations = {**manifest["metadata"].get("annotations", {}), ANNOTATION_DESIRED: desired_hash(manifest)}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def _identity(nova: Nova, seen: Observed, contents: Contents) -> list[Manifest | None]:
    root = names.root_secret(nova.namespace)
    secrets = [build_secret(nova, name, data) for name, data in sorted(contents.material.items()) if name != root]
    return [
        build_root_secret(nova, seen.operator_namespace, contents.material[root]),
        *secrets,
        build_keyset_root(nova, contents.root_jwks),
        build_ca(nova, contents.ca_bundle),
    ]


def _stores(nova: Nova, seen: Observed, contents: Contents) -> list[Manifest | None]:
    postgres_config = build_postgres_config(nova)
    redis_config = build_redis_config(nova, contents.redis_users)
    simple = nova.spec.postgres.mode == "Simple"
    return [
        postgres_config,
        build_service_account(nova, "postgres") if simple else None,
        build_store_service(nova, "postgres", POSTGRES_PORT) if simple else None,
        build_store_policy(nova, "postgres") if simple else None,
        build_postgres(
            nova,
            config_hash=digest([postgres_config and postgres_config["data"], contents.postgres_hash]),
            created=_created(nova, seen, POSTGRES_NAME),
        ),
        _claim(nova, seen, "postgres", nova.spec.postgres.storage.size) if simple else None,
        redis_config,
        build_service_account(nova, "redis"),
        build_store_service(nova, "redis", REDIS_PORT),
        build_store_policy(nova, "redis"),
        build_redis(
            nova,
            config_hash=digest([redis_config["data"], contents.redis_hash]),
            created=_created(nova, seen, REDIS_NAME),
        ),
        _claim(nova, seen, "redis", nova.spec.redis.storage.size),
    ]


def _created(nova: Nova, seen: Observed, name: str) -> WorkloadFacts | None:
    live = seen.get("StatefulSet", nova.namespace, name)
    return live.facts if live is not None and isinstance(live.facts, WorkloadFacts) else None


def _claim(nova: Nova, seen: Observed, component: str, size: str) -> Manifest | None:
    """Return the claim when it exists and must grow, or was grown before; a claim that fits is not touched."""
    live = seen.get("PersistentVolumeClaim", nova.namespace, claim_name(component))
    if live is None or not isinstance(live.facts, ClaimFacts) or not live.facts.requested:
        return None
    if live.desired is None and amount(live.facts.requested) >= amount(canonical(size)):
        return None
    return build_claim(nova, component, size)


def _services(nova: Nova, seen: Observed) -> list[Manifest | None]:
    objects: list[Manifest | None] = [
        build_service_account(nova, "migrate"),
        build_migrate_policy(nova),
        build_public_service(nova),
    ]
    for service in nova.spec.enabled_services():
        objects += [
            build_service_account(nova, service.name),
            build_settings(nova, service.name),
            build_service(nova, service),
            build_service_policy(nova, service, operator_namespace=seen.operator_namespace),
            build_pod_disruption_budget(nova, service),
            build_horizontal_pod_autoscaler(nova, service),
            build_deployment(nova, service, settings_hash=settings_hash(nova.spec, service.name)),
        ]
    return objects
