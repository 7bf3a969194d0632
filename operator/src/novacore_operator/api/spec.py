"""`spec` of a NovaCoreDeployment, as far as this release of the operator carries it out.

A field that would have no effect yet is not here: the API server then says so, instead of taking it silently. The parts
lie in a module each; this one puts them together.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from novacore_contracts.releases import RELEASES
from novacore_contracts.services import BY_NAME, SERVICES, Service
from novacore_operator.api.fields import Model, rules
from novacore_operator.api.limits import Limits, Tiers
from novacore_operator.api.models import Models
from novacore_operator.api.network import Expose, NetworkPolicySpec
from novacore_operator.api.rings import Secrets
from novacore_operator.api.rollout import Maintenance, Rollout, Window
from novacore_operator.api.service import Image, ServiceSpec
from novacore_operator.api.stores import Postgres, Redis
from novacore_operator.api.stripe import Stripe

__all__ = ["Spec", "Window"]

SERVICE_NAMES = tuple(BY_NAME)
INDISPENSABLE = {"gateway": "it is the only way in", "auth-billing": "all others need its tokens"}
ServiceKey = Annotated[str, Field(max_length=63)]


class Spec(Model):
    """The desired installation."""

    version: str = Field(
        max_length=32,
        description="Release of the services; the image tag and the level of the database schemas follow from it.",
        json_schema_extra=rules(
            (
                r"self.matches('^[0-9]+\\.[0-9]+\\.[0-9]+(-[a-z0-9.]+)?$')",
                "version must be a release such as 0.1.0, without a leading v",
            )
        ),
    )
    mode: Literal["Apply", "Plan"] = Field(
        default="Apply",
        description="Apply: do it. Plan: write nothing but status.plan, which says what Apply would do.",
    )
    paused: bool = Field(default=False, description="Change and repair nothing; the status is still kept.")
    profile: Literal["Development", "Production"] = Field(
        default="Development",
        description="Development: one pod each. Production: two pods each, budgets, spread.",
    )
    image: Image = Field(default=Image(), description="Where the services' image comes from.")
    expose: Expose = Field(default=Expose(), description="How the gateway is reached from outside the cluster.")
    services: dict[ServiceKey, ServiceSpec] = Field(
        default={},
        max_length=9,
        description="Settings of single services, by name: " + ", ".join(SERVICE_NAMES) + ".",
        json_schema_extra=rules(
            (
                f"self.all(k, k in [{', '.join(repr(name) for name in SERVICE_NAMES)}])",
                f"spec.services has a service that does not exist: use one of {', '.join(SERVICE_NAMES)}",
            ),
            (
                "!('distillation-worker' in self) || !has(self['distillation-worker'].replicas) || "
                "self['distillation-worker'].replicas <= 1",
                "distillation-worker keeps its own schedule and runs as one pod: set its replicas to 0 or 1",
            ),
            (
                "!('distillation-worker' in self) || !has(self['distillation-worker'].autoscaling)",
                "distillation-worker keeps its own schedule and runs as one pod: remove its autoscaling",
            ),
            *(
                (
                    f"!('{name}' in self) || self['{name}'].enabled",
                    f"{name} cannot be disabled, because {why}: remove services.{name}.enabled",
                )
                for name, why in INDISPENSABLE.items()
            ),
        ),
    )
    postgres: Postgres = Field(default=Postgres(), description="Postgres with pgvector: all that must last.")
    redis: Redis = Field(default=Redis(), description="Redis: streams, revocations, rate limits, short memory.")
    models: Models = Field(default=Models(), description="The language model and the embedding model.")
    stripe: Stripe = Field(default=Stripe(), description="The payment provider.")
    limits: Limits = Field(default=Limits(), description="Rate limits of the gateway.")
    tiers: Tiers = Field(default=Tiers(), description="What each subscription tier may use.")
    network_policy: NetworkPolicySpec = Field(default=NetworkPolicySpec(), description="Which pods may talk to which.")
    secrets: Secrets = Field(default=Secrets(), description="How keys are changed.")
    rollout: Rollout = Field(default=Rollout(), description="How a change is carried out.")
    maintenance: Maintenance = Field(default=Maintenance(), description="When pods may be replaced.")

    def of(self, service: str) -> ServiceSpec:
        """Return the settings of one service, empty if none are given."""
        return self.services.get(service, ServiceSpec())

    def since(self, release: str) -> bool:
        """Return whether the release asked for is `release` or a later one; one that nobody knows is later."""
        return RELEASES.index(self.version) >= RELEASES.index(release) if self.version in RELEASES else True

    def cache_is_separate(self) -> bool:
        """Return whether what may be lost has a Redis of its own. Release 0.1.0 cannot read of one."""
        redis = self.redis
        if redis.mode == "External":
            return redis.external is not None and redis.external.cache_secret_ref is not None
        if redis.cache is not None:
            return redis.cache == "Separate"
        return self.profile == "Production" and self.since("0.2.0")

    def enabled_services(self) -> tuple[Service, ...]:
        """Return the services that shall exist. Whoever counts or walks services of an installation asks here."""
        return tuple(service for service in SERVICES if self.of(service.name).enabled)
