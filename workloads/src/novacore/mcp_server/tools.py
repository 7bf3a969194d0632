"""The Model Context Protocol side: five tools and one resource template on the official SDK.

The SDK speaks the protocol; who calls was decided before it sees the request (`access`), and is read here from the HTTP
request that carries the message. A refusal becomes a tool error that the model can read; a bug stays nameless.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from mcp.server import MCPServer, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import Context, RequestStateSecurity
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp_types import ToolAnnotations

from novacore.common.callers import Caller
from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.mcp_server.schemas import (
    Action,
    Confidence,
    ContextFetch,
    ContextRead,
    FewLimit,
    FilePath,
    FileText,
    Language,
    LogText,
    MemoriesFound,
    MemoryLog,
    MemoryLogged,
    MemorySearch,
    MemoryType,
    Metadata,
    Outcome,
    ProgressRead,
    Query,
    SearchLimit,
    Task,
    TaskRead,
    TaskSubmit,
    Tier,
)
from novacore.mcp_server.service import McpService

log = get_logger()

NAME = "novacore"
TOOLS = ("context_fetch", "memory_search", "memory_log", "task_submit", "progress")
INSTRUCTIONS = (
    "NovaCore remembers what you and your user did. Search before you answer a question about earlier work, log what"
    " was done when it may matter later, and put larger tasks to the platform's own model with task_submit."
)
CALLER_KEY = "novacore_caller"
_DENIED = frozenset({401, 402, 403, 429})
_MEASURED_BY_TOOL = frozenset({"tools/call", "resources/read"})
_METHODS = frozenset({"initialize", "tools/list"})


class Operations:
    """The MCP metrics. All children exist from the start: nine (method, tool) pairs of the fifteen allowed."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.histogram("mcp_server_operation_duration_seconds")
        self._total = metrics.counter("novacore_mcp_operations_total")
        for method, tool in (
            *(("tools/call", tool) for tool in TOOLS),
            *((method, "") for method in ("resources/read", "initialize", "tools/list", "other")),
        ):
            self._seconds.labels(method, tool)
            for outcome in ("ok", "error", "denied"):
                self._total.labels(method, tool, outcome)

    @asynccontextmanager
    async def measured(self, method: str, tool: str = "") -> AsyncIterator[None]:
        """Time and count an operation by how it ends."""
        started = time.monotonic()
        outcome = "error"
        try:
            yield
            outcome = "ok"
        except ServiceError as error:
            outcome = "denied" if error.status in _DENIED else "error"
            raise
        finally:
            self._seconds.labels(method, tool).observe(time.monotonic() - started)
            self._total.labels(method, tool, outcome).inc()

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Middleware of the SDK: measure what no tool measures itself; notifications are not operations."""
        if ctx.method in _MEASURED_BY_TOOL or ctx.request_id is None:
            return await call_next(ctx)
        async with self.measured(ctx.method if ctx.method in _METHODS else "other"):
            return await call_next(ctx)


class Tools:
    """The tools' bodies. A docstring here is what a model reads to choose."""

    def __init__(self, service: McpService, operations: Operations) -> None:
        self._service = service
        self._operations = operations

    async def context_fetch(
        self,
        ctx: Context[Any, Any],
        file_path: FilePath,
        file_content: FileText | None = None,
        language: Language | None = None,
        limit: FewLimit = 5,
    ) -> ContextRead:
        """Find what is remembered about a file: earlier work on it, errors, decisions."""
        body = ContextFetch(file_path=file_path, file_content=file_content, language=language, limit=limit)
        async with self._tool("context_fetch"):
            return await self._service.context_fetch(_caller(ctx), body)

    async def memory_search(
        self,
        *,
        ctx: Context[Any, Any],
        query: Query,
        limit: SearchLimit = 10,
        tier: Tier | None = None,
        memory_type: MemoryType | None = None,
        min_confidence: Confidence | None = None,
    ) -> MemoriesFound:
        """Search the user's memories by meaning and by words."""
        body = MemorySearch(query=query, limit=limit, tier=tier, memory_type=memory_type, min_confidence=min_confidence)
        async with self._tool("memory_search"):
            return await self._service.memory_search(_caller(ctx), body)

    async def memory_log(
        self,
        *,
        ctx: Context[Any, Any],
        file_path: FilePath,
        action: Action,
        content: LogText | None = None,
        outcome: Outcome | None = None,
        metadata: Metadata | None = None,
    ) -> MemoryLogged:
        """Remember something done in the editor, for good. It counts against the user's storage."""
        body = MemoryLog(file_path=file_path, action=action, content=content, outcome=outcome, metadata=metadata)
        async with self._tool("memory_log"):
            return await self._service.memory_log(_caller(ctx), body)

    async def task_submit(
        self,
        ctx: Context[Any, Any],
        task_description: Task,
        file_context: FileText | None = None,
        session_id: UUID | None = None,
    ) -> TaskRead:
        """Put a question or task to the platform's own model, with a file if it helps, and wait for the answer."""
        body = TaskSubmit(task_description=task_description, file_context=file_context, session_id=session_id)
        async with self._tool("task_submit"):
            return await self._service.task_submit(_caller(ctx), body)

    async def progress(self, ctx: Context[Any, Any]) -> ProgressRead:
        """Say where the user stands in the curriculum."""
        async with self._tool("progress"):
            return await self._service.progress(_caller(ctx))

    async def memory(self, memory_id: str, ctx: Context[Any, Any]) -> str:
        """One memory, whole, as JSON."""
        try:
            async with self._operations.measured("resources/read"):
                memory = await self._service.memory(_caller(ctx), _memory_id(memory_id))
        except ServiceError as error:
            kind = ResourceNotFoundError if error.status == 404 else ResourceError
            raise kind(_readable(error)) from None
        return json.dumps(memory, ensure_ascii=False)

    @asynccontextmanager
    async def _tool(self, name: str) -> AsyncIterator[None]:
        try:
            async with self._operations.measured("tools/call", name):
                yield
        except ServiceError as error:
            raise ToolError(_readable(error)) from None


def build_server(
    service: McpService, operations: Operations, *, version: str, state_key: bytes
) -> MCPServer[dict[str, Any]]:
    """Return the MCP server. `state_key` and the name are the same in all replicas: any may serve any message."""
    server: MCPServer[dict[str, Any]] = MCPServer(
        NAME,
        title="NovaCore",
        instructions=INSTRUCTIONS,
        version=version,
        log_level="ERROR",
        request_state_security=RequestStateSecurity(keys=[state_key]),
        subscriptions=False,  # nothing here changes behind a client's back
        middleware=[operations],
    )
    tools = Tools(service, operations)
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    writes = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    for tool, hints in (
        (tools.context_fetch, reads),
        (tools.memory_search, reads),
        (tools.memory_log, writes),
        (tools.task_submit, writes),
        (tools.progress, reads),
    ):
        server.add_tool(tool, annotations=hints)
    server.resource("memory://{memory_id}", name="memory", mime_type="application/json")(tools.memory)
    return server


def _caller(ctx: Context[Any, Any]) -> Caller:
    """Return who sent the message. RuntimeError when it did not come through our route: then nobody is known."""
    request = ctx.request_context.request
    caller = getattr(getattr(request, "state", None), CALLER_KEY, None)
    if not isinstance(caller, Caller):
        raise TypeError("an MCP message without a checked caller")
    return caller


def _memory_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ServiceError(404, "not_found", "There is no such memory.") from None


def _readable(error: ServiceError) -> str:
    return f"{error.detail} ({error.code})"
