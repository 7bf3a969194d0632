"""Rate limits: GCRA in Redis, shared by all replicas, in the one script call that also reads revocations.

GCRA (ITU-T I.371) keeps one number per key, the theoretical arrival time: `interval` = 60 s / limit, a request is
admitted while the time runs ahead by at most `burst` intervals. Redis' own clock is used, so replicas need not agree
on the time. Redis away: a bucket in this process, except for class `auth`, which fails closed (guessing passwords must
not get cheaper by an outage).

Where caches have a Redis of their own, the buckets lie there and the revocations in the other one, which evicts
nothing: two calls, one after the other, because the tier found with the revocations decides the limit.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.commands.core import AsyncScript

from novacore.common.callers import User
from novacore.common.log import get_logger
from novacore.common.redis import Redis, RedisError

log = get_logger()

BURST_MIN: Final = 5
LOCAL_KEYS_MAX: Final = 20_000
PATIENT_S: Final = 3.0
REDIS_PAUSE_S: Final = 1.0
"""After a failure Redis is left alone this long: not every request must wait for the time-out."""

# KEYS: tok:rev, tok:sv, tok:tier, then one per bucket. ARGV: token's sv, tier rates "tier=rate,…" or "", token's tier,
# then per bucket its limit per minute (0: by tier). Answer: {state, tier, index, limit, remaining, wait_ms}
SCRIPT: Final = """
local sv = tonumber(ARGV[1])
local tier = ARGV[3]
if sv >= 0 then
  if redis.call('EXISTS', KEYS[1]) == 1 then return {'revoked', tier, 0, 0, 0, 0} end
  local least = tonumber(redis.call('GET', KEYS[2]) or '0')
  if least and sv < least then return {'revoked', tier, 0, 0, 0, 0} end
  tier = redis.call('GET', KEYS[3]) or tier
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local answer = {'ok', tier, 0, 0, 0, 0}
local writes = {}
for index = 4, #KEYS do
  local limit = tonumber(ARGV[index])
  if limit == 0 then
    limit = tonumber(string.match(ARGV[2], tier .. '=(%d+)') or string.match(ARGV[2], '=(%d+)'))
  end
  local interval = 60000 / limit
  local burst = math.max(5, limit / 2)
  local at = math.max(now, tonumber(redis.call('GET', KEYS[index]) or '0') or 0)
  local ahead = at - now
  if ahead > (burst - 1) * interval then
    return {'limited', tier, index - 3, limit, 0, math.ceil(ahead - (burst - 1) * interval)}
  end
  local new = at + interval
  writes[#writes + 1] = {KEYS[index], new}
  answer = {'ok', tier, index - 3, limit, math.floor(burst - (new - now) / interval), 0}
end
for _, write in ipairs(writes) do
  redis.call('SET', write[1], string.format('%.3f', write[2]), 'PX', math.ceil(write[2] - now) + 1000)
end
return answer
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit to be charged: key and rate per minute; rate 0 means "by the user's tier"."""

    key: str
    per_minute: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the limiter says about one request."""

    state: str  # ok | limited | revoked | closed
    tier: str
    limit: int = 0
    remaining: int = 0
    wait_s: float = 0.0
    bucket: int = 0  # which bucket spoke, from 1


class Limiter:
    """Asks Redis; counts for itself when Redis is away. `tokens`: the Redis with the revocations, if another one."""

    def __init__(
        self,
        redis: Redis,
        *,
        patient: Redis | None = None,
        tokens: Redis | None = None,
        monotonic: Any = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._script = redis.register_script(SCRIPT)
        self._patient = (patient or redis).register_script(SCRIPT)
        self._monotonic = monotonic
        self._local: dict[str, float] = {}
        self._away_until = 0.0

    async def check(
        self, buckets: Sequence[Bucket], *, user: User | None, rates: dict[str, int], fail_closed: bool
    ) -> Verdict:
        """Charge the buckets and look up revocations; `rates` is requests per minute by tier."""
        tier = user.tier if user else ""
        if fail_closed:  # nothing else may answer, so it is worth waiting for
            try:
                async with asyncio.timeout(PATIENT_S):
                    return _verdict(await self._ask(self._patient, buckets, user, rates))
            except (RedisError, TimeoutError):
                return Verdict("closed", tier)
        if self._monotonic() >= self._away_until:
            try:
                return _verdict(await self._ask(self._script, buckets, user, rates))
            except RedisError as error:
                self._away_until = self._monotonic() + REDIS_PAUSE_S
                log.warning("limits_local", reason=type(error).__name__)
        return self._count(buckets, tier, rates)

    async def _ask(
        self, script: AsyncScript, buckets: Sequence[Bucket], user: User | None, rates: dict[str, int]
    ) -> list[Any]:
        names = (f"tok:rev:{user.jti}", f"tok:sv:{user.id}", f"tok:tier:{user.id}") if user else ("-", "-", "-")
        sv, tier = (user.sv, user.tier) if user else (-1, "")
        if user is not None and self._tokens is not None:
            async with self._tokens.pipeline(transaction=False) as pipe:
                pipe.exists(names[0])
                pipe.get(names[1])
                pipe.get(names[2])
                revoked, least, newer = await pipe.execute()
            if revoked or sv < int(least or 0):
                return ["revoked", newer or tier, 0, 0, 0, 0]
            names, sv, tier = ("-", "-", "-"), -1, newer or tier
        # The least tier stands first: an unknown one gets its rate.
        table = ",".join(f"{name}={rate}" for name, rate in rates.items())
        arguments: list[str | int] = [sv, table, tier]
        answer: list[Any] = await script(
            keys=[*names, *(bucket.key for bucket in buckets)],
            args=[*arguments, *(bucket.per_minute for bucket in buckets)],
        )
        return answer

    def _count(self, buckets: Sequence[Bucket], tier: str, rates: dict[str, int]) -> Verdict:
        now = self._monotonic()
        if len(self._local) > LOCAL_KEYS_MAX:
            self._local = {key: at for key, at in self._local.items() if at > now}
        verdict = Verdict("ok", tier)
        for number, bucket in enumerate(buckets, 1):
            limit = bucket.per_minute or rates.get(tier, min(rates.values(), default=BURST_MIN))
            interval, burst = 60 / limit, max(BURST_MIN, limit / 2)
            at = max(now, self._local.get(bucket.key, 0.0))
            ahead = at - now
            if ahead > (burst - 1) * interval:
                return Verdict("limited", tier, limit, 0, ahead - (burst - 1) * interval, number)
            self._local[bucket.key] = at + interval
            verdict = Verdict("ok", tier, limit, int(burst - (at + interval - now) / interval), 0.0, number)
        return verdict


def account_key(email: str) -> str:
    """Return the bucket key of one account's log-ins: a hash, so that Redis holds no address."""
    digest = hashlib.sha256(email.strip().lower().encode()).hexdigest()[:32]
    return f"rl:login:{digest}"


def _verdict(answer: list[Any]) -> Verdict:
    state, tier, bucket, limit, remaining, wait_ms = answer
    return Verdict(str(state), str(tier), int(limit), max(0, int(remaining)), int(wait_ms) / 1000, int(bucket))
