"""Routes under `/chat`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse

from novacore.common.app import service_of
from novacore.common.callers import Caller, user_route
from novacore.intelligence.events import COMMENT, RunEvent, sse
from novacore.intelligence.schemas import (
    ChatCreate,
    ChatRead,
    PromptRead,
    RunAccepted,
    RunCreate,
    RunRead,
    SessionEnded,
    SessionRead,
)
from novacore.intelligence.service import ChatService

COMMENT_EVERY_S = 15.0
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
PERMISSION = "intelligence:run"

router = APIRouter(prefix="/chat", tags=["chat"])

CallerDep = Annotated[Caller, user_route(PERMISSION)]
ServiceDep = Annotated[ChatService, Depends(service_of(ChatService))]
KeyDep = Annotated[str | None, Header(alias="Idempotency-Key")]


@router.post("/message", response_model=ChatRead)
async def message(
    body: ChatCreate, caller: CallerDep, service: ServiceDep, response: Response, key: KeyDep = None
) -> ChatRead:
    """Ask and wait for the whole answer."""
    run_id = await service.accept(body, caller, route="/chat/message", key=key)
    response.headers["X-Run-Id"] = str(run_id)
    return await service.answer(run_id, caller)


@router.post("/stream", response_class=StreamingResponse)
async def stream(body: ChatCreate, caller: CallerDep, service: ServiceDep, key: KeyDep = None) -> StreamingResponse:
    """Ask and read the answer as server-sent events."""
    run_id = await service.accept(body, caller, route="/chat/stream", key=key)
    return _sse(run_id, service.events(run_id, caller.user_id))


@router.post("/runs", status_code=202, response_model=RunAccepted)
async def create_run(
    body: RunCreate, caller: CallerDep, service: ServiceDep, response: Response, key: KeyDep = None
) -> RunAccepted:
    """Ask and come back later for the answer."""
    run_id = await service.accept(body, caller, route="/chat/runs", key=key)
    response.headers["X-Run-Id"] = str(run_id)
    run = await service.run(run_id, caller.user_id)
    return RunAccepted(run_id=run_id, session_id=run.session_id)


@router.get("/runs/{run_id}", response_model=RunRead)
async def read_run(run_id: UUID, caller: CallerDep, service: ServiceDep) -> RunRead:
    """Say where a run stands."""
    return await service.run(run_id, caller.user_id)


@router.get("/runs/{run_id}/stream", response_class=StreamingResponse)
async def read_run_stream(
    run_id: UUID,
    caller: CallerDep,
    service: ServiceDep,
    last_event_id: Annotated[str, Header(alias="Last-Event-ID")] = "",
) -> StreamingResponse:
    """Read a run's events, from the beginning or after the last one seen."""
    after = await service.attach(run_id, caller.user_id, last_event_id.strip())
    return _sse(run_id, service.events(run_id, caller.user_id, after=after))


@router.post("/runs/{run_id}/cancel", status_code=202, response_model=RunRead)
async def cancel_run(run_id: UUID, caller: CallerDep, service: ServiceDep) -> RunRead:
    """Stop a run; it is billed for what it produced."""
    return await service.cancel(run_id, caller.user_id)


@router.get("/sessions", response_model=list[SessionRead])
async def list_sessions(
    caller: CallerDep, service: ServiceDep, limit: Annotated[int, Query(ge=1, le=50)] = 50
) -> list[SessionRead]:
    """List one's sessions, newest first."""
    return await service.sessions(caller.user_id, limit=limit)


@router.get("/history/{session_id}", response_model=list[PromptRead])
async def read_history(
    session_id: UUID, caller: CallerDep, service: ServiceDep, limit: Annotated[int, Query(ge=1, le=100)] = 100
) -> list[PromptRead]:
    """List a session's exchanges, oldest first."""
    return await service.history(session_id, caller.user_id, limit=limit)


@router.post("/sessions/{session_id}/end", response_model=SessionEnded)
async def end_session(session_id: UUID, caller: CallerDep, service: ServiceDep) -> SessionEnded:
    """Close a session."""
    return await service.end_session(session_id, caller.user_id)


def _sse(run_id: UUID, events: AsyncGenerator[RunEvent]) -> StreamingResponse:
    headers = SSE_HEADERS | {"X-Run-Id": str(run_id)}
    return StreamingResponse(frames(events), media_type="text/event-stream", headers=headers)


async def frames(
    events: AsyncGenerator[RunEvent], *, comment_every_s: float = COMMENT_EVERY_S
) -> AsyncGenerator[bytes]:
    """Yield the bytes of a server-sent event stream, with a comment whenever nothing came for a while."""
    async with aclosing(events):
        waiting: asyncio.Future[RunEvent] | None = None
        try:
            while True:
                if waiting is None:
                    waiting = asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait({waiting}, timeout=comment_every_s)
                if not done:
                    yield COMMENT
                    continue
                try:
                    event = waiting.result()
                except StopAsyncIteration:
                    return
                waiting = None
                if (frame := sse(event)) is not None:
                    yield frame
        finally:
            if waiting is not None and not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})  # a generator cannot be closed while it runs
