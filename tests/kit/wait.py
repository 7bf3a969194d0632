"""The one way to wait in tests without a cluster: a condition with a deadline, and what was found when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    probe: Callable[[], T | None],
    *,
    within_s: float,
    what: str,
    report: Callable[[], str] = lambda: "",
    every_s: float = 0.02,
) -> T:
    """Return the first truthy answer of `probe`; fail with `what` and the report after `within_s` seconds."""
    pause = threading.Event()
    end = time.monotonic() + within_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise AssertionError(f"not within {within_s:g} s: {what}\n{report()}")
        pause.wait(every_s)
