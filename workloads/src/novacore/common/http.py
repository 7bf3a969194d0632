"""The one aiohttp session of a process, and why not a second: connections are the scarce thing."""

from __future__ import annotations

import aiohttp

CONNECTIONS_MAX = 500
KEEPALIVE_SECONDS = 60
"""Idle connections are closed after this, and DNS is asked again, so that new pods get traffic."""


def build_session(*, limit: int = CONNECTIONS_MAX) -> aiohttp.ClientSession:
    """Return a session for calls to peers: no cookies, no decompression, no proxy from the environment."""
    connector = aiohttp.TCPConnector(limit=limit, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=10)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
    )
