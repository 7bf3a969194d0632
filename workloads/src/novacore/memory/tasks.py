"""Loops of memory: expired memories go (with their storage), charges of dead requests are settled, gauges are read."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from novacore.common import context
from novacore.common.database import Database
from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.memory import repository
from novacore.memory.rules import TIERS
from novacore.memory.schemas import Batch
from novacore.memory.service import MemoryService
from novacore.memory.settings import MemorySettings
from novacore.memory.storage import Storage

log = get_logger()

GAUGE_SECONDS = 300
USERS_PER_SWEEP = 200


class Sweep:
    """One turn each; `run` and `measure` repeat them. Any number of replicas may run them at once."""

    def __init__(
        self,
        *,
        db: Database,
        service: MemoryService,
        storage: Storage,
        settings: MemorySettings,
        metrics: Metrics,
        draining: asyncio.Event,
    ) -> None:
        self._draining = draining
        self._db = db
        self._service = service
        self._storage = storage
        self._settings = settings
        self._items = metrics.gauge("novacore_memory_items")
        self._bytes = metrics.gauge("novacore_memory_bytes")
        self._pending = metrics.gauge("novacore_memory_expired_pending")

    async def run(self) -> None:
        """Sweep until the process drains (asked for, because Python 3.11 loses a cancellation now and then)."""
        while not self._draining.is_set():
            await asyncio.sleep(self._settings.sweep_seconds)
            try:
                with context.bind():
                    await self.expire_once()
                    await self._storage.give_back_stale(timedelta(seconds=self._settings.charge_grace_seconds))
            except ServiceError as error:  # Postgres is away; the next turn finds the same rows
                log.warning("sweep_postponed", reason=error.code)

    async def measure(self) -> None:
        """Read the gauges every five minutes."""
        while not self._draining.is_set():
            try:
                await self.measure_once()
                await asyncio.sleep(GAUGE_SECONDS)
            except ServiceError:
                await asyncio.sleep(5)

    async def expire_once(self) -> int:
        """Remove what has expired, a batch per user; return how many."""
        async with self._db.connection() as conn:
            users = await repository.users_with_expired(conn, USERS_PER_SWEEP)
        removed = 0
        for user_id in users:
            removed += (await self._service.purge(user_id, Batch())).count
        return removed

    async def measure_once(self) -> None:
        """Set the gauges from SQL."""
        async with self._db.connection() as conn:
            totals = await repository.totals(conn)
        for tier in TIERS:
            items, size, _expired = totals.get(tier, (0, 0, 0))
            self._items.labels(tier).set(items)
            self._bytes.labels(tier).set(size)
        self._pending.set(sum(expired for _items, _size, expired in totals.values()))
