"""What memory keeps in Redis (instance B): the last turns of a session, the ranking of a user's intermediate memories.

`stm:{user}:{session}`  list of JSON turns, the newest last; ends an hour after the last one.
`stm:{user}:{session}:cleared`  when the user cleared it: older exchanges are not brought back.
`itm:{user}`  sorted set, memory id → access count.

Nothing here is the only copy: what is lost is rebuilt from Postgres. Each change is one script or one MULTI, so that no
reader sees half of it and no concurrent append is lost; no command here walks over keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

from novacore.common.redis import Redis
from novacore.memory.settings import MemoryRules

# ARGV: keep, seconds, the new turn, then the turns to start from when the list is gone.
# A turn that lies there already is the repetition of a request whose answer was lost.
_APPEND: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  for i = 4, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
end
if not redis.call('LPOS', KEYS[1], ARGV[3]) then redis.call('RPUSH', KEYS[1], ARGV[3]) end
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[1]), -1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('LLEN', KEYS[1])
"""

# ARGV: keep, seconds, then id, count, id, count … Only a ranking that exists is changed: one that is gone would come
# back with these ids alone and look complete.
_RANK: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 3, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[i + 1], ARGV[i]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(tonumber(ARGV[1]) + 1))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


class Turns:
    """The last exchanges of each session."""

    def __init__(self, redis: Redis, rules: MemoryRules) -> None:
        self._redis = redis
        self._rules = rules

    async def exists(self, user_id: UUID, session_id: str) -> bool:
        """Return whether the list is there; without it the caller brings the turns to start from."""
        return bool(await self._redis.exists(_stm(user_id, session_id)))

    async def append(
        self, user_id: UUID, session_id: str, turn: dict[str, Any], *, start_from: Iterable[dict[str, Any]] = ()
    ) -> int:
        """Add a turn and return the number kept. The same turn again changes nothing."""
        arguments: list[str | int] = [self._rules.stm_max, self._rules.stm_ttl, _dump(turn)]
        arguments += [_dump(old) for old in start_from]
        size = await self._redis.eval(_APPEND, 1, _stm(user_id, session_id), *arguments)
        return int(size)

    async def read(self, user_id: UUID, session_id: str, limit: int) -> list[dict[str, Any]]:
        """Return the last `limit` turns, oldest first; empty when there are none."""
        raw = await self._redis.lrange(_stm(user_id, session_id), -limit, -1)
        return [json.loads(entry) for entry in raw]

    async def clear(self, user_id: UUID, session_id: str, *, at: datetime) -> None:
        """Forget the session's turns, those that a rebuild would bring back too."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(_stm(user_id, session_id))
            pipe.set(f"{_stm(user_id, session_id)}:cleared", at.isoformat(), ex=self._rules.stm_ttl)
            await pipe.execute()

    async def cleared_at(self, user_id: UUID, session_id: str) -> datetime | None:
        """Return when the session was cleared, within the life of a turn."""
        value = await self._redis.get(f"{_stm(user_id, session_id)}:cleared")
        return datetime.fromisoformat(cast("str", value)) if value else None


class Ranking:
    """A user's intermediate memories by how often they were read."""

    def __init__(self, redis: Redis, rules: MemoryRules) -> None:
        self._redis = redis
        self._rules = rules

    async def note(self, user_id: UUID, counts: Sequence[tuple[UUID, int]]) -> None:
        """Set the counts of some memories; the top 100 stay."""
        if counts:
            arguments = [str(part) for pair in counts for part in pair]
            await self._redis.eval(_RANK, 1, _itm(user_id), self._rules.itm_max, self._rules.itm_ttl, *arguments)

    async def forget(self, user_id: UUID, ids: Iterable[UUID]) -> None:
        """Take memories out."""
        names = [str(one) for one in ids]
        if names:
            await self._redis.zrem(_itm(user_id), *names)

    async def top(self, user_id: UUID, limit: int) -> list[UUID] | None:
        """Return the most used, best first; None when the ranking is gone and must be rebuilt."""
        names = await self._redis.zrevrange(_itm(user_id), 0, limit - 1)
        return [UUID(str(name)) for name in names] if names else None

    async def rebuild(self, user_id: UUID, counts: Sequence[tuple[UUID, int]]) -> None:
        """Put the ranking in place as Postgres has it."""
        if not counts:
            return
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(_itm(user_id))
            pipe.zadd(_itm(user_id), {str(one): count for one, count in counts[: self._rules.itm_max]})
            pipe.expire(_itm(user_id), self._rules.itm_ttl)
            await pipe.execute()


def _stm(user_id: UUID, session_id: str) -> str:
    return f"stm:{user_id}:{session_id}"


def _itm(user_id: UUID) -> str:
    return f"itm:{user_id}"


def _dump(turn: dict[str, Any]) -> str:
    return json.dumps(turn, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
