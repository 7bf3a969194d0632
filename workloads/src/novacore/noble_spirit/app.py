"""noble-spirit as data: what it is made of and what runs beside the requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from novacore.common.app import Platform, ServiceDefinition
from novacore.common.errors import ServiceError
from novacore.noble_spirit import endpoints, tasks
from novacore.noble_spirit.service import NobleSpirit
from novacore.noble_spirit.settings import NobleSpiritSettings
from novacore.noble_spirit.signing import PolicyKeys


@asynccontextmanager
async def start(platform: Platform[NobleSpiritSettings]) -> AsyncIterator[NobleSpirit]:
    """Build the service and start its loops."""
    assert platform.db is not None
    service = NobleSpirit(
        db=platform.db,
        keys=PolicyKeys(platform.paths.policy_private),
        settings=platform.settings.policy,
        clock=platform.clock,
        metrics=platform.metrics,
    )
    platform.readiness.add("model", lambda: service.ready)  # its model is the policy
    platform.spawn("policy", lambda: tasks.follow_policy(platform, service))
    platform.spawn("audit", lambda: tasks.flush_audit(platform, service))
    platform.spawn("audit_chain", lambda: tasks.verify_audit(platform, service))
    try:
        yield service
    finally:
        with suppress(ServiceError):
            await service.flush()


DEFINITION = ServiceDefinition(
    name="noble-spirit",
    settings=NobleSpiritSettings,
    start=start,
    routers=endpoints.ROUTERS,
)
