"""Leader election, with the API server's answers scripted and the clock in hand."""

import asyncio
from copy import deepcopy
from typing import Any, cast

import pytest

from novacore_operator.errors import Fatal, Retry
from novacore_operator.kube import Conflict, Kube
from novacore_operator.loop.lease import DURATION_S, MARGIN_S, Lease
from novacore_operator.reasons import Reason
from novacore_operator.telemetry import Metrics


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class LeaseStore:
    """One Lease behind optimistic concurrency, as the API server keeps it. `slow_s` passes during each write."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.lease, self.version, self.away, self.slow_s = clock, None, 0, False, 0.0
        self.writes = 0

    async def get(self, _: Any) -> Any:
        """Return a copy."""
        if self.away:
            raise Retry(Reason.API_UNAVAILABLE, "away")
        return deepcopy(self.lease)

    async def write_lease(self, body: Any, *, create: bool) -> Any:
        """Store, if the caller saw the newest version."""
        self.clock.now += self.slow_s
        seen = body["metadata"].get("resourceVersion")
        if (self.lease is not None) if create else seen != str(self.version):
            raise Conflict(Reason.APPLY_REFUSED, "moved on")
        self.version += 1
        self.writes += 1
        self.lease = deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease


def candidates(count: int) -> tuple[Clock, LeaseStore, list[Lease]]:
    """Return processes that compete for one Lease, each with a clock of its own pace (here: the same)."""
    clock = Clock()
    store = LeaseStore(clock)
    metrics = Metrics()
    kube = cast("Kube", store)
    return clock, store, [Lease(kube, metrics, namespace="ns", identity=f"pod-{n}", clock=clock) for n in range(count)]


async def test_one_of_two_gets_it_and_only_that_one_may_write() -> None:
    _, _, (one, two) = candidates(2)
    assert await one._attempt()
    assert not await two._attempt()
    one.check()
    with pytest.raises(Fatal):
        two.check()


async def test_belief_ends_before_others_may_take_it() -> None:
    """LEASE-1: counted from before the request, however long that took."""
    clock, store, (one, two) = candidates(2)
    store.slow_s = 5.0
    began = clock.now
    assert await one._attempt()
    assert not await two._attempt()
    clock.now = began + DURATION_S - MARGIN_S
    with pytest.raises(Fatal):
        one.check()
    assert not await two._attempt()


async def test_a_lease_that_stands_unchanged_is_taken_over() -> None:
    """LEASE-3: judged by the observer's own clock."""
    clock, _, (one, two) = candidates(2)
    assert await one._attempt()
    assert not await two._attempt()
    clock.now += DURATION_S + 0.1
    assert await two._attempt()
    with pytest.raises(Fatal):
        one.check()


async def test_times_written_in_it_do_not_count() -> None:
    """LEASE-3."""
    _, store, (one, two) = candidates(2)
    assert await one._attempt()
    assert store.lease is not None
    store.lease["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"
    assert not await two._attempt()


async def test_losing_it_ends_the_run() -> None:
    """LEASE-2."""
    clock, store, (one,) = candidates(1)
    assert await one._attempt()
    store.away = True
    clock.now += DURATION_S
    assert not await one._attempt()
    with pytest.raises(Fatal):
        one.check()


async def test_given_up_it_is_free_at_once_and_not_taken_again() -> None:
    """LEASE-4."""
    _, store, (one, two) = candidates(2)
    assert await one._attempt()
    one.held.set()
    await one.release()
    with pytest.raises(Fatal):
        one.check()
    assert await two._attempt()
    assert store.lease is not None
    assert store.lease["spec"]["holderIdentity"] == "pod-1"
    assert one._released


async def test_a_renewal_on_its_way_does_not_take_a_lease_that_was_given_up() -> None:
    """LEASE-4."""
    _, store, (one, two) = candidates(2)
    await one._attempt()
    one.held.set()
    gate = asyncio.Event()
    get = store.get

    async def slow_get(ref: Any) -> Any:
        found = await get(ref)
        await gate.wait()
        return found

    store.get = slow_get  # type: ignore[method-assign] # the API server is slow
    async with asyncio.TaskGroup() as tasks:
        renewal = tasks.create_task(one._attempt())
        release = tasks.create_task(one.release())
        await asyncio.sleep(0)
        gate.set()
    assert renewal.done()
    assert release.done()
    assert store.lease is not None
    assert store.lease["spec"]["holderIdentity"] == ""
    assert not await one._attempt()
    assert await two._attempt()
