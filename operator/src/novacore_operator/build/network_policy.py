"""NetworkPolicies: everything denied, then the paths the contracts name.

Each component gets one policy for both directions. Nothing rests on them alone: some clusters do not enforce any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from novacore_contracts.services import (
    BY_NAME,
    INTERNAL_PORT,
    POSTGRES_NAME,
    POSTGRES_PORT,
    SERVICES,
    Service,
)
from novacore_operator.api.network import Peer
from novacore_operator.build.common import manifest, selector
from novacore_operator.build.site import Site
from novacore_operator.state import Kind, Manifest, Nova, stores
from novacore_operator.state.names import MANAGER

DNS: dict[str, Any] = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
API_SERVER: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443}]}
NAMESPACE_NAME = "kubernetes.io/metadata.name"
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", wave=1)


def network_policies(site: Site) -> Iterator[Manifest | None]:
    """Return the policies of an installation."""
    nova = site.nova
    for store in stores.run_by_us(nova.spec):
        yield build_store_policy(nova, store)
    if nova.spec.postgres.mode == "CloudNativePG":
        yield build_cluster_policy(nova)
    yield build_migrate_policy(nova)
    for service in nova.spec.enabled_services():
        yield build_service_policy(nova, service, operator_namespace=site.seen.operator_namespace)


def _pods(*components: str) -> list[dict[str, Any]]:
    return [{"podSelector": {"matchLabels": selector(component)}} for component in components]


def _tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _policy(nova: Nova, component: str, ingress: list[dict[str, Any]], egress: list[dict[str, Any]]) -> Manifest | None:
    if not nova.spec.network_policy.enabled:
        return None
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": selector(component)},
        "policyTypes": ["Ingress", "Egress"],
    }
    if ingress:
        spec["ingress"] = ingress
    if egress:
        spec["egress"] = egress
    return manifest(NETWORK_POLICY, nova, f"novacore-{component}", component=component, spec=spec)


def _visitors(nova: Nova) -> dict[str, Any]:
    """Return who may come to the door, the gateway's public port: nothing said means anybody."""
    wanted = nova.spec.network_policy.ingress_from
    if wanted is None:
        return {}
    return {"from": [_visitor(peer) for peer in wanted]}


def _visitor(peer: Peer) -> dict[str, Any]:
    if peer.ip_block is not None:
        return {"ipBlock": {"cidr": peer.ip_block.cidr}}
    selectors = {"namespaceSelector": peer.namespace_selector, "podSelector": peer.pod_selector}
    return {
        name: {"matchLabels": dict(wanted.match_labels)} if wanted.match_labels else {}
        for name, wanted in selectors.items()
        if wanted is not None
    }


def callers(service: Service) -> tuple[str, ...]:
    """Return the services that may call `service`."""
    return tuple(other.name for other in SERVICES if service.name in other.peers)


def build_service_policy(nova: Nova, service: Service, *, operator_namespace: str) -> Manifest | None:
    """Return the policy of one service, or None when policies are switched off."""
    ports = [INTERNAL_PORT] if service.port is None else [service.port, INTERNAL_PORT]
    ingress: list[dict[str, Any]] = []
    if callers(service):
        ingress.append({"from": _pods(*callers(service)), "ports": _tcp(*ports)})
    ingress.append(
        {
            "from": [
                {
                    "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: operator_namespace}},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": MANAGER}},
                }
            ],
            "ports": _tcp(INTERNAL_PORT),
        }
    )
    if service.name == "gateway" and service.port is not None:
        ingress.append({**_visitors(nova), "ports": _tcp(service.port)})
    egress = [DNS]
    egress += [{"to": _pods(peer), "ports": _tcp(*_peer_ports(peer))} for peer in service.peers]
    egress += [_store(nova, store) for store in stores.stores_of(nova.spec) if _uses(service, store)]
    if service.name == "auth-billing":
        egress.append(API_SERVER)  # TokenReview, and Stripe: neither's address is known to a selector
    if service.name == "intelligence" and nova.spec.models.llm.base_url:
        egress.append({"ports": _tcp(_port_of(nova.spec.models.llm.base_url))})  # its address may be any
    return _policy(nova, service.name, ingress, _once(egress))


def _peer_ports(peer: str) -> tuple[int, ...]:
    port = BY_NAME[peer].port
    return (INTERNAL_PORT,) if port is None else (port, INTERNAL_PORT)


def _port_of(url: str) -> int:
    """Return the port of an address, that of its scheme where it names none."""
    parts = urlsplit(url)
    usual = 443 if parts.scheme == "https" else 80
    try:
        return parts.port or usual
    except ValueError:
        return usual  # no number: the service says so when it starts


ANY_HIGH_PORT: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": 1024, "endPort": 65535}]}
"""To a store that is not ours: its port stands in a Secret."""


def _uses(service: Service, store: str) -> bool:
    return {stores.POSTGRES: service.schema is not None, stores.REDIS: service.redis, stores.CACHE: service.cache}[
        store
    ]


def _store(nova: Nova, store: str) -> dict[str, Any]:
    if store in stores.run_elsewhere(nova.spec):
        return ANY_HIGH_PORT
    pods = _pods(store) if store in stores.run_by_us(nova.spec) else [CLUSTER_PODS]
    return {"to": pods, "ports": _tcp(stores.PORT[store])}


def build_store_policy(nova: Nova, store: str) -> Manifest | None:
    """Return the policy of a data store: its users come in, nothing goes out."""
    users = [service.name for service in SERVICES if _uses(service, store)]
    if store == stores.POSTGRES:
        users.append("migrate")
    return _policy(nova, store, [{"from": _pods(*users), "ports": _tcp(stores.PORT[store])}], [])


CLUSTER_PODS: dict[str, Any] = {"podSelector": {"matchLabels": {stores.CLUSTER_LABEL: POSTGRES_NAME}}}
CLUSTER_STATUS_PORT, CLUSTER_METRICS_PORT = 8000, 9187
"""On which CloudNativePG asks its instances for their state, and serves their metrics."""


def build_cluster_policy(nova: Nova) -> Manifest | None:
    """Return the policy of CloudNativePG's pods: their users, each other, and its operator, wherever that runs.

    Only who comes in: they talk to the API server and to backups of their own, which is not ours to know.
    """
    if not nova.spec.network_policy.enabled:
        return None
    users = [*(service.name for service in SERVICES if service.schema is not None), "migrate"]
    ingress = [
        {"from": [*_pods(*users), CLUSTER_PODS], "ports": _tcp(POSTGRES_PORT)},
        {"ports": _tcp(CLUSTER_STATUS_PORT, CLUSTER_METRICS_PORT)},
    ]
    spec = {**CLUSTER_PODS, "policyTypes": ["Ingress"], "ingress": ingress}
    return manifest(NETWORK_POLICY, nova, POSTGRES_NAME, component=stores.POSTGRES, spec=spec)


def build_migrate_policy(nova: Nova) -> Manifest | None:
    """Return the policy of the migration Job: to Postgres and to a Redis that is not ours, and nobody comes in."""
    elsewhere = stores.run_elsewhere(nova.spec)
    tried = [store for store in stores.stores_of(nova.spec) if store == stores.POSTGRES or store in elsewhere]
    return _policy(nova, "migrate", [], _once([DNS, *(_store(nova, store) for store in tried)]))


def _once(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rule for number, rule in enumerate(rules) if rule not in rules[:number]]
