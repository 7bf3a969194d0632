"""intelligence as a service: what it is made of and which loops it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from novacore.common.app import Platform, ServiceDefinition
from novacore.common.outbox import Relay
from novacore.intelligence.endpoints import router
from novacore.intelligence.executor import Executor
from novacore.intelligence.followups import SCHEMA, FollowUps
from novacore.intelligence.meter import ModelMeter
from novacore.intelligence.policy import Policy
from novacore.intelligence.providers import Chain, build_chain
from novacore.intelligence.runlog import RunLogs
from novacore.intelligence.service import ChatService
from novacore.intelligence.settings import IntelligenceSettings
from novacore.intelligence.tasks import Pulse

BODY_BYTES_MAX = 64 * 1024
"""The gateway's bound for `/api/chat/*`; mcp-server calls us directly."""


@asynccontextmanager
async def start(platform: Platform[IntelligenceSettings]) -> AsyncIterator[ChatService]:
    """Build the service and its loops; on leaving, drain the runs."""
    settings, clock, db, redis = platform.settings, platform.clock, platform.db, platform.redis
    if db is None or redis is None:
        raise RuntimeError("intelligence needs Postgres and Redis: see novacore_contracts.services")
    meter = ModelMeter(platform.metrics)
    chain = _chain(platform, meter)
    logs = RunLogs(redis, clock)
    followups = FollowUps(db=db, peers=platform.peers, settings=settings)
    policy = Policy(platform.peers, settings)
    executor = Executor(
        db=db, peers=platform.peers, chain=chain, policy=policy, logs=logs, followups=followups, settings=settings,
        metrics=platform.metrics, meter=meter, clock=clock,
    )  # fmt: skip
    pulse = Pulse(
        db=db, executor=executor, followups=followups, logs=logs, chain=chain, settings=settings, clock=clock,
        draining=platform.draining,
    )  # fmt: skip
    service = ChatService(
        db=db, peers=platform.peers, chain=chain, policy=policy, logs=logs, executor=executor, followups=followups,
        settings=settings, metrics=platform.metrics, clock=clock,
    )  # fmt: skip
    if settings.llm.provider == "embedded":
        platform.readiness.add("model", chain.is_up)
        platform.readiness.add_startup("model", chain.is_up)
    else:  # once is enough: a model that goes away later degrades the service and does not take it out of traffic
        platform.readiness.add_at_first("model", chain.is_up)
    relay = Relay(db=db, redis=redis, schema=SCHEMA, platform=platform)
    try:
        async with executor:
            platform.spawn("models", pulse.measure)
            platform.spawn("heartbeat", pulse.beat)
            platform.spawn("sweep", pulse.sweep)
            platform.spawn("follow_ups", pulse.pay)
            platform.spawn("tidy", pulse.tidy)
            platform.spawn("drain", pulse.watch_drain)
            platform.spawn("outbox", relay.run)
            yield service
    finally:
        pulse.stop()
        await chain.close()


def _chain(platform: Platform[IntelligenceSettings], meter: ModelMeter) -> Chain:
    def key(_provider: str) -> str | None:
        entry = platform.keyrings.credential("providers")  # read at each call: a new key needs no restart
        value = entry.material.get("api_key") if entry else None
        return str(value) if value else None

    chain = build_chain(platform.settings.llm, models=platform.paths.models, clock=platform.clock, meter=meter, key=key)
    for provider in chain.providers:
        meter.announce(provider)
    return chain


async def health_fields(platform: Platform[IntelligenceSettings]) -> dict[str, Any]:
    """Return intelligence's fields of `/health`; the providers' state is what their last probe showed."""
    llm = platform.settings.llm
    up = {
        one.provider: platform.metrics.value("novacore_llm_provider_up", provider=one.provider) == 1
        for one in (llm, *llm.fallbacks)
    }
    database = platform.db is not None and await platform.db.ping()
    return {
        "status": "healthy" if database and any(up.values()) else "degraded",
        "database": database,
        "ollama": up.get("ollama", False),
        "model_loaded": any(up.values()),
        "gpu_available": False,  # the embedded model runs on the CPU; remote ones do not tell
    }


DEFINITION: ServiceDefinition[IntelligenceSettings] = ServiceDefinition(
    name="intelligence",
    settings=IntelligenceSettings,
    start=start,
    routers=(router,),
    health_fields=health_fields,
    body_bytes_max=BODY_BYTES_MAX,
)
