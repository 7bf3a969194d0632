"""The chain: fallbacks before the first byte, cool-downs, queues; the deterministic model."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacore.intelligence.providers.base import (
    FailureKind,
    Generation,
    Message,
    Piece,
    ProviderError,
    Usage,
    estimate_tokens,
)
from novacore.intelligence.providers.chain import REST_S, Chain, Deployment, Started, build_chain
from novacore.intelligence.providers.echo import Echo, reply_words
from novacore.intelligence.providers.queue import Places, QueueFullError
from novacore.intelligence.settings import LlmSettings, ProviderSettings


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at

    def now(self):
        raise NotImplementedError


class Notebook:
    """A meter that remembers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fallbacks: list[str] = []

    def request(self, provider, outcome, *, seconds, first_s):
        self.requests.append((provider.model, outcome))

    def fallback(self, reason):
        self.fallbacks.append(reason.value)

    def queue(self, provider, *, depth, waited_s): ...

    def up(self, provider, *, is_up): ...


def echo(model: str, **changes) -> Echo:
    return Echo(ProviderSettings(provider="echo", model=model, echo=changes))


def chain_of(*providers, clock=None, meter=None, places=4, queue=4) -> Chain:
    deployments = [Deployment(provider, Places(places, queue)) for provider in providers]
    return Chain(deployments, clock=clock or HandClock(), meter=meter or Notebook())


def ask(text="Hello there.", *, max_tokens=50, prompt_tokens=3) -> Generation:
    return Generation((Message("user", text),), max_tokens, 0.0, prompt_tokens)


async def read(chain: Chain, generation=None, *, cancel=None, priority=0) -> list:
    stream = chain.stream(generation or ask(), cancel or asyncio.Event(), priority=priority)
    async with aclosing(stream) as items:
        return [item async for item in items]


def text_of(items: list) -> str:
    return "".join(item.text for item in items if isinstance(item, Piece))


async def test_echo_gives_exactly_the_tokens_it_is_told():
    items = await read(chain_of(echo("e", tokens=12)))
    assert items[0] == Started("echo", "e")
    assert items[-1] == Usage(prompt=3, completion=12, cached=0, finish="stop")
    assert text_of(items) == " ".join(reply_words("Hello there.", 12))


async def test_echo_stops_at_the_grant():
    assert (await read(chain_of(echo("e", tokens=12)), ask(max_tokens=5)))[-1] == Usage(3, 5, 0, "length")


async def test_echo_says_the_same_again():
    assert await read(chain_of(echo("e"))) == await read(chain_of(echo("e")))


async def test_a_cancel_ends_with_what_was_produced():
    cancel = asyncio.Event()
    produced = 0
    async with aclosing(chain_of(echo("e", tokens=1000, delay_ms=1)).stream(ask(max_tokens=999), cancel)) as items:
        async for item in items:
            if isinstance(item, Piece):
                produced = item.tokens
                if produced == 3:
                    cancel.set()
            last = item
    assert last == Usage(3, produced, 0, "cancelled")


async def test_the_next_provider_answers_when_the_first_cannot():
    meter = Notebook()
    items = await read(chain_of(echo("a", fail_at=0), echo("b", tokens=4), meter=meter))
    assert [item for item in items if isinstance(item, Started)] == [Started("echo", "a"), Started("echo", "b")]
    assert items[-1].completion == 4
    assert meter.fallbacks == ["server"]
    assert meter.requests == [("a", "error"), ("b", "ok")]


@pytest.mark.invariant("LLM-2")
async def test_no_other_provider_after_the_first_byte():
    """LLM-2"""
    meter = Notebook()
    with pytest.raises(ProviderError):
        await read(chain_of(echo("a", fail_at=2), echo("b"), meter=meter))
    assert meter.fallbacks == []


@pytest.mark.invariant("LLM-2")
@given(fail_at=st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
async def test_an_answer_is_of_one_provider_whole(fail_at):
    """LLM-2: whatever fails where, all text is of the last provider that started."""
    chain = chain_of(*(echo(str(n), fail_at=at, tokens=6) for n, at in enumerate(fail_at)))
    seen: list = []
    with suppress(ProviderError):
        async with aclosing(chain.stream(ask(), asyncio.Event())) as items:
            async for item in items:
                seen.append(item)  # noqa: PERF401 - a comprehension would lose what came before the failure
    first_piece = next((n for n, item in enumerate(seen) if isinstance(item, Piece)), len(seen))
    assert not any(isinstance(item, Started) for item in seen[first_piece:])
    whole = isinstance(seen[-1], Usage)
    assert whole == any(at is None for at in fail_at[: _first_writer(fail_at) + 1])


def _first_writer(fail_at: list[int | None]) -> int:
    return next((n for n, at in enumerate(fail_at) if at != 0), len(fail_at))


async def test_a_failed_provider_rests_and_is_asked_again():
    clock, first = HandClock(), echo("a", fail_at=0)
    chain = chain_of(first, echo("b"), clock=clock)
    await read(chain)
    assert (await read(chain))[0] == Started("echo", "b")
    clock.at += REST_S[FailureKind.SERVER_ERROR] + 1
    assert (await read(chain))[0] == Started("echo", "a")


async def test_when_all_rest_the_one_that_may_work_soonest_is_tried():
    chain = chain_of(echo("a", fail_at=0))
    for _ in range(3):
        with pytest.raises(ProviderError):
            await read(chain)


async def test_a_prompt_too_long_for_one_goes_to_a_bigger_window():
    small = echo("small")
    small.window = 100
    meter = Notebook()
    items = await read(chain_of(small, echo("big"), meter=meter), ask(prompt_tokens=90))
    assert items[0] == Started("echo", "big")
    assert meter.fallbacks == ["context"]


async def test_the_answer_never_passes_the_window():
    tight = echo("tight", tokens=500)
    tight.window = 100
    assert (await read(chain_of(tight), ask(prompt_tokens=30, max_tokens=500)))[-1].completion == 70


async def test_higher_priority_goes_first_then_the_longer_wait():
    places, order = Places(1, 10), []
    never = asyncio.Event()
    assert await places.enter(0, never)

    async def wait(name, priority):
        assert await places.enter(priority, never)
        order.append(name)
        places.leave()

    async with asyncio.TaskGroup() as tasks:
        for name, priority in (("free", 0), ("free too", 0), ("pro", 2), ("basic", 1)):
            tasks.create_task(wait(name, priority))
            await asyncio.sleep(0)
        places.leave()
    assert order == ["pro", "basic", "free", "free too"]


async def test_a_full_queue_refuses():
    places, never = Places(1, 1), asyncio.Event()
    await places.enter(0, never)
    waiting = asyncio.ensure_future(places.enter(0, never))
    await asyncio.sleep(0)
    assert places.full()
    with pytest.raises(QueueFullError):
        await places.enter(2, never)
    places.leave()
    assert await waiting


async def test_who_cancels_in_the_queue_holds_no_place():
    places, cancel = Places(1, 5), asyncio.Event()
    await places.enter(0, asyncio.Event())
    waiting = asyncio.ensure_future(places.enter(0, cancel))
    await asyncio.sleep(0)
    cancel.set()
    assert await waiting is False
    places.leave()
    assert await places.enter(0, asyncio.Event())


@pytest.mark.invariant("PLACES-1")
@given(
    jobs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=20), places=st.integers(1, 3)
)
@settings(max_examples=50, deadline=None)
async def test_never_more_holders_than_places_and_none_is_lost(jobs, places):
    """PLACES-1"""
    gate, holders, most = Places(places, 100), 0, 0

    async def job(priority, rounds, gives_up):
        nonlocal holders, most
        cancel = asyncio.Event()
        if gives_up:
            asyncio.get_running_loop().call_soon(cancel.set)
        if not await gate.enter(priority, cancel):
            return
        holders += 1
        most = max(most, holders)
        for _ in range(rounds):
            await asyncio.sleep(0)
        holders -= 1
        gate.leave()

    async with asyncio.TaskGroup() as tasks:
        for entry in jobs:
            tasks.create_task(job(*entry))
    assert most <= places
    for _ in range(places):  # every place is free again
        assert await asyncio.wait_for(gate.enter(0, asyncio.Event()), 1)


def test_an_estimate_is_above_the_truth():
    assert estimate_tokens([Message("user", "The quick brown fox jumps over the lazy dog.")]) >= 10


def test_the_settings_make_the_chain():
    llm = LlmSettings(provider="openai", model="m", fallbacks=(ProviderSettings(provider="echo"),))
    chain = build_chain(llm, models=Path("/nowhere"), clock=HandClock(), meter=Notebook())
    assert [(p.name, p.model) for p in chain.providers] == [("openai", "m"), ("echo", "echo")]
