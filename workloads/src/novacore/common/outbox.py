"""Events that leave a service go through a table: written in the caller's transaction, moved to a stream afterwards.

Invariants: OUTBOX-1 an event exists if and only if its transaction committed; OUTBOX-2 a row is marked only after XADD
answered, so a crash repeats it and loses nothing (consumers are idempotent by the envelope's id).
The table is the same in every schema (`migrations/common.sql`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

from novacore.common import context
from novacore.common.ids import uuid7
from novacore.common.log import get_logger
from novacore.common.redis import Redis, RedisError
from novacore.common.streams import Envelope, stream_of

if TYPE_CHECKING:
    from novacore.common.app import Platform
    from novacore.common.database import Connection, Database

log = get_logger()

BATCH = 100
POLL_SECONDS = 0.5
SWEEP_SECONDS = 600


async def add(conn: Connection, *, type: str, payload: dict[str, Any], user_id: UUID | None, schema: str) -> UUID:  # noqa: A002 - the field's name in the envelope
    """Write an event in the caller's transaction and return its id."""
    event_id = uuid7()
    trail = context.current()
    meta = {
        "request_id": context.request_id(),
        "traceparent": trail.traceparent if trail else None,
        "user_id": str(user_id) if user_id else None,
    }
    await conn.execute(
        f"INSERT INTO {_checked(schema)}.outbox (id, type, payload, meta) VALUES ($1, $2, $3, $4)",  # noqa: S608 - schema is checked
        event_id, type, payload, meta,
    )  # fmt: skip
    return event_id


class Relay:
    """Moves rows to their streams. Any number of replicas may run it at once (SKIP LOCKED)."""

    def __init__(self, *, db: Database, redis: Redis, schema: str, platform: Platform[Any]) -> None:
        self._db = db
        # The patient client: an XADD that times out may have arrived, and is then sent twice.
        self._redis = platform.redis_blocking if redis is platform.redis and platform.redis_blocking else redis
        self._schema = _checked(schema)
        self._draining = platform.draining
        metrics = platform.metrics
        self._relayed = metrics.counter("novacore_outbox_relayed_total")
        self._oldest = metrics.gauge("novacore_outbox_oldest_timestamp_seconds")
        self._monotonic = platform.clock.monotonic

    async def run(self) -> None:
        """Relay for ever; a full batch is followed by the next at once."""
        next_sweep = self._monotonic() + SWEEP_SECONDS
        while not self._draining.is_set():
            try:
                moved = await self.relay_once()
            except RedisError:
                self._relayed.labels("error").inc()
                moved = 0
            if self._monotonic() >= next_sweep:
                next_sweep = self._monotonic() + SWEEP_SECONDS
                async with self._db.connection() as conn:
                    await conn.execute(f"SELECT {self._schema}.sweep_common()")
            if moved < BATCH:
                await asyncio.sleep(POLL_SECONDS)

    async def relay_once(self) -> int:
        """Move up to one batch and return how many rows it moved."""
        async with self._db.transaction() as conn:
            rows = await conn.fetch(
                f"SELECT id, type, payload, meta, created_at FROM {self._schema}.outbox WHERE relayed_at IS NULL"  # noqa: S608 - checked
                " ORDER BY created_at, id LIMIT $1 FOR UPDATE SKIP LOCKED",
                BATCH,
            )
            if not rows:
                self._oldest.set(0)
                return 0
            self._oldest.set(rows[0]["created_at"].timestamp())
            async with self._redis.pipeline(transaction=False) as pipe:
                for row in rows:
                    envelope = Envelope(
                        id=row["id"], type=row["type"], ts=row["created_at"], payload=row["payload"],
                        request_id=row["meta"].get("request_id"), traceparent=row["meta"].get("traceparent"),
                        user_id=row["meta"].get("user_id"),
                    )  # fmt: skip
                    pipe.xadd(stream_of(row["type"], self._schema), {"e": envelope.model_dump_json()})
                await pipe.execute()
            await conn.execute(
                f"UPDATE {self._schema}.outbox SET relayed_at = now() WHERE id = ANY($1)",  # noqa: S608 - checked
                [row["id"] for row in rows],
            )
        self._relayed.labels("ok").inc(len(rows))
        return len(rows)


def _checked(schema: str) -> str:
    if not schema.isidentifier():
        raise ValueError(f"not a schema name: {schema!r}")
    return schema
