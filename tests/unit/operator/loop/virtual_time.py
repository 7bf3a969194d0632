"""An event loop whose time passes only when everybody waits: hours of a protocol in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class NoWaiting(selectors.SelectSelector):
    """There is no I/O to wait for."""

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return nothing, at once."""
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer when nothing is ready. There must be no I/O."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(NoWaiting())

    def time(self) -> float:
        """Return the virtual time."""
        return self._now

    def _run_once(self) -> None:
        loop: Any = self  # the two lists are asyncio's own
        if not loop._ready and loop._scheduled:
            self._now = max(self._now, loop._scheduled[0]._when)
        super()._run_once()  # type: ignore[misc] # not in the stubs


def run_virtually(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in virtual time; return its result."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
