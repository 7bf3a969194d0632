"""Messages of stream:reflection, on a real Redis; memory is real where it matters, else at the edge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from novacore.common.streams import Envelope
from tests.kit.harness import RunningService
from tests.kit.keys import TestUser
from tests.kit.peers import Asked, StubPeer

STREAM = "stream:reflection"
JUDGED = {
    "aligned": True, "alignment_score": 0.9, "principle_scores": {"truth": 0.9}, "recommendations": ["Cite sources."],
    "concerns": [], "policy_version": 1, "timestamp": "2026-01-01T00:00:00Z",
}  # fmt: skip
POLICY, REFLECTIONS = "/policy/validate-alignment", "/internal/memory/reflections"


def requested(user_id: Any, **changes: Any) -> Envelope:
    payload = {"run_id": str(uuid4()), "session_id": str(uuid4()), "input": "How?", "output": "So.", "context_ids": []}
    return Envelope(type="reflection.requested", request_id="req-12345678", user_id=user_id, payload=payload | changes)


def send(redis: Any, envelope: Envelope | str) -> None:
    redis.xadd(STREAM, {"e": envelope if isinstance(envelope, str) else envelope.model_dump_json()})


async def until(true: Callable[[], Any], *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def idle(redis: Any) -> bool:
    """Everything sent was delivered and acknowledged."""
    groups = redis.xinfo_groups(STREAM)
    return bool(groups) and groups[0]["lag"] == 0 and groups[0]["pending"] == 0


@pytest.fixture
def policy() -> StubPeer:
    return StubPeer("noble-spirit").on("POST", POLICY, (200, JUDGED))


@pytest.fixture
def kept() -> StubPeer:
    """memory at the edge."""
    stub = StubPeer("memory")
    return stub.on("POST", REFLECTIONS, (201, {"id": str(uuid4()), "memory_id": str(uuid4()), "created": True}))


@pytest.mark.invariant("REFLECT-2")
async def test_a_run_becomes_a_hidden_reflection_in_the_real_memory(
    client_for: Any, make_user: Any, redis_client: Any, admin_conn: Any, policy: StubPeer
) -> None:
    user: TestUser = await make_user()
    async with client_for("memory", settings={"embeddings": {"provider": "hash"}}, listen=True) as memory:
        peers = {"noble-spirit": policy, "memory": memory.internal_url}
        async with client_for("reflection-worker", peers=peers) as worker:
            message = requested(user.id)
            for _ in range(3):
                send(redis_client, message)
            await until(
                lambda: (
                    idle(redis_client)
                    and worker.platform.metrics.value("novacore_jobs_total", job="reflection", result="ok") == 3
                )
            )
        row = await admin_conn.fetchrow("SELECT * FROM memory.reflections")
        assert await admin_conn.fetchval("SELECT count(*) FROM memory.reflections") == 1
        assert str(row["run_id"]) == message.payload["run_id"]
        assert row["user_id"] == user.id
        assert row["improvement_notes"] == "Cite sources."
        assert row["metadata"]["answers"]["improve"] == "Cite sources."
        listed = await memory.public.get("/memory", headers=memory.headers(user))
        assert listed.json()["total"] == 0


async def test_the_request_id_and_the_user_travel_on(
    client_for: Any, redis_client: Any, policy: StubPeer, kept: StubPeer
) -> None:
    user_id = uuid4()
    async with client_for("reflection-worker", peers={"noble-spirit": policy, "memory": kept}):
        send(redis_client, requested(user_id))
        await until(lambda: kept.requests(REFLECTIONS))
    for asked in (*policy.requests(POLICY), *kept.requests(REFLECTIONS)):
        assert asked.headers["X-Request-ID"] == "req-12345678"
        assert asked.headers["X-Act-For"] == str(user_id)
        assert asked.headers["X-Service-Token"]
        assert "Authorization" not in asked.headers
    assert policy.requests(POLICY)[0].json == {"input_context": "How?", "output_response": "So."}


async def test_peers_that_are_away_are_waited_for_and_nothing_is_acknowledged_before(
    client_for: Any, redis_client: Any, policy: StubPeer
) -> None:
    """REFLECT-1."""
    up = False

    def answer(_asked: Asked) -> tuple[int, Any]:
        return (201, {"created": True}) if up else (503, {"code": "not_ready"})

    kept = StubPeer("memory").on("POST", REFLECTIONS, answer)
    async with client_for("reflection-worker", peers={"noble-spirit": policy, "memory": kept}) as worker:
        send(redis_client, requested(uuid4()))
        await until(lambda: len(kept.requests(REFLECTIONS)) >= 2)
        assert redis_client.xpending(STREAM, "reflection-worker")["pending"] == 1
        up = True
        await until(lambda: worker.platform.metrics.value("novacore_jobs_total", job="reflection", result="ok") == 1)
        assert idle(redis_client)
    assert len(policy.requests(POLICY)) == 1
    assert redis_client.xlen(f"{STREAM}:dead") == 0


@pytest.mark.parametrize(
    "poison",
    [
        "not json",
        json.dumps({"v": 1, "type": "reflection.requested", "payload": {}}),
        requested(None).model_dump_json(),
        requested(uuid4(), run_id="no uuid").model_dump_json(),
        requested(uuid4(), extra=1).model_dump_json(),
        Envelope(type="reflection.unheard", user_id=uuid4(), payload={}).model_dump_json(),
        Envelope(type="reflection.batch", user_id=uuid4(), payload={"run_ids": []}).model_dump_json(),
        Envelope(v=9, type="reflection.requested", user_id=uuid4(), payload={}).model_dump_json(),
    ],
)
async def test_poison_goes_to_the_dead_letters_and_the_next_message_is_served(
    client_for: Any, redis_client: Any, policy: StubPeer, kept: StubPeer, poison: str
) -> None:
    async with client_for("reflection-worker", peers={"noble-spirit": policy, "memory": kept}):
        send(redis_client, poison)
        send(redis_client, requested(uuid4()))
        await until(lambda: idle(redis_client) and kept.requests(REFLECTIONS))
    (letter,) = redis_client.xrange(f"{STREAM}:dead")
    assert letter[1]["e"] == poison
    assert len(kept.requests(REFLECTIONS)) == 1


async def test_a_refused_reflection_is_not_tried_for_ever(client_for: Any, redis_client: Any, policy: StubPeer) -> None:
    kept = StubPeer("memory").on("POST", REFLECTIONS, (409, {"code": "conflict"}))
    async with client_for("reflection-worker", peers={"noble-spirit": policy, "memory": kept}):
        send(redis_client, requested(uuid4()))
        await until(lambda: redis_client.xlen(f"{STREAM}:dead") == 1)
    assert len(kept.requests(REFLECTIONS)) == 1


async def test_a_user_who_is_gone_ends_the_job(client_for: Any, redis_client: Any, policy: StubPeer) -> None:
    kept = StubPeer("memory").on("POST", REFLECTIONS, (404, {"code": "not_found"}))
    async with client_for("reflection-worker", peers={"noble-spirit": policy, "memory": kept}) as worker:
        send(redis_client, requested(uuid4()))
        await until(lambda: worker.platform.metrics.value("novacore_jobs_total", job="reflection", result="ok") == 1)
    assert redis_client.xlen(f"{STREAM}:dead") == 0


async def test_a_batch_becomes_one_message_per_run_that_is_still_known(
    client_for: Any, redis_client: Any, policy: StubPeer, kept: StubPeer
) -> None:
    user_id, known, forgotten = uuid4(), [str(uuid4()) for _ in range(3)], str(uuid4())

    def exchanges(asked: Asked) -> tuple[int, Any]:
        assert asked.headers["X-Act-For"] == str(user_id)
        assert set(asked.json["run_ids"]) == {*known, forgotten}
        found = [{"run_id": one, "session_id": "s", "input": f"q {one}", "output": "a"} for one in known]
        return 200, {"exchanges": found}

    kept.on("POST", "/internal/memory/exchanges", exchanges)
    batch = Envelope(type="reflection.batch", user_id=user_id, payload={"run_ids": [*known, forgotten, known[0]]})
    async with client_for("reflection-worker", peers={"noble-spirit": policy, "memory": kept}):
        send(redis_client, batch)
        await until(lambda: len(kept.requests(REFLECTIONS)) == 3 and idle(redis_client))
    assert {asked.json["run_id"] for asked in kept.requests(REFLECTIONS)} == set(known)


async def test_messages_queued_before_the_first_start_are_served(
    client_for: Any, redis_client: Any, policy: StubPeer, kept: StubPeer
) -> None:
    for _ in range(5):
        send(redis_client, requested(uuid4()))
    async with client_for("reflection-worker", peers={"noble-spirit": policy, "memory": kept}):
        await until(lambda: len(kept.requests(REFLECTIONS)) == 5)


async def test_switched_off_it_leaves_the_messages(
    client_for: Any, redis_client: Any, policy: StubPeer, kept: StubPeer
) -> None:
    send(redis_client, requested(uuid4()))
    settings = {"reflection": {"enabled": False}}
    worker: RunningService
    async with client_for(
        "reflection-worker", peers={"noble-spirit": policy, "memory": kept}, settings=settings
    ) as worker:
        ready = await worker.internal.get("/livez")
        assert ready.status_code == 200
    assert redis_client.xlen(STREAM) == 1
    assert redis_client.xinfo_groups(STREAM) == []
    assert kept.asked == []
