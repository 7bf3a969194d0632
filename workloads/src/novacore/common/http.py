"""The aiohttp session of a process: one for all calls to peers, since connections are the scarce thing.

The request for a service token has a session of its own that never keeps a connection: one made while a Service's first
rules are being written can end at a stranger (seen: 404 without a body), and kept alive it would be asked for ever.
"""

from __future__ import annotations

import aiohttp

CONNECTIONS_MAX = 500
KEEPALIVE_SECONDS = 60
"""Idle connections are closed after this, and DNS is asked again, so that new pods get traffic."""


def build_session(*, limit: int = CONNECTIONS_MAX, keep_alive: bool = True) -> aiohttp.ClientSession:
    """Return a session for calls to peers: no cookies, no decompression, no proxy from the environment."""
    if keep_alive:
        connector = aiohttp.TCPConnector(limit=limit, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=10)
    else:
        connector = aiohttp.TCPConnector(limit=limit, force_close=True, use_dns_cache=False)
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
    )
