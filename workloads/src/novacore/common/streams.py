"""Redis streams: the envelope, and a consumer that loses nothing.

Invariants: STREAM-1 a message is acknowledged only after its handler returned, or after it lies in the dead letters;
STREAM-2 a message is taken from another consumer only when that consumer is dead (no heartbeat), however long it works;
STREAM-3 nothing is trimmed that any group has not acknowledged.
A handler must be idempotent by the envelope's id: a crash between its write and the ack delivers again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.exceptions import ResponseError

from novacore.common import context
from novacore.common.ids import uuid7
from novacore.common.log import get_logger
from novacore.common.redis import Redis, RedisError

if TYPE_CHECKING:
    from novacore.common.app import Platform

log = get_logger()

VERSION: Final = 1
BLOCK_MS: Final = 2000
COUNT: Final = 16
CLAIM_EVERY_S: Final = 15.0
CLAIM_IDLE_MS: Final = 60_000
HEARTBEAT_SECONDS: Final = 30
ATTEMPTS_MAX: Final = 5
BACKOFF_SECONDS: Final = (1.0, 60.0)


class Envelope(BaseModel):
    """What travels in a stream. Unknown `v` is refused here; unknown `type` by the handler (`UnknownTypeError`)."""

    model_config = ConfigDict(extra="forbid")

    v: int = VERSION
    id: UUID = Field(default_factory=uuid7)
    type: str
    ts: datetime = Field(default_factory=lambda: datetime.now(UTC))
    request_id: str | None = None
    traceparent: str | None = None
    user_id: UUID | None = None
    attempt: int = 1
    payload: dict[str, Any]


class PoisonError(Exception):
    """This message can never succeed (unknown type, payload of the wrong shape): straight to the dead letters."""


def stream_of(type_: str, schema: str) -> str:
    """Return the stream an event type goes to."""
    return "stream:reflection" if type_.startswith("reflection.") else f"stream:outbox:{schema}"


def dead_letters_of(stream: str) -> str:
    """Return the stream of messages given up."""
    return f"{stream}:dead"


def delayed_of(stream: str, group: str) -> str:
    """Return the sorted set of messages that wait for their next attempt, by due time in Unix seconds."""
    return f"zset:{stream.removeprefix('stream:')}:{group}:delayed"


class Consumer:
    """One consumer of one group; the pod's name is the consumer's name."""

    def __init__(
        self,
        redis: Redis,
        stream: str,
        group: str,
        handler: Callable[[Envelope], Awaitable[None]],
        *,
        platform: Platform[Any],
        job: str,
        name: str | None = None,
        attempts_max: int = ATTEMPTS_MAX,
        concurrency: int = 1,
    ) -> None:
        # The patient client for all of it: a worker has time, and an ack that times out is a message done twice.
        self._redis = platform.redis_blocking if redis is platform.redis and platform.redis_blocking else redis
        self._stream = stream
        self._group = group
        self._handler = handler
        self._job = job
        self._name = name or os.environ.get("HOSTNAME") or f"{platform.spec.name}-{os.getpid()}"
        self._attempts_max = attempts_max
        self._concurrency = concurrency
        self._platform = platform
        self._draining = platform.draining
        metrics = platform.metrics
        self._jobs = metrics.counter("novacore_jobs_total")
        self._seconds = metrics.histogram("novacore_job_duration_seconds").labels(job)
        for result in ("ok", "retry", "dead"):
            self._jobs.labels(job, result)
        self._gauges = {
            name: metrics.gauge(f"novacore_{name}").labels(stream)
            for name in ("stream_lag", "stream_pending", "stream_oldest_timestamp_seconds", "dead_letters")
        }
        self._last_loop = metrics.gauge("novacore_worker_last_loop_timestamp_seconds")

    async def run(self) -> None:
        """Consume until the process drains. Redis failures are waited out; nothing is lost by them."""
        delay = BACKOFF_SECONDS[0]
        await self._until_group_exists()
        async with asyncio.TaskGroup() as tasks:
            housekeeping = tasks.create_task(self._keep_house())
            while not self._draining.is_set():
                try:
                    await self.consume_once(block_ms=BLOCK_MS)
                    delay = BACKOFF_SECONDS[0]
                except RedisError as error:
                    log.warning("stream_unreachable", stream=self._stream, reason=type(error).__name__)
                    await asyncio.sleep(delay)
                    delay = min(10.0, delay * 2)
                    await self._until_group_exists()
            housekeeping.cancel()

    async def consume_once(self, *, block_ms: int | None = None) -> int:
        """Read and handle one batch; return how many messages it held. Without `block_ms` it does not wait."""
        self._last_loop.set(time.time())
        answer = await self._redis.xreadgroup(self._group, self._name, {self._stream: ">"}, count=COUNT, block=block_ms)
        entries = _entries(answer)
        await self._handle_all(entries)
        return len(entries)

    async def claim_once(self) -> int:
        """Take over what dead consumers left, and handle it; return how many."""
        pending = await self._redis.xpending_range(
            self._stream, self._group, min="-", max="+", count=COUNT, idle=CLAIM_IDLE_MS
        )
        taken: list[tuple[str, dict[str, str]]] = []
        for entry in pending:
            owner = str(entry["consumer"])
            if owner != self._name and not await self._redis.exists(self._heartbeat(owner)):
                claimed: Any = await self._redis.xclaim(
                    self._stream, self._group, self._name, CLAIM_IDLE_MS, [entry["message_id"]]
                )
                taken += claimed
        await self._handle_all(taken)
        return len(taken)

    async def release_delayed(self) -> int:
        """Put messages whose waiting time is over back into the stream; return how many."""
        key = delayed_of(self._stream, self._group)
        moved = 0
        due: Any = await self._redis.zrangebyscore(key, "-inf", time.time(), start=0, num=COUNT)
        for raw in due:
            # Only one consumer gets to remove it; the XADD of the same script cannot be lost in between.
            moved += int(await self._redis.eval(_RELEASE, 2, key, self._stream, raw))
        return moved

    async def ensure_group(self) -> None:
        """Create the group at 0: `$` would lose what was queued before the first start."""
        try:
            await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _until_group_exists(self) -> None:
        while not self._draining.is_set():
            try:
                return await self.ensure_group()
            except RedisError as error:
                log.warning("stream_unreachable", stream=self._stream, reason=type(error).__name__)
                await asyncio.sleep(1.0)
        return None

    async def _keep_house(self) -> None:
        next_claim = 0.0
        while not self._draining.is_set():
            try:
                await self._redis.set(self._heartbeat(self._name), "1", ex=HEARTBEAT_SECONDS)
                await self.release_delayed()
                if time.monotonic() >= next_claim:
                    next_claim = time.monotonic() + CLAIM_EVERY_S * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
                    await self.claim_once()
                    await self._trim()
                    await self._measure()
            except RedisError as error:
                log.warning("stream_housekeeping_failed", stream=self._stream, reason=type(error).__name__)
            await asyncio.sleep(1.0)

    async def _handle_all(self, entries: list[tuple[str, dict[str, str]]]) -> None:
        gate = asyncio.Semaphore(self._concurrency)

        async def one(message_id: str, fields: dict[str, str]) -> None:
            async with gate:
                if self._draining.is_set():
                    return  # not begun: it stays pending, and another pod takes it over
                with self._platform.working():
                    await self._handle(message_id, fields)

        async with asyncio.TaskGroup() as tasks:
            for message_id, fields in entries:
                tasks.create_task(one(message_id, fields))

    async def _handle(self, message_id: str, fields: dict[str, str]) -> None:
        raw = fields.get("e", "")
        try:
            envelope = Envelope.model_validate_json(raw)
            if envelope.v != VERSION:
                raise PoisonError(f"unknown envelope version {envelope.v}")
        except (ValidationError, PoisonError) as error:
            await self._bury(message_id, raw, f"{type(error).__name__}: unreadable envelope")
            return
        started = time.monotonic()
        with context.bind(request_id=envelope.request_id, traceparent=envelope.traceparent, user_id=envelope.user_id):
            fields_ = {"stream": self._stream, "message_id": message_id, "attempt": envelope.attempt, "job": self._job}
            try:
                await self._handler(envelope)
            except PoisonError as error:
                await self._bury(message_id, raw, str(error))
                log.error("job_dead", error=error, **fields_)
            except Exception as error:
                dead = envelope.attempt >= self._attempts_max
                await (
                    self._bury(message_id, raw, f"{type(error).__name__}: {error}"[:500])
                    if dead
                    else self._postpone(message_id, envelope)
                )
                log.error("job_dead" if dead else "job_retry", error=error, **fields_)
            else:
                await self._redis.xack(self._stream, self._group, message_id)
                self._jobs.labels(self._job, "ok").inc()
                self._seconds.observe(time.monotonic() - started)
                log.info("job_done", ms=round((time.monotonic() - started) * 1000), **fields_)

    async def _postpone(self, message_id: str, envelope: Envelope) -> None:
        low, high = BACKOFF_SECONDS
        wait = min(high, low * 2 ** (envelope.attempt - 1)) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        again = envelope.model_copy(update={"attempt": envelope.attempt + 1})
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.zadd(delayed_of(self._stream, self._group), {again.model_dump_json(): time.time() + wait})
            pipe.xack(self._stream, self._group, message_id)
            await pipe.execute()
        self._jobs.labels(self._job, "retry").inc()

    async def _bury(self, message_id: str, raw: str, why: str) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xadd(
                dead_letters_of(self._stream),
                {"e": raw, "error": why, "group": self._group, "at": datetime.now(UTC).isoformat()},
            )
            pipe.xack(self._stream, self._group, message_id)
            await pipe.execute()
        self._jobs.labels(self._job, "dead").inc()

    async def _trim(self) -> None:
        """Drop entries that every group has acknowledged."""
        lowest: str | None = None
        for group in await self._redis.xinfo_groups(self._stream):
            pending = await self._redis.xpending(self._stream, group["name"])
            bound = str(pending["min"]) if pending["pending"] else str(group["last-delivered-id"])
            if lowest is None or _order(bound) < _order(lowest):
                lowest = bound
        if lowest is not None and lowest != "0-0":
            await self._redis.xtrim(self._stream, minid=lowest, approximate=True)

    async def _measure(self) -> None:
        for group in await self._redis.xinfo_groups(self._stream):
            if group["name"] == self._group:
                self._gauges["stream_lag"].set(group.get("lag") or 0)
                self._gauges["stream_pending"].set(group["pending"])
        pending = await self._redis.xpending(self._stream, self._group)
        oldest = pending["min"]
        self._gauges["stream_oldest_timestamp_seconds"].set(_order(oldest)[0] / 1000 if oldest else 0)
        self._gauges["dead_letters"].set(await self._redis.xlen(dead_letters_of(self._stream)))

    def _heartbeat(self, consumer: str) -> str:
        return f"hb:{self._group}:{consumer}"


_RELEASE: Final = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  redis.call('XADD', KEYS[2], '*', 'e', ARGV[1])
  return 1
end
return 0
"""


def _entries(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """Return (id, fields) of an XREADGROUP answer, in either shape redis-py gives it."""
    if not answer:
        return []
    streams = answer.items() if isinstance(answer, dict) else answer
    entries: list[tuple[str, dict[str, str]]] = []
    for _name, batch in streams:
        for item in batch[0] if batch and isinstance(batch[0], list) else batch:
            entries.append((item[0], item[1] or {}))  # noqa: PERF401 - two levels read better as loops
    return entries


def _order(message_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = message_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def parse_dead_letter(fields: dict[str, str]) -> dict[str, Any]:
    """Return a dead letter for a person: type, ids, attempt, error; the payload's keys, not its values."""
    try:
        envelope = json.loads(fields.get("e", "{}"))
    except ValueError:
        envelope = {}
    return {
        "type": envelope.get("type"),
        "id": envelope.get("id"),
        "request_id": envelope.get("request_id"),
        "attempt": envelope.get("attempt"),
        "payload_keys": sorted(envelope.get("payload", {})),
        "error": fields.get("error"),
        "group": fields.get("group"),
        "at": fields.get("at"),
    }
