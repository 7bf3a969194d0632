"""Telling the gateway that a valid signature no longer counts: keys in Redis that live as long as the token could.

Written after the database: a refused write leaves the stored state right, and the client is told to try again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from novacore.common.errors import unavailable
from novacore.common.redis import Redis, RedisError
from novacore_contracts.identity import LEEWAY_SECONDS, USER_TOKEN_SECONDS

CHANNEL = "auth:revoked"
LIFE_SECONDS = USER_TOKEN_SECONDS + 2 * LEEWAY_SECONDS


class Revocations:
    """Writes `tok:*` and publishes on `auth:revoked`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def tokens(self, jtis: Iterable[UUID | str]) -> None:
        """Refuse these access tokens from now on."""
        await self._write([(f"tok:rev:{jti}", "1", {"jti": str(jti)}) for jti in jtis])

    async def sessions(self, user_id: UUID, sv: int) -> None:
        """Refuse a person's access tokens with a smaller session version."""
        await self._write([(f"tok:sv:{user_id}", str(sv), {"user": str(user_id), "sv": sv})])

    async def tier(self, user_id: UUID, tier: str) -> None:
        """Let this tier count at once, whatever the person's token says."""
        await self._write([(f"tok:tier:{user_id}", tier, {"user": str(user_id), "tier": tier})])

    async def _write(self, entries: list[tuple[str, str, dict[str, Any]]]) -> None:
        if not entries:
            return
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                for key, value, message in entries:
                    pipe.set(key, value, ex=LIFE_SECONDS)
                    pipe.publish(CHANNEL, json.dumps(message, separators=(",", ":")))
                await pipe.execute()
        except RedisError as error:
            raise unavailable("not_ready", "The log-out could not be spread. Try again.") from error
