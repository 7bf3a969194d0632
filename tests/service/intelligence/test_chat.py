"""A message's way from the door to its answer, and what is left behind."""

from __future__ import annotations

import asyncio
import json

import pytest

from novacore.intelligence.providers.echo import reply_words
from tests.service.intelligence.conftest import echo, until
from tests.service.intelligence.edge import DOUBTFUL, FORBIDDEN

QUESTION = "Hello there, friend."
REPLY = " ".join(reply_words(QUESTION, 24))


async def test_a_message_is_answered_billed_and_remembered(stage, user, admin_conn, redis_client):
    answer = await stage.post("/chat/message", {"message": f"  {QUESTION}  "}, user)

    assert answer.status_code == 200, answer.text
    chat = answer.json()
    assert set(chat) == {"response", "session_id", "tokens_used", "latency_ms", "run_id", "model", "status"}
    assert (chat["response"], chat["status"], chat["model"]) == (REPLY, "done", "echo")
    assert answer.headers["X-Run-Id"] == chat["run_id"]
    hold = stage.quota.holds[chat["run_id"]]
    assert hold["state"] == "settled"
    assert hold["actual"] == chat["tokens_used"] == hold["asked"]["min_amount"] - 64 + 24

    turn = stage.memories.stm[0]
    assert (turn["input"], turn["output"], turn["session_id"]) == (QUESTION, REPLY, chat["session_id"])
    stored = stage.memories.stored[f"run-{chat['run_id']}"]
    assert (stored["type"], stored["tier"], stored["input_context"]) == ("conversation", "itm", QUESTION)
    assert stage.memories.act_for == {str(user.id)}

    await until(lambda: redis_client.xlen("stream:reflection") == 1)
    entry = redis_client.xrange("stream:reflection")[0][1]
    envelope = json.loads(next(iter(entry.values())))
    assert envelope["type"] == "reflection.requested"
    assert envelope["user_id"] == str(user.id)
    assert envelope["payload"] == {
        "run_id": chat["run_id"], "session_id": chat["session_id"], "input": QUESTION, "output": REPLY, "context_ids": [],
    }  # fmt: skip
    await until(lambda: redis_client.xlen("stream:outbox:chat") == 1)
    assert await admin_conn.fetchval("SELECT policy_version FROM chat.runs") == 4
    assert await admin_conn.fetchval("SELECT count(*) FROM chat.runs WHERE follow_up_at IS NOT NULL") == 0


async def test_a_session_holds_its_exchanges(stage, user):
    first = (await stage.post("/chat/message", {"message": "One."}, user)).json()
    session = first["session_id"]
    await stage.post("/chat/message", {"message": "Two.", "session_id": session}, user)
    other = (await stage.post("/chat/message", {"message": "Three."}, user)).json()["session_id"]

    listed = (await stage.get("/chat/sessions", user)).json()
    assert [(entry["id"], entry["prompt_count"], entry["status"]) for entry in listed] == [
        (other, 1, "active"), (session, 2, "active"),
    ]  # fmt: skip
    assert [entry["id"] for entry in (await stage.get("/chat/sessions?limit=1", user)).json()] == [other]
    history = (await stage.get(f"/chat/history/{session}", user)).json()
    assert [entry["input_text"] for entry in history] == ["One.", "Two."]
    assert history[0]["tokens_used"] == first["tokens_used"]
    assert [entry["input_text"] for entry in (await stage.get(f"/chat/history/{session}?limit=1", user)).json()] == [
        "Two."
    ]


async def test_an_ended_session_takes_no_more_messages(stage, user):
    session = (await stage.post("/chat/message", {"message": "One."}, user)).json()["session_id"]
    ended = await stage.post(f"/chat/sessions/{session}/end", {}, user)
    assert (ended.json()["id"], ended.json()["status"]) == (session, "completed")
    assert (await stage.post(f"/chat/sessions/{session}/end", {}, user)).json() == ended.json()

    refused = await stage.post("/chat/message", {"message": "Two.", "session_id": session}, user)

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


async def test_an_idle_session_is_abandoned_and_a_message_wakes_it(stage, user, admin_conn):
    session = (await stage.post("/chat/message", {"message": "One."}, user)).json()["session_id"]
    await admin_conn.execute("UPDATE chat.sessions SET last_active_at = now() - interval '25 hours'")
    assert await admin_conn.fetchval("SELECT chat.abandon_idle_sessions('24 hours')") == 1
    assert (await stage.get("/chat/sessions", user)).json()[0]["status"] == "abandoned"

    await stage.post("/chat/message", {"message": "Two.", "session_id": session}, user)

    woken = (await stage.get("/chat/sessions", user)).json()[0]
    assert (woken["status"], woken["ended_at"]) == ("active", None)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": "   "},
        {"message": "x" * 4001},
        {"message": "hi", "max_tokens": 0},
        {"message": "hi", "max_tokens": 2001},
        {"message": "hi", "temperature": 2.1},
        {"message": "hi", "temperature": -0.1},
        {"message": "hi", "session_id": "not-a-uuid"},
        {"message": "hi", "user_id": "someone"},
        {"message": "hi", "context": "only for runs"},
    ],
)
async def test_a_wrong_body_is_400(stage, user, body):
    for path in ("/chat/message", "/chat/stream"):
        answer = await stage.post(path, body, user)
        assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert stage.quota.holds == {}


async def test_bounds_are_inclusive_and_old_fields_are_ignored(stage, user):
    body = {"message": "x" * 4000, "max_tokens": 2000, "temperature": 2, "stream": True}
    assert (await stage.post("/chat/message", body, user)).status_code == 200


@pytest.mark.parametrize("query", ["/chat/sessions?limit=0", "/chat/sessions?limit=51"])
async def test_list_bounds_are_kept(stage, user, query):
    assert (await stage.get(query, user)).status_code == 400


async def test_forbidden_input_is_422_and_costs_nothing(stage, user, admin_conn):
    answer = await stage.post("/chat/message", {"message": f"Something {FORBIDDEN}."}, user)

    assert (answer.status_code, answer.json()["code"]) == (422, "policy_blocked")
    assert answer.json()["rule_ids"] == ["harm-1"]
    assert stage.quota.holds == {}
    assert await admin_conn.fetchval("SELECT count(*) FROM chat.runs") == 0


async def test_an_attached_text_is_judged_like_the_message(stage, user):
    answer = await stage.post("/chat/runs", {"message": "Explain.", "context": f"This is {FORBIDDEN}."}, user)
    assert answer.status_code == 422


async def test_an_unjudged_message_is_refused(stage, user):
    stage.constitution.silent_input = True
    answer = await stage.post("/chat/message", {"message": "Hello."}, user)
    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_down")
    assert "retry-after" in answer.headers
    assert stage.quota.holds == {}


@pytest.mark.invariant("POLICY-1")
async def test_without_a_decision_nothing_is_streamed(stage, user):
    """POLICY-1, W19: noble-spirit goes away after the question; not one word of the answer passes."""
    stage.constitution.silent_output = True
    streamed = await stage.stream(user)

    assert streamed.text == ""
    assert (streamed.last["status"], streamed.last["code"]) == ("failed", "upstream_down")
    assert stage.quota.holds[streamed.run_id]["actual"] > 0, "what was produced is billed"
    assert (await stage.post("/chat/message", {"message": "Hello."}, user)).status_code == 503
    history = (await stage.get(f"/chat/history/{streamed.last['session_id']}", user)).json()
    assert history[0]["output_text"] == ""


@pytest.mark.invariant("POLICY-1")
async def test_a_blocked_sentence_never_reaches_the_wire(stage_of, user):
    """POLICY-1, W19"""
    async with stage_of(echo(tokens=60, delay_ms=3)) as stage:
        streamed = await stage.stream(user, f"a b c d e f g h. {FORBIDDEN}".replace(FORBIDDEN, ""))
        assert streamed.last["status"] == "done"
        original = stage.constitution.validate
        stage.running.stubs["noble-spirit"].on(
            "POST", "/policy/validate",
            lambda asked: original(asked) if asked.json["direction"] == "input" else _block_fillers(original, asked),
        )  # fmt: skip
        blocked = await stage.stream(user, "a b c d e f g h.")

    assert blocked.text == "You said: a b c d e f g h. "
    policy = next(frame for frame in blocked.frames if frame.get("event") == "policy")
    assert (policy["action"], policy["rule_ids"]) == ("block", ["harm-1"])
    assert blocked.last["status"] == "blocked"
    assert "calm" not in json.dumps(blocked.frames)
    hold = stage.quota.holds[blocked.run_id]
    assert hold["actual"] < stage.quota.holds[streamed.run_id]["actual"], "it stopped early"


def _block_fillers(original, asked):
    if "calm" in asked.json["content"]:
        asked.json["content"] = FORBIDDEN
    return original(asked)


async def test_a_blocked_answer_keeps_what_was_sent_and_is_not_remembered(stage_of, user, redis_client):
    async with stage_of(echo(tokens=40)) as stage:
        original = stage.constitution.validate
        stage.running.stubs["noble-spirit"].on(
            "POST", "/policy/validate", lambda asked: _block_fillers(original, asked)
        )
        answer = await stage.post("/chat/message", {"message": "a b c d e f g h."}, user)
        chat = answer.json()
        assert (answer.status_code, chat["status"]) == (200, "blocked")
        history = (await stage.get(f"/chat/history/{chat['session_id']}", user)).json()
        assert history[0]["output_text"] == chat["response"]
        assert stage.memories.stm == []
        assert stage.memories.stored == {}
        await until(lambda: redis_client.xlen("stream:outbox:chat") == 1)
        assert redis_client.xlen("stream:reflection") == 0


async def test_a_warning_is_told_and_passes(stage, user):
    streamed = await stage.stream(user, f"{DOUBTFUL} things happen.")
    assert any(frame.get("event") == "policy" and frame["action"] == "warn" for frame in streamed.frames)
    assert streamed.last["status"] == "done"


async def test_with_strict_policy_a_warning_stops(stage_of, user):
    async with stage_of(echo() | {"policy_strict": True}) as stage:
        assert (await stage.post("/chat/message", {"message": f"A {DOUBTFUL} thing."}, user)).status_code == 422


async def test_a_used_up_quota_is_429_with_its_figures(stage, user):
    stage.quota.left = 20
    answer = await stage.post("/chat/message", {"message": "Hello."}, user)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (429, "quota_exceeded")
    assert (problem["resource"], problem["used"], problem["limit"]) == ("llm_tokens", 990, 1000)
    assert problem["resets_at"] == "2030-01-01T00:00:00Z"
    assert int(answer.headers["Retry-After"]) > 0


async def test_an_ended_trial_is_402(stage, user):
    stage.quota.refusal = (402, {"code": "trial_over", "detail": "The trial has ended."})
    answer = await stage.post("/chat/message", {"message": "Hello."}, user)
    assert (answer.status_code, answer.json()["code"]) == (402, "trial_over")


async def test_a_silent_quota_is_503_and_leaves_no_hold(stage_of, user):
    """W12: the quota store is away, so nothing is given away."""

    async def slow(asked):
        quota.reserve(asked)
        await asyncio.sleep(1)
        return 200, {}

    async with stage_of(echo() | {"budgets": {"reserve_ms": 100}}) as stage:
        quota = stage.quota
        stage.running.stubs["auth-billing"].on("POST", "/internal/quota/reserve", slow)
        answer = await stage.post("/chat/message", {"message": "Hello."}, user)
        assert (answer.status_code, answer.json()["code"]) == (503, "upstream_down")
        assert [hold["state"] for hold in quota.holds.values()] == ["released"]


async def test_the_answer_stops_at_the_grant(stage_of, user):
    async with stage_of(echo(tokens=500)) as stage:
        prompt = (await stage.post("/chat/message", {"message": "Hello.", "max_tokens": 1}, user)).json()[
            "tokens_used"
        ] - 1
        stage.quota.left = prompt + 70
        chat = (await stage.post("/chat/message", {"message": "Hello."}, user)).json()
    assert chat["status"] == "done"
    assert chat["tokens_used"] == prompt + 70


@pytest.mark.invariant("END-2")
async def test_memory_away_leaves_the_context_out_and_is_paid_later(stage, user, admin_conn):
    """END-2"""
    stage.memories.away = True
    chat = (await stage.post("/chat/message", {"message": "Hello."}, user)).json()
    assert chat["status"] == "done"
    assert stage.running.service.context_left_out == 1
    assert await admin_conn.fetchval("SELECT count(*) FROM chat.runs WHERE follow_up_at IS NOT NULL") == 1

    stage.memories.away = False
    await admin_conn.execute("UPDATE chat.runs SET follow_up_at = now()")
    await until(lambda: len(stage.memories.stored) == 1)
    await until(lambda: admin_conn.fetchval("SELECT every(follow_up_at IS NULL) FROM chat.runs"))
    assert len(stage.memories.stm) == 1


async def test_a_full_memory_does_not_hurt_the_answer(stage, user, admin_conn):
    stage.memories.full = True
    assert (await stage.post("/chat/message", {"message": "Hello."}, user)).json()["status"] == "done"
    assert await admin_conn.fetchval("SELECT every(follow_up_at IS NULL) FROM chat.runs")


async def test_without_use_memory_nothing_is_read_or_kept(stage, user):
    await stage.post("/chat/message", {"message": "Hello.", "use_memory": False}, user)
    assert stage.running.stubs["memory"].asked == []


async def test_the_same_key_is_answered_once(stage, user):
    headers = {"Idempotency-Key": "k-1"}
    first = await stage.post("/chat/message", {"message": "Hello."}, user, **headers)
    again = await stage.post("/chat/message", {"message": "Hello."}, user, **headers)
    assert first.json() == again.json()
    assert len(stage.quota.holds) == 1

    other = await stage.post("/chat/message", {"message": "Something else."}, user, **headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_the_same_key_at_the_same_moment_is_one_run(stage_of, user):
    async with stage_of(echo(tokens=40, delay_ms=5)) as stage:
        body, headers = {"message": "Hello."}, {"Idempotency-Key": "k-2"}
        answers = await asyncio.gather(*(stage.post("/chat/message", body, user, **headers) for _ in range(5)))
        assert len({answer.json()["run_id"] for answer in answers}) == 1
        settled = [hold for hold in stage.quota.holds.values() if hold["state"] == "settled"]
        released = [hold for hold in stage.quota.holds.values() if hold["state"] == "released"]
        assert len(settled) == 1
        assert len(settled) + len(released) == len(stage.quota.holds)


async def test_a_key_of_another_user_is_another_key(stage, user, make_user):
    headers = {"Idempotency-Key": "k-3"}
    first = await stage.post("/chat/runs", {"message": "Hello."}, user, **headers)
    other = await stage.post("/chat/runs", {"message": "Hello."}, await make_user(), **headers)
    assert first.json()["run_id"] != other.json()["run_id"]


async def test_a_replayed_stream_says_it_again(stage, user):
    body = {"json": {"message": "Hello."}, "headers": stage.running.headers(user) | {"Idempotency-Key": "k-4"}}
    first = await stage.running.public.post("/chat/stream", **body)
    assert (await stage.running.public.post("/chat/stream", **body)).text == first.text


async def test_health_tells_old_clients_what_they_read(stage):
    await until(lambda: stage.running.platform.metrics.value("novacore_llm_provider_up", provider="echo") == 1)
    health = (await stage.running.public.get("/health")).json()
    assert health["status"] == "healthy"
    assert health.items() >= {"database": True, "ollama": False, "model_loaded": True, "gpu_available": False}.items()


async def test_the_model_metrics_live(stage, user):
    chat = (await stage.post("/chat/message", {"message": "Hello."}, user)).json()
    value = stage.running.platform.metrics.value
    assert value("novacore_llm_requests_total", provider="echo", model="echo", outcome="ok") == 1
    tokens = [value("novacore_llm_tokens_total", model="echo", type=kind) for kind in ("prompt", "completion")]
    assert sum(tokens) == chat["tokens_used"]
    assert tokens[1] == 24
    assert value("novacore_chat_messages_total", tier="pro") == 1
    exposed = (await stage.running.internal.get("/metrics")).text
    assert "gen_ai_server_time_to_first_token_seconds_count" in exposed


@pytest.mark.parametrize("path", ["/chat/message", "/chat/stream", "/chat/runs"])
async def test_only_gateway_and_mcp_server_may_ask(stage, user, path):
    for service, expected in (("gateway", {200, 202}), ("mcp-server", {200, 202}), ("memory", {403}), (None, {401})):
        headers = stage.running.headers(user, service=service)
        answer = await stage.running.public.post(path, json={"message": "Hello."}, headers=headers)
        assert answer.status_code in expected, service
    assert (
        await stage.running.public.post(path, json={"message": "Hi."}, headers=stage.running.headers())
    ).status_code == 401
