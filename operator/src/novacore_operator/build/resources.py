"""Requests and limits. The defaults let the whole platform start on two cores and 4 GiB (a laptop in kind)."""

from __future__ import annotations

from novacore_operator.api.resources import Resources
from novacore_operator.build.common import amount, canonical

# service: (cpu request, memory request, cpu limit, memory limit). Memory requests are what the process was measured to
# hold when idle, rounded up; cpu limits are generous because a start is one core-second of imports.
DEFAULTS: dict[str, tuple[str, str, str, str]] = {
    "gateway": ("50m", "96Mi", "2", "384Mi"),
    "auth-billing": ("50m", "128Mi", "2", "512Mi"),  # argon2id takes 64 MiB per login in flight
    "intelligence": ("100m", "384Mi", "2", "1Gi"),  # the embedded model: 342 MB with four slots
    "memory": ("50m", "320Mi", "2", "768Mi"),  # MiniLM: 175 MB
    "noble-spirit": ("20m", "96Mi", "1", "384Mi"),
    "ngs-curriculum": ("20m", "96Mi", "1", "384Mi"),
    "mcp-server": ("20m", "96Mi", "1", "384Mi"),
    "reflection-worker": ("20m", "96Mi", "1", "384Mi"),
    "distillation-worker": ("20m", "96Mi", "1", "384Mi"),
    "postgres": ("100m", "192Mi", "2", "768Mi"),
    "redis": ("20m", "32Mi", "1", "256Mi"),
    "redis-cache": ("20m", "32Mi", "1", "256Mi"),
    "migrate": ("20m", "96Mi", "1", "384Mi"),
}


def build_resources(component: str, wanted: Resources | None = None) -> dict[str, dict[str, str]]:
    """Return `resources` of a container: what the user gave, the rest from the defaults.

    A request above the default limit raises that limit to the request: the API server refuses it otherwise.
    """
    cpu, memory, cpu_limit, memory_limit = DEFAULTS[component]
    requests = {"cpu": cpu, "memory": memory}
    limits = {"cpu": cpu_limit, "memory": memory_limit}
    given_requests = wanted.requests if wanted else None
    given_limits = wanted.limits if wanted else None
    for what in ("cpu", "memory"):
        limit = getattr(given_limits, what, None)
        request = getattr(given_requests, what, None)
        if limit is not None:
            limits[what] = limit
        if request is not None:
            requests[what] = request
        if _above(requests[what], limits[what]):
            if limit is not None:
                requests[what] = limits[what]
            else:
                limits[what] = requests[what]
    return {
        "requests": {what: canonical(value) for what, value in requests.items()},
        "limits": {what: canonical(value) for what, value in limits.items()},
    }


def _above(request: str, limit: str) -> bool:
    return amount(request) > amount(limit)
