"""Fixed names. One resource per namespace, so that RBAC can grant by `resourceNames`."""

from __future__ import annotations

from novacore_contracts.services import SERVICES

MANAGER = "novacore-operator"
"""Field manager, and value of the managed-by label."""

LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_VERSION = "app.kubernetes.io/version"
LABEL_SERVING = "novacore.ai/serving"
"""In Service selectors only, never in a Deployment's: removing it from a pod takes the pod out of traffic."""

LABEL_TRACK = "novacore.ai/track"
"""On a canary Deployment, in its selector and on its pods: what selects those of the service selects the canary too."""

ANNOTATION_DESIRED = "novacore.ai/desired"
ANNOTATION_TEMPLATE = "novacore.ai/template"

CA = "novacore-ca"
CA_PRIVATE = "novacore-ca-private"
KEYSET = "novacore-keyset"
KEYSET_ROOT = "novacore-keyset-root"
SERVICE_JWT_PRIVATE = "novacore-svcjwt-private"
SERVICE_JWT_LEGACY = "novacore-svcjwt-legacy"
"""One shared HS256 secret from before the rings, brought by the user for the time of a migration; not written by us."""
USER_JWT_PRIVATE = "novacore-userjwt-private"
POLICY_PRIVATE = "novacore-policy-private"
POSTGRES_ADMIN = "novacore-postgres-admin"
POSTGRES_TLS = "novacore-postgres-tls"
POSTGRES_CONFIG = "novacore-postgres-config"
REDIS_TLS = "novacore-redis-tls"
REDIS_CONFIG = "novacore-redis-config"
REDIS_CACHE_TLS = "novacore-redis-cache-tls"
REDIS_CACHE_CONFIG = "novacore-redis-cache-config"
MIGRATE = "novacore-migrate"
MIGRATE_CREDS = "novacore-migrate-creds"
LEASE = "novacore-operator"


def root_secret(namespace: str) -> str:
    """Secret with the root private key of the installation in `namespace`; lives in the operator's namespace."""
    return f"novacore-root-{namespace}"


def creds(service: str) -> str:
    """Secret with a service's own credentials."""
    return f"novacore-{service}-creds"


def canary(service: str) -> str:
    """Deployment with the one pod of a service that goes before the others."""
    return f"novacore-{service}-canary"


def release(number: int) -> str:
    """ControllerRevision with a stored release."""
    return f"novacore-release-{number}"


def settings(service: str) -> str:
    """ConfigMap with a service's settings."""
    return f"novacore-{service}-settings"


CANARIES: dict[str, str] = {canary(service.name): service.name for service in SERVICES if service.port is not None}
"""Canary Deployment -> service. The workers have none: they serve no requests that could be compared."""

SECRETS: tuple[str, ...] = (
    CA_PRIVATE,
    SERVICE_JWT_PRIVATE,
    USER_JWT_PRIVATE,
    POLICY_PRIVATE,
    KEYSET,
    POSTGRES_ADMIN,
    POSTGRES_TLS,
    REDIS_TLS,
    REDIS_CACHE_TLS,
    MIGRATE_CREDS,
    *(creds(service.name) for service in SERVICES),
)
"""Every Secret the operator writes into an installation's namespace."""

DATA_SECRETS: frozenset[str] = frozenset(
    {POSTGRES_ADMIN, POLICY_PRIVATE, MIGRATE_CREDS, *(creds(service.name) for service in SERVICES)}
)
"""Those that belong to the data: with `storage.reclaim: Retain` they outlive the resource, as the volumes do."""
