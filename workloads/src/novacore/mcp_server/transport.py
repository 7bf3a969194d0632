"""Streamable HTTP: the SDK's session manager behind our own route and our own identity check.

Stateless (any replica serves any message; protocol 2026-07-28 has no sessions, 2025-11-25 clients get none) and with
JSON answers. GET answers 405, as the protocol allows a server that never speaks first: an idle stream per editor would
only hold connections. DELETE answers 405 too: there is no session to end.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server import MCPServer
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from novacore.common.callers import Caller
from novacore.common.metrics import Metrics
from novacore.mcp_server.settings import McpSettings
from novacore.mcp_server.tools import CALLER_KEY
from novacore_contracts.services import BY_NAME

BODY_BYTES_MAX = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def state_key(log_key: bytes) -> bytes:
    """Return the key that seals a client's `requestState`: the same in all replicas, of no use for anything else."""
    return hmac.new(log_key, b"novacore mcp request state 1", hashlib.sha256).digest()


def security(settings: McpSettings) -> TransportSecuritySettings:
    """Return the host names this server answers to; without the list the SDK refuses all but the loopback (421)."""
    own = BY_NAME["mcp-server"].full_name
    names = (own, *_LOOPBACK, *settings.mcp.allowed_hosts)
    return TransportSecuritySettings(
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=list(settings.mcp.allowed_origins),
    )


class Transport:
    """The session manager, usable inside `running()`; once per process, as the SDK wants it."""

    def __init__(self, server: MCPServer[dict[str, Any]], settings: McpSettings, metrics: Metrics) -> None:
        # The SDK writes header values and URIs into its warnings; its errors are enough, and ours are in the access log.
        logging.getLogger("mcp").setLevel(logging.ERROR)
        server.streamable_http_app(
            stateless_http=True,
            json_response=True,
            max_request_body_size=BODY_BYTES_MAX,
            transport_security=security(settings),
        )
        self._manager: StreamableHTTPSessionManager = server.session_manager
        self._open = metrics.gauge("novacore_mcp_sessions")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve messages while the context lasts."""
        async with self._manager.run():
            yield

    def answer(self, request: Request, caller: Caller) -> Response:
        """Return a response that lets the SDK answer this request for `caller`."""
        setattr(request.state, CALLER_KEY, caller)
        return _Handled(self)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one message."""
        self._open.inc()
        try:
            await self._manager.handle_request(scope, receive, send)
        finally:
            self._open.dec()


class _Handled(Response):
    """A response whose bytes come from the SDK."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._transport.handle(scope, receive, send)
