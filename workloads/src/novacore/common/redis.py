"""Redis for one service, from the credential document `redis.jws`; TLS by the installation's CA; failures counted.

Every new connection asks for the place and the credentials in use, so what changes in the document needs no restart.
Two clients share them: one for commands (250 ms) and one whose reads may block (streams). Where the installation has a
Redis of its own for what may be lost, the document's `cache` says where, and `cache=True` builds a client of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from novacore.common.keyring import KeyRings
from novacore.common.metrics import Metrics
from novacore.common.settings import CommonSettings
from novacore_contracts.paths import Paths

BLOCKING_TIMEOUT_S = 10.0
"""Longer than any XREADGROUP BLOCK of ours."""

__all__ = ["MeasuredRedis", "Redis", "RedisError", "build_redis", "verified_redis"]

Material = Mapping[str, Any]


class _FromDocument(CredentialProvider):
    def __init__(self, material: Callable[[], Material]) -> None:
        self._material = material

    def get_credentials(self) -> tuple[str, str] | tuple[str]:
        material = self._material()
        return str(material["user"]), str(material["password"])

    async def get_credentials_async(self) -> tuple[str, str] | tuple[str]:
        return self.get_credentials()


class _Placed(Connection):
    """A connection that asks where to go each time it is made."""

    def __init__(self, *, place: Callable[[], Material], **more: Any) -> None:
        super().__init__(**more)
        self._place = place

    async def _connect(self) -> None:
        material = self._place()
        self.host, self.port = str(material["host"]), int(material["port"])
        await super()._connect()  # type: ignore[no-untyped-call]  # redis-py


class _PlacedTLS(_Placed, SSLConnection):
    """The same, verified."""


class MeasuredRedis(Redis):
    """A client that counts its failures by class."""

    count: Any = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command; RedisError as ever, counted."""
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py
        except RedisError as error:
            if self.count is not None:
                self.count.labels(_class_of(error)).inc()
            raise


def build_redis(
    *,
    paths: Paths,
    keyrings: KeyRings,
    settings: CommonSettings,
    metrics: Metrics,
    blocking: bool = False,
    cache: bool = False,
) -> MeasuredRedis:
    """Return a client of the service's Redis, or of the one for caches. It connects when first used."""

    def material() -> Material:
        key = keyrings.credential("redis")
        if key is None:
            raise RedisConnectionError("redis.jws is not mounted")
        found: Material | None = key.material.get("cache") if cache else key.material
        if found is None:
            raise RedisConnectionError("redis.jws names no Redis for caches")
        return found

    mounted = keyrings.credential("redis")
    tls = mounted is None or bool(mounted.material.get("tls", True))
    pool = ConnectionPool(
        connection_class=_PlacedTLS if tls else _Placed,
        place=material,
        credential_provider=_FromDocument(material),
        decode_responses=True,
        socket_timeout=BLOCKING_TIMEOUT_S if blocking else settings.redis_timeout_s,
        socket_connect_timeout=max(1.0, settings.redis_timeout_s),
        retry=Retry(NoBackoff(), 1),
        health_check_interval=30,
        max_connections=64,
        **(_verified(paths) if tls else {}),
    )
    client: MeasuredRedis = MeasuredRedis.from_pool(pool)  # type: ignore[assignment]  # it says Redis
    client.count = metrics.counter("novacore_redis_errors_total")
    return client


def verified_redis(paths: Paths, material: Material, *, timeout_s: float) -> Redis:
    """Return a client of one Redis as the document describes it: TLS, the certificate checked, no retries."""
    return Redis(
        host=str(material["host"]),
        port=int(material["port"]),
        username=str(material["user"]),
        password=str(material["password"]),
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        ssl=True,
        **_verified(paths),
    )


def _verified(paths: Paths) -> dict[str, Any]:
    return {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": str(paths.ca / "ca.crt"),
    }


def _class_of(error: RedisError) -> str:
    if isinstance(error, RedisTimeoutError):
        return "timeout"
    if isinstance(error, RedisConnectionError):
        return "connection"
    return "response" if isinstance(error, ResponseError) else "other"
