"""What belongs to the request or message in hand, carried by a context variable.

One mutable `Trail` per request: the outermost middleware makes it, inner code fills in who called, and the access log
and the metrics read it at the end. Background loops bind their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

from novacore.common.ids import continue_trace, uuid7


@dataclass(slots=True)
class Trail:
    """One request or one message."""

    request_id: str
    traceparent: str
    deadline: float | None = None  # time.monotonic() after which nobody waits for the answer
    caller: str | None = None
    user_id: UUID | None = None
    route: str | None = None
    code: str | None = None


_trail: ContextVar[Trail | None] = ContextVar("trail", default=None)


def current() -> Trail | None:
    """Return the trail of this request, or None outside of one."""
    return _trail.get()


def request_id() -> str:
    """Return the id of the request in hand; outside of one, a new id."""
    trail = _trail.get()
    return trail.request_id if trail else str(uuid7())


def traceparent() -> str:
    """Return the W3C trace context to pass on; outside of a request, a new trace."""
    trail = _trail.get()
    return trail.traceparent if trail else continue_trace(None)


def trace_id() -> str | None:
    """Return the 32 hex characters of the trace in hand, or None."""
    trail = _trail.get()
    return trail.traceparent.split("-")[1] if trail else None


def span_id() -> str | None:
    """Return the 16 hex characters of this hop's span, or None."""
    trail = _trail.get()
    return trail.traceparent.split("-")[2] if trail else None


def deadline_remaining_s() -> float | None:
    """Return the seconds until the caller stops waiting (0.0 when past), or None without a deadline."""
    trail = _trail.get()
    if trail is None or trail.deadline is None:
        return None
    return max(0.0, trail.deadline - time.monotonic())


@contextmanager
def bind(
    *,
    request_id: str | None = None,
    traceparent: str | None = None,
    user_id: UUID | None = None,
    deadline_s: float | None = None,
) -> Iterator[Trail]:
    """Enter a new trail: for a worker's message, a scheduled run, or a detached task."""
    trail = Trail(
        request_id=request_id or str(uuid7()),
        traceparent=continue_trace(traceparent),
        deadline=None if deadline_s is None else time.monotonic() + deadline_s,
        user_id=user_id,
    )
    token = _trail.set(trail)
    try:
        yield trail
    finally:
        _trail.reset(token)
