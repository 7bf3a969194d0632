"""One key, one reconcile at a time.

Invariants:
QUEUE-1 a key is idle, waiting, running, or running-and-dirty; two workers never hold one key. An event for a running
key marks it dirty and it runs once more: levels, not edges; a burst of 50 events is 2 runs.
QUEUE-2 of the keys that are due the most urgent goes first (user edit > drift > resync), then the one waiting longest.
QUEUE-3 back-off grows per key with each failure and is forgotten with the first success; it never holds back an event.
Not here: what to do about a key (plan), talking to the API (kube), when to give up (errors.Blocked).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from novacore_operator.loop.store import Key

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0


class Urgency(IntEnum):
    """Less is sooner."""

    EDIT = 0
    DRIFT = 1
    RESYNC = 2


@dataclass(slots=True)
class _Waiting:
    urgency: Urgency
    due: float
    since: float


class Schedule:
    """The state machine, without clock or waiting: `now` is given, in seconds of any monotonic clock."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter  # 0 to 1
        self._waiting: dict[Key, _Waiting] = {}
        self._running: set[Key] = set()
        self._dirty: dict[Key, _Waiting] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key, urgency: Urgency, *, now: float, delay_s: float = 0.0) -> None:
        """Ask for a run. The more urgent and the earlier of two requests wins."""
        entry = _Waiting(urgency, now + delay_s, now)
        place = self._dirty if key in self._running else self._waiting
        before = place.get(key)
        if before is not None:
            entry = _Waiting(min(before.urgency, urgency), min(before.due, entry.due), before.since)
        place[key] = entry

    def take(self, *, now: float) -> Key | None:
        """Return the key whose turn it is and mark it as running, or None."""
        due = [(entry.urgency, entry.since, key) for key, entry in self._waiting.items() if entry.due <= now]
        if not due:
            return None
        key = min(due)[2]
        del self._waiting[key]
        self._running.add(key)
        return key

    def done(self, key: Key, *, now: float, failed: bool, again_s: float | None = None) -> None:
        """End a run. `failed`: run again after back-off, never before `again_s` (what the API server asked for).
        Otherwise `again_s`: run again then, whatever happens."""
        self._running.discard(key)
        self._failures[key] = self._failures.get(key, 0) + 1 if failed else 0
        if not failed:
            del self._failures[key]
        dirty = self._dirty.pop(key, None)
        if dirty is not None:
            self._waiting[key] = dirty
        if failed:
            self.add(key, Urgency.DRIFT, now=now, delay_s=max(self.backoff_s(key), again_s or 0.0))
        elif again_s is not None:
            self.add(key, Urgency.RESYNC, now=now, delay_s=again_s)

    def backoff_s(self, key: Key) -> float:
        """Return the pause after the failures so far: doubling, capped, between half and all of it."""
        full = min(BACKOFF_FIRST_S * 2.0 ** min(self._failures.get(key, 1) - 1, 20), BACKOFF_MAX_S)
        return full * (0.5 + 0.5 * self._jitter())

    def forget(self, key: Key) -> None:
        """Drop a key whose resource is gone. If it runs, it ends its run and stays away."""
        self._waiting.pop(key, None)
        self._dirty.pop(key, None)
        self._failures.pop(key, None)

    def next_due(self) -> float | None:
        """Return when the next key is due, or None."""
        return min((entry.due for entry in self._waiting.values()), default=None)

    def depth(self, *, now: float) -> int:
        """Return how many keys are due and wait."""
        return sum(entry.due <= now for entry in self._waiting.values())

    def oldest_s(self, *, now: float) -> float:
        """Return how long the longest-waiting due key has waited."""
        return max((now - max(e.due, e.since) for e in self._waiting.values() if e.due <= now), default=0.0)

    def running(self) -> frozenset[Key]:
        """Return the keys that run."""
        return frozenset(self._running)


class Queue:
    """The schedule with a clock: `get` waits for a turn."""

    def __init__(self, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self.schedule = Schedule(jitter)
        self._clock = clock
        self._wake = asyncio.Event()

    def add(self, key: Key, urgency: Urgency, *, delay_s: float = 0.0) -> None:
        """Ask for a run."""
        self.schedule.add(key, urgency, now=self._clock(), delay_s=delay_s)
        self._wake.set()

    async def get(self) -> Key:
        """Return the next key, when its turn has come."""
        while True:
            now = self._clock()
            key = self.schedule.take(now=now)
            if key is not None:
                return key
            due = self.schedule.next_due()
            self._wake.clear()
            try:
                async with asyncio.timeout(None if due is None else max(due - now, 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def done(self, key: Key, *, failed: bool, again_s: float | None = None) -> None:
        """End a run."""
        self.schedule.done(key, now=self._clock(), failed=failed, again_s=again_s)
        self._wake.set()

    def forget(self, key: Key) -> None:
        """Drop a key."""
        self.schedule.forget(key)
