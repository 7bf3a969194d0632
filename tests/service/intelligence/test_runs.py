"""Runs apart from their sockets: disconnects, cancels, failures, kills, replicas, drains."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from novacore.intelligence.providers.echo import reply_words
from novacore.intelligence.runs import Status
from novacore_contracts.paths import ROOT_VARIABLE, Paths
from tests.kit.harness import Stores, mount
from tests.service.intelligence.conftest import FAST, Streamed, echo, until

QUESTION = "Hello there, friend."


def billed(stage, run_id: str) -> int:
    return stage.quota.holds[run_id]["actual"]


async def test_a_stream_has_the_promised_form(stage, user):
    request = {"json": {"message": QUESTION}, "headers": stage.running.headers(user)}
    async with stage.running.public.stream("POST", "/chat/stream", **request) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        run_id = answer.headers["x-run-id"]
        streamed = Streamed()
        async for line in answer.aiter_lines():
            streamed.add(line)

    assert streamed.text == " ".join(reply_words(QUESTION, 24))
    assert [frame["done"] for frame in streamed.frames] == [False] * (len(streamed.frames) - 1) + [True]
    assert streamed.frames[0]["event"] == "start"
    usage = next(frame for frame in streamed.frames if frame.get("event") == "usage")
    assert usage["settled"] == usage["prompt"] + usage["completion"] == streamed.last["tokens_used"]
    assert set(streamed.last) == {"content", "done", "session_id", "tokens_used", "latency_ms", "run_id", "status"}
    assert streamed.last["run_id"] == run_id
    assert len(set(streamed.ids)) == len(streamed.frames)


async def test_a_run_is_accepted_at_once_and_read_later(stage_of, user):
    async with stage_of(echo(tokens=60, delay_ms=5)) as stage:
        accepted = await stage.post("/chat/runs", {"message": QUESTION, "context": "line\n" * 5000}, user)
        assert accepted.status_code == 202
        run_id = accepted.json()["run_id"]
        assert (await stage.get(f"/chat/runs/{run_id}", user)).json()["status"] in ("queued", "running")
        streamed = Streamed()
        for line in (await stage.get(f"/chat/runs/{run_id}/stream", user)).text.splitlines():
            streamed.add(line)
        assert streamed.last["status"] == "done"
        run = (await stage.get(f"/chat/runs/{run_id}", user)).json()
    assert run["session_id"] == accepted.json()["session_id"]
    assert run["tokens_used"] == streamed.last["tokens_used"]
    assert run["started_at"] <= run["ended_at"]


@pytest.mark.invariant("LOGS-1")
async def test_a_reader_resumes_where_it_left_on_any_replica(stage_of, user):
    """LOGS-1: for every event of the run, what comes after it is the rest, here and elsewhere."""
    async with stage_of(echo(tokens=60, delay_ms=2)) as stage, stage_of(beside=stage) as other:
        streamed = await stage.stream(user)
        for replica in (stage, other):
            for position, event_id in enumerate(streamed.ids):
                rest = Streamed()
                path = f"/chat/runs/{streamed.run_id}/stream"
                answer = await replica.get(path, user, **{"Last-Event-ID": event_id})
                for line in answer.text.splitlines():
                    rest.add(line)
                expected = streamed.frames[position + 1 :]
                # After the end there is nothing in the stream; the table tells the end once more.
                assert rest.frames == expected or (not expected and rest.frames == streamed.frames[-1:])


async def test_another_replica_follows_a_run_that_still_writes(stage_of, user):
    async with stage_of(echo(tokens=200, delay_ms=5)) as stage, stage_of(beside=stage) as other:
        run_id = (await stage.post("/chat/runs", {"message": QUESTION}, user)).json()["run_id"]
        here, there = (Streamed(), Streamed())
        for replica, streamed in ((other, there), (stage, here)):
            for line in (await replica.get(f"/chat/runs/{run_id}/stream", user)).text.splitlines():
                streamed.add(line)
        assert there.frames == here.frames
        assert there.text == " ".join(reply_words(QUESTION, 200))


async def test_an_expired_stream_is_404(stage, user, redis_client):
    run_id = (await stage.stream(user)).run_id
    assert 0 < redis_client.ttl(f"run:{run_id}") <= 3600
    await until(lambda: not stage.running.service._logs.here(UUID(run_id)))
    redis_client.delete(f"run:{run_id}")
    assert (await stage.get(f"/chat/runs/{run_id}/stream", user)).status_code == 404


async def test_a_last_event_id_of_someone_elses_making_is_400(stage, user):
    run_id = (await stage.stream(user)).run_id
    answer = await stage.get(f"/chat/runs/{run_id}/stream", user, **{"Last-Event-ID": "$"})
    assert answer.status_code == 400


async def test_what_belongs_to_another_is_not_found(stage, user, make_user):
    """W15: every route with an id, with the id of another and with one that does not exist: the same 404."""
    chat = (await stage.post("/chat/message", {"message": QUESTION}, user)).json()
    stranger = await make_user()
    for run_id, session_id in ((chat["run_id"], chat["session_id"]), (uuid4(), uuid4())):
        answers = [
            await stage.get(f"/chat/runs/{run_id}", stranger),
            await stage.get(f"/chat/runs/{run_id}/stream", stranger),
            await stage.post(f"/chat/runs/{run_id}/cancel", {}, stranger),
            await stage.get(f"/chat/history/{session_id}", stranger),
            await stage.post(f"/chat/sessions/{session_id}/end", {}, stranger),
            *[
                await stage.post(path, {"message": "Hi.", "session_id": str(session_id)}, stranger)
                for path in ("/chat/message", "/chat/stream", "/chat/runs")
            ],
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert {answer.json()["code"] for answer in answers} == {"not_found"}
    assert (await stage.get("/chat/sessions", stranger)).json() == []
    assert (await stage.get("/chat/sessions", user)).json()[0]["status"] == "active"


async def test_a_client_that_leaves_is_billed_for_the_whole_answer_and_finds_it(stage_of, user):
    """W12: the run goes on without its socket."""
    async with stage_of(echo(tokens=80, delay_ms=5)) as stage:
        streamed = Streamed()
        async with stage.open(user) as lines:
            async for line in lines:
                streamed.add(line)
                if streamed.text:
                    break
        run = await stage.ended(streamed.run_id, user)
        assert run["status"] == "done"
        await until(lambda: stage.quota.holds[streamed.run_id]["state"] == "settled")
        prompt = stage.quota.holds[streamed.run_id]["asked"]["min_amount"] - 64
        assert billed(stage, streamed.run_id) == run["tokens_used"] == prompt + 80
        history = (await stage.get(f"/chat/history/{run['session_id']}", user)).json()
        assert history[0]["output_text"] == " ".join(reply_words(QUESTION, 80))


async def test_a_cancelled_run_bills_what_it_produced(stage_of, user):
    async with stage_of(echo(tokens=2000, delay_ms=5)) as stage:
        run_id = (await stage.post("/chat/runs", {"message": QUESTION}, user)).json()["run_id"]
        await until(lambda: stage.running.service._executor.live[UUID(run_id)].produced > 10)
        cancelled = await stage.post(f"/chat/runs/{run_id}/cancel", {}, user)
        assert cancelled.status_code == 202
        run = await stage.ended(run_id, user)
        assert run["status"] == "cancelled"
        await until(lambda: stage.quota.holds[run_id]["state"] == "settled")
        prompt = stage.quota.holds[run_id]["asked"]["min_amount"] - 64
        assert prompt + 10 < billed(stage, run_id) < prompt + 2000
        assert (await stage.post(f"/chat/runs/{run_id}/cancel", {}, user)).json()["status"] == "cancelled"


async def test_a_cancel_reaches_the_replica_that_writes(stage_of, user):
    async with stage_of(echo(tokens=5000, delay_ms=5)) as stage, stage_of(beside=stage) as other:
        run_id = (await stage.post("/chat/runs", {"message": QUESTION}, user)).json()["run_id"]
        await other.post(f"/chat/runs/{run_id}/cancel", {}, user)
        assert (await other.ended(run_id, user))["status"] == "cancelled"


async def test_a_run_cancelled_in_the_queue_costs_nothing(stage_of, user):
    settings = {"llm": {"provider": "echo", "parallel": 1, "echo": {"tokens": 300, "delay_ms": 10}}, "runs": FAST}
    async with stage_of(settings) as stage:
        first = (await stage.post("/chat/runs", {"message": QUESTION}, user)).json()["run_id"]
        queued = (await stage.post("/chat/runs", {"message": QUESTION}, user)).json()["run_id"]
        assert (await stage.get(f"/chat/runs/{queued}", user)).json()["status"] == "queued"
        await stage.post(f"/chat/runs/{queued}/cancel", {}, user)
        assert (await stage.ended(queued, user))["status"] == "cancelled"
        await until(lambda: stage.quota.holds[queued]["state"] == "settled")
        assert billed(stage, queued) == 0
        await stage.post(f"/chat/runs/{first}/cancel", {}, user)
        await stage.ended(first, user)


async def test_a_full_queue_sheds(stage_of, user):
    llm = {"provider": "echo", "parallel": 1, "queue": 1, "echo": {"tokens": 300, "delay_ms": 10}}
    async with stage_of({"llm": llm, "runs": FAST}) as stage:
        runs = [(await stage.post("/chat/runs", {"message": QUESTION}, user)).json()["run_id"] for _ in range(2)]
        refused = await stage.post("/chat/message", {"message": QUESTION}, user)
        assert (refused.status_code, refused.json()["code"]) == (503, "shed")
        assert len(stage.quota.holds) == 2
        for run_id in runs:
            await stage.post(f"/chat/runs/{run_id}/cancel", {}, user)
            await stage.ended(run_id, user)


async def test_a_provider_that_breaks_off_bills_what_it_gave(stage_of, user):
    """W12: an error is an error, never an empty 200."""
    async with stage_of(echo(tokens=40, fail_at=12)) as stage:
        answer = await stage.post("/chat/message", {"message": QUESTION}, user)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (502, "provider_error")
        prompt = stage.quota.holds[problem["run_id"]]["asked"]["min_amount"] - 64
        assert billed(stage, problem["run_id"]) == prompt + 12
        streamed = await stage.stream(user)
    assert streamed.last.items() >= {"done": True, "code": "provider_error", "status": "failed", "content": ""}.items()
    assert streamed.last["error"]
    assert streamed.text, "what was judged before the failure was sent"


async def test_a_provider_that_never_began_costs_nothing(stage_of, user):
    async with stage_of(echo(fail_at=0)) as stage:
        answer = await stage.post("/chat/message", {"message": QUESTION}, user)
        assert answer.status_code == 502
        assert billed(stage, answer.json()["run_id"]) == 0


async def test_a_fallback_answers_and_is_named(stage_of, user):
    fallback = {"provider": "echo", "model": "second", "echo": {"tokens": 10}}
    llm = {"provider": "echo", "model": "first", "echo": {"fail_at": 0}, "fallbacks": [fallback]}
    async with stage_of({"llm": llm, "runs": FAST}) as stage:
        chat = (await stage.post("/chat/message", {"message": QUESTION}, user)).json()
        assert (chat["status"], chat["model"]) == ("done", "second")
        assert stage.running.platform.metrics.value("novacore_llm_fallbacks_total", reason="server") == 1


async def test_a_model_that_is_slow_to_begin_is_504_and_the_run_goes_on(stage_of, user):
    settings = echo(tokens=3, delay_ms=700) | {"budgets": {"first_byte_ms": 200}}
    async with stage_of(settings) as stage:
        answer = await stage.post("/chat/message", {"message": QUESTION}, user)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
        assert (await stage.ended(answer.json()["run_id"], user))["status"] == "done"


async def test_a_deadline_is_504_and_the_run_goes_on(stage_of, user):
    async with stage_of(echo(tokens=100, delay_ms=10)) as stage:
        answer = await stage.post("/chat/message", {"message": QUESTION}, user, **{"X-Deadline-Ms": "400"})
        assert answer.status_code == 504
        assert (await stage.ended(answer.json()["run_id"], user))["status"] == "done"


async def test_the_quota_hears_every_32_tokens(stage_of, user):
    async with stage_of(echo(tokens=150, delay_ms=4)) as stage:
        run_id = (await stage.stream(user)).run_id
        hold = stage.quota.holds[run_id]
    prompt = hold["asked"]["min_amount"] - 64
    told = [amount - prompt for amount in hold["checkpoints"]]
    assert told[0] >= 32
    assert len(told) >= 3
    assert told == sorted(told)


@pytest.mark.invariant("END-1")
async def test_a_run_is_ended_once_whoever_tries(stage_of, user, admin_conn, redis_client):
    """END-1, RUN-1: the sweep of another replica takes a run that only seems dead; its own replica writes nothing more."""
    async with stage_of(echo(tokens=400, delay_ms=5)) as stage, stage_of(beside=stage) as other:
        run_id = (await stage.post("/chat/runs", {"message": QUESTION}, user)).json()["run_id"]
        await until(lambda: stage.running.service._executor.live[UUID(run_id)].produced > 20)
        await admin_conn.execute("UPDATE chat.runs SET heartbeat_at = now() - interval '1 hour'")
        run = await other.ended(run_id, user)
        if run["status"] == "interrupted":  # the sweep came before the next heartbeat
            await until(lambda: UUID(run_id) not in stage.running.service._executor.live)
        await until(lambda: redis_client.xlen("stream:outbox:chat") == 1)
        assert await admin_conn.fetchval("SELECT count(*) FROM chat.outbox WHERE type = 'usage.settle'") == 1
        assert stage.quota.holds[run_id]["state"] == "settled"


@pytest.mark.invariant("RUN-1")
async def test_a_killed_replica_loses_no_accepted_message(
    stage_of, user, admin_conn, keys, postgres_server, database, redis_port, redis_client, tmp_path
):
    """RUN-1, W12: SIGKILL in the middle of answers; every accepted message ends, billed for what was produced."""
    stores = Stores(postgres_server.host, postgres_server.port, database, redis_port)
    async with stage_of(echo()) as survivor:
        root = Paths(tmp_path / "victim")
        urls = {
            name: {"service_url": stub.url, "internal_url": stub.url} for name, stub in survivor.running.stubs.items()
        }
        slow = {"provider": "echo", "echo": {"tokens": 4000, "delay_ms": 5}}
        mount(root, "intelligence", keys, stores, {"peers": urls, "llm": slow, "runs": FAST})
        victim = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.service.intelligence.replica",
            stdout=asyncio.subprocess.PIPE, env={**os.environ, ROOT_VARIABLE: str(root.root)}, cwd=Path.cwd(),
        )  # fmt: skip
        try:
            assert victim.stdout is not None
            async with asyncio.timeout(30):
                while not (line := await victim.stdout.readline()).startswith(b"http"):
                    assert line, "the replica ended before it served"
            async with httpx.AsyncClient(base_url=line.decode().strip(), timeout=10) as client:
                headers = survivor.running.headers(user)
                runs = [
                    (await client.post("/chat/runs", json={"message": QUESTION}, headers=headers)).json()["run_id"]
                    for _ in range(3)
                ]
            await until(lambda: all(_chunks(redis_client, run_id) for run_id in runs))
        finally:
            victim.send_signal(signal.SIGKILL)
            await victim.wait()
        killed = time.monotonic()
        for run_id in runs:
            run = await survivor.ended(run_id, user, within_s=12)
            assert run["status"] == "interrupted"
            await until(lambda run_id=run_id: survivor.quota.holds[run_id]["state"] == "settled")
            prompt = survivor.quota.holds[run_id]["asked"]["min_amount"] - 64
            seen = max(chunk["tokens"] for chunk in _chunks(redis_client, run_id))
            assert billed(survivor, run_id) == run["tokens_used"]
            assert prompt + seen <= billed(survivor, run_id) <= prompt + 4000
            text = "".join(chunk["text"] for chunk in _chunks(redis_client, run_id))
            history = (await survivor.get(f"/chat/history/{run['session_id']}", user)).json()
            assert (history[0]["input_text"], history[0]["output_text"]) == (QUESTION, text)
            streamed = Streamed()
            for line in (await survivor.get(f"/chat/runs/{run_id}/stream", user)).text.splitlines():
                streamed.add(line)
            assert (streamed.text, streamed.last["status"]) == (text, "interrupted")
        assert time.monotonic() - killed < FAST["stale_s"] + 10


async def test_a_drain_lets_short_answers_finish_and_interrupts_long_ones(stage_of, user, make_user, admin_conn):
    async with stage_of(echo(tokens=20, delay_ms=5)) as keeper:
        settings = echo(tokens=4000, delay_ms=5)
        async with stage_of(settings, beside=keeper) as leaving:
            long = (await leaving.post("/chat/runs", {"message": QUESTION}, user)).json()["run_id"]
            short = (await leaving.post("/chat/runs", {"message": QUESTION, "max_tokens": 10}, user)).json()["run_id"]
        states = {str(row["id"]): row for row in await admin_conn.fetch("SELECT * FROM chat.runs")}
        assert states[short]["status"] == "done"
        assert states[long]["status"] == "interrupted"
        assert billed(keeper, long) == states[long]["billed_tokens"] > 0


@pytest.mark.timeout(280)
async def test_two_hundred_open_streams_hold_no_connections(stage_of, user):
    """W16: on a pool of 5, with 200 answers being written, others are served at once."""
    llm = {"provider": "echo", "parallel": 250, "queue": 250, "echo": {"tokens": 500, "delay_ms": 1000}}
    async with stage_of({"llm": llm, "runs": FAST | {"stale_s": 30.0}}) as stage:
        unbounded = httpx.Limits(max_connections=None)
        stage.running.public = httpx.AsyncClient(base_url=stage.running.url, limits=unbounded, timeout=120)
        live = stage.running.service._executor.live
        streams: list[asyncio.Future[Streamed]] = []
        for opened in range(5, 201, 5):  # in groups: this is about open streams, not about a burst of arrivals
            streams += [asyncio.ensure_future(stage.stream(user)) for _ in range(5)]
            await until(lambda opened=opened: len(live) == opened, within_s=60)
        started = time.monotonic()
        assert (await stage.get("/chat/sessions", user)).status_code == 200
        assert time.monotonic() - started < 5
        for run_id in list(live):
            stage.running.service._executor.stop(run_id, Status.CANCELLED)
        results = await asyncio.gather(*streams)
        await stage.running.public.aclose()
    assert [streamed.last["status"] for streamed in results] == ["cancelled"] * 200


async def test_a_redis_that_stalls_loses_nothing_of_an_answer(stage_of, user, redis_client):
    """Our own reader goes on, and the stream has it all in the end, each event once."""
    async with stage_of(echo(tokens=60, delay_ms=5) | {"redis_timeout_s": 0.1}) as stage:
        streamed = Streamed()
        async with stage.open(user) as lines:
            async for line in lines:
                streamed.add(line)
                if len(streamed.frames) == 2 and line.startswith("data: "):
                    redis_client.client_pause(800, all=True)
        assert streamed.last["status"] == "done"
        assert streamed.text == " ".join(reply_words(QUESTION, 60))
        logs = stage.running.service._logs
        await until(lambda: logs.here(UUID(streamed.run_id)) is None)
        assert "".join(chunk["text"] for chunk in _chunks(redis_client, streamed.run_id)) == streamed.text
        stored = [entry_id for entry_id, _ in redis_client.xrange(f"run:{streamed.run_id}")]
        assert stored[-1] == streamed.ids[-1]
        assert len(stored) == len(streamed.ids)


def _chunks(redis_client, run_id: str) -> list[dict]:
    entries = redis_client.xrange(f"run:{run_id}")
    return [json.loads(fields["data"]) for _, fields in entries if fields["event"] == "chunk"]
