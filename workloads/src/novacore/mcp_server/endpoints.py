"""Routes of mcp-server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.responses import JSONResponse

from novacore.common.app import service_of
from novacore.common.callers import public
from novacore.common.errors import ServiceError
from novacore.common.idempotency import checked_key
from novacore.mcp_server.access import METADATA_PATH, RESOURCE_PATH, McpCaller, resource_url
from novacore.mcp_server.schemas import (
    ContextFetch,
    ContextRead,
    HealthRead,
    MemoryLog,
    MemoryLogged,
    ResourceMetadata,
    TaskRead,
    TaskSubmit,
)
from novacore.mcp_server.service import McpService
from novacore.mcp_server.transport import Transport


@dataclass(frozen=True, slots=True)
class Server:
    """What the routes stand on: the use cases, and the protocol's transport."""

    service: McpService
    transport: Transport


router = APIRouter()

Mcp = Annotated[Server, Depends(service_of(Server))]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


@router.post("/mcp", response_class=JSONResponse)
async def message(request: Request, mcp: Mcp, caller: McpCaller) -> Response:
    """Take one message of the Model Context Protocol (streamable HTTP)."""
    return mcp.transport.answer(request, caller)


@router.get("/mcp", status_code=405)
@router.delete("/mcp", status_code=405)
async def no_stream(_caller: McpCaller) -> Response:
    """Offer no stream and end no session: this server is stateless and never speaks first."""
    raise ServiceError(405, "method_not_allowed", "Send messages by POST.", headers={"Allow": "POST"})


@router.post("/mcp/context/fetch", response_model=ContextRead)
async def context_fetch(body: ContextFetch, mcp: Mcp, caller: McpCaller) -> ContextRead:
    """Return what is remembered about a file."""
    return await mcp.service.context_fetch(caller, body)


@router.post("/mcp/memory/log", status_code=201, response_model=MemoryLogged)
async def memory_log(body: MemoryLog, mcp: Mcp, caller: McpCaller, key: IdempotencyKey = None) -> MemoryLogged:
    """Remember an action in the editor."""
    return await mcp.service.memory_log(caller, body, key=checked_key(key))


@router.post("/mcp/task/submit", response_model=TaskRead)
async def task_submit(body: TaskSubmit, mcp: Mcp, caller: McpCaller, key: IdempotencyKey = None) -> TaskRead:
    """Put a task to the model and return the whole answer."""
    return await mcp.service.task_submit(caller, body, key=checked_key(key))


@router.get("/mcp/health", response_model=HealthRead, dependencies=[public()])
async def health(request: Request) -> HealthRead:
    """Say whether this service works; the same as /health, below the prefix that the gateway passes on."""
    platform = request.app.state.platform
    checks = await platform.readiness.measure()
    return HealthRead(
        status="ok" if all(checks.values()) else "degraded",
        service=platform.spec.name,
        timestamp=platform.clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        version=platform.version,
    )


@router.get(METADATA_PATH, response_model=ResourceMetadata, dependencies=[public()])
@router.get(METADATA_PATH + RESOURCE_PATH, response_model=ResourceMetadata, dependencies=[public()])
@router.get(METADATA_PATH + "/mcp", response_model=ResourceMetadata, dependencies=[public()])
async def resource_metadata(request: Request) -> ResourceMetadata:
    """Say where one signs in for the MCP endpoint (RFC 9728)."""
    settings = request.app.state.platform.settings
    return ResourceMetadata(
        resource=resource_url(settings),
        resource_name="NovaCore MCP",
        authorization_servers=[settings.frontend_url.rstrip("/")],
        scopes_supported=["mcp"],
        bearer_methods_supported=["header"],
    )
