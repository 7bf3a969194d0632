"""Postgres for one service: a pool from the credential document, transactions with row-level security, measured.

`postgres.jws` names user, password, host and port together; a new generation builds a new pool and lets the old one
finish its connections, so a changed password fails no request. TLS is verified against the installation's CA unless
`postgres_insecure` says otherwise (tests on a socket). Nothing waits for Postgres at start: until there is a pool, a
transaction answers 503 `not_ready`.

jsonb columns: dicts and lists go in and come out. `vector` and `halfvec`: numpy arrays, in binary.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from asyncpg.pool import Pool, PoolConnectionProxy

from novacore.common import errors
from novacore.common.keyring import KeyRings
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.settings import CommonSettings
from novacore_contracts.paths import Paths

log = get_logger()

CONNECT_TIMEOUT_S = 3.0
ACQUIRE_TIMEOUT_S = 3.0
OLD_POOL_SECONDS = 60.0
_OPS = {"select": "select", "insert": "insert", "update": "update", "delete": "delete", "call": "call"}

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:  # the stubs are generic, the classes are not
    Connection = asyncpg.Connection


class Database:
    """The pool of one service."""

    def __init__(
        self, *, paths: Paths, keyrings: KeyRings, settings: CommonSettings, metrics: Metrics, name: str
    ) -> None:
        self._paths = paths
        self._keyrings = keyrings
        self._settings = settings
        self._name = name
        self._pool: Pool[Any] | None = None
        self._generation = 0
        self._wait = metrics.histogram("novacore_db_pool_wait_seconds")
        self._seconds = metrics.histogram("novacore_db_query_duration_seconds")
        self._errors = metrics.counter("novacore_db_errors_total")
        self._connections = metrics.gauge("novacore_db_pool_connections")
        metrics.gauge("novacore_db_pool_max").set(settings.postgres_pool_max)

    @asynccontextmanager
    async def transaction(self, user_id: UUID | None = None, *, readonly: bool = False) -> AsyncIterator[Connection]:
        """Yield a connection in a transaction; with `user_id`, row-level security shows that user's rows and no others.

        ServiceError 503 `not_ready` when Postgres is away, 504 `deadline` after the statement timeout.
        """
        async with self.connection() as conn, conn.transaction(readonly=readonly):
            if user_id is not None:
                await conn.execute("SELECT set_config('app.user_id', $1, true)", str(user_id))
            yield conn

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yield a connection without a transaction."""
        pool = self._pool
        if pool is None:
            raise errors.unavailable("not_ready", "The database is not reachable.")
        conn = await self._acquire(pool)
        try:
            with conn.query_logger(self._observe):
                yield conn
        except (asyncpg.QueryCanceledError, TimeoutError) as error:
            self._errors.labels("timeout").inc()
            raise errors.deadline("The database took too long.") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError) as error:
            kind = _class_of(error)
            self._errors.labels(kind).inc()
            if kind == "connection":
                raise errors.unavailable("not_ready", "The database is not reachable.") from error
            raise
        finally:
            # Shielded: a cancelled request must not leave its connection outside of the pool.
            await asyncio.shield(self._release(pool, conn))

    async def _release(self, pool: Pool[Any], conn: PoolConnectionProxy[Any]) -> None:
        try:
            await pool.release(conn)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            self._errors.labels("connection").inc()
            log.warning("connection_dropped", reason=type(error).__name__)
        self._gauge(pool)

    async def _acquire(self, pool: Pool[Any]) -> PoolConnectionProxy[Any]:
        started = time.monotonic()
        try:
            conn = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            self._errors.labels("connection").inc()
            raise errors.unavailable("not_ready", "The database is not reachable.") from error
        self._wait.observe(time.monotonic() - started)
        self._gauge(pool)
        return conn

    async def keep_connected(self) -> None:
        """Build the pool as soon as there are credentials and a server, and a new one when the credentials change."""
        delay = 0.2
        while True:
            if self._keyrings.credential_generation("postgres") > self._generation:
                try:
                    await self.connect()
                    delay = 0.2
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                    self._errors.labels("connection").inc()
                    log.warning("database_unreachable", reason=type(error).__name__)
                    delay = min(5.0, delay * 2)
            await asyncio.sleep(delay if self._pool is None else 1.0)

    async def connect(self) -> None:
        """Build a pool from the credentials in use and put it in the place of the old one."""
        generation = self._keyrings.credential_generation("postgres")
        pool = await asyncpg.create_pool(
            **self._target(),
            min_size=self._settings.postgres_pool_min,
            max_size=self._settings.postgres_pool_max,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=self._settings.postgres_statement_timeout_s + 1,
            max_inactive_connection_lifetime=300,
            init=init_connection,
        )
        old, self._pool, self._generation = self._pool, pool, generation
        log.info("database_connected", generation=generation)
        if old is not None:
            await _close(old)

    async def ping(self) -> bool:
        """Return whether Postgres answers. For the readiness check."""
        try:
            async with asyncio.timeout(4.0), self.connection() as conn:
                return bool(await conn.fetchval("SELECT true"))
        except (errors.ServiceError, TimeoutError, asyncpg.PostgresError):
            return False

    async def close(self) -> None:
        """Close the pool; connections in use get ten seconds."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await _close(pool, seconds=10)

    def _target(self) -> dict[str, Any]:
        key = self._keyrings.credential("postgres")
        if key is None:
            raise OSError("postgres.jws is not mounted")
        material = key.material
        return {
            "host": material["host"],
            "port": int(material["port"]),
            "user": material["user"],
            "password": material["password"],
            "database": material["database"],
            "ssl": False if self._settings.postgres_insecure else verified_tls(self._paths),
            "server_settings": {
                "application_name": f"novacore-{self._name}",
                "statement_timeout": str(int(self._settings.postgres_statement_timeout_s * 1000)),
                "idle_in_transaction_session_timeout": "30000",
            },
        }

    def _observe(self, record: Any) -> None:
        word = record.query.lstrip()[:6].lower().strip()
        self._seconds.labels(_OPS.get(word, "select" if word == "with" else "other")).observe(record.elapsed)

    def _gauge(self, pool: Pool[Any]) -> None:
        idle = pool.get_idle_size()
        self._connections.labels("idle").set(idle)
        self._connections.labels("used").set(pool.get_size() - idle)


def verified_tls(paths: Paths) -> ssl.SSLContext:
    """Return a client context that trusts the installation's CA alone and checks the host name."""
    return ssl.create_default_context(cafile=str(paths.ca / "ca.crt"))


async def init_connection(conn: asyncpg.Connection[Any]) -> None:
    """Register codecs: jsonb as Python values, pgvector's types in binary where the extension exists."""
    for name in ("json", "jsonb"):
        await conn.set_type_codec(name, encoder=_dump, decoder=json.loads, schema="pg_catalog")
    if await conn.fetchval("SELECT to_regtype('public.vector') IS NOT NULL"):
        from pgvector.asyncpg import register_vector

        await register_vector(conn, schema="public")


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


async def _close(pool: Pool[Any], *, seconds: float = OLD_POOL_SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            await pool.close()
    except TimeoutError:
        pool.terminate()


def _class_of(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresConnectionError | asyncpg.InterfaceError | OSError | TimeoutError):
        return "connection"  # OSError covers ConnectionError
    if isinstance(
        error,
        asyncpg.TooManyConnectionsError
        | asyncpg.CannotConnectNowError
        | asyncpg.AdminShutdownError
        | asyncpg.CrashShutdownError,
    ):
        return "connection"
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return "integrity"
    if isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError | asyncpg.LockNotAvailableError):
        return "serialization"
    if isinstance(error, asyncpg.SyntaxOrAccessError | asyncpg.DataError):
        return "statement"
    return "other"
