"""With a Redis of its own, what may be lost lies there and nothing else does; losing it stops nobody."""

from __future__ import annotations

import pytest

SEPARATE = {"redis_cache": "separate"}


def ok(asked):
    return 200, {"path": asked.path}


@pytest.fixture
async def gateway(client_for, cache_client, cache_port):
    async with client_for("gateway", settings=SEPARATE, cache_port=cache_port) as running:
        running.stubs["memory"].on("GET", "/memory", ok)
        running.stubs["intelligence"].on("POST", "/chat/message", (200, {}))
        yield running


async def test_rate_limits_lie_in_the_cache_and_revocations_do_not(gateway, make_user, redis_client, cache_client):
    user = await make_user(jti="j-1")

    assert (await gateway.public.get("/api/memory", headers=user.headers)).status_code == 200
    assert [key[:3] for key in cache_client.scan_iter()] == ["rl:"]
    assert redis_client.keys() == []

    cache_client.set("tok:rev:j-1", "1")  # what stands there counts for nothing
    assert (await gateway.public.get("/api/memory", headers=user.headers)).status_code == 200
    redis_client.set("tok:rev:j-1", "1")
    revoked = await gateway.public.get("/api/memory", headers=user.headers)
    assert (revoked.status_code, revoked.json()["code"]) == (401, "token_invalid")


async def test_an_older_session_is_refused_and_a_newer_tier_counts(gateway, make_user, redis_client):
    user = await make_user(tier="free_trial", sv=1)
    redis_client.set(f"tok:tier:{user.id}", "pro")
    codes = {
        (await gateway.public.post("/api/chat/message", json={}, headers=user.headers)).status_code for _ in range(20)
    }
    assert codes == {200}, "the tier in Redis lets more through than the token's"

    redis_client.set(f"tok:sv:{user.id}", "2")
    refused = await gateway.public.get("/api/memory", headers=user.headers)
    assert refused.status_code == 401


async def test_a_limit_holds_in_the_cache(gateway, make_user):
    user = await make_user(tier="free_trial")
    codes = [
        (await gateway.public.post("/api/chat/message", json={}, headers=user.headers)).status_code for _ in range(6)
    ]
    assert codes == [200] * 5 + [429]


async def test_without_the_cache_reading_goes_on_and_logging_in_does_not(client_for, make_user):
    settings = {**SEPARATE, "redis_timeout_s": 0.2}
    async with client_for("gateway", settings=settings, cache_port=1) as gateway:  # nothing listens there
        gateway.stubs["memory"].on("GET", "/memory", ok)
        user = await make_user()
        assert (await gateway.public.get("/api/memory", headers=user.headers)).status_code == 200
        closed = await gateway.public.post("/api/auth/login", json={"email": "a@b.c"})
        assert (closed.status_code, closed.json()["code"]) == (503, "not_ready")


async def test_memory_keeps_its_turns_in_the_cache(client_for, make_user, redis_client, cache_client, cache_port):
    settings = {**SEPARATE, "embeddings": {"provider": "hash"}}
    async with client_for("memory", settings=settings, cache_port=cache_port) as memory:
        user = await make_user()
        body = {"input": "q", "output": "a"}
        stored = await memory.public.post("/memory/stm/store?session_id=s", json=body, headers=memory.headers(user))
        assert stored.status_code == 200
        assert cache_client.llen(f"stm:{user.id}:s") == 1
        assert [key for key in redis_client.scan_iter() if key.startswith(("stm:", "itm:"))] == []


async def test_memory_is_ready_without_the_cache(client_for):
    settings = {**SEPARATE, "embeddings": {"provider": "hash"}}
    async with client_for("memory", settings=settings, cache_port=1) as memory:
        ready = await memory.internal.get("/readyz")
        assert ready.status_code == 200, ready.text


async def test_a_service_without_caches_has_one_redis(client_for, cache_port):
    async with client_for("auth-billing", settings=SEPARATE, cache_port=cache_port) as auth:
        assert auth.platform.cache is auth.platform.redis


async def test_a_shared_redis_is_one_client(client_for):
    async with client_for("memory", settings={"embeddings": {"provider": "hash"}}) as memory:
        assert memory.platform.cache is memory.platform.redis
        assert memory.platform.cache_blocking is memory.platform.redis_blocking
