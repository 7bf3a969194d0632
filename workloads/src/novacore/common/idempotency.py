"""`Idempotency-Key`: the same request twice is done once, and both get the same answer.

One row per (user, route, key), inserted in the transaction that does the work: a second request waits on the unique key
until the first commits, then reads its answer. So there is no "in progress" state to clean up after a crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg

from novacore.common.database import Connection, Database
from novacore.common.errors import ServiceError, conflict, validation_error

KEY_BYTES_MAX = 128
HEADER = "Idempotency-Key"

Produce = Callable[[Connection], Awaitable[tuple[int, dict[str, Any]]]]


def checked_key(key: str | None) -> str | None:
    """Return the key when it is 1 to 128 printable ASCII characters, None without one; else 400."""
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_BYTES_MAX or not all(" " <= character <= "~" for character in key):
        raise validation_error(f"{HEADER} must be 1 to {KEY_BYTES_MAX} printable characters.")
    return key


class Idempotency:
    """The stored answers of one schema."""

    def __init__(self, schema: str) -> None:
        if not schema.isidentifier():
            raise ValueError(f"not a schema name: {schema!r}")
        self._table = f"{schema}.idempotency"

    async def run(
        self,
        conn_or_db: Connection | Database,
        *,
        user_id: UUID,
        route: str,
        key: str | None,
        body: bytes,
        produce: Produce,
    ) -> tuple[int, dict[str, Any]]:
        """Return status and body: of `produce`, or of the first request with this key.

        Given a database, it opens the transaction (with row-level security); given a connection, it must be in one.
        409 `idempotency_conflict` for another body, `idempotency_in_progress` when the first takes too long.
        """
        if isinstance(conn_or_db, Database):
            async with conn_or_db.transaction(user_id) as conn:
                return await self._run(conn, user_id, route, checked_key(key), body, produce)
        await conn_or_db.execute("SELECT set_config('app.user_id', $1, true)", str(user_id))
        return await self._run(conn_or_db, user_id, route, checked_key(key), body, produce)

    async def _run(  # noqa: PLR0917 - the public run, once more
        self, conn: Connection, user_id: UUID, route: str, key: str | None, body: bytes, produce: Produce
    ) -> tuple[int, dict[str, Any]]:
        if key is None:
            return await produce(conn)
        digest = hashlib.sha256(body).digest()
        if not await self._claim(conn, user_id, route, key, digest):
            return await self._replay(conn, user_id, route, key, digest)
        status, answer = await produce(conn)
        await conn.execute(
            f"UPDATE {self._table} SET status = $4, response = $5 WHERE user_id = $1 AND route = $2 AND key = $3",  # noqa: S608 - fixed table
            user_id, route, key, status, answer,
        )  # fmt: skip
        return status, answer

    async def _claim(self, conn: Connection, user_id: UUID, route: str, key: str, digest: bytes) -> bool:
        try:
            return bool(
                await conn.fetchval(
                    f"INSERT INTO {self._table} AS old (user_id, route, key, body_sha256) VALUES ($1, $2, $3, $4)"  # noqa: S608
                    " ON CONFLICT (user_id, route, key) DO UPDATE SET body_sha256 = EXCLUDED.body_sha256,"
                    " status = NULL, response = NULL, expires_at = EXCLUDED.expires_at"
                    " WHERE old.expires_at < now() RETURNING true",
                    user_id, route, key, digest,
                )
            )  # fmt: skip
        except asyncpg.QueryCanceledError:
            raise conflict("idempotency_in_progress", "The first request with this key is still running.") from None

    async def _replay(
        self, conn: Connection, user_id: UUID, route: str, key: str, digest: bytes
    ) -> tuple[int, dict[str, Any]]:
        row = await conn.fetchrow(
            f"SELECT body_sha256, status, response FROM {self._table} WHERE user_id = $1 AND route = $2 AND key = $3",  # noqa: S608
            user_id, route, key,
        )  # fmt: skip
        if row is None:
            raise ServiceError(409, "idempotency_in_progress", "The first request with this key is still running.")
        if row["body_sha256"] != digest:
            raise conflict("idempotency_conflict", "This key was used for another request.")
        return row["status"], row["response"]
