"""How memory is put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from novacore.common.app import Platform, ServiceDefinition
from novacore.common.outbox import Relay
from novacore.memory.embeddings import Embedder, load
from novacore.memory.endpoints import internal_router, router
from novacore.memory.service import MemoryService
from novacore.memory.settings import MemorySettings
from novacore.memory.storage import Storage
from novacore.memory.tasks import Sweep
from novacore.memory.turns import Ranking, Turns

BODY_BYTES_MAX = 256 * 1024


@asynccontextmanager
async def start(platform: Platform[MemorySettings]) -> AsyncIterator[MemoryService]:
    """Load the embedding model (about 0.3 s), build the service, start its loops."""
    settings, db, cache, redis = platform.settings, platform.db, platform.cache, platform.redis
    assert db is not None
    assert cache is not None
    assert redis is not None
    model = await asyncio.to_thread(load, settings.embeddings.provider, platform.paths.models)
    embedder = Embedder(model, platform.metrics)
    platform.readiness.add("model", lambda: True)  # measured by being here: without the model there is no service
    storage = Storage(db, platform.peers)
    service = MemoryService(
        db=db,
        storage=storage,
        embedder=embedder,
        turns=Turns(cache, settings.memory),
        ranking=Ranking(cache, settings.memory),
        settings=settings.memory,
        metrics=platform.metrics,
        clock=platform.clock,
        # A store holds one connection and borrows a second for its charge: together they never empty the pool.
        parallel_stores=max(1, (settings.postgres_pool_max - 1) // 2),
    )
    sweep = Sweep(
        db=db,
        service=service,
        storage=storage,
        settings=settings,
        metrics=platform.metrics,
        draining=platform.draining,
    )
    platform.spawn("embeddings", embedder.run)
    platform.spawn("outbox", Relay(db=db, redis=redis, schema="memory", platform=platform).run)
    platform.spawn("sweep", sweep.run)
    platform.spawn("gauges", sweep.measure)
    try:
        yield service
    finally:
        embedder.close()


DEFINITION = ServiceDefinition(
    name="memory",
    settings=MemorySettings,
    start=start,
    routers=(router,),
    internal_routers=(internal_router,),
    body_bytes_max=BODY_BYTES_MAX,
)
