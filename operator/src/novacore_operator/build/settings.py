"""What stands in each service's `settings.yaml`. Plain values only: no secret, no port, no path.

The services refuse unknown keys, so a key here and there is one contract. They read the file when
they start; hence `settings_hash` is part of the pod template, and a changed setting replaces the pods of the services
that read it, and of no other.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import yaml

from novacore_contracts.services import BY_NAME
from novacore_operator.api.limits import Tier
from novacore_operator.api.spec import Spec
from novacore_operator.build.common import CONFIG_MAP, manifest
from novacore_operator.state import Manifest, Nova, names
from novacore_operator.state.ownership import digest

GIB = 1 << 30


def settings_of(spec: Spec, service: str) -> dict[str, Any]:
    """Return the settings of one service."""
    common: dict[str, Any] = {
        "version": spec.version,
        "log_level": spec.of(service).log_level or "info",
        "profile": spec.profile,
        "tiers": _tiers(spec),
    }
    if BY_NAME[service].cache and spec.cache_is_separate():
        common["redis_cache"] = "separate"
    return common | _own(spec, service)


def _own(spec: Spec, service: str) -> dict[str, Any]:
    if service == "gateway":
        return {"limits": spec.limits.model_dump()}
    if service == "intelligence":
        return {"llm": _llm(spec)}
    if service == "auth-billing" and spec.stripe.enabled:
        return {"stripe": _stripe(spec)}
    if service == "memory":
        return {"embeddings": {"provider": spec.models.embeddings.provider}}
    return {}


def _llm(spec: Spec) -> dict[str, Any]:
    llm = spec.models.llm
    settings: dict[str, Any] = {
        "provider": llm.provider,
        "max_tokens": llm.max_tokens,
        "timeout_seconds": llm.timeout_seconds,
    }
    if llm.model:
        settings["model"] = llm.model
    if llm.base_url:
        settings["base_url"] = llm.base_url
    if llm.provider == "echo":
        settings["echo"] = llm.echo.model_dump()
    return settings


def _stripe(spec: Spec) -> dict[str, Any]:
    stripe = spec.stripe
    settings: dict[str, Any] = {"enabled": True, "prices": stripe.prices.model_dump(exclude_none=True)}
    if stripe.return_url:
        settings["return_url"] = stripe.return_url.rstrip("/")
    return settings


def _tiers(spec: Spec) -> dict[str, Any]:
    return {
        "free_trial": _tier(spec.tiers.free_trial),
        "basic": _tier(spec.tiers.basic),
        "pro": _tier(spec.tiers.pro),
    }


def _tier(tier: Tier) -> dict[str, Any]:
    return {
        "llm_tokens_per_day": tier.tokens_per_day,
        "memory_storage_bytes": tier.memory_gi_b * GIB if tier.memory_gi_b >= 0 else -1,
        "agent_minutes_per_month": tier.agent_minutes_per_month,
        "requests_per_minute": tier.requests_per_minute,
        "read_per_minute": tier.read_per_minute,
        "ngs_max_level": tier.ngs_max_level,
        "mcp": tier.mcp,
    }


def settings_hash(spec: Spec, service: str) -> str:
    """Return the hash of what a service reads when it starts."""
    return digest(settings_of(spec, service))


def build_settings(nova: Nova, service: str) -> Manifest:
    """Return the ConfigMap `novacore-<service>-settings`."""
    text = _as_yaml(json.dumps(settings_of(nova.spec, service), sort_keys=True))
    return manifest(CONFIG_MAP, nova, names.settings(service), component=service, data={"settings.yaml": text})


@lru_cache(maxsize=1024)
def _as_yaml(text: str) -> str:
    """Return JSON as YAML. Remembered: writing nine of them takes longer than the rest of a plan."""
    written: str = yaml.safe_dump(json.loads(text), sort_keys=True)
    return written
