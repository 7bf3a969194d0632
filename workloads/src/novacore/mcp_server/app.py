"""How mcp-server is put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from novacore.common.app import Platform, ServiceDefinition
from novacore.mcp_server.endpoints import Server, router
from novacore.mcp_server.service import McpService
from novacore.mcp_server.settings import McpSettings
from novacore.mcp_server.tools import Operations, build_server
from novacore.mcp_server.transport import BODY_BYTES_MAX, Transport, state_key

START_SECONDS = 10.0


@asynccontextmanager
async def start(platform: Platform[McpSettings]) -> AsyncIterator[Server]:
    """Build the service and the MCP server, and let its transport run."""
    service = McpService(platform.peers)
    log_key = bytes.fromhex((platform.paths.creds / "log.key").read_text().strip())  # checked by make_apps
    server = build_server(service, Operations(platform.metrics), version=platform.version, state_key=state_key(log_key))
    transport = Transport(server, platform.settings, platform.metrics)
    platform.spawn("mcp", transport.run)
    async with asyncio.timeout(START_SECONDS):
        await transport.started()
    yield Server(service, transport)


DEFINITION = ServiceDefinition(
    name="mcp-server",
    settings=McpSettings,
    start=start,
    routers=(router,),
    body_bytes_max=BODY_BYTES_MAX,
)
