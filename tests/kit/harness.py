"""One service running in the test's own process, on real stores."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import uvicorn

from novacore.common.app import Apps, Platform, ServiceDefinition, make_apps
from novacore.common.clock import Clock
from novacore.common.settings import read_settings
from novacore.common.tokens import NoTokenError
from novacore_contracts.identity import ACT_FOR_HEADER, SERVICE_TOKEN_HEADER
from novacore_contracts.paths import Paths
from novacore_contracts.services import BY_NAME
from tests.kit.keys import Keys, TestUser, put
from tests.kit.peers import StubPeer, token_issuer

LOG_KEY = "5a" * 32


@dataclass
class Stores:
    """Where this test's Postgres database and Redis are."""

    pg_host: str = ""
    pg_port: int = 5432
    database: str = ""
    redis_port: int = 0
    cache_port: int = 0  # of a second Redis; used with the setting `redis_cache: separate`


@dataclass
class RunningService:
    """A service under test. `public` and `internal` are HTTP clients of its two listeners."""

    apps: Apps[Any]
    keys: Keys
    public: httpx.AsyncClient
    internal: httpx.AsyncClient
    stubs: dict[str, StubPeer]
    url: str = ""  # set with listen=True
    internal_url: str = ""
    _extra: dict[str, str] = field(default_factory=dict)

    @property
    def platform(self) -> Platform[Any]:
        return self.apps.platform

    @property
    def service(self) -> Any:
        """The service object its start() made."""
        return self.apps.public.state.service

    def headers(
        self, user: TestUser | None = None, *, service: str | None = "gateway", act_for: UUID | None = None
    ) -> dict[str, str]:
        """Headers of a call: by which service, for which user (his token), or `act_for` without a token."""
        headers: dict[str, str] = {}
        if service is not None:
            headers[SERVICE_TOKEN_HEADER] = self.keys.service_token(service)
        if user is not None:
            headers |= user.headers
        if act_for is not None:
            headers[ACT_FOR_HEADER] = str(act_for)
        return headers


@asynccontextmanager
async def run_service(
    name: str,
    *,
    root: Path,
    keys: Keys,
    stores: Stores,
    settings: Mapping[str, Any] | None = None,
    peers: Mapping[str, StubPeer | str] | None = None,
    listen: bool = False,
    definition: ServiceDefinition[Any] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[RunningService]:
    """Start a service: files mounted below `root`, a stub for each peer not given, real stores.

    `peers`: a stub of yours, or the URL of something that listens (another service run with `listen=True`).
    `listen=True` serves on real sockets (needed for streams: httpx's ASGI transport buffers).
    """
    spec = BY_NAME[name]
    async with AsyncExitStack() as stack:
        urls: dict[str, dict[str, str]] = {}
        stubs: dict[str, StubPeer] = {}
        given = dict(peers or {})
        for peer in {*spec.peers, *given}:
            chosen = given.get(peer) or StubPeer(peer)
            if isinstance(chosen, str):
                urls[peer] = {"service_url": chosen, "internal_url": chosen}
                continue
            if not chosen.url:
                await chosen.start()
                stack.push_async_callback(chosen.stop)
            stubs[peer] = chosen
            urls[peer] = {"service_url": chosen.url, "internal_url": chosen.url}
        if "auth-billing" in stubs:
            token_issuer(keys, name, stubs["auth-billing"])
        paths = Paths(root)
        mount(paths, name, keys, stores, {"peers": urls, **(settings or {})})
        if definition is None:
            definition = importlib.import_module(f"novacore.{spec.module}.app").DEFINITION
        settings_ = read_settings(definition.settings, paths_=paths, env={})
        apps = make_apps(definition, settings_, paths=paths, clock=clock)
        await stack.enter_async_context(apps.running())
        if apps.platform.tokens is not None:
            with contextlib.suppress(NoTokenError):
                await apps.platform.tokens.get()  # ready from the first request on
        running = RunningService(apps, keys, *(_in_process(app) for app in (apps.public, apps.internal)), stubs=stubs)
        if listen:
            running.url = await stack.enter_async_context(listening(apps.public))
            running.internal_url = await stack.enter_async_context(listening(apps.internal))
            running.public = httpx.AsyncClient(base_url=running.url, timeout=30)
            running.internal = httpx.AsyncClient(base_url=running.internal_url, timeout=30)
        await stack.enter_async_context(running.public)
        await stack.enter_async_context(running.internal)
        yield running


def mount(paths: Paths, service: str, keys: Keys, stores: Stores, settings: Mapping[str, Any]) -> None:
    """Write what the operator would mount into this service's pod."""
    spec = BY_NAME[service]
    keys.mount(paths)
    base = {
        "postgres_insecure": True,
        "drain_seconds": 0,
        "redis_timeout_s": 5.0,
        "postgres_pool_min": 1,
        "postgres_pool_max": 5,
    }
    put(paths.settings / "settings.yaml", json.dumps(base | dict(settings)))  # JSON is YAML
    put(paths.creds / "log.key", LOG_KEY)
    put(paths.identity_token, "a-projected-token")
    if spec.schema is not None:
        material = {
            "user": f"nova_{spec.schema}_a", "password": "trusted-on-the-socket", "host": stores.pg_host,
            "port": stores.pg_port, "database": stores.database, "sslmode": "verify-full",
        }  # fmt: skip
        put(paths.creds / "postgres.jws", keys.sign(keys.credential("postgres", material)))
    if spec.redis:
        material = {"user": "default", "password": "", "host": "127.0.0.1", "port": stores.redis_port, "tls": False}
        if stores.cache_port:
            material["cache"] = {**material, "port": stores.cache_port}
        put(paths.creds / "redis.jws", keys.sign(keys.credential("redis", material)))
    if service == "auth-billing":
        put(paths.service_jwt_private / "serviceJwt-1.jwk", json.dumps(keys.active["serviceJwt"].private_jwk(1)))
        put(paths.service_jwt_private / "serviceJwt-2.jwk", json.dumps(keys.standby["serviceJwt"].private_jwk(2)))
        put(paths.user_jwt_private / "userJwt-1.jwk", json.dumps(keys.active["userJwt"].private_jwk(1)))
        put(paths.user_jwt_private / "userJwt-2.jwk", json.dumps(keys.standby["userJwt"].private_jwk(2)))


def _in_process(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30)


@asynccontextmanager
async def listening(app: Any, *, port: int = 0) -> AsyncIterator[str]:
    """Serve an ASGI app on a local port, a free one unless it is given, and yield its URL."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=2)
    )
    server.capture_signals = _nothing  # type: ignore[method-assign]  # the test run keeps its own handlers
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True


class _nothing:  # noqa: N801 - a context manager used once
    def __enter__(self) -> None: ...
    def __exit__(self, *_error: object) -> None: ...
