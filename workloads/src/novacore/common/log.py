"""One JSON object per line on stdout; its field names are one list for all services.

Invariant LOG-1: no body, prompt, reply, e-mail, token, query string, SQL text or header value is ever written. A
caller that names such a field gets the name and `[refused]` in the line, so the mistake is seen and the value is not.
`user` is 16 hex characters of an HMAC under the installation's key: one person can be followed, not named.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TextIO
from uuid import UUID

from novacore.common import context

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
REFUSED_FIELDS: Final = frozenset(
    {
        "authorization", "body", "content", "cookie", "email", "headers", "input", "message_text", "output", "password",
        "prompt", "query", "query_string", "reply", "secret", "sql", "text", "token",
    }
)  # fmt: skip
REPEAT_SECONDS: Final = 60.0


@dataclass(slots=True)
class _State:
    service: str = ""
    version: str = ""
    pod: str = field(default_factory=lambda: os.environ.get("HOSTNAME") or socket.gethostname())
    threshold: int = LEVELS["info"]
    key: bytes = b""
    out: TextIO | None = None  # None: whatever sys.stdout is at the time
    on_line: Callable[[str], None] | None = None  # counts novacore_log_lines_total{level}
    repeats: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)


_state = _State()


def configure(
    *, service: str, version: str, level: str, key: bytes, on_line: Callable[[str], None] | None = None
) -> None:
    """Set the fields every line carries. Called once at start and again when the level changes."""
    _state.service, _state.version, _state.key, _state.on_line = service, version, key, on_line
    _state.threshold = LEVELS[level]
    root = logging.getLogger()
    root.handlers[:] = [_Library()]
    root.setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
        library.setLevel(logging.WARNING)


def user_hash(user_id: UUID | str) -> str:
    """Return the 16 hex characters by which a user appears in logs."""
    return hmac.new(_state.key, str(user_id).encode(), hashlib.sha256).hexdigest()[:16]


class Logger:
    """`log.info("event_name", key=value)`. Events are snake_case words, never sentences with values in them."""

    def debug(self, event: str, **fields: Any) -> None:
        """Write a line of level debug."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write a line of level info."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write a line of level warning; the same event at most once a minute, with its count."""
        self._write_rarely("warning", event, fields)

    def error(self, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """Write a line of level error with type, message and stack of `error` in one field; once a minute per kind."""
        if error is not None:
            stack = "".join(traceback.format_exception(error, limit=-12))
            fields["error"] = {"type": type(error).__name__, "stack": stack[-4000:]}
        self._write_rarely("error", event, fields)

    def _write_rarely(self, level: str, event: str, fields: dict[str, Any]) -> None:
        key = (event, str(fields.get("reason") or fields.get("name") or ""))
        now = time.monotonic()
        last, dropped = _state.repeats.get(key, (-REPEAT_SECONDS, 0))
        if now - last < REPEAT_SECONDS:
            _state.repeats[key] = (last, dropped + 1)
            return
        if len(_state.repeats) > 1000:
            _state.repeats.clear()
        _state.repeats[key] = (now, 0)
        if dropped:
            fields["repeated"] = dropped
        self._write(level, event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if LEVELS[level] < _state.threshold:
            return
        if _state.on_line is not None:
            _state.on_line(level)
        line: dict[str, Any] = {
            "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "service": _state.service,
            "version": _state.version,
            "pod": _state.pod,
            "event": event,
        }
        trail = context.current()
        if trail is not None:
            line |= {"request_id": trail.request_id, "trace_id": context.trace_id(), "span_id": context.span_id()}
            if trail.caller is not None:
                line["caller"] = trail.caller
            if trail.user_id is not None:
                line["user"] = user_hash(trail.user_id)
        for name, value in fields.items():
            line[name] = "[refused]" if name in REFUSED_FIELDS else value
        out = _state.out or sys.stdout
        out.write(json.dumps(line, separators=(",", ":"), default=str, ensure_ascii=False) + "\n")
        out.flush()


class _Library(logging.Handler):
    """Warnings and errors of libraries, as our lines: the logger's name and its template, without the values."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        fields: dict[str, Any] = {"name": record.name, "reason": str(record.msg)[:200]}
        if error is not None:
            get_logger().error("library", error=error, **fields)
        else:
            get_logger().warning("library", **fields)


_logger = Logger()


def get_logger() -> Logger:
    """Return the process's logger."""
    return _logger
