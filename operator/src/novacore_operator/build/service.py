"""Services: one per component, and the gateway's public one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from novacore_contracts.services import (
    BY_NAME,
    GATEWAY_NODE_PORT,
    INTERNAL_PORT,
    PUBLIC_SERVICE_NAME,
    Service,
)
from novacore_operator.build.common import manifest, selector
from novacore_operator.build.site import Site
from novacore_operator.state import Kind, Manifest, Nova, stores
from novacore_operator.state.names import LABEL_SERVING

SERVICE = Kind("Service", "v1", "services", wave=1)


def services(site: Site) -> Iterator[Manifest | None]:
    """Return the Services of an installation."""
    for store in stores.run_by_us(site.nova.spec):
        yield build_store_service(site.nova, store)
    yield build_public_service(site.nova)
    for service in site.nova.spec.enabled_services():
        yield build_service(site.nova, service)


def _port(name: str, number: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": number, "targetPort": name, "protocol": "TCP", **more}


def build_service(nova: Nova, service: Service) -> Manifest:
    """Return the Service inside the namespace: `http` (not for a worker) and `internal`."""
    ports = [] if service.port is None else [_port("http", service.port)]
    ports.append(_port("internal", INTERNAL_PORT))
    return manifest(
        SERVICE,
        nova,
        service.full_name,
        component=service.name,
        spec={"type": "ClusterIP", "selector": {**selector(service.name), LABEL_SERVING: "true"}, "ports": ports},
    )


def build_public_service(nova: Nova) -> Manifest:
    """Return the one Service that is published: port `http` of the gateway and never `internal`."""
    expose = nova.spec.expose
    port = BY_NAME["gateway"].port
    if port is None:
        raise ValueError("the gateway has a port")
    more = {"nodePort": expose.node_port or GATEWAY_NODE_PORT} if expose.type == "NodePort" else {}
    return manifest(
        SERVICE,
        nova,
        PUBLIC_SERVICE_NAME,
        component="gateway",
        spec={
            "type": expose.type,
            "selector": {**selector("gateway"), LABEL_SERVING: "true"},
            "ports": [_port("http", port, **more)],
        },
    )


def build_store_service(nova: Nova, component: str) -> Manifest:
    """Return the Service of a data store. Not headless: a connection survives the pod's change of address."""
    return manifest(
        SERVICE,
        nova,
        stores.FULL_NAME[component],
        component=component,
        spec={
            "type": "ClusterIP",
            "selector": selector(component),
            "ports": [_port(stores.PORT_NAME[component], stores.PORT[component])],
        },
    )
