"""Time as a parameter, so that a test can move it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored or signed, monotonic time for how long something took."""

    def now(self) -> datetime:
        """Return the aware UTC time."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the aware UTC time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


def unix(clock: Clock) -> Callable[[], float]:
    """Return a function that gives a clock's Unix time. The machine's is asked without a datetime between: 0.1 µs, not
    0.8 µs, and it is read for each token of each request.
    """
    return time.time if isinstance(clock, SystemClock) else lambda: clock.now().timestamp()
