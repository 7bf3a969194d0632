"""Ollama and OpenAI-compatible servers: held to their real wire shapes by a small server of ours."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from novacore.intelligence.providers.base import FailureKind, Generation, Message, Piece, ProviderError, Usage
from novacore.intelligence.providers.remote import Ollama, OpenAI
from novacore.intelligence.settings import ProviderSettings

GENERATION = Generation((Message("system", "Be kind."), Message("user", "Hi")), 20, 0.5, 11)


def openai_chunks(words, *, usage=True, done=True):
    for word in words:
        yield f"data: {json.dumps({'choices': [{'delta': {'content': word}, 'finish_reason': None}]})}\n\n"
    if done:
        yield f"data: {json.dumps({'choices': [{'delta': {}, 'finish_reason': 'stop'}]})}\n\n"
    if usage:
        counts = {"prompt_tokens": 14, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
        yield f"data: {json.dumps({'choices': [], 'usage': counts})}\n\n"
    if done:
        yield "data: [DONE]\n\n"


def ollama_lines(words, *, done=True):
    for word in words:
        yield json.dumps({"message": {"role": "assistant", "content": word}, "done": False}) + "\n"
    if done:
        yield json.dumps({"done": True, "done_reason": "stop", "prompt_eval_count": 14, "eval_count": 5}) + "\n"


@asynccontextmanager
async def server(lines=(), *, status=200, headers=None, hang=False, seen=None):
    async def answer(request):
        if seen is not None:
            seen.append((request.path, dict(request.headers), await request.json()))
        if status != 200:
            return web.json_response({"error": "quotes the prompt"}, status=status, headers=headers)
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line.encode())
        if hang:
            await asyncio.sleep(30)
        return response

    async def models(_request):
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    app.router.add_get("/{tail:.*}", models)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def provider(kind, url, key=None, **settings):
    one = kind(ProviderSettings(provider=kind.name, model="m", base_url=url, **settings), lambda: key)
    await one.start()
    try:
        yield one
    finally:
        await one.close()


async def read(one, cancel=None):
    return [item async for item in one.stream(GENERATION, cancel or asyncio.Event())]


async def test_openai_gives_the_deltas_and_its_own_usage():
    seen: list = []
    async with server(openai_chunks(["Hel", "lo"]), seen=seen) as url, provider(OpenAI, url, key="k") as one:
        items = await read(one)
    assert items == [Piece("Hel", 1), Piece("lo", 2), Usage(14, 5, 2, "stop")]
    path, headers, body = seen[0]
    assert path == "/chat/completions"
    assert headers["Authorization"] == "Bearer k"
    assert body["stream_options"] == {"include_usage": True}
    assert body["messages"][1] == {"role": "user", "content": "Hi"}


async def test_ollama_gives_the_lines_and_its_own_counts():
    seen: list = []
    async with server(ollama_lines(["Hel", "lo"]), seen=seen) as url, provider(Ollama, url) as one:
        items = await read(one)
    assert items == [Piece("Hel", 1), Piece("lo", 2), Usage(14, 5, 0, "stop")]
    assert seen[0][0] == "/api/chat"
    assert seen[0][2]["options"]["num_predict"] == 20


async def test_without_a_usage_the_pieces_count():
    async with server(openai_chunks(["a", "b", "c"], usage=False)) as url, provider(OpenAI, url) as one:
        assert (await read(one))[-1] == Usage(11, 3, 0, "stop")


@pytest.mark.invariant("LLM-1")
@pytest.mark.parametrize("kind", [OpenAI, Ollama])
@pytest.mark.parametrize("words", [["half", " an"], []])
async def test_a_stream_that_breaks_off_is_a_failure_and_not_an_answer(kind, words):
    """LLM-1"""
    lines = openai_chunks(words, usage=False, done=False) if kind is OpenAI else ollama_lines(words, done=False)
    async with server(lines) as url, provider(kind, url) as one:
        with pytest.raises(ProviderError) as failure:
            await read(one)
    assert failure.value.kind is FailureKind.SERVER_ERROR


@pytest.mark.parametrize("kind", [OpenAI, Ollama])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, FailureKind.REFUSED),
        (401, FailureKind.REFUSED),
        (404, FailureKind.REFUSED),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.SERVER_ERROR),
        (503, FailureKind.SERVER_ERROR),
    ],
)
async def test_a_refusal_has_a_kind_and_no_text_of_the_server(kind, status, expected):
    async with server(status=status, headers={"Retry-After": "7"}) as url, provider(kind, url) as one:
        with pytest.raises(ProviderError) as failure:
            await read(one)
    assert failure.value.kind is expected
    assert "quotes" not in str(failure.value)
    if status in (429, 503):
        assert failure.value.retry_after_s == 7


@pytest.mark.parametrize("kind", [OpenAI, Ollama])
async def test_a_cancel_does_not_wait_for_a_silent_server(kind):
    lines = openai_chunks(["a"], usage=False, done=False) if kind is OpenAI else ollama_lines(["a"], done=False)
    cancel = asyncio.Event()
    async with server(lines, hang=True) as url, provider(kind, url) as one:
        items = []
        async with asyncio.timeout(5):
            async for item in one.stream(GENERATION, cancel):
                items.append(item)
                cancel.set()
    assert items == [Piece("a", 1), Usage(11, 1, 0, "cancelled")]


async def test_a_silent_server_is_a_timeout():
    async with server([], hang=True) as url, provider(OpenAI, url, timeout_seconds=0.2) as one:
        with pytest.raises(ProviderError) as failure:
            await read(one)
    assert failure.value.kind is FailureKind.TIMEOUT


@pytest.mark.parametrize("kind", [OpenAI, Ollama])
async def test_no_server_is_unreachable_and_seen_by_the_probe(kind):
    async with provider(kind, "http://127.0.0.1:9") as one:
        assert await one.probe() is False
        with pytest.raises(ProviderError) as failure:
            await read(one)
    assert failure.value.kind is FailureKind.UNREACHABLE


@pytest.mark.parametrize("kind", [OpenAI, Ollama])
async def test_a_server_that_came_is_seen_by_the_probe(kind):
    async with server() as url, provider(kind, url) as one:
        assert await one.probe() is True
