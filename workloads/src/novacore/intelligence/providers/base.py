"""What every provider is: a stream of pieces, then the usage.

Invariant LLM-1: a stream ends with exactly one `Usage`, or raises `ProviderError`; it never ends in silence, so that an
empty answer cannot pass for a reply. A cancelled stream ends with the usage of what was produced.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

MIN_COMPLETION = 64
"""A prompt must leave at least this much room for the answer (`min_amount` = prompt tokens + 64)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn as chat models take it."""

    role: Literal["system", "user", "assistant"]
    content: str

    def as_json(self) -> dict[str, str]:
        """Return the OpenAI form, which llama.cpp and Ollama read too."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Generation:
    """What is asked of a provider. `prompt_tokens` is the count the reservation was made with."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The prompt is being read; no token yet."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A bit of the answer. `tokens` counts all tokens produced so far, this piece included."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The provider's own count at the end. `finish` is `stop`, `length` or `cancelled`."""

    prompt: int
    completion: int
    cached: int
    finish: str


StreamItem = Progress | Piece | Usage


class FailureKind(StrEnum):
    """Why a provider failed; label of `novacore_llm_fallbacks_total{reason}`."""

    UNREACHABLE = "connection"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server"
    TOO_LONG = "context"  # the prompt does not fit the window
    REFUSED = "other"  # the request itself: bad key, unknown model, malformed


class ProviderError(Exception):
    """A provider could not answer. Carries no text of the provider: it may quote the prompt."""

    def __init__(self, kind: FailureKind, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.retry_after_s = retry_after_s


class Provider(Protocol):
    """One model at one place."""

    name: str
    model: str
    window: int
    parallel: int

    async def start(self) -> None:
        """Load or connect. ProviderError when not possible now; it is tried again later."""
        ...

    async def close(self) -> None:
        """Free what `start` took."""
        ...

    async def probe(self) -> bool:
        """Return whether a generation would be taken now."""
        ...

    async def count(self, messages: Sequence[Message]) -> int:
        """Return the prompt's tokens: exact where the model's tokenizer is at hand, else an upper estimate."""
        ...

    def stream(self, generation: Generation, cancel: asyncio.Event) -> AsyncGenerator[StreamItem]:
        """Yield pieces and at last the usage (LLM-1). Setting `cancel` ends it soon."""
        ...


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Return an upper estimate without a tokenizer: a token per 3 bytes of UTF-8, and 8 for each turn's frame.

    English is about 4 bytes per token in the common byte-pair vocabularies. The estimate only sizes the reservation;
    the provider's own count is what is settled.
    """
    return sum(len(message.content.encode()) // 3 + 8 for message in messages) + 8
