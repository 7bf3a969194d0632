"""The leaderboard, cached for some seconds in Redis B (`lb:xp`). Losing the cache costs one query, never a row."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

from novacore.common.database import Database
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.redis import Redis, RedisError
from novacore.ngs_curriculum import repository

log = get_logger()

KEY = "lb:xp"
ROWS_MAX = 100
FRESH_SECONDS = 15


class Leaderboard:
    """Reads through the cache; one rebuild at a time per process."""

    def __init__(self, *, db: Database, cache: Redis, metrics: Metrics) -> None:
        self._db = db
        self._cache = cache
        self._seconds = metrics.histogram("novacore_leaderboard_rebuild_seconds")
        self._rebuilding = asyncio.Lock()

    async def top(self, limit: int) -> list[dict[str, Any]]:
        """Return the first `limit` (≤ 100) rows."""
        rows = await self._read()
        if rows is None:
            async with self._rebuilding:
                rows = await self._read()
                if rows is None:
                    rows = await self._rebuild()
        return rows[:limit]

    async def forget(self) -> None:
        """Drop the cached rows: XP or visibility changed. Without Redis they go stale within seconds by themselves."""
        try:
            await self._cache.delete(KEY)
        except RedisError as error:
            log.warning("leaderboard_not_forgotten", reason=type(error).__name__)

    async def _read(self) -> list[dict[str, Any]] | None:
        try:
            raw = await self._cache.get(KEY)
        except RedisError:
            return None
        return json.loads(raw) if raw is not None else None

    async def _rebuild(self) -> list[dict[str, Any]]:
        started = time.monotonic()
        async with self._db.transaction(readonly=True) as conn:
            rows = await repository.leaders(conn, limit=ROWS_MAX)
        self._seconds.observe(time.monotonic() - started)
        lifetime_s = round(FRESH_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
        try:
            await self._cache.set(KEY, json.dumps(rows), ex=lifetime_s)
        except RedisError as error:
            log.warning("leaderboard_not_cached", reason=type(error).__name__)
        return rows
