"""The worker's own schedule: one run a day, made up for when the pod was away at that time."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from novacore.common.clock import Clock
from novacore.common.database import Database
from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.distillation_worker import repository, rules
from novacore.distillation_worker.service import Distiller
from novacore.distillation_worker.settings import DistillationWorkerSettings

log = get_logger()

TICK_SECONDS = 15.0


class Schedule:
    """Starts a run when one is due. On a fresh installation the first slot is the next one to come."""

    def __init__(
        self,
        *,
        db: Database,
        distiller: Distiller,
        settings: DistillationWorkerSettings,
        metrics: Metrics,
        clock: Clock,
        draining: asyncio.Event,
    ) -> None:
        self._draining = draining
        self._db = db
        self._distiller = distiller
        self._settings = settings
        self._clock = clock
        self._started = clock.now()
        self._last_loop = metrics.gauge("novacore_worker_last_loop_timestamp_seconds")

    async def run(self) -> None:
        """Look at the clock until the process drains."""
        recalled = False
        while not self._draining.is_set():
            self._last_loop.set(time.time())
            try:
                if not recalled:
                    await self._distiller.recall_success()
                    recalled = True
                await self.tick()
            except ServiceError as error:  # Postgres is away; the run stays due
                log.warning("schedule_postponed", reason=error.code)
            await asyncio.sleep(TICK_SECONDS)

    async def tick(self) -> bool:
        """Run if due; return whether it did."""
        async with self._db.connection() as conn:
            good, attempt = await repository.last_runs(conn)
        due = rules.is_due(
            self._clock.now(),
            self._settings.at,
            since=good or self._started,
            last_attempt=attempt,
            retry_after=timedelta(seconds=self._settings.retry_seconds),
        )
        if due:
            await self._distiller.run()
        return due
