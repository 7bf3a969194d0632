"""The nine services: name, ports, database schema, peers, and their place in a roll-out.

Source of every port and name: both the operator (Deployments, Services, policies) and the workloads (listeners, peers)
read this table, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

INTERNAL_PORT = 9090
"""Probes, `/metrics` and every `/internal/*` route. Never published."""

POSTGRES_PORT = 5432
REDIS_PORT = 6379
GATEWAY_NODE_PORT = 30500
"""NodePort of the gateway's public Service in profile Development; kind maps it to a loopback port."""


@dataclass(frozen=True, slots=True)
class Service:
    """One of the nine. `port` is None for a worker; `schema` is None when it keeps nothing in Postgres."""

    name: str
    port: int | None
    schema: str | None
    redis: bool
    stage: int  # services of one stage may roll together; stages roll in ascending order
    peers: tuple[str, ...]  # services it calls; NetworkPolicies and the settings are made from this
    cache: bool = False  # keeps in Redis what may be lost; with a Redis of its own for that, it lies there

    @property
    def full_name(self) -> str:
        """Name of its Deployment, Service and ServiceAccount."""
        return f"novacore-{self.name}"

    @property
    def module(self) -> str:
        """Python module below `novacore`."""
        return self.name.replace("-", "_")

    @property
    def role(self) -> str | None:
        """NOLOGIN Postgres role that holds its grants; the login pair is `<role>_a` and `<role>_b`."""
        return f"nova_{self.schema}" if self.schema else None


SERVICES: tuple[Service, ...] = (
    Service("auth-billing", 3001, "auth", redis=True, stage=1, peers=()),
    Service("noble-spirit", 4000, "policy", redis=False, stage=2, peers=("auth-billing",)),
    Service("memory", 8001, "memory", redis=True, stage=2, peers=("auth-billing",), cache=True),
    Service("intelligence", 8000, "chat", redis=True, stage=3, peers=("auth-billing", "memory", "noble-spirit")),
    Service("ngs-curriculum", 9000, "ngs", redis=True, stage=3, peers=("auth-billing", "noble-spirit"), cache=True),
    Service(
        "mcp-server",
        7000,
        None,
        redis=False,
        stage=3,
        peers=("auth-billing", "memory", "intelligence", "ngs-curriculum"),
    ),
    Service("reflection-worker", None, None, redis=True, stage=4, peers=("auth-billing", "memory", "noble-spirit")),
    Service("distillation-worker", None, "distill", redis=True, stage=4, peers=("auth-billing", "memory")),
    Service(
        "gateway",
        5000,
        None,
        redis=True,
        stage=5,
        peers=("auth-billing", "intelligence", "memory", "noble-spirit", "ngs-curriculum", "mcp-server"),
        cache=True,
    ),
)

BY_NAME: dict[str, Service] = {service.name: service for service in SERVICES}

SCHEMAS: tuple[str, ...] = ("auth", "chat", "memory", "policy", "ngs", "distill")
"""Migration order: `auth` first, because the others' foreign keys point at `auth.users`."""

DATABASE = "novacore"
MIGRATOR_ROLE = "nova_migrator"
POSTGRES_NAME = "novacore-postgres"
REDIS_NAME = "novacore-redis"
REDIS_CACHE_NAME = "novacore-redis-cache"
PUBLIC_SERVICE_NAME = "novacore-gateway-public"


def internal_url(service: str, path: str = "") -> str:
    """URL of a service's internal listener inside the namespace."""
    return f"http://{BY_NAME[service].full_name}:{INTERNAL_PORT}{path}"


def service_url(service: str, path: str = "") -> str:
    """URL of a service's own listener inside the namespace. ValueError for a worker: it has none."""
    port = BY_NAME[service].port
    if port is None:
        raise ValueError(f"{service} is a worker and has no service port")
    return f"http://{BY_NAME[service].full_name}:{port}{path}"
