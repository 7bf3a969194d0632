"""How ngs-curriculum is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from novacore.common.app import Platform, ServiceDefinition
from novacore.common.outbox import Relay
from novacore.common.streams import Consumer
from novacore.ngs_curriculum.earning import SCHEMA
from novacore.ngs_curriculum.endpoints import router
from novacore.ngs_curriculum.service import NgsService
from novacore.ngs_curriculum.settings import NgsSettings
from novacore.ngs_curriculum.tasks import GROUP, JOB, STREAM, UserEvents

BODY_BYTES_MAX = 512 * 1024  # 50 000 characters of a submission, escaped


@asynccontextmanager
async def start(platform: Platform[NgsSettings]) -> AsyncIterator[NgsService]:
    """Build the service and start its loops."""
    db, redis, cache = platform.db, platform.redis, platform.cache
    assert db is not None
    assert redis is not None
    assert cache is not None
    service = NgsService(platform, db=db, cache=cache)
    platform.spawn("outbox", Relay(db=db, redis=redis, schema=SCHEMA, platform=platform).run)
    users = Consumer(redis, STREAM, GROUP, UserEvents(service).handle, platform=platform, job=JOB)
    platform.spawn("user_events", users.run)
    yield service


DEFINITION = ServiceDefinition(
    name="ngs-curriculum",
    settings=NgsSettings,
    start=start,
    routers=(router,),
    body_bytes_max=BODY_BYTES_MAX,
)
