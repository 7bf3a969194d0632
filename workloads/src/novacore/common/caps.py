"""Caps on the routes of the internal port that anybody in the cluster can reach: bytes of a body, requests a second.

Some clusters enforce no NetworkPolicy, so a stranger's pod may knock here. Rates are counted by the caller's address:
who floods, is refused alone, and the operator's pushes still get in. Checked before a body is read.
Not here: who may call (`callers`), the gateway's limits by user (`gateway.limits`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from novacore.common.errors import ServiceError, rate_limited

PEERS_MAX = 512
"""Addresses remembered; beyond them the one that has been quiet for longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Cap:
    """What one caller may send to a route. `body_bytes_max` 0: the route reads its body itself, with its own cap."""

    per_second: float
    burst: int
    body_bytes_max: int = 16_384


class Bucket:
    """Token buckets of one route, by address."""

    def __init__(self, cap: Cap, monotonic: Callable[[], float]) -> None:
        self._cap = cap
        self._monotonic = monotonic
        self._left: dict[str, tuple[float, float]] = {}  # address -> (requests left, when that was); oldest first

    def take(self, address: str) -> float:
        """Take one request of an address; return 0, or the seconds until there is one again."""
        now = self._monotonic()
        left, at = self._left.pop(address, (float(self._cap.burst), now))
        left = min(float(self._cap.burst), left + max(0.0, now - at) * self._cap.per_second)
        granted = left >= 1
        self._left[address] = (left - 1 if granted else left, now)
        if len(self._left) > PEERS_MAX:
            del self._left[next(iter(self._left))]
        return 0.0 if granted else (1 - left) / self._cap.per_second


class CapMiddleware:
    """Wraps a listener's app; `caps` by path, for POST."""

    def __init__(self, app: ASGIApp, caps: Mapping[str, Cap], *, monotonic: Callable[[], float]) -> None:
        self._app = app
        self._caps = {path: (cap, Bucket(cap, monotonic)) for path, cap in caps.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it with 413 or 429."""
        found = self._caps.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is not None:
            cap, bucket = found
            wait_s = bucket.take((scope.get("client") or ("unknown", 0))[0])
            if wait_s > 0:
                raise rate_limited(wait_s)
            if cap.body_bytes_max and _declared(scope) > cap.body_bytes_max:
                raise ServiceError(413, "too_large", f"The body is larger than {cap.body_bytes_max} bytes.")
        await self._app(scope, receive, send)


def _declared(scope: Scope) -> int:
    """Return the body's length as declared: of one without a length, none is expected here."""
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    if length.isdigit():
        return int(length)
    return 1 << 62 if "transfer-encoding" in headers else 0
