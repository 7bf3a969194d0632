"""What happens in a run, as entries of its Redis stream and as server-sent events.

A stream entry has two fields, `event` and `data` (JSON): start{run_id, session_id, model} chunk{i, text, tokens}
policy{action, rule_ids} usage{prompt, completion, reserved, settled} error{code, detail}
end{status, session_id, run_id, tokens_used, latency_ms, code?, detail?}. `end` is always the last.
SSE: every `data` has `content` and `done`, so that a client which knows nothing else still shows the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

EventName = Literal["start", "chunk", "policy", "usage", "error", "end"]
STREAM_LENGTH = 5000
KEEP_SECONDS = 3600
"""How long a run's stream stays after its end."""
LIVE_SECONDS = 7200
"""Bound for the stream of a run that nobody ends."""
COMMENT = b": keep-alive\n\n"
_STREAM_ID = re.compile(r"\d{1,20}-\d{1,20}")


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One entry. `id` is the stream id, and the `id:` of its server-sent event."""

    name: EventName
    data: Mapping[str, Any]
    id: str = ""

    def fields(self) -> dict[Any, Any]:
        """Return the two fields of the stream entry (typed as redis-py takes them: its mapping is invariant)."""
        return {"event": self.name, "data": json.dumps(self.data, separators=(",", ":"), ensure_ascii=False)}


def stream_key(run_id: object) -> str:
    """Return the Redis key of a run's stream."""
    return f"run:{run_id}"


def from_entry(entry_id: bytes | str, fields: Mapping[Any, Any]) -> RunEvent | None:
    """Return the event of a stream entry, or None for one we did not write."""
    plain = {_text(name): _text(value) for name, value in fields.items()}
    try:
        data = json.loads(plain["data"])
        name = plain["event"]
    except (KeyError, ValueError):
        return None
    if name not in {"start", "chunk", "policy", "usage", "error", "end"} or not isinstance(data, dict):
        return None
    return RunEvent(name, data, _text(entry_id))  # type: ignore[arg-type]  # checked in the line above


def valid_stream_id(value: str) -> bool:
    """Return whether a `Last-Event-ID` is an id of ours."""
    return bool(_STREAM_ID.fullmatch(value))


def stream_order(stream_id: str) -> tuple[int, int]:
    """Return a key by which stream ids sort."""
    left, _, right = stream_id.partition("-")
    return int(left or 0), int(right or 0)


def sse(event: RunEvent) -> bytes | None:
    """Return the server-sent event, or None for one that another carries (`error` travels in `end`)."""
    match event.name:
        case "error":
            return None
        case "chunk":
            return _frame(event, {"content": event.data["text"], "done": False})
        case "end" if "code" in event.data:
            body = {"content": "", "error": event.data.get("detail", ""), "code": event.data["code"], "done": True}
            return _frame(event, body | _rest(event.data))
        case "end":
            return _frame(event, {"content": "", "done": True} | _rest(event.data))
        case _:
            return _frame(event, {"content": "", "done": False, "event": event.name} | dict(event.data), event.name)


def _rest(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in {"code", "detail"}}


def _frame(event: RunEvent, body: Mapping[str, Any], name: str | None = None) -> bytes:
    lines = [f"id: {event.id}"] if event.id else []
    if name is not None:
        lines.append(f"event: {name}")
    lines.append(f"data: {json.dumps(body, ensure_ascii=False)}")
    return ("\n".join(lines) + "\n\n").encode()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
