"""Stopping: an idle process hands the Lease over at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from novacore_operator.errors import Fatal, Retry
from novacore_operator.kube import Kube
from novacore_operator.loop import runner as module
from novacore_operator.loop.queue import Urgency
from novacore_operator.loop.reconcile import Turn
from novacore_operator.loop.runner import WORKERS, Options, Runner
from novacore_operator.telemetry import Metrics
from tests.unit.operator.make import make_material


async def _released_in(*, busy: bool) -> list[str]:
    order: list[str] = []
    runner = Runner(Kube(None, Metrics()), Metrics(), Options(("test",), "ops", "me"))

    class Parts:
        async def turn(self, _: Any) -> Any:
            raise AssertionError("no turn begins while the process stops")

        async def release(self) -> None:
            order.append("released")

    runner._reconciler = runner._lease = Parts()  # type: ignore[assignment]
    workers = [asyncio.ensure_future(runner._work()) for _ in range(WORKERS)]
    runner._workers = workers
    await asyncio.sleep(0)
    if busy:
        runner._queue.schedule.add(("test", "x"), Urgency.EDIT, now=0.0)
        runner._queue.schedule.take(now=1.0)

        def end() -> None:
            order.append("turn ended")
            runner._queue.schedule.done(("test", "x"), now=2.0, failed=False)

        asyncio.get_running_loop().call_later(0.1, end)
    async with asyncio.timeout(2):
        await runner.stop()
    await asyncio.gather(*workers, return_exceptions=True)
    return order


async def test_an_idle_process_gives_the_lease_up_at_once() -> None:
    assert await _released_in(busy=False) == ["released"]


async def test_a_running_turn_ends_before_the_lease_is_given_up() -> None:
    assert await _released_in(busy=True) == ["turn ended", "released"]


async def test_a_turn_that_runs_while_the_process_stops_begins_no_other_write() -> None:
    kube = Kube(None, Metrics())
    runner = Runner(kube, Metrics(), Options((), "ops", "me"))
    await runner.stop()
    with pytest.raises(Retry, match="stopping"):
        kube.guard()


async def test_a_turn_during_which_its_resource_was_deleted_leaves_nothing_behind() -> None:
    metrics = Metrics()
    runner = Runner(Kube(None, metrics), metrics, Options((), "ops", "me"))
    told: dict[str, Any] = {"platform": "test", "kind": "NovaCoreDeployment", "name": "x"}

    class Turns:
        async def turn(self, key: Any) -> Turn:
            runner._gone(key)
            runner._observer.remember("test", make_material())
            metrics.set("last_success_timestamp_seconds", 1.0, **told)
            runner._stopping.set()
            return Turn(again_s=None)

        def forget(self, _: str) -> None:
            return None

    runner._reconciler = Turns()  # type: ignore[assignment]
    runner._queue.add(("test", "x"), Urgency.EDIT)
    working = asyncio.ensure_future(runner._work())
    async with asyncio.timeout(2):
        await working
    assert runner._observer._material == {}
    name = "novacore_operator_last_success_timestamp_seconds"
    assert metrics.registry.get_sample_value(name, told) is None


class Watches:
    """Watches of which the quietest was heard this long ago."""

    def __init__(self, *ago_s: float) -> None:
        self.ago_s = list(ago_s)

    def alive_at(self) -> float:
        return module.time.monotonic() - self.ago_s.pop(0)


@pytest.mark.invariant("WATCHDOG-1")
async def test_a_watch_that_is_silent_for_too_long_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCHDOG_EACH_S", 0.0)
    made = Runner(Kube(None, Metrics()), Metrics(), Options((), "ops", "me"))
    watches = Watches(1.0, 150.0, module.SILENT_S + 1)
    made._observer = watches  # type: ignore[assignment]
    with pytest.raises(Fatal, match="silent"):
        await made._watchdog()
    assert watches.ago_s == []
