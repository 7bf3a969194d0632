"""Vectors: shape, cache, joined requests, batches; and the real model where its files are."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from novacore.common.metrics import Metrics
from novacore.memory.embeddings import (
    BATCH_MAX,
    Embedder,
    HashModel,
    MiniLm,
    ModelMissingError,
    Vector,
    _Waiting,
    alike,
    find_minilm,
    load,
)


class Counting(HashModel):
    """Remembers the batches; waits until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.fail = False

    def encode(self, texts: list[str]) -> Vector:
        assert self.go.wait(5)
        self.batches.append(texts)
        if self.fail:
            raise RuntimeError("no vectors today")
        return super().encode(texts)


@asynccontextmanager
async def running(model: Any) -> AsyncIterator[Embedder]:
    embedder = Embedder(model, Metrics("memory"))
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(embedder.run())
        try:
            yield embedder
        finally:
            model.go.set() if isinstance(model, Counting) else None
            loop.cancel()
            embedder.close()


async def test_equal_texts_are_encoded_once() -> None:
    model = Counting()
    async with running(model) as embedder:
        vectors = await asyncio.gather(*(embedder.embed("same words") for _ in range(5)))
        assert await embedder.embed("same words") == vectors[0]
    assert model.batches == [["same words"]]
    assert all(vector == vectors[0] for vector in vectors)
    assert len(vectors[0]) == 384
    assert math.isclose(sum(x * x for x in vectors[0]), 1, abs_tol=1e-5)


async def test_requests_that_wait_are_answered_together_and_rightly() -> None:
    model = Counting()
    model.go.clear()
    texts = [f"text number {n}" for n in range(20)]
    async with running(model) as embedder, asyncio.timeout(10):
        asked = asyncio.gather(*(embedder.embed(text) for text in texts))
        await asyncio.sleep(0)
        model.go.set()
        answers = await asked
    assert 1 < len(model.batches) < len(texts)
    assert all(len(batch) <= BATCH_MAX for batch in model.batches)
    expected = HashModel().encode(texts)
    assert np.allclose(np.array(answers), expected)


async def test_a_caller_that_leaves_takes_nobody_with_him() -> None:
    model = Counting()
    model.go.clear()
    async with running(model) as embedder, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        leaving = tasks.create_task(embedder.embed("shared"))
        staying = tasks.create_task(embedder.embed("shared"))
        await asyncio.sleep(0)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        model.go.set()
        assert len(await staying) == 384


async def test_a_failing_model_fails_its_callers_and_not_the_next_ones() -> None:
    model = Counting()
    model.fail = True
    async with running(model) as embedder, asyncio.timeout(10):
        with pytest.raises(RuntimeError):
            await embedder.embed("x")
        model.fail = False
        assert len(await embedder.embed("x")) == 384


async def test_batches_hold_texts_of_like_length() -> None:
    loop = asyncio.get_running_loop()
    waiting = [_Waiting(b"", "x" * n, loop.create_future()) for n in (1000, 5, 20, 900, 30)]
    assert [[len(entry.text) for entry in batch] for batch in alike(waiting)] == [[5, 20], [30], [900, 1000]]


def test_hash_vectors_know_shared_words_only() -> None:
    rows = HashModel().encode(["the red fox", "a red fox!", "blue sea", "", "???"])
    assert rows.shape == (5, 384)
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[0] @ rows[1] > 0.99
    assert abs(rows[0] @ rows[2]) < 0.5


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ModelMissingError, match=r"minilm\.onnx"):
        find_minilm(tmp_path)


def test_the_images_files_come_before_the_wheels(tmp_path: Path) -> None:
    for name in ("minilm.onnx", "tokenizer.json"):
        (tmp_path / name).touch()
    assert find_minilm(tmp_path).onnx == tmp_path / "minilm.onnx"


@pytest.mark.model
def test_minilm_agrees_with_the_models_published_similarities(tmp_path: Path) -> None:
    """The example of the model's card: 0.695, 0.943, 0.257; int8 costs a few hundredths."""
    model = load("minilm", tmp_path)
    assert isinstance(model, MiniLm)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    rows = model.encode(
        ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    )
    assert rows.shape == (4, 384)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.allclose(rows[0] @ rows[1:].T, [0.695, 0.943, 0.257], atol=0.06)


@pytest.mark.model
def test_minilm_gives_a_text_the_same_vector_in_any_company(tmp_path: Path) -> None:
    model = load("minilm", tmp_path)
    long = " ".join(f"word{n}" for n in range(1000))  # cut at 256 tokens
    alone = model.encode(["short text"])[0]
    together = model.encode(["short text", long, long + " more"])
    assert alone @ together[0] > 0.9999
    assert together[1] @ together[2] > 0.9999
