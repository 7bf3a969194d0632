"""The queue's state machine."""

import asyncio
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from novacore_operator.loop.queue import BACKOFF_MAX_S, Queue, Schedule, Urgency

KEYS = [("a", "1"), ("a", "2"), ("b", "1")]


class QueueMachine(RuleBasedStateMachine):
    """QUEUE-1 and QUEUE-2 against a plain model: what is asked for, what runs, what was asked for meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule(lambda: 0.5)
        self.now = 0.0
        self.asked: dict[tuple[str, str], tuple[Urgency, float]] = {}
        self.running: set[tuple[str, str]] = set()
        self.meanwhile: dict[tuple[str, str], tuple[Urgency, float]] = {}

    @rule(key=st.sampled_from(KEYS), urgency=st.sampled_from(Urgency))
    def add(self, key: tuple[str, str], urgency: Urgency) -> None:
        self.schedule.add(key, urgency, now=self.now)
        place = self.meanwhile if key in self.running else self.asked
        before = place.get(key, (urgency, self.now))
        place[key] = (min(before[0], urgency), before[1])

    @rule()
    def take(self) -> None:
        key = self.schedule.take(now=self.now)
        if key is None:
            assert not self.asked
            return
        assert key not in self.running
        assert (self.asked[key], key) == min((value, name) for name, value in self.asked.items())
        del self.asked[key]
        self.running.add(key)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.running)))
        self.schedule.done(key, now=self.now, failed=False)
        self.running.discard(key)
        if key in self.meanwhile:
            self.asked[key] = self.meanwhile.pop(key)

    @rule(key=st.sampled_from(KEYS))
    def forget(self, key: tuple[str, str]) -> None:
        self.schedule.forget(key)
        self.asked.pop(key, None)
        self.meanwhile.pop(key, None)

    @rule()
    def tick(self) -> None:
        self.now += 1.0

    @invariant()
    def agrees(self) -> None:
        assert self.schedule.running() == self.running
        assert self.schedule.depth(now=self.now) == len(self.asked)


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestQueueMachine = QueueMachine.TestCase


def test_a_burst_of_fifty_events_is_two_runs() -> None:
    """QUEUE-1."""
    schedule, runs = Schedule(lambda: 0.0), 0
    schedule.add(KEYS[0], Urgency.DRIFT, now=0)
    while (key := schedule.take(now=0)) is not None:
        if runs == 0:
            for _ in range(50):
                schedule.add(key, Urgency.DRIFT, now=0)
        runs += 1
        schedule.done(key, now=0, failed=False)
    assert runs == 2


def test_an_edit_goes_before_a_repair_and_a_repair_before_a_resync() -> None:
    """QUEUE-2."""
    schedule = Schedule(lambda: 0.0)
    for urgency, key in zip((Urgency.RESYNC, Urgency.DRIFT, Urgency.EDIT), KEYS, strict=True):
        schedule.add(key, urgency, now=0)
    assert [schedule.take(now=1) for _ in range(4)] == [*reversed(KEYS), None]


def test_back_off_doubles_is_capped_and_is_forgotten_with_success() -> None:
    """QUEUE-3."""
    schedule, pauses, now = Schedule(lambda: 1.0), [], 0.0
    schedule.add(KEYS[0], Urgency.EDIT, now=now)
    for _ in range(12):
        assert schedule.take(now=now) == KEYS[0]
        schedule.done(KEYS[0], now=now, failed=True)
        due = schedule.next_due()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == BACKOFF_MAX_S
    schedule.take(now=now)
    schedule.done(KEYS[0], now=now, failed=False)
    schedule.add(KEYS[0], Urgency.EDIT, now=now)
    schedule.take(now=now)
    schedule.done(KEYS[0], now=now, failed=True)
    assert schedule.next_due() == pytest.approx(now + 0.5)


def test_a_failed_run_waits_as_long_as_the_api_server_asked() -> None:
    schedule = Schedule(lambda: 1.0)
    schedule.add(KEYS[0], Urgency.EDIT, now=0.0)
    schedule.take(now=0.0)
    schedule.done(KEYS[0], now=0.0, failed=True, again_s=30.0)
    assert schedule.next_due() == pytest.approx(30.0)


def test_back_off_does_not_hold_back_an_event() -> None:
    """QUEUE-3."""
    schedule = Schedule(lambda: 1.0)
    schedule.add(KEYS[0], Urgency.EDIT, now=0)
    schedule.take(now=0)
    schedule.done(KEYS[0], now=0, failed=True)
    assert schedule.take(now=0) is None
    schedule.add(KEYS[0], Urgency.EDIT, now=0)
    assert schedule.take(now=0) == KEYS[0]


async def test_a_waiting_worker_wakes_for_an_event() -> None:
    queue = Queue(time.monotonic, lambda: 0.0)
    queue.add(KEYS[0], Urgency.RESYNC, delay_s=60)
    async with asyncio.TaskGroup() as tasks:
        worker = tasks.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add(KEYS[1], Urgency.DRIFT)
        async with asyncio.timeout(5):
            assert await worker == KEYS[1]
