"""The log of a run: written once, read by any number of clients, on any replica.

The replica that generates keeps the events in memory for its own readers and puts each into the Redis stream
`run:{id}` for all others. Invariant LOGS-1: readers see every event once and in order, whichever way they read and
wherever they resume. The ids are ours (`<start of the run in ms>-<n>`), so an entry sent again after a lost answer is
refused by Redis as a double. When Redis is away, our own readers go on; what it missed is put in once it is back,
before anything later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any
from uuid import UUID

from novacore.common.clock import Clock
from novacore.common.log import get_logger
from novacore.common.redis import Redis, RedisError
from novacore.intelligence.events import (
    KEEP_SECONDS,
    LIVE_SECONDS,
    STREAM_LENGTH,
    EventName,
    RunEvent,
    from_entry,
    stream_key,
    stream_order,
)

log = get_logger()

IsOver = Callable[[], Awaitable[bool]]

POLL_S = 0.1
"""How often a reader on another replica looks. No blocking read: hundreds of readers would hold a connection each."""
PAGE = 200
WRITERS_MAX = 32
"""Runs that write at the same moment; half of the client's connections, the other half is for readers."""
SILENT_S = 5.0
"""Silence after which a reader asks whether the run is over."""
CLOSE_TRIES = 5


class RunLog:
    """The events of one run that is generated here."""

    def __init__(self, run_id: UUID, redis: Redis, *, start_ms: int, writers: asyncio.Semaphore) -> None:
        self._key = stream_key(run_id)
        self._redis = redis
        self._start_ms = start_ms
        self._writers = writers
        self._events: list[RunEvent] = []
        self._taken = 0  # how many of them Redis has
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()
        self.closed = False

    async def write(self, name: EventName, data: Mapping[str, Any]) -> None:
        """Add an event; `end` closes the log."""
        async with self._writing:
            self.closed = name == "end"
            self._events.append(RunEvent(name, data, f"{self._start_ms}-{len(self._events) + 1}"))
            await self._flush()
        async with self._changed:
            self._changed.notify_all()

    async def finish(self) -> None:
        """Put in what Redis missed; gives up after some tries (readers elsewhere then learn the end from the table)."""
        for attempt in range(CLOSE_TRIES):
            async with self._writing:
                await self._flush()
            if self._taken == len(self._events):
                return
            await asyncio.sleep(0.2 * 2**attempt)
        log.warning("run_log_incomplete", missing=len(self._events) - self._taken)

    async def read(self, after: str = "") -> AsyncGenerator[RunEvent]:
        """Yield the events after an id, then those to come, to the end."""
        at = self._position(after)
        while True:
            while at < len(self._events):
                event = self._events[at]
                at += 1
                yield event
                if event.name == "end":
                    return
            if self.closed:
                return  # resumed after the end
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._events) > at)  # noqa: B023 - awaited in this round

    def _position(self, after: str) -> int:
        if not after:
            return 0
        seen = stream_order(after)
        return next(
            (i for i, event in enumerate(self._events) if stream_order(event.id) > seen),
            len(self._events),
        )

    async def _flush(self) -> None:
        missing = self._events[self._taken :]
        if not missing:
            return
        pipe = self._redis.pipeline(transaction=False)
        for event in missing:
            pipe.xadd(self._key, event.fields(), id=event.id, maxlen=STREAM_LENGTH, approximate=True)
        pipe.expire(self._key, KEEP_SECONDS if missing[-1].name == "end" else LIVE_SECONDS)
        try:
            async with self._writers:
                answers = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            log.warning("run_log_delayed", reason=type(error).__name__)
            return
        for answer in answers[:-1]:
            if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
                log.warning("run_log_delayed", reason=type(answer).__name__)
                return
            self._taken += 1


class RunLogs:
    """All logs: those written here from memory, the others from Redis."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._here: dict[UUID, RunLog] = {}
        self._writers = asyncio.Semaphore(WRITERS_MAX)

    def open(self, run_id: UUID) -> RunLog:
        """Start the log of a run that is generated here."""
        start_ms = int(self._clock.now().timestamp() * 1000)
        log_ = self._here[run_id] = RunLog(run_id, self._redis, start_ms=start_ms, writers=self._writers)
        return log_

    def close(self, run_id: UUID) -> None:
        """Forget a finished log; who still reads it keeps it alive."""
        self._here.pop(run_id, None)

    def here(self, run_id: UUID) -> RunLog | None:
        """Return the log of a run that is generated here."""
        return self._here.get(run_id)

    async def exists(self, run_id: UUID) -> bool:
        """Return whether there is anything to read. RedisError when Redis is away."""
        return run_id in self._here or bool(await self._redis.exists(stream_key(run_id)))

    async def stored(self, run_id: UUID) -> list[RunEvent]:
        """Return what Redis has of a run, in order; [] when nothing. RedisError when Redis is away."""
        entries: Any = await self._redis.xrange(stream_key(run_id))
        return [event for entry_id, fields in entries if (event := from_entry(entry_id, fields)) is not None]

    async def append_end(self, run_id: UUID, data: Mapping[str, Any]) -> None:
        """Close the log of a run whose replica died."""
        key = stream_key(run_id)
        await self._redis.xadd(key, RunEvent("end", data).fields(), maxlen=STREAM_LENGTH, approximate=True)
        await self._redis.expire(key, KEEP_SECONDS)

    async def read(self, run_id: UUID, after: str = "", *, is_over: IsOver | None = None) -> AsyncGenerator[RunEvent]:
        """Yield a run's events after an id, to the end.

        Ends without `end` when there is nothing more to come: the stream has expired, was read from its end, or stays
        silent after the run `is_over` (its replica died while Redis was away).
        """
        log_ = self._here.get(run_id)
        async with aclosing(log_.read(after) if log_ is not None else self._follow(run_id, after, is_over)) as events:
            async for event in events:
                yield event

    async def _follow(self, run_id: UUID, after: str, is_over: IsOver | None) -> AsyncGenerator[RunEvent]:
        last, silent_s = after or "0-0", 0.0
        while True:
            entries = await self._page(run_id, last)
            for event in entries:
                last, silent_s = event.id, 0.0
                yield event
                if event.name == "end":
                    return
            if not entries:
                if await self._nothing_more(run_id, last):
                    return
                if silent_s > SILENT_S and is_over is not None and await is_over():
                    return
                silent_s = silent_s + POLL_S if silent_s <= SILENT_S else 0.0
                await asyncio.sleep(POLL_S)

    async def _page(self, run_id: UUID, last: str) -> list[RunEvent]:
        try:
            entries: Any = await self._redis.xrange(stream_key(run_id), min=f"({last}", count=PAGE)
        except (RedisError, OSError):
            return []
        return [event for entry_id, fields in entries if (event := from_entry(entry_id, fields)) is not None]

    async def _nothing_more(self, run_id: UUID, last: str) -> bool:
        """Return whether the stream has expired, or ended at or before `last`."""
        try:
            newest: Any = await self._redis.xrevrange(stream_key(run_id), count=1)
        except (RedisError, OSError):
            return False
        if not newest:
            return True
        entry_id, fields = newest[0]
        event = from_entry(entry_id, fields)
        return event is not None and event.name == "end" and stream_order(event.id) <= stream_order(last)
