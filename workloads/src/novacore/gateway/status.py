"""`GET /api/status`: what each service answered when last asked, at most 15 s ago; workers by their heartbeat in
Redis.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import aiohttp

from novacore.common.app import Platform
from novacore.common.redis import RedisError
from novacore.gateway.proxy import Proxy
from novacore.gateway.settings import GatewaySettings
from novacore_contracts.services import SERVICES

EVERY_S: Final = 10.0
TIMEOUT_S: Final = 3.0

State = Literal["up", "degraded", "down", "unknown"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found when a service was last asked."""

    status: State
    checked_at: datetime
    latency_ms: float | None


class StatusBoard:
    """Asks all services again and again."""

    def __init__(self, platform: Platform[GatewaySettings], proxy: Proxy) -> None:
        self._platform = platform
        self._proxy = proxy
        self._seen: dict[str, Seen] = {}
        self._workers = [service.name for service in SERVICES if service.port is None]

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            await self.measure()
            await asyncio.sleep(EVERY_S)

    async def measure(self) -> None:
        """Ask every service once."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._proxy.upstreams:
                tasks.create_task(self._ask(name))
            tasks.create_task(self._look_for_workers())

    def report(self) -> dict[str, Any]:
        """Return the body of `/api/status`."""
        names = [*self._proxy.upstreams, *self._workers]
        states = [self._seen[name].status if name in self._seen else "unknown" for name in names]
        if all(state == "up" for state in states):
            overall = "ok"
        else:
            overall = "down" if all(state in ("down", "unknown") for state in states) else "degraded"
        now = self._platform.clock.now()
        services = [self._line(name) for name in names]
        return {"status": overall, "timestamp": _iso(now), "services": services}

    def _line(self, name: str) -> dict[str, Any]:
        seen = self._seen.get(name)
        upstream = self._proxy.upstreams.get(name)
        return {
            "name": name,
            "status": seen.status if seen else "unknown",
            "circuit": upstream.circuit.state if upstream else "closed",
            "checked_at": _iso(seen.checked_at) if seen else None,
            "latency_ms": seen.latency_ms if seen else None,
        }

    async def _ask(self, name: str) -> None:
        started = time.monotonic()
        state: State = "down"
        try:
            async with self._platform.session.get(
                f"{self._proxy.upstreams[name].url}/health", timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
            ) as response:
                body = await response.json(content_type=None)
                if response.status == 200:
                    state = "up" if body.get("status") in ("ok", "healthy") else "degraded"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AttributeError):
            pass
        latency = round((time.monotonic() - started) * 1000, 1)
        self._seen[name] = Seen(state, self._platform.clock.now(), latency)

    async def _look_for_workers(self) -> None:
        assert self._platform.redis is not None
        for name in self._workers:
            try:
                state: State = "up" if await self._platform.redis.exists(f"hb:{name}:latest") else "down"
            except RedisError:
                state = "unknown"
            self._seen[name] = Seen(state, self._platform.clock.now(), None)


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
