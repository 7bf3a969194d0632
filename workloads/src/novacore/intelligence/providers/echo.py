"""A deterministic model for tests and load runs: known tokens, a settable pace, failure at a chosen token.

One token is one word. The reply names the question's first words, so that answers of different users differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from novacore.intelligence.providers.base import (
    FailureKind,
    Generation,
    Message,
    Piece,
    ProviderError,
    StreamItem,
    Usage,
)
from novacore.intelligence.settings import ProviderSettings

FILLER = ("one", "calm", "step", "after", "another", "makes", "the", "way.")


class Echo:
    """Words in a row; every eighth filler word ends a sentence."""

    name = "echo"
    window = 32_768

    def __init__(self, settings: ProviderSettings) -> None:
        self.model = settings.model or "echo"
        self.parallel = settings.parallel
        self._echo = settings.echo

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def probe(self) -> bool:
        """Return True: it is always there."""
        return True

    async def count(self, messages: Sequence[Message]) -> int:
        """Return the words of all messages."""
        return sum(len(message.content.split()) for message in messages)

    async def stream(self, generation: Generation, cancel: asyncio.Event) -> AsyncGenerator[StreamItem]:
        """Yield `echo.tokens` words, at most `max_tokens`."""
        words = reply_words(generation.messages[-1].content, self._echo.tokens)
        produced = 0
        for word in words[: generation.max_tokens]:
            if produced == self._echo.fail_at:
                raise ProviderError(FailureKind.SERVER_ERROR, "echo was told to fail here")
            if self._echo.delay_ms:
                await _pause(self._echo.delay_ms / 1000, cancel)
            if cancel.is_set():
                yield Usage(prompt=generation.prompt_tokens, completion=produced, cached=0, finish="cancelled")
                return
            produced += 1
            yield Piece(word if produced == 1 else f" {word}", produced)
        finish = "stop" if produced == len(words) else "length"
        yield Usage(prompt=generation.prompt_tokens, completion=produced, cached=0, finish=finish)


def reply_words(question: str, count: int) -> list[str]:
    """Return exactly `count` words: the question's first eight as a sentence, then filler sentences."""
    opening = question.split()[:8]
    words = ["You", "said:", *opening[:-1], f"{opening[-1].rstrip('.!?')}."] if opening else ["You", "said", "nothing."]
    while len(words) < count:
        words.extend(FILLER)
    return words[:count]


async def _pause(seconds: float, cancel: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(cancel.wait(), seconds)
    except TimeoutError:
        return
