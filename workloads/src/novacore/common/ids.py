"""Identifiers: uuidv7 (RFC 9562 §5.7; ordered by time, so B-tree inserts stay at one end) and trace contexts."""

from __future__ import annotations

import os
import re
import time
from uuid import UUID

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def uuid7() -> UUID:
    """Return a new uuidv7: 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | (7 << 76)
    value = value & ~(0x3 << 62) | (2 << 62)
    return UUID(int=value)


def new_span_id() -> str:
    """Return 16 hex characters, never all zero."""
    return (int.from_bytes(os.urandom(8)) | 1).to_bytes(8).hex()


def continue_trace(parent: str | None) -> str:
    """Return a `traceparent` (W3C Trace Context) with a span of our own: in the caller's trace, or in a new one."""
    if parent is not None and TRACEPARENT.fullmatch(parent):
        version, trace_id, _span, flags = parent.split("-")
        return f"{version}-{trace_id}-{new_span_id()}-{flags}"
    return f"00-{(int.from_bytes(os.urandom(16)) | 1).to_bytes(16).hex()}-{new_span_id()}-01"
