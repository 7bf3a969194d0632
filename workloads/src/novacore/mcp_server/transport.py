"""Streamable HTTP: the SDK's session manager behind our own route and our own identity check.

Stateless (any replica serves any message; protocol 2026-07-28 has no sessions, 2025-11-25 clients get none) and with
JSON answers. GET answers 405, as the protocol allows a server that never speaks first: an idle stream per editor would
only hold connections. DELETE answers 405 too: there is no session to end.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from typing import Any

from mcp.server import MCPServer
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from prometheus_client import Gauge
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from novacore.common.callers import Caller
from novacore.common.errors import unavailable
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
    """The session manager. The SDK lets each run once, so a loop that was started again makes itself a new one."""

    def __init__(self, server: MCPServer[dict[str, Any]], settings: McpSettings, metrics: Metrics) -> None:
        # The SDK writes header values and URIs into its warnings; its errors are enough, ours are in our log.
        logging.getLogger("mcp").setLevel(logging.ERROR)
        self._server = server
        self._security = security(settings)
        self._manager: StreamableHTTPSessionManager | None = None
        self._running = asyncio.Event()
        self._open = metrics.gauge("novacore_mcp_sessions")

    async def run(self) -> None:
        """Serve messages until cancelled. A task of its own: the SDK's task group must end where it began."""
        self._server.streamable_http_app(
            stateless_http=True,
            json_response=True,
            max_request_body_size=BODY_BYTES_MAX,
            transport_security=self._security,
        )
        self._manager = self._server.session_manager
        try:
            async with self._manager.run():
                self._running.set()
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._running.clear()

    async def started(self) -> None:
        """Return once messages can be served."""
        await self._running.wait()

    def answer(self, request: Request, caller: Caller) -> Response:
        """Return a response that lets the SDK answer this request for `caller`. 503 while the loop is down."""
        if self._manager is None or not self._running.is_set():
            raise unavailable("not_ready", "The editor connection is starting.")
        setattr(request.state, CALLER_KEY, caller)
        return _Handled(self._manager, self._open)


class _Handled(Response):
    """A response whose bytes come from the SDK."""

    def __init__(self, manager: StreamableHTTPSessionManager, open_: Gauge) -> None:
        super().__init__()
        self._manager = manager
        self._open = open_

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the SDK read the message and write the answer."""
        with self._open.track_inprogress():
            await self._manager.handle_request(scope, receive, send)
