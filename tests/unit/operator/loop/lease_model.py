"""The product's Lease among rivals, in virtual time, over a model of the API server: what a thousand runs need.

Modelled: requests and answers that come late or never, an API server that is away, processes that crash, hang (SIGSTOP,
also for longer than the Lease) or stop in order, clocks of a different pace, wall clocks that jump by hours. A write is
a check of the guard and the sending in one step, and is on its way for up to `WRITE_LATE_S`, which the Lease's margin
must bear: no API server can refuse a write of a former holder, so the time on the wire is what the margin is for.
Not modelled: a process that hangs between the check and the sending of one request (microseconds).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from novacore_operator.errors import Fatal, Retry
from novacore_operator.kube import Conflict, Kube
from novacore_operator.loop.lease import Lease
from novacore_operator.reasons import Reason
from novacore_operator.telemetry import Metrics
from tests.unit.operator.loop.virtual_time import run_virtually

RUN_S = 60.0
PROCESSES = 3
PACE = 0.01
WRITE_LATE_S = 1.5
WRITE_EACH_S = 0.5
METRICS = Metrics()


@dataclass
class Outcome:
    """What happened in a run."""

    writes: int = 0
    holders: int = 0
    overlaps: list[str] = field(default_factory=list)
    crash_to_take_s: list[float] = field(default_factory=list)
    happened: dict[str, int] = field(default_factory=dict)


class Server:
    """One Lease behind optimistic concurrency."""

    def __init__(self, draw: random.Random, outcome: Outcome) -> None:
        self._draw, self._outcome = draw, outcome
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.away_until = 0.0
        self.crashed_at: float | None = None

    @property
    def holder(self) -> str:
        """Who the Lease names."""
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""

    def wrote(self, identity: str, now: float) -> None:
        """Take in a write of a worker: it must be the holder's."""
        self._outcome.writes += 1
        if self.holder not in ("", identity):
            self._outcome.overlaps.append(f"{now:.3f} s: {identity} wrote while {self.holder} held the Lease")

    def store(self, body: dict[str, Any], *, create: bool, now: float) -> dict[str, Any]:
        """Store a Lease, if the caller saw the newest."""
        seen = body["metadata"].get("resourceVersion")
        if (self.lease is not None) if create else seen != str(self.version):
            raise Conflict(Reason.APPLY_REFUSED, "moved on")
        before, self.lease = self.holder, deepcopy(body)
        self.version += 1
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        if self.holder not in ("", before):
            self._outcome.holders += 1
            if self.crashed_at is not None:
                self._outcome.crash_to_take_s.append(now - self.crashed_at)
            self.crashed_at = None
        return deepcopy(self.lease)

    def late_s(self) -> float:
        """Return how long a message is on its way."""
        return self._draw.uniform(0, WRITE_LATE_S) if self._draw.random() < 0.05 else self._draw.uniform(0, 0.02)


class Process:
    """One operator: its Lease, and a worker that writes whenever it may. Is the `Kube` of its Lease."""

    def __init__(self, server: Server, draw: random.Random, identity: str) -> None:
        self.identity = identity
        self._server, self._draw = server, draw
        self._loop = asyncio.get_running_loop()
        pace, offset = 1 + draw.uniform(-PACE, PACE), draw.uniform(0, 1e6)
        self._jumped = timedelta()
        self._awake = asyncio.Event()
        self._awake.set()
        self._stopping = asyncio.Event()
        self._arrives_at = 0.0  # the last of what was sent
        self.lease = Lease(
            cast("Kube", self),
            METRICS,
            namespace="ns",
            identity=identity,
            clock=lambda: self._loop.time() * pace + offset,
            wall=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._loop.time()) + self._jumped,
        )

    async def live(self) -> None:
        """Live until it stops in order, loses the Lease, or is cancelled: a crash."""
        electing = asyncio.ensure_future(self.lease.run())
        working = asyncio.ensure_future(self._work())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((electing, stopping), return_when=asyncio.FIRST_COMPLETED)
            await self._awake.wait()  # what hangs ends when it wakes
            if stopping.done():
                working.cancel()
                await asyncio.sleep(self._arrives_at - self._loop.time())  # what was sent is answered first
                await self.lease.release()
            else:
                await asyncio.sleep(0)  # the worker woke as well, and may try
        finally:
            for task in (electing, working, stopping):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Fatal):
                    await task

    async def hang(self, for_s: float) -> None:
        """SIGSTOP, SIGCONT."""
        self._awake.clear()
        await asyncio.sleep(for_s)
        self._awake.set()

    def stop(self) -> None:
        """SIGTERM."""
        self._stopping.set()

    def jump(self) -> None:
        """Set the node's clock by up to two hours."""
        self._jumped += timedelta(seconds=self._draw.uniform(-7200, 7200))

    async def _work(self) -> None:
        await self.lease.held.wait()
        while True:
            await asyncio.sleep(self._draw.uniform(0, WRITE_EACH_S))
            await self._awake.wait()
            try:
                self.lease.check()
            except Fatal:
                return
            arrives_at = self._loop.time() + self._server.late_s()
            self._arrives_at = max(self._arrives_at, arrives_at)
            self._loop.call_at(arrives_at, lambda: self._server.wrote(self.identity, self._loop.time()))
            if self._stopping.is_set():
                return

    # --- what the Lease asks of its `Kube` ----------------------------------------------------------------------------

    async def get(self, _: Any) -> Any:
        """Return the Lease."""
        return await self._asked(lambda: deepcopy(self._server.lease))

    async def write_lease(self, body: Any, *, create: bool) -> Any:
        """Store the Lease."""
        return await self._asked(lambda: self._server.store(body, create=create, now=self._loop.time()))

    async def _asked(self, carried_out: Any) -> Any:
        await self._awake.wait()
        lost = self._draw.random()
        if lost < 0.03:
            await asyncio.Event().wait()  # the request never arrives
        await asyncio.sleep(self._server.late_s())
        if self._loop.time() < self._server.away_until:
            raise Retry(Reason.API_UNAVAILABLE, "away")
        try:
            answer = carried_out()
        finally:
            await asyncio.sleep(self._server.late_s())
        if lost < 0.06:
            await asyncio.Event().wait()  # the answer never arrives
        await self._awake.wait()
        return answer


async def one_run(seed: int) -> Outcome:
    """Let three processes compete for the Lease under faults drawn from the seed."""
    draw, outcome, loop = random.Random(seed), Outcome(), asyncio.get_running_loop()
    server = Server(draw, outcome)
    alive: dict[int, Process] = {}

    async def place(number: int) -> None:
        """A pod's place: a new process whenever one ends, as the kubelet makes it."""
        born = 0
        while True:
            born += 1
            alive[number] = process = Process(server, draw, f"pod-{number}.{born}")
            life = lives[number] = asyncio.ensure_future(process.live())
            await asyncio.wait((life,))
            await asyncio.sleep(draw.uniform(0.3, 3.0))

    lives: dict[int, asyncio.Future[None]] = {}
    places = [asyncio.ensure_future(place(number)) for number in range(PROCESSES)]
    hangs: list[asyncio.Future[None]] = []
    while loop.time() < RUN_S:
        await asyncio.sleep(draw.uniform(0.5, 12.0))
        what = draw.choice(("crash", "hang", "hang", "stop", "away", "jump"))
        outcome.happened[what] = outcome.happened.get(what, 0) + 1
        # Mostly the holder: what befalls the others matters less.
        holders = [number for number, process in alive.items() if process.identity == server.holder]
        number = holders[0] if holders and draw.random() < 0.7 else draw.randrange(PROCESSES)
        if what == "crash":
            if number in holders and loop.time() >= server.away_until:
                server.crashed_at = loop.time()
            lives[number].cancel()
        elif what == "hang":
            hangs.append(asyncio.ensure_future(alive[number].hang(draw.uniform(0.1, 30.0))))
        elif what == "stop":
            alive[number].stop()
        elif what == "away":
            server.away_until, server.crashed_at = loop.time() + draw.uniform(0.5, 15.0), None
        else:
            alive[number].jump()
    for task in (*places, *lives.values(), *hangs):
        task.cancel()
    await asyncio.gather(*places, *lives.values(), *hangs, return_exceptions=True)
    return outcome


def runs(count: int, seed: int) -> list[Outcome]:
    """Return the outcomes of runs with consecutive seeds."""
    return [run_virtually(one_run(seed + number)) for number in range(count)]
