"""What reaches the model, models that come late, and the whole way with the model on board."""

from __future__ import annotations

import json
import socket

import pytest
from aiohttp import web

from tests.service.intelligence.conftest import FAST, until
from tests.service.intelligence.edge import Memories


class OpenAIServer:
    """A server of OpenAI's form that remembers what it was asked; it can be started late."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.asked: list[dict] = []
        self._runner: web.AppRunner | None = None

    @property
    def settings(self) -> dict:
        url = f"http://127.0.0.1:{self.port}/v1"
        return {"llm": {"provider": "openai", "model": "m", "base_url": url}, "runs": FAST}

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        response = web.StreamResponse()
        await response.prepare(request)
        chunks = [
            {"choices": [{"delta": {"content": "Bello."}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 33, "completion_tokens": 4}},
        ]
        for chunk in chunks:
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


@pytest.fixture
async def server():
    one = OpenAIServer()
    await one.start()
    yield one
    await one.stop()


def knowing(memories: Memories) -> None:
    memories.context = {
        "stm": [{"input": "We spoke of dogs.", "output": "Yes."}],
        "itm": [
            {"id": "i1", "type": "conversation", "input": "Likes long walks.", "outcome": "neutral", "access_count": 2}
        ],
        "ltm": [{"id": "l1", "type": "lesson", "input": "The dog is called Bello.", "confidence": 0.9}],
        "principles": [{"principle": "Name what you know."}],
    }


async def test_a_planted_fact_reaches_the_model_and_the_reflection(stage_of, server, user, admin_conn):
    """W17"""
    async with stage_of(server.settings) as stage:
        knowing(stage.memories)
        chat = (await stage.post("/chat/message", {"message": "What is my dog called?"}, user)).json()
    assert chat["response"] == "Bello."
    assert chat["tokens_used"] == 37, "the provider's own count is billed"
    system, question = server.asked[0]["messages"]
    for text in ("The dog is called Bello.", "Name what you know.", "Likes long walks.", "We spoke of dogs."):
        assert text in system["content"]
    assert question == {"role": "user", "content": "What is my dog called?"}
    payload = await admin_conn.fetchval("SELECT payload FROM chat.outbox WHERE type = 'reflection.requested'")
    assert payload["context_ids"] == ["l1", "i1"]


async def test_without_short_term_memory_the_stored_exchanges_are_read(stage_of, server, user):
    async with stage_of(server.settings) as stage:
        first = (await stage.post("/chat/message", {"message": "My dog is Bello."}, user)).json()
        body = {"message": "What is my dog called?", "session_id": first["session_id"]}
        await stage.post("/chat/message", body, user)
    assert "User: My dog is Bello." in server.asked[1]["messages"][0]["content"]


async def test_a_model_that_comes_late_is_used_without_a_restart(stage_of, user):
    """W16"""
    server = OpenAIServer()
    async with stage_of(server.settings) as stage:
        assert (await stage.post("/chat/message", {"message": "Hello."}, user)).status_code == 502
        assert (await stage.running.public.get("/health")).json()["status"] == "degraded"
        assert (await stage.running.internal.get("/readyz")).status_code == 503, "a wrong address is no roll-out"
        assert (await stage.running.internal.get("/livez")).status_code == 200
        await server.start()
        up = stage.running.platform.metrics.value
        await until(lambda: up("novacore_llm_provider_up", provider="openai") == 1)
        assert (await stage.running.internal.get("/readyz")).status_code == 200
        assert (await stage.post("/chat/message", {"message": "Hello."}, user)).json()["response"] == "Bello."
        await server.stop()
        assert (await stage.post("/chat/message", {"message": "Hello."}, user)).status_code == 502
        assert (await stage.running.internal.get("/readyz")).status_code == 200, "a model that goes degrades, no more"


@pytest.mark.model
async def test_the_model_on_board_answers_through_the_service(stage_of, user):
    async with stage_of({"llm": {"provider": "embedded"}, "runs": FAST}) as stage:
        await until(lambda: stage.running.platform.metrics.value("novacore_llm_provider_up", provider="embedded") == 1)
        assert (await stage.running.internal.get("/readyz")).json()["checks"]["model"] is True
        knowing(stage.memories)
        body = {"message": "What is my dog called?", "max_tokens": 40, "temperature": 0}
        chat = (await stage.post("/chat/message", body, user)).json()
        assert chat["status"] == "done"
        assert "Bello" in chat["response"]
        asked = stage.quota.holds[chat["run_id"]]["asked"]
        assert asked["amount"] - 40 < chat["tokens_used"] <= asked["amount"], "reserved by the exact count"


@pytest.mark.model
async def test_a_text_no_window_holds_is_refused_before_it_costs(stage_of, user):
    async with stage_of({"llm": {"provider": "embedded"}, "runs": FAST}) as stage:
        await until(lambda: stage.running.platform.metrics.value("novacore_llm_provider_up", provider="embedded") == 1)
        answer = await stage.post("/chat/message", {"message": "🎉" * 4000}, user)
        assert (answer.status_code, answer.json()["code"]) == (422, "message_too_long")
        assert stage.quota.holds == {}
        fits = await stage.post(
            "/chat/runs", {"message": "Sum it up.", "context": "word " * 6000, "max_tokens": 5}, user
        )
        hold = stage.quota.holds[fits.json()["run_id"]]
        assert hold["asked"]["amount"] <= 768 + 5
        assert (await stage.ended(fits.json()["run_id"], user, within_s=60))["status"] == "done"
