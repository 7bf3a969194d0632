"""The data stores: what they are called, and which of them the operator runs itself. One place for that question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from novacore_contracts.services import POSTGRES_NAME, POSTGRES_PORT, REDIS_CACHE_NAME, REDIS_NAME, REDIS_PORT
from novacore_operator.api.spec import Spec
from novacore_operator.state import names

CLUSTER_KIND = "Cluster"
"""Kind of CloudNativePG's database, in mode CloudNativePG."""
CLUSTER_LABEL = "cnpg.io/cluster"
"""Label of its pods: the Cluster's name."""
POSTGRES, REDIS, CACHE = "postgres", "redis", "redis-cache"
POSTGRES_KEYS = ("host", "port", "user", "password", "database", "ca")
REDIS_KEYS = ("host", "port", "user", "password", "ca")

STORES: tuple[str, ...] = (POSTGRES, REDIS, CACHE)
"""Components of the status, in its order."""
FULL_NAME = {POSTGRES: POSTGRES_NAME, REDIS: REDIS_NAME, CACHE: REDIS_CACHE_NAME}
"""Name of a store's StatefulSet and Service."""
PORT = {POSTGRES: POSTGRES_PORT, REDIS: REDIS_PORT, CACHE: REDIS_PORT}
PORT_NAME = {POSTGRES: "postgres", REDIS: "redis", CACHE: "redis"}
TLS = {POSTGRES: names.POSTGRES_TLS, REDIS: names.REDIS_TLS, CACHE: names.REDIS_CACHE_TLS}
"""Secret with a store's certificate."""


def stores_of(spec: Spec) -> tuple[str, ...]:
    """Return the stores that an installation has, whoever runs them."""
    return STORES if spec.cache_is_separate() else (POSTGRES, REDIS)


def run_by_us(spec: Spec) -> tuple[str, ...]:
    """Return the stores that are StatefulSets of ours."""
    mode = {POSTGRES: spec.postgres.mode, REDIS: spec.redis.mode, CACHE: spec.redis.mode}
    return tuple(store for store in stores_of(spec) if mode[store] == "Simple")


def run_elsewhere(spec: Spec) -> tuple[str, ...]:
    """Return the stores that somebody else runs: nothing of ours in the cluster says whether they answer."""
    mode = {POSTGRES: spec.postgres.mode, REDIS: spec.redis.mode, CACHE: spec.redis.mode}
    return tuple(store for store in stores_of(spec) if mode[store] == "External")


def postgres_host(spec: Spec) -> str:
    """Return the name under which a Postgres that is ours, or that CloudNativePG runs for us, is reached."""
    return f"{POSTGRES_NAME}-rw" if spec.postgres.mode == "CloudNativePG" else POSTGRES_NAME


def secrets_of(spec: Spec) -> tuple[str, ...]:
    """Return those of `names.SECRETS` that an installation has."""
    here = [store for store in stores_of(spec) if store not in run_elsewhere(spec)]
    absent = {TLS[store] for store in STORES if store not in here}
    if POSTGRES not in here:
        absent.add(names.POSTGRES_ADMIN)
    return tuple(name for name in names.SECRETS if name not in absent)


@dataclass(frozen=True, slots=True)
class Login:
    """A Secret that the spec names: how a store that is not ours is reached."""

    name: str
    keys: tuple[str, ...]
    field: str  # of the spec, for messages


def logins(spec: Spec) -> Iterator[Login]:
    """Yield the Secrets that the spec names for its stores."""
    postgres, redis = spec.postgres.external, spec.redis.external
    if postgres is not None:
        if postgres.admin_secret_ref is not None:
            yield Login(postgres.admin_secret_ref.name, POSTGRES_KEYS, "spec.postgres.external.adminSecretRef")
        for who, ref in (postgres.per_service_secret_refs or {}).items():
            yield Login(ref.name, POSTGRES_KEYS, f"spec.postgres.external.perServiceSecretRefs.{who}")
    if redis is not None:
        yield Login(redis.secret_ref.name, REDIS_KEYS, "spec.redis.external.secretRef")
        if redis.cache_secret_ref is not None:
            yield Login(redis.cache_secret_ref.name, REDIS_KEYS, "spec.redis.external.cacheSecretRef")
