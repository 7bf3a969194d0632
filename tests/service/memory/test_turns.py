"""Short-term and intermediate memory in Redis, and what happens when Redis loses them."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.kit.harness import RunningService
from tests.kit.keys import TestUser

from .conftest import Store


async def append(memory: RunningService, user: TestUser, session: str, n: int, **fields: Any) -> dict[str, Any]:
    answer = await memory.public.post(
        f"/memory/stm/store?session_id={session}", json={"input": f"q{n}", "output": f"a{n}", **fields},
        headers=memory.headers(user),
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def turns(memory: RunningService, user: TestUser, session: str, limit: int = 100) -> list[str]:
    answer = await memory.public.get(f"/memory/stm/retrieve/{session}?limit={limit}", headers=memory.headers(user))
    assert answer.status_code == 200
    body = answer.json()
    assert body["session_id"] == session
    assert body["count"] == len(body["items"])
    return [item["input"] for item in body["items"]]


async def test_fifty_parallel_appends_keep_the_last_twenty_whole(
    memory: RunningService, user: TestUser, redis_client: Any
) -> None:
    """W18."""
    await asyncio.gather(*(append(memory, user, "s", n) for n in range(50)))
    kept = await turns(memory, user, "s")
    assert len(kept) == len(set(kept)) == 20
    key = f"stm:{user.id}:s"
    assert redis_client.llen(key) == 20
    assert 3590 <= redis_client.ttl(key) <= 3600


async def test_sessions_and_users_are_apart_and_turns_in_order(
    memory: RunningService, user: TestUser, stranger: TestUser
) -> None:
    for n in range(3):
        size = (await append(memory, user, "one", n))["size"]
    assert size == 3
    await append(memory, user, "two", 9)
    await append(memory, stranger, "one", 8)
    assert await turns(memory, user, "one") == ["q0", "q1", "q2"]
    assert await turns(memory, user, "one", limit=2) == ["q1", "q2"]
    assert await turns(memory, user, "two") == ["q9"]
    assert await turns(memory, stranger, "one") == ["q8"]


async def test_the_same_turn_twice_is_one(memory: RunningService, user: TestUser) -> None:
    for _ in range(2):
        answer = await append(memory, user, "s", 1, timestamp="2026-01-01T00:00:00Z", tokens=5)
    assert answer == {"stored": True, "size": 1}


async def test_turns_lost_by_redis_come_back_from_the_stored_conversation(
    memory: RunningService, user: TestUser, store: Store, redis_client: Any
) -> None:
    for n in range(3):
        await store(f"q{n}", output_response=f"a{n}", type="conversation", tier="itm", session_id="s")
        await append(memory, user, "s", n)
    redis_client.flushall()
    assert await turns(memory, user, "s") == ["q0", "q1", "q2"]
    await append(memory, user, "s", 3)
    assert await turns(memory, user, "s") == ["q0", "q1", "q2", "q3"]


async def test_cleared_turns_stay_cleared(memory: RunningService, user: TestUser, store: Store) -> None:
    await store("q0", output_response="a0", type="conversation", tier="itm", session_id="s")
    await append(memory, user, "s", 0)
    answer = await memory.public.delete("/memory/stm/clear/s", headers=memory.headers(user))
    assert answer.status_code == 204
    assert await turns(memory, user, "s") == []
    await append(memory, user, "s", 1)
    assert await turns(memory, user, "s") == ["q1"]


async def test_intermediate_memories_are_ranked_by_use(
    memory: RunningService, user: TestUser, store: Store, redis_client: Any
) -> None:
    a, b, c = [await store(text, tier="itm") for text in ("aa", "bb", "cc")]
    headers = memory.headers(user)

    async def ranked() -> list[str]:
        answer = (await memory.public.get("/memory/itm/retrieve?limit=10", headers=headers)).json()
        assert answer["count"] == len(answer["items"])
        return [row["id"] for row in answer["items"]]

    assert set(await ranked()) == {a["id"], b["id"], c["id"]}  # built from Postgres
    for memory_id in (b["id"], b["id"], c["id"]):
        await memory.public.get(f"/memory/retrieve/{memory_id}", headers=headers)
    assert await ranked() == [b["id"], c["id"], a["id"]]
    key = f"itm:{user.id}"
    assert redis_client.zscore(key, b["id"]) == 2
    assert 604_700 <= redis_client.ttl(key) <= 604_800
    redis_client.delete(key)
    assert await ranked() == [b["id"], c["id"], a["id"]]  # rebuilt
    await memory.public.delete(f"/memory/delete/{b['id']}", headers=headers)
    redis_client.zadd(key, {"00000000-0000-0000-0000-000000000000": 99})  # a dead id
    assert await ranked() == [c["id"], a["id"]]
    assert redis_client.zcard(key) == 2


async def test_no_command_walks_over_the_keys(
    memory: RunningService, user: TestUser, store: Store, redis_client: Any
) -> None:
    """W18."""
    seen: list[str] = []
    with redis_client.monitor() as monitor:
        await store("x", tier="itm")
        await append(memory, user, "s", 0)
        await turns(memory, user, "s")
        await memory.public.get("/memory/itm/retrieve", headers=memory.headers(user))
        await memory.public.delete("/memory/stm/clear/s", headers=memory.headers(user))
        redis_client.ping()
        while True:
            command = str(monitor.next_command()["command"]).split()[0].upper()
            seen.append(command)
            if command == "PING" and "SET" in seen:
                break
    assert "EVAL" in seen
    assert not {"KEYS", "SCAN", "FLUSHALL", "FLUSHDB"} & set(seen)
