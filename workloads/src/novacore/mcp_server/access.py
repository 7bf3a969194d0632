"""Who may use mcp-server: a user token of scope `api` or `mcp`, through the gateway, of a tier that includes it.

A 401 names the resource metadata (RFC 9728 §5.1), which is how editors find the sign-in.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from novacore.common.app import Platform
from novacore.common.callers import USER_REALM, Caller, Rule
from novacore.common.errors import ServiceError, forbidden
from novacore.mcp_server.settings import McpSettings

METADATA_PATH = "/.well-known/oauth-protected-resource"
RESOURCE_PATH = "/api/mcp"


def resource_url(settings: McpSettings) -> str:
    """Return the URL of the MCP endpoint as the outside world knows it."""
    return settings.frontend_url.rstrip("/") + RESOURCE_PATH


class McpUser(Rule):
    """`user_route(scope="mcp")`, and the tier must include MCP."""

    def __init__(self) -> None:
        super().__init__("user", scopes=("api", "mcp"))

    async def __call__(self, request: Request) -> Caller:
        """Return the caller. 401, or 403 `tier_required`."""
        platform: Platform[McpSettings] = request.app.state.platform
        try:
            caller = await super().__call__(request)
        except ServiceError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if error.status == 401 and USER_REALM in challenge:
                base = platform.settings.frontend_url.rstrip("/")
                where = f'resource_metadata="{base}{METADATA_PATH}{RESOURCE_PATH}"'
                error.headers["WWW-Authenticate"] = f"{challenge}, {where}"
            raise
        assert caller.user is not None  # the rule's kind is "user"
        if caller.user.role != "admin" and not platform.settings.tiers.of(caller.user.tier).mcp:
            refused = platform.metrics.counter("novacore_mcp_operations_total")
            refused.labels("other", "", "denied").inc()
            raise forbidden("tier_required", "Your plan does not include the editor connection; a larger plan does.")
        return caller


McpCaller = Annotated[Caller, Depends(McpUser())]
