"""Streams on a real Redis: nothing is lost, nothing is taken from the living."""

from __future__ import annotations

import asyncio
import json

import pytest

from novacore.common import deadletters
from novacore.common.app import ServiceDefinition
from novacore.common.settings import CommonSettings
from novacore.common.streams import ATTEMPTS_MAX, Consumer, Envelope, PoisonError
from tests.service.common.definitions import start

STREAM, DEAD, DELAYED = "stream:reflection", "stream:reflection:dead", "zset:reflection:g:delayed"
WORKER = ServiceDefinition(name="reflection-worker", settings=CommonSettings, start=start)


@pytest.fixture
async def worker(client_for):
    async with client_for("reflection-worker", definition=WORKER) as running:
        yield running


def put(redis_client, **changes):
    envelope = Envelope(type="reflection.requested", payload={"run_id": "r1"}, request_id="request-0001", **changes)
    redis_client.xadd(STREAM, {"e": envelope.model_dump_json()})
    return envelope


@pytest.fixture
def consumer(worker):
    def make(handler, name="pod-1", **options):
        redis = worker.platform.redis
        return Consumer(redis, STREAM, "g", handler, platform=worker.platform, job="reflection", name=name, **options)

    return make


def pending(redis_client):
    return redis_client.xpending(STREAM, "g")["pending"]


async def test_what_was_queued_before_the_first_start_is_handled(consumer, redis_client):
    sent, got = put(redis_client), []

    async def handler(envelope):
        got.append(envelope)

    one = consumer(handler)
    await one.ensure_group()
    await one.consume_once()

    assert got == [sent]
    assert pending(redis_client) == 0


@pytest.mark.invariant("STREAM-1")
async def test_a_message_is_acknowledged_only_after_its_handler_returned(consumer, redis_client):
    put(redis_client)
    seen = []

    async def handler(_envelope):
        seen.append(pending(redis_client))

    one = consumer(handler)
    await one.ensure_group()
    await one.consume_once()

    assert seen == [1]
    assert pending(redis_client) == 0


@pytest.mark.invariant("STREAM-1")
async def test_a_failing_message_waits_is_tried_again_and_ends_in_the_dead_letters(consumer, redis_client, worker):
    put(redis_client)
    attempts = []

    async def handler(envelope):
        attempts.append(envelope.attempt)
        raise RuntimeError("peer down")

    one = consumer(handler)
    await one.ensure_group()
    for _ in range(ATTEMPTS_MAX):
        await one.consume_once()
        for raw in redis_client.zrange(DELAYED, 0, -1):
            redis_client.zadd(DELAYED, {raw: 0})  # its time has come
        await one.release_delayed()

    assert attempts == [1, 2, 3, 4, 5]
    letter = redis_client.xrange(DEAD)[0][1]
    assert "peer down" in letter["error"]
    assert json.loads(letter["e"])["request_id"] == "request-0001"
    assert pending(redis_client) == 0
    assert worker.platform.metrics.value("novacore_jobs_total", job="reflection", result="dead") == 1


async def test_poison_and_unreadable_messages_go_straight_to_the_dead_letters(consumer, redis_client):
    put(redis_client)
    put(redis_client, v=99)
    redis_client.xadd(STREAM, {"e": "not json"})
    redis_client.xadd(STREAM, {"other": "field"})

    async def handler(_envelope):
        raise PoisonError("unknown type")

    one = consumer(handler)
    await one.ensure_group()
    await one.consume_once()

    assert redis_client.xlen(DEAD) == 4
    assert pending(redis_client) == 0


@pytest.mark.invariant("STREAM-2")
async def test_takes_over_from_a_dead_consumer_and_never_from_a_living_one(consumer, redis_client, monkeypatch):
    monkeypatch.setattr("novacore.common.streams.CLAIM_IDLE_MS", 0)  # the waiting time, not the rule under test
    put(redis_client)
    got = []

    async def stuck(_envelope):
        raise asyncio.CancelledError

    async def handler(envelope):
        got.append(envelope)

    first, second = consumer(stuck, "pod-1"), consumer(handler, "pod-2")
    await first.ensure_group()
    redis_client.xreadgroup("g", "pod-1", {STREAM: ">"})  # pod-1 holds it
    redis_client.set("hb:g:pod-1", "1")

    assert await second.claim_once() == 0
    redis_client.delete("hb:g:pod-1")
    assert await second.claim_once() == 1
    assert len(got) == 1
    assert pending(redis_client) == 0


@pytest.mark.invariant("STREAM-3")
async def test_trimming_spares_what_any_group_has_not_acknowledged(consumer, redis_client):
    for _ in range(300):
        put(redis_client)

    async def handler(_envelope): ...

    one = consumer(handler)
    await one.ensure_group()
    redis_client.xgroup_create(STREAM, "slow", id="0")
    while await one.consume_once():
        pass
    await one._trim()
    assert redis_client.xlen(STREAM) == 300

    entries = redis_client.xreadgroup("slow", "x", {STREAM: ">"}, count=1000)[0][1]
    redis_client.xack(STREAM, "slow", *(entry[0] for entry in entries))
    await one._trim()
    assert redis_client.xlen(STREAM) < 300


async def test_run_consumes_until_the_process_drains(consumer, redis_client, worker):
    done = asyncio.Event()

    async def handler(_envelope):
        done.set()

    one = consumer(handler)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        put(redis_client)
        async with asyncio.timeout(10):
            await done.wait()
            worker.platform.draining.set()
            await running


async def test_dead_letters_are_listed_replayed_and_dropped(worker, redis_client):
    envelope = Envelope(type="reflection.requested", payload={"input": "private words"}, attempt=5)
    for _ in range(2):
        redis_client.xadd(DEAD, {"e": envelope.model_dump_json(), "error": "RuntimeError: peer down", "group": "g"})
    redis = worker.platform.redis

    rows = await deadletters.listing(redis)
    assert [row["attempt"] for row in rows] == [5, 5]
    assert "private words" not in json.dumps(rows)

    await deadletters.replay(redis, STREAM, rows[0]["letter"])
    await deadletters.drop(redis, STREAM, rows[1]["letter"])
    assert redis_client.xlen(DEAD) == 0
    assert json.loads(redis_client.xrange(STREAM)[0][1]["e"])["attempt"] == 1
    with pytest.raises(deadletters.NoSuchLetterError):
        await deadletters.drop(redis, STREAM, rows[1]["letter"])


async def test_the_end_of_the_process_waits_for_the_message_in_hand_and_begins_no_other(client_for, redis_client):
    for _ in range(2):
        put(redis_client)
    begun, finished = asyncio.Event(), []

    async def handler(envelope):
        begun.set()
        await asyncio.sleep(0.5)
        finished.append(envelope.id)

    async with client_for("reflection-worker", definition=WORKER) as running:
        platform = running.platform
        one = Consumer(platform.redis, STREAM, "g", handler, platform=platform, job="reflection", name="pod-1")
        platform.spawn("reflection", one.run)
        await begun.wait()

    assert len(finished) == 1
    assert pending(redis_client) == 1
