"""How a service is put together: its definition (data), its platform (what it stands on), its two apps (listeners).

`novacore serve <service>` imports `novacore.<module>.app`, takes `DEFINITION` and hands it to `server.serve`.
Tests call `make_apps` and talk to `apps.public` and `apps.internal` in process, inside `async with apps.running():`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastapi import APIRouter, FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from novacore.common import errors
from novacore.common import log as log_
from novacore.common.callers import undeclared_routes
from novacore.common.caps import Cap, CapMiddleware
from novacore.common.clock import Clock, SystemClock
from novacore.common.database import Database
from novacore.common.health import CAPS, Readiness, install_health, internal_routes
from novacore.common.http import build_session
from novacore.common.keyring import KeyRings
from novacore.common.metrics import Metrics
from novacore.common.middleware import BODY_BYTES_MAX, RequestMiddleware
from novacore.common.migrations import migrations_applied
from novacore.common.peers import Peers
from novacore.common.redis import RedisError, build_redis
from novacore.common.settings import CommonSettings, SettingsError
from novacore.common.tasks import Loop, Supervisor
from novacore.common.tokens import ServiceTokens
from novacore_contracts.paths import Paths
from novacore_contracts.paths import paths as default_paths
from novacore_contracts.releases import CURRENT
from novacore_contracts.services import BY_NAME, Service, internal_url

if TYPE_CHECKING:
    import aiohttp
    from redis.asyncio import Redis

S = TypeVar("S", bound=CommonSettings)
T = TypeVar("T")

LOG_KEY_BYTES_MIN = 32
NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False}
"""FastAPI's own OpenTelemetry hooks: our middleware measures, and nothing leaves the pod unasked."""
WORK_SECONDS = 25.0


class Platform(Generic[S]):
    """What a service stands on. Made by `make_apps`; usable from `running()` on."""

    def __init__(self, spec: Service, settings: S, *, paths: Paths, clock: Clock) -> None:
        self.spec = spec
        self.settings = settings
        self.paths = paths
        self.clock = clock
        self.version = CURRENT  # what this image is; the settings have what it was asked to be
        self.metrics = Metrics(spec.name)
        self.keyrings = KeyRings(paths, clock, self.metrics)
        self.readiness = Readiness(self.metrics)
        self.draining = asyncio.Event()
        self.running = False
        self._work = 0
        self.db: Database | None = None
        if spec.schema is not None:
            self.db = Database(
                paths=paths, keyrings=self.keyrings, settings=settings, metrics=self.metrics, name=spec.name
            )
        self.redis: Redis | None = None
        self.redis_blocking: Redis | None = None  # reads may block: for stream consumers
        self.cache: Redis | None = None  # instance B; the same object while the installation shares one
        self.cache_blocking: Redis | None = None  # instance B, patient; as above
        self.tokens: ServiceTokens | None = None
        self._peers: Peers | None = None
        self._session: aiohttp.ClientSession | None = None
        self._token_session: aiohttp.ClientSession | None = None
        self._supervisor = Supervisor()
        self.app: FastAPI | None = None  # the public app; set by make_apps
        self.proofs: dict[str, dict[str, bool]] = {}  # confidential ring -> entry -> whether it works in this pod
        self.signer_report: Callable[[], dict[str, Any] | None] = lambda: None  # auth-billing sets it

    @property
    def peers(self) -> Peers:
        """The client for other services."""
        if self._peers is None:
            raise RuntimeError("the platform is not running yet: use peers inside start() or later")
        return self._peers

    @property
    def session(self) -> aiohttp.ClientSession:
        """The process's one aiohttp session."""
        if self._session is None:
            raise RuntimeError("the platform is not running yet: use the session inside start() or later")
        return self._session

    @property
    def crashes(self) -> dict[str, int]:
        """How often each loop crashed."""
        return self._supervisor.crashes

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark a piece of work that the end of the process waits for (`WORK_SECONDS`): a message being handled."""
        self._work += 1
        try:
            yield
        finally:
            self._work -= 1

    async def _finish_work(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WORK_SECONDS):
                while self._work:  # noqa: ASYNC110 - a counter of many small pieces, asked once at the end
                    await asyncio.sleep(0.05)

    def spawn(self, name: str, loop: Loop | Coroutine[Any, Any, Any]) -> None:
        """Run a background loop under supervision until the process ends. Pass the function, so that it can restart."""
        self._supervisor.spawn(name, loop)

    @asynccontextmanager
    async def running_(self) -> AsyncIterator[None]:
        """Connect, start the common loops, and take it all down again in the reverse order."""
        self.keyrings.poll()
        async with AsyncExitStack() as stack:
            self._session = await stack.enter_async_context(build_session())
            self._token_session = await stack.enter_async_context(build_session(limit=2, keep_alive=False))
            self._build_clients(stack)
            self._add_checks()
            await stack.enter_async_context(self._supervisor)
            self.spawn("keyset", self.keyrings.watch)
            self.spawn("loop_lag", self.readiness.tick)
            if self.db is not None:
                with contextlib.suppress(Exception):  # Postgres may come later: the loop goes on trying
                    await self.db.connect()
                self.spawn("database", self.db.keep_connected)
            self.spawn("checks", self.readiness.keep_measured)
            if self.tokens is not None:
                self.spawn("service_token", self.tokens.keep_fresh)
            if self.spec.port is None:
                self.spawn("heartbeat", self._beat)
            self.running = True
            try:
                yield
            finally:
                self.running = False
                self.draining.set()
                await self._finish_work()
                self._supervisor.stop()

    def _build_clients(self, stack: AsyncExitStack) -> None:
        if self.spec.name != "auth-billing":
            override = self.settings.peers.get("auth-billing")
            url = (override.internal_url if override else None) or internal_url("auth-billing")
            asking = self._token_session
            assert asking is not None
            self.tokens = ServiceTokens(
                url=url, paths=self.paths, keyrings=self.keyrings, clock=self.clock, session=lambda: asking
            )
        self._peers = Peers(urls=self.settings.peers, tokens=self.tokens, metrics=self.metrics, session=self.session)
        if self.db is not None:
            stack.push_async_callback(self.db.close)
        if self.spec.redis:
            common: dict[str, Any] = {
                "paths": self.paths, "keyrings": self.keyrings, "settings": self.settings, "metrics": self.metrics,
            }  # fmt: skip
            self.redis = self.cache = build_redis(**common)
            self.redis_blocking = self.cache_blocking = build_redis(**common, blocking=True)
            if self.spec.cache and self.settings.redis_cache == "separate":
                self.cache = build_redis(**common, cache=True)
                self.cache_blocking = build_redis(**common, cache=True, blocking=True)
            for client in {self.redis, self.redis_blocking, self.cache, self.cache_blocking}:
                stack.push_async_callback(client.aclose)

    def _add_checks(self) -> None:
        self.readiness.add_startup("keyset", lambda: self.keyrings.ready)
        # `/readyz` asks for more than `/startupz`: a restart would not bring a newer document.
        self.readiness.add_at_first("keyset", lambda: self.keyrings.caught_up)
        if self.tokens is not None:  # ready without one, the first requests would fail
            tokens = self.tokens
            self.readiness.add_at_first("service_token", lambda: tokens.kid is not None)
        self.readiness.add("draining", lambda: not self.draining.is_set())
        self.readiness.add("loop", lambda: self.readiness.lag_s < 0.25)
        if self.db is not None:
            db, schema = self.db, self.spec.schema
            assert schema is not None
            self.readiness.add("database", db.ping)
            self.readiness.add("migrations", partial(migrations_applied, db, schema))
        if self.redis is not None and self.spec.name != "gateway":  # the gateway's limits fall back to local buckets
            self.readiness.add("redis", self._redis_answers)

    async def _beat(self) -> None:
        """Tell the gateway's status page that this worker lives: it has no port to be asked on."""
        while self.redis is not None:
            with contextlib.suppress(RedisError):
                await self.redis.set(f"hb:{self.spec.name}:latest", self.clock.now().isoformat(), ex=30)
            await asyncio.sleep(10)

    async def _redis_answers(self) -> bool:
        assert self.redis is not None
        try:
            return bool(await self.redis.ping())
        except RedisError:
            return False


@dataclass(frozen=True, slots=True)
class ServiceDefinition(Generic[S]):
    """One service as data."""

    name: str
    """Key of `novacore_contracts.services.BY_NAME`."""
    settings: type[S]
    start: Callable[[Platform[S]], AbstractAsyncContextManager[Any]]
    """Builds the service object (it becomes `app.state.service`), adds readiness checks, spawns loops."""
    routers: Sequence[APIRouter] = ()
    internal_routers: Sequence[APIRouter] = ()
    asgi: Callable[[FastAPI, Platform[S]], ASGIApp] | None = None
    """Wraps the public app: the gateway's hot path, MCP's mount."""
    health_fields: Callable[[Platform[S]], Awaitable[dict[str, Any]]] | None = None
    body_bytes_max: int = BODY_BYTES_MAX
    internal_caps: Mapping[str, Cap] = field(default_factory=dict)
    """Caps on its own POST routes of the internal listener, by path."""
    larger_bodies: Mapping[str, int] = field(default_factory=dict)
    """Paths with a bound of their own."""


class _ServiceApp(FastAPI):
    """FastAPI with our layers around it, so that tests and servers use one object and nobody can go past them."""

    outer: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.outer is None or scope.get("novacore.inside") is self:
            await super().__call__(scope, receive, send)
            return
        scope["novacore.inside"] = self
        await self.outer(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Apps(Generic[S]):
    """The two listeners of a service and what they share."""

    definition: ServiceDefinition[S]
    public: FastAPI
    internal: FastAPI
    platform: Platform[S]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Platform[S]]:
        """Start platform and service; on leaving, stop loops and close pools."""
        async with self.platform.running_(), self.definition.start(self.platform) as service:
            self.public.state.service = service
            self.internal.state.service = service
            yield self.platform


def make_apps(
    definition: ServiceDefinition[S], settings: S, *, paths: Paths | None = None, clock: Clock | None = None
) -> Apps[S]:
    """Return the apps of a service. RuntimeError when a route declares no caller; SettingsError for a bad log key."""
    spec = BY_NAME[definition.name]
    platform: Platform[S] = Platform(spec, settings, paths=paths or default_paths(), clock=clock or SystemClock())
    log_.configure(
        service=spec.name,
        version=platform.version,
        level=settings.log_level,
        key=_log_key(platform.paths),
        on_line=_line_counter(platform.metrics),
    )
    platform.metrics.gauge("novacore_build_info").labels(
        platform.version, hashlib.sha256(platform.version.encode()).hexdigest()[:8]
    ).set(1)
    public = _app(platform, title=f"NovaCore {spec.name}", routers=definition.routers)
    internal = _app(platform, title=f"NovaCore {spec.name} (internal)", routers=definition.internal_routers)
    internal.include_router(internal_routes(platform))
    if spec.port is not None:

        async def fields() -> dict[str, Any]:
            return await definition.health_fields(platform) if definition.health_fields else {}

        install_health(public, platform, fields)
    platform.app = public
    for app in (public, internal):
        if missing := undeclared_routes(app):
            raise RuntimeError(f"{spec.name}: routes without a declared caller: {', '.join(missing)}")
    inner: ASGIApp = definition.asgi(public, platform) if definition.asgi else public
    public.outer = RequestMiddleware(
        inner,
        metrics=platform.metrics,
        body_bytes_max=definition.body_bytes_max,
        larger_bodies=definition.larger_bodies,
    )
    capped = CapMiddleware(internal, {**CAPS, **definition.internal_caps}, monotonic=platform.clock.monotonic)
    internal.outer = RequestMiddleware(capped, metrics=platform.metrics)
    return Apps(definition=definition, public=public, internal=internal, platform=platform)


def service_of(type_: type[T]) -> Callable[[Request], T]:
    """Return a dependency that gives endpoints their service: `Annotated[MemoryService,
    Depends(service_of(MemoryService))]`.
    """

    def get(request: Request) -> T:
        service = request.app.state.service
        if not isinstance(service, type_):
            raise TypeError(f"the service object is a {type(service).__name__}, not a {type_.__name__}")
        return service

    return get


def _app(platform: Platform[S], *, title: str, routers: Sequence[APIRouter]) -> _ServiceApp:
    app = _ServiceApp(
        telemetry=NO_TELEMETRY,
        title=title,
        version=platform.version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.platform = platform
    errors.install_handlers(app)
    for router in routers:
        app.include_router(router)
    return app


def _log_key(paths: Paths) -> bytes:
    try:
        key = bytes.fromhex((paths.creds / "log.key").read_text().strip())
    except (OSError, ValueError):
        raise SettingsError("log.key", "must be a mounted file with 32 random bytes in hex") from None
    if len(key) < LOG_KEY_BYTES_MIN:
        raise SettingsError("log.key", "must have at least 32 bytes")
    return key


def _line_counter(metrics: Metrics) -> Callable[[str], None]:
    children = {
        level: metrics.counter("novacore_log_lines_total").labels(level)
        for level in ("debug", "info", "warning", "error")
    }
    return lambda level: children[level].inc()
