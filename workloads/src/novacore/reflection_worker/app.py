"""How reflection-worker is put together: one consumer of `stream:reflection`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from novacore.common.app import Platform, ServiceDefinition
from novacore.common.log import get_logger
from novacore.common.streams import Consumer
from novacore.reflection_worker.schemas import STREAM
from novacore.reflection_worker.service import Reflector
from novacore.reflection_worker.settings import ReflectionWorkerSettings

log = get_logger()

GROUP = "reflection-worker"


@asynccontextmanager
async def start(platform: Platform[ReflectionWorkerSettings]) -> AsyncIterator[Reflector]:
    """Build the reflector and start consuming, unless reflection is switched off."""
    settings = platform.settings.reflection
    assert platform.redis is not None
    reflector = Reflector(peers=platform.peers, redis=platform.redis, job_seconds=settings.job_seconds)
    if settings.enabled:
        consumer = Consumer(
            platform.redis,
            STREAM,
            GROUP,
            reflector.handle,
            platform=platform,
            job="reflection",
            concurrency=settings.concurrency,
        )
        platform.spawn("reflection", consumer.run)
    else:
        log.info("reflection_off", reason="reflection.enabled is false; messages wait in the stream")
    yield reflector


DEFINITION = ServiceDefinition(name="reflection-worker", settings=ReflectionWorkerSettings, start=start)
