"""Probes and the keyset routes of the `internal` listener, and `/health` of the service port.

Live is not ready: `/livez` touches nothing but the event loop, so a slow database never restarts a pod. Checks are
measured again each time they are asked for (at most once a second), so a dependency that comes back is used without a
restart.

What the keyset routes say is the claim of the pod, since a pod runs one process: which generation it holds, which keys
it can verify with, which it last accepted a token of, its clock, and where it signs, with which keys.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from novacore.common.callers import public
from novacore.common.caps import Cap
from novacore.common.errors import ServiceError, not_found, unauthorized
from novacore.common.keyring import AUDIENCES, DocumentError, TokenError
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.ring import COMPACT_BYTES_MAX
from novacore_contracts.identity import TOKEN_BYTES_MAX
from novacore_contracts.metrics import READY_CHECKS

if TYPE_CHECKING:
    from novacore.common.app import Platform

log = get_logger()

CHECK_TIMEOUT_S = 5.0
REFRESH_SECONDS = 2.0
KEPT_SECONDS = 10.0
FRESH_SECONDS = 1.0
LIVE_SECONDS = 60.0

CAPS = {
    # A push has its own cap on the body, so that a refusal is counted as one of the ring.
    "/internal/keyset": Cap(per_second=50, burst=100, body_bytes_max=0),
    "/internal/keyset/canary": Cap(per_second=100, burst=200, body_bytes_max=2 * TOKEN_BYTES_MAX),
}

Check = Callable[[], Awaitable[bool]] | Callable[[], bool]


class Readiness:
    """Named checks. Names come from the metric registry: database, redis, migrations, model, draining, loop.

    Checks that await something run in the background, every two seconds: a slow store must not make the probe itself
    time out, nor be asked again before it has answered. Checks that only look at a value are looked at when asked.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._gauge = metrics.gauge("novacore_ready")
        self._checks: dict[str, Check] = {}
        self._startup: dict[str, Callable[[], bool]] = {}
        self._at_first: dict[str, Callable[[], bool]] = {}
        self._lock = asyncio.Lock()
        self._results: dict[str, bool] = {}
        self._at = -KEPT_SECONDS
        self.lag_s = 0.0
        self.last_tick = time.monotonic()

    def add(self, name: str, check: Check) -> None:
        """Register a check of a required dependency: True when it is usable. An exception or 5 s is False."""
        if name not in READY_CHECKS:
            raise ValueError(f"{name!r} is no readiness check of the metric registry: {', '.join(READY_CHECKS)}")
        self._checks[name] = check
        self._gauge.labels(name).set(0)
        self._at = -KEPT_SECONDS

    def add_startup(self, name: str, check: Callable[[], bool]) -> None:
        """Register what must be true before `/startupz` passes (a model loaded, a keyset seen)."""
        self._startup[name] = check

    def add_at_first(self, name: str, check: Callable[[], bool]) -> None:
        """Register what `/readyz` needs at the start of a process and `/startupz` does not: waiting for it kills
        nothing.
        """
        self._at_first[name] = check

    @property
    def started(self) -> bool:
        """Whether every start-up condition holds."""
        return all(check() for check in self._startup.values())

    def startup(self) -> dict[str, bool]:
        """Return each start-up condition."""
        return {name: check() for name, check in self._startup.items()}

    def at_first(self) -> dict[str, bool]:
        """Return each condition of the process's start, those of `/startupz` among them."""
        return self.startup() | {name: check() for name, check in self._at_first.items()}

    async def measure(self) -> dict[str, bool]:
        """Return the checks' results: of those that await, at most ten seconds old."""
        if time.monotonic() - self._at >= KEPT_SECONDS:
            await self.refresh()
        results = {}
        for name, check in self._checks.items():
            results[name] = self._results.get(name, False) if inspect.iscoroutinefunction(check) else _look(check)
            self._gauge.labels(name).set(int(results[name]))
        return results

    async def refresh(self) -> None:
        """Run the checks that await something."""
        async with self._lock:
            names = [name for name, check in self._checks.items() if inspect.iscoroutinefunction(check)]
            results = await asyncio.gather(*(self._run(name) for name in names))
            self._results = dict(zip(names, results, strict=True))
            self._at = time.monotonic()

    async def keep_measured(self) -> None:
        """Refresh for ever."""
        while True:
            await self.refresh()
            await self.measure()  # the gauges follow even when nobody asks
            await asyncio.sleep(REFRESH_SECONDS)

    def forget(self) -> None:
        """Measure anew at the next question."""
        self._at = -KEPT_SECONDS

    async def _run(self, name: str) -> bool:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                return bool(await self._checks[name]())  # type: ignore[misc]  # only coroutine functions come here
        except Exception as error:
            log.warning("check_failed", name=name, reason=type(error).__name__)
            return False

    async def tick(self) -> None:
        """Measure for ever how late the event loop wakes."""
        lag = self._metrics.histogram("novacore_event_loop_lag_seconds")
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.25)
            late = max(0.0, time.monotonic() - before - 0.25)
            lag.observe(late)
            # A moving value: one late wake-up is a garbage collection, several are an overloaded pod.
            self.lag_s = 0.7 * self.lag_s + 0.3 * late
            self.last_tick = time.monotonic()


def _look(check: Check) -> bool:
    value = check()
    if inspect.isawaitable(value):
        raise TypeError("a check that awaits must be an `async def`, so that it is run in the background")
    return bool(value)


class _Canary(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ring: str = "serviceJwt"
    token: str = Field(min_length=1, max_length=TOKEN_BYTES_MAX)


def internal_routes(platform: Platform[Any]) -> APIRouter:  # noqa: C901 - nine routes, one closure
    """Return the routes that every internal listener has."""
    router = APIRouter(include_in_schema=False, dependencies=[public()])
    readiness, keyrings = platform.readiness, platform.keyrings

    def keyset() -> dict[str, Any]:
        report = {
            "rings": keyrings.report(),
            "token_kid": platform.tokens.kid if platform.tokens else None,
            "clock": int(platform.clock.now().timestamp()),
        }
        signer = platform.signer_report()
        proofs = {"proofs": platform.proofs} if platform.proofs else {}
        return report | proofs | ({"signer": signer} if signer is not None else {})

    @router.get("/livez")
    async def livez() -> Response:
        late = time.monotonic() - readiness.last_tick > LIVE_SECONDS and platform.running
        return JSONResponse({"status": "dead" if late else "ok"}, status_code=503 if late else 200)

    @router.get("/startupz")
    async def startupz() -> Response:
        checks = readiness.startup()
        done = all(checks.values())
        return JSONResponse(
            {"status": "ok" if done else "starting", "checks": checks}, status_code=200 if done else 503
        )

    @router.get("/readyz")
    async def readyz() -> Response:
        checks = await readiness.measure()
        keys = readiness.at_first()
        ready = all(checks.values()) and all(keys.values())
        body = {"status": "ready" if ready else "not_ready", "version": platform.version, "checks": checks | keys}
        return JSONResponse(body | keyset(), status_code=200 if ready else 503)

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        body, content_type = platform.metrics.expose(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    @router.get("/internal/keyset")
    async def read_keyset() -> Response:
        return JSONResponse(keyset())

    @router.post("/internal/keyset")
    async def push_keyset(request: Request, ring: str = "serviceJwt") -> Response:
        body = await _read(request, COMPACT_BYTES_MAX + 1)
        try:
            keyrings.push(ring, body)
        except DocumentError as error:
            if len(body) > COMPACT_BYTES_MAX:
                raise ServiceError(413, "too_large", "A ring document is at most 64 KiB.") from None
            raise ServiceError(422, "keyset_refused", f"The ring document was refused: {error}.") from None
        return JSONResponse(keyset())

    @router.get("/internal/keyset/document")
    async def read_document(ring: str = "serviceJwt") -> Response:
        held = keyrings.ring(ring)
        if held is None:
            raise not_found("No document of that ring is held here.")
        return Response(held.compact, media_type="application/jose")

    @router.post("/internal/keyset/canary")
    async def canary(body: _Canary) -> Response:
        if body.ring not in AUDIENCES:
            raise ServiceError(400, "validation_error", "There is no such ring to verify with.")
        try:
            kid, generation = keyrings.verify_canary(body.ring, body.token)
        except TokenError as error:
            raise unauthorized(error.code, "The canary token was refused.") from None
        return JSONResponse({"kid": kid, "generation": generation})

    return router


async def _read(request: Request, bytes_max: int) -> bytes:
    """Return a request's body, of a larger one no more than `bytes_max`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) >= bytes_max:
            break
    return body[:bytes_max]


def install_health(app: FastAPI, platform: Platform[Any], fields: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Add `GET /health` for old clients: cached one second, never says why."""
    cached: dict[str, Any] = {}

    @app.get("/health", dependencies=[public()])
    async def health() -> dict[str, Any]:
        """Say whether this service works."""
        now = platform.clock.monotonic()
        if not cached or now - cached["at"] >= FRESH_SECONDS:
            checks = await platform.readiness.measure()
            cached.update(at=now, status="ok" if all(checks.values()) else "degraded", fields=await fields())
        return {
            "status": cached["status"],
            "service": platform.spec.name,
            "timestamp": platform.clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "version": platform.version,
            **cached["fields"],
        }
