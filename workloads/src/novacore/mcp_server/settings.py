"""Settings of mcp-server."""

from __future__ import annotations

from novacore.common.settings import CommonSettings, Section


class McpSection(Section):
    """Section `mcp`: names under which this server may be addressed, beside its Service and the loopback."""

    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()


class McpSettings(CommonSettings):
    """Everything mcp-server reads from settings.yaml."""

    mcp: McpSection = McpSection()
    frontend_url: str = "http://127.0.0.1:5000"
    """Where the outside world reaches the gateway: resource and authorization server of RFC 9728."""
