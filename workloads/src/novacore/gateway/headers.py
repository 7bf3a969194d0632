"""Which headers pass the gateway, both ways. An allow-list inbound: what is not named here does not exist behind it.

So `X-User-*`, `X-Service-*`, `X-Act-*`, `X-Internal-*`, `X-Deadline-Ms`, `X-Forwarded-*`, `X-Real-IP`, `Forwarded` and
all hop-by-hop headers are gone whatever their spelling; the gateway then sets its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PASSED = frozenset(
    {
        "accept", "accept-encoding", "accept-language", "cache-control", "content-encoding", "content-type",
        "idempotency-key", "if-match", "if-modified-since", "if-none-match", "last-event-id", "mcp-method", "mcp-name",
        "mcp-protocol-version", "mcp-session-id", "stripe-signature", "user-agent",
    }
)  # fmt: skip

HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_OURS = frozenset({"server", "date", "x-request-id"})
_PRIVATE = ("x-service-", "x-internal-", "x-act-", "access-control-")


def inbound(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the client's headers that go on to an upstream."""
    return {name: value for name, value in headers if name.lower() in PASSED}


def outbound(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the upstream's headers that go back to the client, as ASGI pairs."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if (lowered := name.lower()) not in HOP_BY_HOP
        and lowered not in _OURS
        and lowered not in named
        and not lowered.startswith(_PRIVATE)
    ]


def client_ip(peer: str, forwarded_for: str | None, hops: int) -> str:
    """Return the client's address: the peer's, or the entry that the outermost of `hops` trusted proxies wrote."""
    if hops == 0 or not forwarded_for:
        return peer
    entries = [entry.strip() for entry in forwarded_for.split(",") if entry.strip()]
    return entries[-min(hops, len(entries))][:64] if entries else peer
