"""How distillation-worker is put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from novacore.common.app import Platform, ServiceDefinition
from novacore.distillation_worker.endpoints import internal_router
from novacore.distillation_worker.service import Distiller
from novacore.distillation_worker.settings import DistillationWorkerSettings
from novacore.distillation_worker.tasks import Schedule


@asynccontextmanager
async def start(platform: Platform[DistillationWorkerSettings]) -> AsyncIterator[Distiller]:
    """Build the distiller and start its schedule."""
    assert platform.db is not None
    distiller = Distiller(db=platform.db, peers=platform.peers, metrics=platform.metrics, clock=platform.clock)
    schedule = Schedule(
        db=platform.db,
        distiller=distiller,
        settings=platform.settings,
        metrics=platform.metrics,
        clock=platform.clock,
        draining=platform.draining,
    )
    platform.spawn("schedule", schedule.run)
    yield distiller


DEFINITION = ServiceDefinition(
    name="distillation-worker",
    settings=DistillationWorkerSettings,
    start=start,
    internal_routers=(internal_router,),
)
