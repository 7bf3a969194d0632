"""The configured providers in order, with their queues, their cool-downs and what is measured about them.

Invariant LLM-2: another provider is tried only before the first byte of an answer; after it a failure ends the run.
A provider that failed rests for a time by the kind of the failure (or by its Retry-After); when all rest, the one that
may work soonest is tried anyway: a message is better refused by a model than by our memory of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from novacore.common.clock import Clock
from novacore.intelligence.providers.base import (
    MIN_COMPLETION,
    FailureKind,
    Generation,
    Message,
    Piece,
    Provider,
    ProviderError,
    StreamItem,
    Usage,
)
from novacore.intelligence.providers.echo import Echo
from novacore.intelligence.providers.embedded import Embedded
from novacore.intelligence.providers.queue import Places, QueueFullError
from novacore.intelligence.providers.remote import Ollama, OpenAI
from novacore.intelligence.settings import LlmSettings, ProviderSettings

REST_S: dict[FailureKind, float] = {
    FailureKind.UNREACHABLE: 5.0,
    FailureKind.TIMEOUT: 10.0,
    FailureKind.RATE_LIMITED: 30.0,
    FailureKind.SERVER_ERROR: 5.0,
    FailureKind.REFUSED: 60.0,  # a wrong key or an unknown model does not mend itself in seconds
    FailureKind.TOO_LONG: 0.0,  # the prompt's fault, not the provider's
}
REST_MAX_S = 300.0


class Meter(Protocol):
    """What the chain reports; the service turns it into metrics."""

    def request(self, provider: Provider, outcome: str, *, seconds: float, first_s: float | None) -> None:
        """One generation ended: `ok`, `error`, `timeout` or `cancelled`."""
        ...

    def fallback(self, reason: FailureKind) -> None:
        """The next provider was asked."""
        ...

    def queue(self, provider: Provider, *, depth: int, waited_s: float | None) -> None:
        """The queue changed; `waited_s` for one that got its place."""
        ...

    def up(self, provider: Provider, *, is_up: bool) -> None:
        """A probe answered."""
        ...


@dataclass(slots=True)
class Deployment:
    """One provider with its queue and its rest."""

    provider: Provider
    places: Places
    resting_until: float = 0.0
    is_up: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """First item of a chain's stream: who answers, after the wait in the queue."""

    provider: str
    model: str


class Chain:
    """Asks the first provider that can; the service sees one stream."""

    def __init__(self, deployments: Sequence[Deployment], *, clock: Clock, meter: Meter) -> None:
        self._deployments = tuple(deployments)
        self._clock = clock
        self._meter = meter

    @property
    def primary(self) -> Provider:
        """The first choice; the prompt is sized for it."""
        return self._deployments[0].provider

    @property
    def providers(self) -> tuple[Provider, ...]:
        """All, in order."""
        return tuple(deployment.provider for deployment in self._deployments)

    def is_up(self) -> bool:
        """Return whether any provider answered its last probe."""
        return any(deployment.is_up for deployment in self._deployments)

    def up(self, name: str) -> bool:
        """Return whether a provider of that name answered its last probe."""
        return any(deployment.is_up for deployment in self._deployments if deployment.provider.name == name)

    def full(self) -> bool:
        """Return whether a new message could not even wait at the first choice."""
        return self._deployments[0].places.full()

    async def measure(self) -> None:
        """Start what is not started and probe all. Called again and again: a late model is used without a restart."""
        for deployment in self._deployments:
            is_up = False
            try:
                await deployment.provider.start()
                is_up = await deployment.provider.probe()
            except ProviderError:
                is_up = False
            deployment.is_up = is_up
            self._meter.up(deployment.provider, is_up=is_up)

    async def close(self) -> None:
        """Close all providers."""
        for deployment in self._deployments:
            await deployment.provider.close()

    async def count(self, messages: Sequence[Message]) -> int:
        """Return the prompt's tokens by the first provider that can count."""
        failure: ProviderError | None = None
        for deployment in self._deployments:
            try:
                return await deployment.provider.count(messages)
            except ProviderError as error:
                failure = error
        raise failure or ProviderError(FailureKind.UNREACHABLE, "no provider is configured")

    async def stream(
        self, generation: Generation, cancel: asyncio.Event, *, priority: int = 0
    ) -> AsyncGenerator[Started | StreamItem]:
        """Yield `Started`, the pieces and the usage. ProviderError when no provider can (any more)."""
        failure: ProviderError | None = None
        for deployment in self._order():
            if failure is not None:
                self._meter.fallback(failure.kind)
            if generation.prompt_tokens + MIN_COMPLETION > deployment.provider.window:
                failure = ProviderError(FailureKind.TOO_LONG, "the prompt does not fit this model")
                continue
            attempt = _Attempt(self._meter, self._clock, deployment)
            try:
                async with aclosing(attempt.run(generation, cancel, priority)) as items:
                    async for item in items:
                        yield item
            except ProviderError as error:
                self._rest(deployment, error)
                if attempt.wrote:
                    raise
                failure = error
            else:
                return
        raise failure or ProviderError(FailureKind.UNREACHABLE, "no provider is configured")

    def _order(self) -> list[Deployment]:
        now = self._clock.monotonic()
        awake = [deployment for deployment in self._deployments if deployment.resting_until <= now]
        return awake or [min(self._deployments, key=lambda deployment: deployment.resting_until)]

    def _rest(self, deployment: Deployment, error: ProviderError) -> None:
        rest_s = REST_S[error.kind] if error.retry_after_s is None else min(error.retry_after_s, REST_MAX_S)
        deployment.resting_until = self._clock.monotonic() + rest_s


class _Attempt:
    """One provider's try at one generation, measured."""

    def __init__(self, meter: Meter, clock: Clock, deployment: Deployment) -> None:
        self._meter = meter
        self._clock = clock
        self._deployment = deployment
        self.wrote = False

    async def run(
        self, generation: Generation, cancel: asyncio.Event, priority: int
    ) -> AsyncGenerator[Started | StreamItem]:
        provider, places = self._deployment.provider, self._deployment.places
        asked = self._clock.monotonic()
        self._meter.queue(provider, depth=places.waiting + 1, waited_s=None)
        try:
            entered = await places.enter(priority, cancel)
        except QueueFullError:
            raise ProviderError(FailureKind.RATE_LIMITED, "the queue is full", retry_after_s=0.0) from None
        if not entered:
            self._meter.queue(provider, depth=places.waiting, waited_s=None)
            yield Usage(prompt=0, completion=0, cached=0, finish="cancelled")
            return
        try:
            began = self._clock.monotonic()
            self._meter.queue(provider, depth=places.waiting, waited_s=began - asked)
            yield Started(provider.name, provider.model)
            async with aclosing(self._measured(self._fitting(generation), cancel, began)) as items:
                async for item in items:
                    yield item
        finally:
            places.leave()
            self._meter.queue(provider, depth=places.waiting, waited_s=None)

    def _fitting(self, generation: Generation) -> Generation:
        room = self._deployment.provider.window - generation.prompt_tokens
        return replace(generation, max_tokens=max(1, min(generation.max_tokens, room)))

    async def _measured(
        self, generation: Generation, cancel: asyncio.Event, began: float
    ) -> AsyncGenerator[StreamItem]:
        provider = self._deployment.provider
        first: float | None = None
        outcome = "error"
        try:
            await provider.start()
            async with aclosing(provider.stream(generation, cancel)) as items:
                async for item in items:
                    if isinstance(item, Piece) and first is None:
                        first = self._clock.monotonic()
                        self.wrote = True
                    if isinstance(item, Usage):
                        outcome = "cancelled" if item.finish == "cancelled" else "ok"
                    yield item
        except ProviderError as error:
            outcome = "timeout" if error.kind is FailureKind.TIMEOUT else "error"
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        finally:
            seconds = self._clock.monotonic() - began
            self._meter.request(provider, outcome, seconds=seconds, first_s=None if first is None else first - began)


def build_chain(
    settings: LlmSettings,
    *,
    models: Path,
    clock: Clock,
    meter: Meter,
    key: Callable[[str], str | None] = lambda _name: None,
) -> Chain:
    """Return the chain the settings describe. `key(provider)` reads the provider's API key when it is needed."""
    deployments = [
        Deployment(_provider(one, models, key), Places(one.parallel, one.queue))
        for one in (settings, *settings.fallbacks)
    ]
    return Chain(deployments, clock=clock, meter=meter)


def _provider(settings: ProviderSettings, models: Path, key: Callable[[str], str | None]) -> Provider:
    match settings.provider:
        case "embedded":
            return Embedded(settings, models)
        case "ollama":
            return Ollama(settings, lambda: key("ollama"))
        case "openai":
            return OpenAI(settings, lambda: key("openai"))
        case "echo":
            return Echo(settings)


__all__ = ["Chain", "Deployment", "Meter", "Started", "build_chain"]
