"""The loops beside the requests: the pulse of our runs, the end of runs whose replica died, what is owed, the models.

A run is alive while its replica renews its heartbeat in Postgres. After an outage of Postgres all heartbeats are old,
so nobody is declared dead until everyone has had the time to beat again.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from novacore.common import context
from novacore.common.clock import Clock
from novacore.common.database import Database
from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.common.redis import RedisError
from novacore.intelligence import repository
from novacore.intelligence.executor import Executor, end_data
from novacore.intelligence.followups import FollowUps
from novacore.intelligence.providers import Chain
from novacore.intelligence.repository import RunEnd
from novacore.intelligence.runlog import RunLogs
from novacore.intelligence.runs import Status, billed
from novacore.intelligence.settings import IntelligenceSettings

log = get_logger()

PAY_S = 2.0
TIDY_S = 600.0
MEASURE_S = (0.5, 5.0)
"""Pause between probes while no model is up, and while one is."""


class Pulse:
    """The loops of one replica."""

    def __init__(
        self,
        *,
        db: Database,
        executor: Executor,
        followups: FollowUps,
        logs: RunLogs,
        chain: Chain,
        settings: IntelligenceSettings,
        clock: Clock,
        draining: asyncio.Event,
    ) -> None:
        self._db = db
        self._executor = executor
        self._followups = followups
        self._logs = logs
        self._chain = chain
        self._runs = settings.runs
        self._clock = clock
        self._draining = draining
        self._sweep_from = 0.0
        self._over = False

    def stop(self) -> None:
        """Let every loop end at its next turn: on Python 3.11 a cancel may be swallowed inside redis-py."""
        self._over = True

    async def beat(self) -> None:
        """Renew the heartbeat of our runs for ever; learn of cancels and of runs that were taken from us."""
        while not self._over:
            await asyncio.sleep(self._runs.heartbeat_s)
            try:
                await self.beat_once()
            except ServiceError:
                self._postgres_was_away()

    async def beat_once(self) -> None:
        """Renew once."""
        beating = {run_id: run for run_id, run in self._executor.live.items() if not run.closed}
        if not beating:
            return
        async with self._db.transaction() as conn:
            alive = await repository.beat(conn, list(beating), [run.produced for run in beating.values()])
        for run_id in beating:
            if run_id not in alive:
                self._executor.lose(run_id)
            elif alive[run_id]:
                self._executor.stop(run_id, Status.CANCELLED)

    async def sweep(self) -> None:
        """Close silent runs for ever."""
        while not self._over:
            await asyncio.sleep(self._runs.sweep_s)
            try:
                if self._clock.monotonic() >= self._sweep_from:
                    await self.sweep_once()
            except ServiceError:
                self._postgres_was_away()

    async def sweep_once(self) -> int:
        """Close the runs that are silent now; return how many."""
        async with self._db.transaction(readonly=True) as conn:
            stale = await repository.stale_runs(conn, older_than=timedelta(seconds=self._runs.stale_s))
        closed = 0
        for run_id, user_id in stale:
            if run_id not in self._executor.live:
                closed += await self._interrupt(run_id, user_id)
        return closed

    async def pay(self) -> None:
        """Do what is owed after ends of runs, for ever."""
        while not self._over:
            await asyncio.sleep(PAY_S)
            try:
                await self._followups.pay()
            except ServiceError:
                self._postgres_was_away()

    async def tidy(self) -> None:
        """Let idle sessions become abandoned, for ever."""
        while not self._over:
            await asyncio.sleep(TIDY_S)
            try:
                async with self._db.transaction() as conn:
                    idle = timedelta(hours=self._runs.session_idle_hours)
                    await repository.abandon_idle_sessions(conn, idle=idle)
            except ServiceError:
                continue

    async def measure(self) -> None:
        """Probe the models for ever, so that one that comes late is used and one that goes is seen."""
        while not self._over:
            await self._chain.measure()
            await asyncio.sleep(MEASURE_S[1] if self._chain.is_up() else MEASURE_S[0])

    async def watch_drain(self) -> None:
        """Interrupt what still runs at the end of the drain."""
        await self._draining.wait()
        self._executor.begin_drain()
        await self._executor.drained()

    async def _interrupt(self, run_id: UUID, user_id: UUID) -> bool:
        """Close one run as interrupted and bill what its log shows. False when someone else did."""
        text, tokens = await self._produced(run_id)
        async with self._db.transaction(user_id, readonly=True) as conn:
            run = await repository.find_run(conn, run_id, user_id)
        if run is None:
            return False
        completion = max(tokens, int(run["completion_tokens"]))
        cost = billed(Status.INTERRUPTED, prompt=run["prompt_tokens"], completion=completion)
        with context.bind(user_id=user_id):
            ended = await self._followups.end(
                run_id, user_id, RunEnd(Status.INTERRUPTED, run["prompt_tokens"], completion, cost, text)
            )
            if ended is None:
                return False
            log.info("run_interrupted", tokens=ended.billed)
            try:
                await self._logs.append_end(run_id, end_data(ended))
            except (RedisError, OSError):
                log.warning("run_log_incomplete", reason="redis")
            await self._followups.settle(ended)
            await self._followups.last_steps(ended)
        return True

    async def _produced(self, run_id: UUID) -> tuple[str, int]:
        """Return the text a dead replica had sent, and the tokens produced by then."""
        try:
            events = await self._logs.stored(run_id)
        except (RedisError, OSError):
            return "", 0
        chunks = [event.data for event in events if event.name == "chunk"]
        text = "".join(str(chunk.get("text", "")) for chunk in chunks)
        return text, max((int(chunk.get("tokens", 0)) for chunk in chunks), default=0)

    def _postgres_was_away(self) -> None:
        self._sweep_from = self._clock.monotonic() + 3 * self._runs.heartbeat_s
