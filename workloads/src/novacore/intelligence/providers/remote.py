"""Models behind HTTP: Ollama's own API, and any endpoint that speaks OpenAI's chat completions.

One client session per provider. Errors become `ProviderError` by kind; an error's body is not read: it may quote the
prompt.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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
    estimate_tokens,
)
from novacore.intelligence.settings import ProviderSettings

CONNECT_S = 3.0
PROBE_S = 3.0
LINE_BYTES_MAX = 1 << 20


class _Remote:
    """What both have in common: the session, the error kinds, the estimate."""

    name = ""
    default_model = ""
    default_url = ""

    def __init__(self, settings: ProviderSettings, key: Callable[[], str | None]) -> None:
        self.model = settings.model or self.default_model
        self.window = settings.window
        self.parallel = settings.parallel
        self._url = (settings.base_url or self.default_url).rstrip("/")
        self._timeout_s = settings.timeout_seconds
        self._key = key
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the session; the server itself may come later."""
        if self._http is None:
            self._http = aiohttp.ClientSession(read_bufsize=LINE_BYTES_MAX)

    async def close(self) -> None:
        """Close the session."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def count(self, messages: Sequence[Message]) -> int:
        """Return an upper estimate: the tokenizer is not here, and nothing is downloaded."""
        return estimate_tokens(messages)

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def _answers(self, path: str) -> bool:
        if self._http is None:
            return False
        try:
            timeout = aiohttp.ClientTimeout(total=PROBE_S)
            async with self._http.get(f"{self._url}{path}", headers=self._headers(), timeout=timeout) as answer:
                return answer.status < 400
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    @asynccontextmanager
    async def _post(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send and check the status; every way to fail becomes one of our kinds."""
        if self._http is None:
            raise ProviderError(FailureKind.UNREACHABLE, "not started")
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_S)
        try:
            async with self._http.post(
                f"{self._url}{path}", json=body, headers=self._headers(), timeout=timeout
            ) as answer:
                if answer.status >= 400:
                    raise _refusal(answer)
                yield answer
        except TimeoutError:
            raise ProviderError(FailureKind.TIMEOUT, "no answer in time") from None
        except aiohttp.ClientConnectionError as error:
            raise ProviderError(FailureKind.UNREACHABLE, type(error).__name__) from None
        except (aiohttp.ClientError, ValueError) as error:
            raise ProviderError(FailureKind.SERVER_ERROR, type(error).__name__) from None


class OpenAI(_Remote):
    """`POST {base_url}/chat/completions`, streamed, with `stream_options.include_usage`."""

    name = "openai"
    default_model = "gpt-4o-mini"
    default_url = "https://api.openai.com/v1"

    async def probe(self) -> bool:
        """Return whether the model list can be read."""
        return await self._answers("/models")

    async def stream(self, generation: Generation, cancel: asyncio.Event) -> AsyncGenerator[StreamItem]:
        """Yield the deltas; one delta counts as one token until the usage arrives."""
        body = {
            "model": self.model,
            "messages": [message.as_json() for message in generation.messages],
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        produced, finish, usage = 0, "", None
        async with self._post("/chat/completions", body) as answer:
            async for line in _lines(answer, cancel):
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    finish = finish or "stop"
                    break
                chunk = json.loads(data)
                if "error" in chunk:
                    raise ProviderError(FailureKind.SERVER_ERROR, "the stream carried an error")
                usage = chunk.get("usage") or usage
                for choice in chunk.get("choices") or []:
                    finish = choice.get("finish_reason") or finish
                    text = (choice.get("delta") or {}).get("content")
                    if text:
                        produced += 1
                        yield Piece(text, produced)
        if not finish and not cancel.is_set():
            raise ProviderError(FailureKind.SERVER_ERROR, "the stream broke off")
        yield _usage(generation, produced, finish, cancel, usage=usage)


class Ollama(_Remote):
    """`POST {base_url}/api/chat`: one JSON object per line, the last with the counts."""

    name = "ollama"
    default_model = "mistral:7b-instruct-q4"
    default_url = "http://127.0.0.1:11434"

    async def probe(self) -> bool:
        """Return whether the server lists its models."""
        return await self._answers("/api/tags")

    async def stream(self, generation: Generation, cancel: asyncio.Event) -> AsyncGenerator[StreamItem]:
        """Yield the messages; one line counts as one token until the counts arrive."""
        body = {
            "model": self.model,
            "messages": [message.as_json() for message in generation.messages],
            "stream": True,
            "options": {
                "num_predict": generation.max_tokens,
                "temperature": generation.temperature,
                "num_ctx": self.window,
            },
        }
        produced, last = 0, None
        async with self._post("/api/chat", body) as answer:
            async for line in _lines(answer, cancel):
                chunk = json.loads(line)
                if "error" in chunk:
                    raise ProviderError(FailureKind.SERVER_ERROR, "the stream carried an error")
                text = (chunk.get("message") or {}).get("content")
                if text:
                    produced += 1
                    yield Piece(text, produced)
                elif not chunk.get("done"):
                    yield Progress()
                if chunk.get("done"):
                    last = chunk
                    break
        if last is None and not cancel.is_set():
            raise ProviderError(FailureKind.SERVER_ERROR, "the stream broke off")
        usage = None
        if last is not None and "eval_count" in last:
            usage = {"prompt_tokens": last.get("prompt_eval_count"), "completion_tokens": last["eval_count"]}
        yield _usage(generation, produced, (last or {}).get("done_reason") or "stop", cancel, usage=usage)


async def _lines(answer: aiohttp.ClientResponse, cancel: asyncio.Event) -> AsyncGenerator[str]:
    """Yield the non-empty lines until the end or until `cancel`; a silent server does not delay the cancel."""
    stopped = asyncio.ensure_future(cancel.wait())
    try:
        while not cancel.is_set():
            read = asyncio.ensure_future(answer.content.readline())
            try:
                await asyncio.wait({read, stopped}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not read.done():
                    read.cancel()
            if not read.done() or read.cancelled() or cancel.is_set():
                return
            raw = read.result()
            if not raw:
                return
            if line := raw.decode("utf-8", "replace").strip():
                yield line
    finally:
        stopped.cancel()


def _usage(
    generation: Generation, produced: int, finish: str, cancel: asyncio.Event, *, usage: dict[str, Any] | None
) -> Usage:
    if cancel.is_set():
        finish = "cancelled"
    if usage is None:
        return Usage(generation.prompt_tokens, produced, 0, finish)
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt=int(usage.get("prompt_tokens") or generation.prompt_tokens),
        completion=int(usage.get("completion_tokens") or produced),
        cached=int(details.get("cached_tokens") or 0),
        finish=finish,
    )


def _refusal(answer: aiohttp.ClientResponse) -> ProviderError:
    if answer.status == 429:
        return ProviderError(FailureKind.RATE_LIMITED, "429", retry_after_s=_seconds(answer.headers.get("Retry-After")))
    if answer.status in {408, 504}:
        return ProviderError(FailureKind.TIMEOUT, str(answer.status))
    if answer.status == 413:
        return ProviderError(FailureKind.TOO_LONG, str(answer.status))
    if answer.status < 500:
        return ProviderError(FailureKind.REFUSED, str(answer.status))
    return ProviderError(
        FailureKind.SERVER_ERROR, str(answer.status), retry_after_s=_seconds(answer.headers.get("Retry-After"))
    )


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isdigit() else None
