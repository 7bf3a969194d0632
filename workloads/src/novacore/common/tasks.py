"""Background loops under supervision: a crash is logged, counted, and the loop starts again with a growing pause."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from novacore.common.log import get_logger

log = get_logger()

PAUSE_SECONDS = (1.0, 60.0)
CALM_SECONDS = 60.0
"""A loop that ran this long before it crashed starts again with the shortest pause."""

Loop = Callable[[], Awaitable[Any]]


class Supervisor:
    """The loops of one process, in one TaskGroup. They end together, on `stop`."""

    def __init__(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._group: asyncio.TaskGroup | None = None
        self._waiting: list[tuple[str, Loop | Coroutine[Any, Any, Any]]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.crashes: dict[str, int] = {}

    def spawn(self, name: str, loop: Loop | Coroutine[Any, Any, Any]) -> None:
        """Run `loop` under `name` until the process drains. A function is started again after a crash; a coroutine
        object cannot be and is logged as lost."""
        if self._group is None:
            self._waiting.append((name, loop))
            return
        self._tasks[name] = self._group.create_task(self._supervise(name, loop), name=name)
        self._tasks[name].add_done_callback(lambda task: self._tasks.pop(task.get_name(), None))

    async def __aenter__(self) -> Supervisor:
        """Start the loops spawned so far."""
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        waiting, self._waiting = self._waiting, []
        for name, loop in waiting:
            self.spawn(name, loop)
        return self

    async def __aexit__(self, *error: Any) -> None:
        """Cancel what still runs and wait for it."""
        # Again and again: on Python 3.11 `wait_for` can swallow a cancellation that meets a result.
        while self._tasks:
            self.stop()
            await asyncio.wait(set(self._tasks.values()), timeout=0.5)
        if self._group is not None:
            await self._group.__aexit__(None, None, None)
        self._group = None

    def stop(self) -> None:
        """Cancel every loop."""
        for task in list(self._tasks.values()):
            task.cancel()

    async def _supervise(self, name: str, loop: Loop | Coroutine[Any, Any, Any]) -> None:
        pause = PAUSE_SECONDS[0]
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await (loop if asyncio.iscoroutine(loop) else loop())
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self.crashes[name] = self.crashes.get(name, 0) + 1
                log.error("loop_crashed", error=error, name=name, crashes=self.crashes[name])
            else:
                return
            if asyncio.iscoroutine(loop):
                log.error("loop_lost", name=name, reason="spawned as a coroutine object: pass the function instead")
                return
            if asyncio.get_running_loop().time() - started > CALM_SECONDS:
                pause = PAUSE_SECONDS[0]
            await self._sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            pause = min(PAUSE_SECONDS[1], pause * 2)
