"""Who generates next: a fixed number of places, and a bounded queue by priority.

Invariant PLACES-1: never more than `places` holders; a freed place goes to the highest priority, then the longest wait.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field
from typing import Any


class QueueFullError(Exception):
    """The queue has its full length; the message is refused, nothing waits without bound."""


@dataclass(order=True)
class _Waiting:
    rank: int  # minus the priority: heapq gives the least first
    arrival: int
    place: asyncio.Future[None] = field(compare=False)


class Places:
    """`if await places.enter(priority, cancel): try: … finally: places.leave()`."""

    def __init__(self, places: int, longest: int) -> None:
        self._free = places
        self._longest = longest
        self._waiting: list[_Waiting] = []
        self._arrivals = itertools.count()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return sum(1 for entry in self._waiting if not entry.place.done())

    def full(self) -> bool:
        """Return whether one more could not even wait."""
        return self._free == 0 and self.waiting >= self._longest

    async def enter(self, priority: int, cancel: asyncio.Event) -> bool:
        """Wait for a place. False: `cancel` was set first, and no place is held. QueueFullError when it is too long."""
        if self._free > 0:
            self._free -= 1
            return True
        if self.full():
            raise QueueFullError
        entry = _Waiting(-priority, next(self._arrivals), asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, entry)
        stopped = asyncio.ensure_future(cancel.wait())
        try:
            waited: set[asyncio.Future[Any]] = {entry.place, stopped}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if entry.place.done():
                self.leave()  # handed over in the same moment: pass it on
            entry.place.cancel()
            raise
        finally:
            stopped.cancel()
        if entry.place.done():
            return True
        entry.place.cancel()
        return False

    def leave(self) -> None:
        """Give the place to the next in line, or free it."""
        while self._waiting:
            entry = heapq.heappop(self._waiting)
            if not entry.place.done():
                entry.place.set_result(None)
                return
        self._free += 1
