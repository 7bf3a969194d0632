"""HorizontalPodAutoscalers."""

from __future__ import annotations

from collections.abc import Iterator

from novacore_contracts.services import Service
from novacore_operator.build.common import manifest
from novacore_operator.build.deployment import DEPLOYMENT
from novacore_operator.build.scale import replicas
from novacore_operator.build.site import Site
from novacore_operator.state import Kind, Manifest, Nova

HORIZONTAL_POD_AUTOSCALER = Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers", wave=5)


def horizontal_pod_autoscalers(site: Site) -> Iterator[Manifest | None]:
    """Return the autoscalers of an installation."""
    for service in site.nova.spec.enabled_services():
        yield build_horizontal_pod_autoscaler(site.nova, service)


def build_horizontal_pod_autoscaler(nova: Nova, service: Service) -> Manifest | None:
    """Return the autoscaler of one service, or None when the number of its pods is fixed."""
    wanted = nova.spec.of(service.name).autoscaling
    if wanted is None:
        return None
    target = {"type": "Utilization", "averageUtilization": wanted.target_cpu_utilization}
    return manifest(
        HORIZONTAL_POD_AUTOSCALER,
        nova,
        service.full_name,
        component=service.name,
        spec={
            "scaleTargetRef": {
                "apiVersion": DEPLOYMENT.api_version,
                "kind": DEPLOYMENT.name,
                "name": service.full_name,
            },
            "minReplicas": replicas(nova, service),
            "maxReplicas": wanted.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    )
