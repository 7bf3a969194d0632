"""kopf in its thread: whatever ends it, it is begun anew, and it can be stopped at any moment. kopf itself is real in
tests/api; here its place is taken by what it may do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from novacore_operator import watch
from novacore_operator.errors import Fatal
from novacore_operator.kube import Kube
from novacore_operator.loop.census import Census
from novacore_operator.telemetry import Metrics
from novacore_operator.watch import KopfWatch, Run

Take = Callable[[str | None, dict[str, Any]], None]
Operator = Callable[[asyncio.Event, Take], Awaitable[None]]


class Server:
    """An API server that serves our definition, always."""

    async def served(self, _: str, *, namespace: str | None) -> bool:
        return namespace is None


class Listener:
    """A census that only listens."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, dict[str, Any]]] = []
        self.lists, self.deaf, self.more = 0, asyncio.Event(), asyncio.Event()

    def heard(self, kind: str | None, body: dict[str, Any]) -> None:
        self.events.append((kind, body))
        self.more.set()

    def expect_list(self) -> None:
        self.lists += 1
        self.more.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.more.clear()
                await self.more.wait()


def watching(monkeypatch: pytest.MonkeyPatch, operators: list[Operator]) -> tuple[KopfWatch, Listener]:
    """Return a watch whose runs are these, in order."""
    monkeypatch.setattr(watch, "PAUSE_S", 0.0)
    listener = Listener()
    made = KopfWatch(cast("Kube", Server()), Metrics(), cast("Census", listener), namespaces=(), identity="me")

    async def operator(stop: asyncio.Event, take: Take) -> None:
        await operators.pop(0)(stop, take)

    monkeypatch.setattr(made, "_operator", operator)
    return made, listener


async def until_stopped(stop: asyncio.Event, take: Take) -> None:
    """Say that it is there, and wait."""
    take("ADDED", {"there": True})
    await stop.wait()


async def ends(_: asyncio.Event, take: Take) -> None:
    """Return at once."""
    take("ADDED", {"there": False})


async def fails(_: asyncio.Event, __: Take) -> None:
    """Fail as kopf does after a 410 to its list."""
    raise RuntimeError("410")


async def cancels_itself(_: asyncio.Event, __: Take) -> None:
    """Be cancelled, as kopf cancels every task of its loop."""
    raise asyncio.CancelledError


@pytest.mark.invariant("KOPF-1")
@pytest.mark.parametrize("first", [ends, fails, cancels_itself])
async def test_it_is_begun_anew_when_it_ends_by_itself(monkeypatch: pytest.MonkeyPatch, first: Operator) -> None:
    made, listener = watching(monkeypatch, [first, until_stopped])
    running = asyncio.ensure_future(made.run())
    await listener.until(lambda: ("ADDED", {"there": True}) in listener.events)
    assert listener.lists == 2
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()
    for thread in threading.enumerate():
        if thread.name == "kopf":
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.invariant("KOPF-1")
async def test_it_is_begun_anew_when_it_is_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    made, listener = watching(monkeypatch, [until_stopped, until_stopped])
    running = asyncio.ensure_future(made.run())
    await listener.until(lambda: len(listener.events) == 1)
    listener.deaf.set()
    await listener.until(lambda: len(listener.events) == 2)
    running.cancel()
    await asyncio.wait((running,))


async def test_events_arrive_in_the_order_in_which_they_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def many(stop: asyncio.Event, take: Take) -> None:
        for number in range(500):
            take("MODIFIED", {"number": number})
        await stop.wait()

    made, listener = watching(monkeypatch, [many])
    running = asyncio.ensure_future(made.run())
    await listener.until(lambda: len(listener.events) == 500)
    assert [body["number"] for _, body in listener.events] == list(range(500))
    running.cancel()
    await asyncio.wait((running,))


@pytest.mark.invariant("KOPF-1")
async def test_a_thread_that_does_not_end_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    async def hangs(_: asyncio.Event, take: Take) -> None:
        take("ADDED", {})
        never.wait()

    monkeypatch.setattr(watch, "STOP_S", 0.05)
    made, listener = watching(monkeypatch, [hangs])
    running = asyncio.ensure_future(made.run())
    await listener.until(lambda: len(listener.events) == 1)
    listener.deaf.set()
    with pytest.raises(Fatal):
        await running
    never.set()


async def test_a_run_that_is_stopped_before_its_thread_begins_does_nothing() -> None:
    async def operator(_: asyncio.Event) -> None:
        raise AssertionError("it was stopped before")

    run = Run(operator)
    run.stop()
    run.thread.start()
    assert await asyncio.wrap_future(run.ended) is None


async def test_stopping_a_run_that_has_ended_is_nothing() -> None:
    async def operator(_: asyncio.Event) -> None:
        return

    run = Run(operator)
    run.thread.start()
    assert await asyncio.wrap_future(run.ended) == "it returned"
    run.stop()


def test_kopf_never_kills_the_process() -> None:
    """KOPF-1: kopf's own last resort is SIGKILL to its thread, which is to the process."""
    assert watch.kopf_settings().process.ultimate_exiting_timeout is None
