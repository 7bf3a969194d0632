"""mcp-server in this process, its three peers at the edge, and the SDK's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from aiohttp import web
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from novacore.intelligence.events import RunEvent, sse
from tests.kit.harness import RunningService
from tests.kit.keys import TestUser
from tests.kit.peers import Asked, StubPeer

SESSION_ID = str(uuid4())
RUN_ID = str(uuid4())


def make_memory(**changes: Any) -> dict[str, Any]:
    """A memory as memory answers with it."""
    now = datetime.now(UTC).isoformat()
    return {
        "id": str(uuid4()), "user_id": str(uuid4()), "session_id": None, "type": "task", "input_context": "save a.py",
        "output_response": None, "outcome": "neutral", "emotional_weight": None, "confidence_score": 0.8,
        "constitution_valid": True, "tags": ["save"], "tier": "ltm", "access_count": 0, "last_accessed_at": None,
        "created_at": now, "updated_at": now, "expires_at": None, "similarity_score": 0.7, "reasons": {"lexical": 1.0},
    } | changes  # fmt: skip


def answer_with(stub: StubPeer, *events: RunEvent) -> None:
    """Let intelligence accept a run and stream these events, framed by its own code."""

    async def stream(asked: Asked) -> web.Response:
        frames = [frame for event in events if (frame := sse(event)) is not None]
        return web.Response(body=b": keep-alive\n\n" + b"".join(frames), content_type="text/event-stream")

    stub.on("POST", "/chat/runs", (202, {"run_id": RUN_ID, "session_id": SESSION_ID}))
    stub.on("GET", f"/chat/runs/{RUN_ID}/stream", stream)


def said(*words: str, **end: Any) -> Sequence[RunEvent]:
    """A run that says these words and ends."""
    start = RunEvent("start", {"run_id": RUN_ID, "session_id": SESSION_ID, "model": "echo"}, "1-0")
    chunks = [RunEvent("chunk", {"i": n, "text": word, "tokens": 1}, f"2-{n}") for n, word in enumerate(words)]
    last = {"status": "done", "session_id": SESSION_ID, "run_id": RUN_ID, "tokens_used": 42, "latency_ms": 5} | end
    return [start, *chunks, RunEvent("end", last, "3-0")]


@pytest.fixture
async def mcp(client_for: Callable[..., Any]) -> AsyncIterator[RunningService]:
    async with client_for("mcp-server", listen=True) as running:
        yield running


@pytest.fixture
def session(mcp: RunningService) -> Callable[..., AbstractAsyncContextManager[Client]]:
    """`async with session(user) as client:` the SDK's client, by way of the gateway."""

    @asynccontextmanager
    async def connect(user: TestUser, *, mode: str = "auto", to: RunningService | None = None) -> AsyncIterator[Client]:
        running = to or mcp
        async with (
            httpx2.AsyncClient(headers=running.headers(user), timeout=30) as http,
            Client(streamable_http_client(f"{running.url}/mcp", http_client=http), mode=mode) as client,
        ):
            yield client

    return connect
