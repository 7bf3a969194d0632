"""Which public path goes where, and which spellings of a path are refused. Pure: no network, no clock.

Invariant ROUTE-1: nothing below `/internal` is reachable, in any spelling: such spellings are refused before matching,
and the table below has no such prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Class = Literal["costly", "read", "auth", "anon", "webhook"]

KIB = 1024
DEFAULT_BODY_BYTES = 1024 * KIB
DEADLINE_S = 30.0
LONG_DEADLINE_S = 120.0
STREAM_SECONDS = 600.0
STREAM_IDLE_S = 60.0

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

# Longest first does not matter: the first that matches wins, so exceptions stand above their prefix.
_AUTH_CLASS = frozenset(
    {"/api/auth/register", "/api/auth/login", "/api/auth/refresh", "/api/auth/device/code", "/api/auth/device/token"}
)
_COSTLY = ("/api/chat", "/api/memory/store", "/api/mcp")
_LONG = frozenset({"/api/chat/message", "/api/mcp/task/submit", "/api/mcp"})


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request goes."""

    upstream: str
    path: str  # what the upstream sees, still percent-encoded
    template: str  # for metrics and logs
    user: bool  # needs a valid user token
    class_: Class  # of the rate limit; for `user` routes by the user, else by IP
    body_bytes_max: int = DEFAULT_BODY_BYTES
    deadline_s: float = DEADLINE_S
    scopes: frozenset[str] = frozenset({"api"})


_PREFIXES: tuple[tuple[str, str, int], ...] = (
    ("/api/auth", "auth-billing", DEFAULT_BODY_BYTES),
    ("/api/billing", "auth-billing", DEFAULT_BODY_BYTES),
    ("/api/usage", "auth-billing", DEFAULT_BODY_BYTES),
    ("/api/chat", "intelligence", 64 * KIB),
    ("/api/memory", "memory", 256 * KIB),
    ("/api/ngs", "ngs-curriculum", DEFAULT_BODY_BYTES),
    ("/api/mcp", "mcp-server", DEFAULT_BODY_BYTES),
    ("/api/policy", "noble-spirit", DEFAULT_BODY_BYTES),
)


def bad_path(raw: bytes) -> bool:
    """Return whether a path is spelt in a way that two parsers could read differently.

    Refused: `..`, `.`, empty segments, backslash, encoded slash, backslash, dot or percent sign, control characters.
    """
    lowered = raw.lower()
    if not raw.startswith(b"/") or b"//" in raw or b"\\" in raw:
        return True
    if any(spelling in lowered for spelling in (b"%2f", b"%5c", b"%2e", b"%25", b"%00")):
        return True
    if any(byte < 0x21 or byte > 0x7E for byte in raw):
        return True
    return any(segment in (b".", b"..") for segment in raw.split(b"/"))


def match(method: str, path: str) -> Route | None:  # noqa: PLR0911 - a table with its exceptions, in order
    """Return the route of a checked path, or None: then it is 404."""
    if method not in METHODS:
        return None
    if path == "/api/billing/webhooks":
        if method != "POST":
            return None
        return Route("auth-billing", path[4:], path, user=False, class_="webhook", body_bytes_max=256 * KIB)
    if path in ("/.well-known/jwks.json", "/.well-known/oauth-authorization-server"):
        return Route("auth-billing", path, path, user=False, class_="anon")
    if path.startswith("/.well-known/oauth-protected-resource"):
        template = "/.well-known/oauth-protected-resource"
        return Route("mcp-server", path, template, user=False, class_="anon")
    if path == "/api/mcp/health":
        return Route("mcp-server", path[4:], path, user=False, class_="anon")
    for prefix, upstream, body_bytes_max in _PREFIXES:
        if path == prefix or path.startswith(prefix + "/"):
            return Route(
                upstream,
                path[4:],
                template=path if path in KNOWN else f"{prefix}/*",
                user=prefix != "/api/auth",
                class_=_class(method, path, prefix),
                body_bytes_max=body_bytes_max,
                deadline_s=LONG_DEADLINE_S if path in _LONG else DEADLINE_S,
                scopes=frozenset({"api", "mcp"}) if prefix == "/api/mcp" else frozenset({"api"}),
            )
    return None


def _class(method: str, path: str, prefix: str) -> Class:
    if prefix == "/api/auth":
        return "auth" if path in _AUTH_CLASS and method == "POST" else "anon"
    if method == "POST" and any(path == costly or path.startswith(costly + "/") for costly in _COSTLY):
        return "costly"
    return "read"


KNOWN: frozenset[str] = frozenset(
    {
        "/api/auth/register", "/api/auth/login", "/api/auth/refresh", "/api/auth/me", "/api/chat/message",
        "/api/chat/stream", "/api/memory", "/api/memory/search", "/api/ngs/progress", "/api/usage/quota",
    }
)  # fmt: skip
"""Paths with a template of their own; the others count under their prefix. Together they stay below the registry's
bound.
"""
