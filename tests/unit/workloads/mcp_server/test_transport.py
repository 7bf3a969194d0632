"""Host names and keys of the transport."""

from __future__ import annotations

from novacore.mcp_server.settings import McpSection, McpSettings
from novacore.mcp_server.transport import security, state_key


def test_the_service_name_the_loopback_and_what_is_set_are_answered_to() -> None:
    hosts = security(McpSettings(mcp=McpSection(allowed_hosts=("mcp.example.org",)))).allowed_hosts
    for host in ("novacore-mcp-server:*", "localhost:*", "127.0.0.1:*", "mcp.example.org", "mcp.example.org:*"):
        assert host in hosts
    assert not any(host.startswith("*") for host in hosts)


def test_every_replica_seals_with_the_same_key_and_it_is_not_the_log_key() -> None:
    assert state_key(b"k" * 32) == state_key(b"k" * 32) != b"k" * 32
    assert len(state_key(b"k" * 32)) == 32
