"""Redis for one service, from the credential document `redis.jws`; TLS by the installation's CA; failures counted.

Every new connection asks for the credentials in use, so a changed password needs no restart. Two clients share them:
one for commands (250 ms) and one whose reads may block (streams).
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
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

__all__ = ["MeasuredRedis", "Redis", "RedisError", "build_redis"]


class _FromDocument(CredentialProvider):
    def __init__(self, keyrings: KeyRings) -> None:
        self._keyrings = keyrings

    def get_credentials(self) -> tuple[str, str] | tuple[str]:
        key = self._keyrings.credential("redis")
        if key is None:
            raise RedisConnectionError("redis.jws is not mounted")
        return str(key.material["user"]), str(key.material["password"])

    async def get_credentials_async(self) -> tuple[str, str] | tuple[str]:
        return self.get_credentials()


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
    *, paths: Paths, keyrings: KeyRings, settings: CommonSettings, metrics: Metrics, blocking: bool = False
) -> MeasuredRedis:
    """Return a client of the service's Redis. It connects when first used; host and port are those mounted now."""
    key = keyrings.credential("redis")
    material: dict[str, Any] = key.material if key is not None else {"host": "localhost", "port": 6379, "tls": True}
    tls: dict[str, Any] = {}
    if material.get("tls", True):
        tls = {
            "ssl": True,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": str(paths.ca / "ca.crt"),
        }
    client = MeasuredRedis(
        host=str(material["host"]),
        port=int(material["port"]),
        credential_provider=_FromDocument(keyrings),
        decode_responses=True,
        socket_timeout=BLOCKING_TIMEOUT_S if blocking else settings.redis_timeout_s,
        socket_connect_timeout=max(1.0, settings.redis_timeout_s),
        retry=Retry(NoBackoff(), 1),
        health_check_interval=30,
        max_connections=64,
        **tls,
    )
    client.count = metrics.counter("novacore_redis_errors_total")
    return client


def _class_of(error: RedisError) -> str:
    if isinstance(error, RedisTimeoutError):
        return "timeout"
    if isinstance(error, RedisConnectionError):
        return "connection"
    return "response" if isinstance(error, ResponseError) else "other"
