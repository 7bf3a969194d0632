"""HorizontalPodAutoscalers."""

from __future__ import annotations

from novacore_contracts.services import Service
from novacore_operator.build.common import manifest
from novacore_operator.build.scale import replicas
from novacore_operator.state import KINDS, Manifest, Nova


def build_horizontal_pod_autoscaler(nova: Nova, service: Service) -> Manifest | None:
    """Return the autoscaler of one service, or None when the number of its pods is fixed."""
    wanted = nova.spec.of(service.name).autoscaling
    if wanted is None:
        return None
    target = {"type": "Utilization", "averageUtilization": wanted.target_cpu_utilization}
    return manifest(
        "HorizontalPodAutoscaler",
        nova,
        service.full_name,
        component=service.name,
        spec={
            "scaleTargetRef": {
                "apiVersion": KINDS["Deployment"].api_version,
                "kind": "Deployment",
                "name": service.full_name,
            },
            "minReplicas": replicas(nova, service),
            "maxReplicas": wanted.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    )
