"""The model on board. Chunks are read without it; tests marked `model` load it."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from contextlib import aclosing
from pathlib import Path

import pytest

from novacore.intelligence.prompt import notes_of, render
from novacore.intelligence.providers.base import FailureKind, Generation, Message, Piece, Progress, ProviderError, Usage
from novacore.intelligence.providers.embedded import SLOT_TOKENS, ChunkReader, Embedded, weights
from novacore.intelligence.settings import ProviderSettings


def test_a_character_of_three_tokens_counts_three():
    reader = ChunkReader(10)
    chunk = {"choices": [{"delta": {"content": "🎉"}, "finish_reason": None}], "timings": {"predicted_n": 3}}
    assert reader.read(chunk) == [Piece("🎉", 3)]
    assert reader.end(cancelled=True) == Usage(10, 3, 0, "cancelled")


def test_reading_the_prompt_is_progress_and_no_text():
    reader = ChunkReader(10)
    assert reader.read({"choices": [{"delta": {"role": "assistant", "content": None}}]}) == [Progress()]
    assert reader.read({"choices": []}) == [Progress()]


def test_the_usage_of_the_model_is_the_last_word():
    reader = ChunkReader(10)
    reader.read({"choices": [{"delta": {}, "finish_reason": "length"}]})
    reader.read({"choices": [], "usage": {"completion_tokens": 7, "prompt_tokens": 12}, "timings": {"cache_n": 4}})
    assert reader.end(cancelled=False) == Usage(12, 7, 4, "length")


@pytest.mark.invariant("LLM-1")
def test_an_error_chunk_is_a_failure_and_not_an_empty_answer():
    """LLM-1"""
    reader = ChunkReader(10)
    reader.read({"error": {"code": 400, "type": "exceed_context_size_error", "message": "quotes"}})
    end = reader.end(cancelled=False)
    assert isinstance(end, ProviderError)
    assert end.kind is FailureKind.TOO_LONG


@pytest.mark.invariant("LLM-1")
def test_an_end_without_a_usage_is_a_failure():
    """LLM-1"""
    assert isinstance(ChunkReader(1).end(cancelled=False), ProviderError)


def test_the_image_comes_before_the_wheel(tmp_path: Path):
    (tmp_path / "smollm2-135m-instruct.gguf").write_bytes(b"GGUF")
    assert weights(tmp_path) == tmp_path / "smollm2-135m-instruct.gguf"


async def test_weights_that_do_not_load_are_a_provider_that_is_down(tmp_path: Path):
    (tmp_path / "smollm2-135m-instruct.gguf").write_bytes(b"not a model")
    one = Embedded(ProviderSettings(), tmp_path)
    with pytest.raises(ProviderError):
        await one.start()
    assert await one.probe() is False
    with pytest.raises(ProviderError):
        await one.count([Message("user", "hi")])


@pytest.fixture(scope="module")
async def model():
    one = Embedded(ProviderSettings(), Path("/nowhere"))
    await one.start()
    yield one
    await one.close()


async def generation(model: Embedded, text: str, *, max_tokens: int, temperature: float = 0.0) -> Generation:
    messages = (Message("system", "You are helpful."), Message("user", text))
    return Generation(messages, max_tokens, temperature, await model.count(messages))


@pytest.mark.model
async def test_the_model_answers_from_what_it_is_given_and_its_count_is_exact(model):
    notes = notes_of({"ltm": [{"id": "1", "input": "The user's dog is called Bello and likes apples."}]}, [])
    messages = render(notes, "What is my dog called?")
    asked = Generation(messages, 24, 0.0, await model.count(messages))
    items = [item async for item in model.stream(asked, asyncio.Event())]
    text = "".join(item.text for item in items if isinstance(item, Piece))
    usage = items[-1]
    assert "Bello" in text
    assert isinstance(usage, Usage)
    assert usage.prompt == asked.prompt_tokens, "what is reserved is what is read"
    assert 0 < usage.completion <= 24


@pytest.mark.model
async def test_the_model_stops_when_told(model):
    cancel = asyncio.Event()
    asked = await generation(model, "Write a very long story about a ship.", max_tokens=1500)
    async with aclosing(model.stream(asked, cancel)) as items:
        async for item in items:
            if isinstance(item, Piece) and item.tokens >= 5:
                cancel.set()
            last = item
    assert isinstance(last, Usage)
    assert last.finish == "cancelled"
    assert 5 <= last.completion < 100


@pytest.mark.model
async def test_the_model_stops_while_it_reads(model):
    async def read(text: str, cancel: asyncio.Event, *, stop: bool) -> tuple[Usage, float]:
        asked = await generation(model, text, max_tokens=1)
        started = time.monotonic()
        async with aclosing(model.stream(asked, cancel)) as items:
            async for item in items:
                if stop:
                    cancel.set()
                last = item
        assert isinstance(last, Usage)
        return last, time.monotonic() - started

    # Two texts without a common beginning: the second run would find the first one's reading in the cache.
    stopped, stopped_s = await read("word " * 800, asyncio.Event(), stop=True)
    _, whole_s = await read("term " * 800, asyncio.Event(), stop=False)
    assert stopped.completion == 0
    assert stopped_s < whole_s / 2


@pytest.mark.model
async def test_a_reader_that_leaves_frees_the_thread(model):
    for _ in range(model.parallel + 2):
        asked = await generation(model, "Count to a thousand.", max_tokens=1500)
        async with aclosing(model.stream(asked, asyncio.Event())) as items:
            async for item in items:
                if isinstance(item, Piece):
                    break
    short = await generation(model, "Say yes.", max_tokens=3)
    async with asyncio.timeout(30):
        assert isinstance([item async for item in model.stream(short, asyncio.Event())][-1], Usage)


@pytest.mark.model
async def test_four_answers_are_written_at_the_same_time(model):
    first: list[float] = []
    ends: list[float] = []

    async def one(n: int) -> None:
        asked = await generation(model, f"Tell me about the number {n}.", max_tokens=60, temperature=0.7)
        began = False
        async for item in model.stream(asked, asyncio.Event()):
            if isinstance(item, Piece) and not began:
                began = True
                first.append(time.monotonic())
        ends.append(time.monotonic())

    async with asyncio.TaskGroup() as tasks:
        for n in range(4):
            tasks.create_task(one(n))
    assert max(first) < min(ends), "the last begins before the first is done"


@pytest.mark.model
async def test_a_prompt_that_does_not_fit_is_a_failure(model):
    asked = await generation(model, "word " * 3000, max_tokens=10)
    assert asked.prompt_tokens > SLOT_TOKENS
    with pytest.raises(ProviderError) as failure:
        [item async for item in model.stream(asked, asyncio.Event())]
    assert failure.value.kind is FailureKind.TOO_LONG


@pytest.mark.model
async def test_its_loopback_port_is_closed_to_others(model):
    url = f"{model._server.listening_address}/v1/chat/completions"
    request = urllib.request.Request(url, data=b'{"messages": []}', headers={"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        await asyncio.to_thread(urllib.request.urlopen, request, timeout=5)
    assert refused.value.code == 401
