"""How many pods a service has, and who says so: the resource, or an autoscaler.

With autoscaling `spec.replicas` is no part of our Deployment. Whoever asks how many pods there should be asks here.
"""

from __future__ import annotations

from novacore_contracts.services import Service
from novacore_operator.state import Manifest, Nova, WorkloadFacts

ANNOTATION_LEAST = "novacore.ai/least-replicas"
"""On a Deployment that an autoscaler scales: the least number of pods."""
SCALE_MANAGER = "novacore-operator-scale"
"""Field manager of the handover."""


def replicas(nova: Nova, service: Service) -> int:
    """Return how many pods a service should have; with autoscaling, how many at least."""
    wanted = nova.spec.of(service.name)
    single = nova.spec.profile == "Development" or service.name == "distillation-worker"
    usual = 1 if single else 2  # distillation-worker: its schedule needs no second pod
    if wanted.autoscaling is not None:
        least = wanted.autoscaling.min_replicas
        return least if least is not None else min(usual, wanted.autoscaling.max_replicas)
    return usual if wanted.replicas is None else wanted.replicas


def scale_of(nova: Nova, service: Service) -> tuple[dict[str, str], dict[str, int]]:
    """Return the annotations and the part of the spec that say how many pods a Deployment has."""
    number = replicas(nova, service)
    if nova.spec.of(service.name).autoscaling is None:
        return {}, {"replicas": number}
    return {ANNOTATION_LEAST: str(number)}, {}


def pods_wanted(workload: Manifest, live: WorkloadFacts | None) -> int:
    """Return how many pods there should be now: what our manifest says, or what the autoscaler set.

    Never fewer than its least number: a Deployment that somebody scaled to nothing is not as wanted, and the
    autoscaler does not scale up from nothing.
    """
    given: int | None = workload["spec"].get("replicas", workload["spec"].get("instances"))
    if given is not None:
        return given
    # Neither: `replicas` is left to another manager, who insists on it.
    least = int(workload["metadata"]["annotations"].get(ANNOTATION_LEAST, "0"))
    return max(least, live.replicas) if live is not None else least


def build_scale_handover(deployment: Manifest, live: WorkloadFacts) -> Manifest | None:
    """Return what `SCALE_MANAGER` must apply before `deployment`, or None when nothing is handed over.

    When autoscaling begins, our apply stops naming `replicas`. A field that its only owner drops falls back to the
    default, one pod, until the autoscaler has looked again; a field with another owner keeps its value
    (Kubernetes documentation, Server-Side Apply, "Transferring ownership"; tried on 1.35). It is the number that runs,
    so it needs no force; a conflict means that the autoscaler has just set another one, and nothing is left to do.
    Nothing is handed over at 0, from which an autoscaler does not scale up: the default of one pod is wanted then.
    Nor where `replicas` is left to another manager, who insists on it: it is his already, and beside him we would be
    in his way the next time.
    """
    if ANNOTATION_LEAST not in deployment["metadata"].get("annotations", {}) or live.replicas < 1:
        return None
    return {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "metadata": {key: deployment["metadata"][key] for key in ("name", "namespace")},
        "spec": {"replicas": live.replicas},
    }
