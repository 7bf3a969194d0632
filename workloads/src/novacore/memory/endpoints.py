"""Routes of memory: a user's own, by his token or a service acting for him; the workers'."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.responses import JSONResponse

from novacore.common import errors
from novacore.common.app import service_of
from novacore.common.callers import Caller, service_route, user_or_service_route, user_route
from novacore.memory.rules import Tier
from novacore.memory.schemas import (
    Batch,
    BatchResult,
    Context,
    ContextRequest,
    DistilledCreate,
    DistilledRead,
    Exchanges,
    ExchangesRequest,
    Intermediate,
    MemoryCreate,
    MemoryList,
    MemoryRead,
    MemoryType,
    MemoryUpdate,
    PromoteRequest,
    QuotaCheck,
    ReflectionCreate,
    ReflectionRead,
    ScanPage,
    SearchRequest,
    SearchResponse,
    SessionId,
    Stats,
    SupersedeRequest,
    TurnCreate,
    Turns,
    TurnStored,
    Usage,
    UsersPage,
)
from novacore.memory.service import MemoryService
from novacore_contracts.identity import allows

router = APIRouter()
internal_router = APIRouter(prefix="/internal/memory")

Memory = Annotated[MemoryService, Depends(service_of(MemoryService))]
Reader = Annotated[Caller, user_route("memory:read")]
Writer = Annotated[Caller, user_route("memory:write")]
ReaderFor = Annotated[Caller, user_or_service_route("memory:read")]
WriterFor = Annotated[Caller, user_or_service_route("memory:write")]
Maintainer = Annotated[Caller, service_route("memory:maintain")]
MaintainerFor = Annotated[Caller, user_or_service_route("memory:maintain")]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
Offset = Annotated[int, Query(ge=0, le=10_000)]
SessionQuery = Annotated[SessionId, Query()]


@router.post("/memory/store", status_code=201, response_model=MemoryRead)
async def store(
    request: Request,
    body: MemoryCreate,
    memory: Memory,
    caller: Annotated[Caller, user_or_service_route("memory:write", "memory:log")],
    key: IdempotencyKey = None,
) -> JSONResponse:
    """Store a memory; searchable when this answers. A caller with `memory:log` alone may store tasks only."""
    if body.type != "task" and not allows(caller.permissions, "memory:write"):
        raise errors.forbidden("scope_missing", "This service may store memories of type task only.")
    status, answer = await memory.store(caller.user_id, body, key=key, raw=await request.body())
    return JSONResponse(answer, status_code=status)


@router.get("/memory/retrieve/{memory_id}")
async def retrieve(memory_id: UUID, memory: Memory, caller: Reader) -> MemoryRead:
    """Return one memory; counts as an access."""
    return await memory.retrieve(caller.user_id, memory_id)


async def list_memories(  # noqa: PLR0917 - FastAPI passes these by name
    memory: Memory,
    caller: Reader,
    tier: Tier | None = None,
    type_: Annotated[MemoryType | None, Query(alias="type")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Offset = 0,
) -> MemoryList:
    """Return the user's memories, newest first."""
    return await memory.list_page(caller.user_id, tier=tier, type_=type_, limit=limit, offset=offset)


router.get("/memory/list", name="list_memories")(list_memories)
router.get("/memory", name="list_memories_short")(list_memories)


@router.post("/memory/search")
async def search(body: SearchRequest, memory: Memory, caller: ReaderFor) -> SearchResponse:
    """Return the memories that answer a query best, and why. A user's own search counts as an access of each."""
    return await memory.search(caller.user_id, body, count_access=caller.user is not None)


@router.patch("/memory/update/{memory_id}")
async def update(memory_id: UUID, body: MemoryUpdate, memory: Memory, caller: Writer) -> MemoryRead:
    """Change outcome, weights, tags or (upwards) the tier."""
    return await memory.update(caller.user_id, memory_id, body)


@router.delete("/memory/delete/{memory_id}", status_code=204)
async def delete(memory_id: UUID, memory: Memory, caller: Writer) -> Response:
    """Remove a memory for good; its storage is given back."""
    await memory.delete(caller.user_id, memory_id)
    return Response(status_code=204)


@router.post("/memory/promote/{memory_id}")
async def promote(memory_id: UUID, body: PromoteRequest, memory: Memory, caller: Writer) -> MemoryRead:
    """Move a memory to a longer-lived tier."""
    return await memory.promote(caller.user_id, memory_id, body.target_tier)


@router.get("/memory/stats")
async def stats(request: Request, memory: Memory, caller: Reader) -> Stats:
    """Return counts by tier and storage used."""
    return await memory.stats(caller.user_id, limit_bytes=_limit(request, caller))


@router.post("/memory/stm/store")
async def store_turn(session_id: SessionQuery, body: TurnCreate, memory: Memory, caller: WriterFor) -> TurnStored:
    """Append an exchange to a session."""
    return await memory.append_turn(caller.user_id, session_id, body)


@router.get("/memory/stm/retrieve/{session_id}")
async def retrieve_turns(
    session_id: SessionId, memory: Memory, caller: ReaderFor, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> Turns:
    """Return a session's last exchanges, oldest first. A session of someone else is empty, like one that never was."""
    return await memory.turns(caller.user_id, session_id, limit=limit)


@router.delete("/memory/stm/clear/{session_id}", status_code=204)
async def clear_turns(session_id: SessionId, memory: Memory, caller: WriterFor) -> Response:
    """Forget a session's exchanges."""
    await memory.clear_turns(caller.user_id, session_id)
    return Response(status_code=204)


@router.get("/memory/itm/retrieve")
async def intermediate(memory: Memory, caller: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> Intermediate:
    """Return the most used intermediate memories."""
    return await memory.intermediate(caller.user_id, limit=limit)


@router.get("/memory/context")
async def context(
    memory: Memory,
    caller: ReaderFor,
    session_id: Annotated[SessionId | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    q: Annotated[str, Query(max_length=4000)] = "",
) -> Context:
    """Return what a prompt may draw on."""
    return await memory.context(
        caller.user_id, ContextRequest(query=q.replace("\x00", ""), session_id=session_id, limit=limit)
    )


@router.post("/memory/context")
async def context_for(body: ContextRequest, memory: Memory, caller: ReaderFor) -> Context:
    """Return what a prompt may draw on."""
    return await memory.context(caller.user_id, body)


@router.get("/memory/usage")
async def usage(request: Request, memory: Memory, caller: Reader) -> Usage:
    """Return billed storage against the limit."""
    return await memory.usage(caller.user_id, limit_bytes=_limit(request, caller))


@router.get("/memory/usage/quota-check")
async def quota_check(
    request: Request, memory: Memory, caller: Reader, amount: Annotated[int, Query(ge=1, le=10**12)]
) -> QuotaCheck:
    """Return whether so many more bytes would fit; advice, reserves nothing."""
    return await memory.quota_check(caller.user_id, amount=amount, limit_bytes=_limit(request, caller))


@internal_router.post("/reflections", status_code=201)
async def reflect(body: ReflectionCreate, memory: Memory, caller: WriterFor, response: Response) -> ReflectionRead:
    """Store the reflection of a run; 200 with the stored one when the run has one."""
    return await _created(memory.reflect(caller.user_id, body), response)


@internal_router.post("/exchanges")
async def exchanges(body: ExchangesRequest, memory: Memory, caller: ReaderFor) -> Exchanges:
    """Return what was said in some runs, as far as it is still kept: what a batch of reflections starts from."""
    return await memory.exchanges(caller.user_id, body.run_ids)


@internal_router.get("/users")
async def users(
    memory: Memory, _caller: Maintainer, after: UUID | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 100
) -> UsersPage:
    """Return a page of users who have memories."""
    return await memory.users_page(after, limit)


@internal_router.get("/scan")
async def scan(  # noqa: PLR0917 - as above
    memory: Memory,
    caller: MaintainerFor,
    after_at: datetime | None = None,
    after_id: UUID | None = None,
    until_at: datetime | None = None,
    until_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
) -> ScanPage:
    """Return a page of the user's reflections: after one cursor, up to and including another."""
    return await memory.scan(
        caller.user_id, after=_cursor(after_at, after_id), until=_cursor(until_at, until_id), limit=limit
    )


@internal_router.post("/distilled", status_code=201)
async def distil(body: DistilledCreate, memory: Memory, caller: MaintainerFor, response: Response) -> DistilledRead:
    """Store a principle; 200 with the stored one when its sources have one."""
    return await _created(memory.distil(caller.user_id, body), response)


@internal_router.post("/supersede")
async def supersede(body: SupersedeRequest, memory: Memory, caller: MaintainerFor) -> BatchResult:
    """Put one principle in the place of others."""
    return await memory.supersede(caller.user_id, body)


@internal_router.post("/promote")
async def promote_used(body: Batch, memory: Memory, caller: MaintainerFor) -> BatchResult:
    """Promote the user's much-used intermediate memories."""
    return await memory.promote_used(caller.user_id, body)


@internal_router.post("/purge")
async def purge(body: Batch, memory: Memory, caller: MaintainerFor) -> BatchResult:
    """Remove the user's expired memories."""
    return await memory.purge(caller.user_id, body)


Created = TypeVar("Created", ReflectionRead, DistilledRead)


async def _created(work: Awaitable[Created], response: Response) -> Created:
    made = await work
    if not made.created:
        response.status_code = 200
    return made


def _cursor(at: datetime | None, id_: UUID | None) -> tuple[datetime, UUID] | None:
    if at is None and id_ is None:
        return None
    if at is None or id_ is None or at.tzinfo is None:
        raise errors.validation_error("A cursor is a time with its zone and an id, both or neither.")
    return at, id_


def _limit(request: Request, caller: Caller) -> int:
    """Return the storage limit of the user's tier in bytes; -1 is none."""
    tier = caller.user.tier if caller.user is not None else "free_trial"
    return int(request.app.state.platform.settings.tiers.of(tier).memory_storage_bytes)
