"""Waiting for a condition inside an event loop, with a deadline; `wait.until` is the same for threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    probe: Callable[[], Awaitable[T | None]],
    *,
    within_s: float,
    what: str,
    report: Callable[[], str] = lambda: "",
    every_s: float = 0.02,
) -> T:
    """Return the first truthy answer of `probe`; fail with `what` and the report after `within_s` seconds."""
    end = time.monotonic() + within_s
    while True:
        answer = await probe()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}\n{report()}"
        await asyncio.sleep(every_s)
