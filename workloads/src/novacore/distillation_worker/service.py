"""A run of distillation: every user, page by page, then promotions and removals.

Invariants: DISTIL-4 one run at a time, over all replicas and commands (advisory lock on a connection held for the run);
DISTIL-5 the watermark moves only after memory confirmed all principles of the page; DISTIL-6 a run that takes over from
a killed one works on the same page again, so the same sources give the same principle and nothing is kept twice.
A user whose turn fails is counted and left as he stands; the next run goes on there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from novacore.common import context
from novacore.common.clock import Clock
from novacore.common.database import Database
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.peers import PeerError, Peers
from novacore.distillation_worker import repository, rules
from novacore.distillation_worker.repository import Cursor, Watermark
from novacore.distillation_worker.schemas import (
    BatchDone,
    Counts,
    Distilled,
    Reflection,
    ReflectionsFound,
    Report,
    Result,
    UsersFound,
)

log = get_logger()

PAGE = 100
JOB = "distillation"
P = TypeVar("P", bound=BaseModel)


class Distiller:
    """Runs of distillation."""

    def __init__(self, *, db: Database, peers: Peers, metrics: Metrics, clock: Clock) -> None:
        self._db = db
        self._peers = peers
        self._clock = clock
        self._runs = metrics.counter("novacore_distillation_runs_total")
        self._principles = metrics.counter("novacore_principles_total")
        self._last_success = metrics.gauge("novacore_distillation_last_success_timestamp_seconds")
        self._last_loop = metrics.gauge("novacore_worker_last_loop_timestamp_seconds")
        self._jobs = metrics.counter("novacore_jobs_total")
        self._seconds = metrics.histogram("novacore_job_duration_seconds").labels(JOB)
        for result in ("ok", "retry", "dead"):
            self._jobs.labels(JOB, result)

    async def run(self) -> Report:
        """Do a whole run and report it. `skipped` when one is at work already. ServiceError without Postgres."""
        with context.bind():
            async with self._db.connection() as holder:
                if not await repository.try_lock(holder):
                    self._runs.labels("skipped").inc()
                    return Report("skipped", 0.0)
                try:
                    return await self._run_locked()
                finally:
                    await repository.unlock(holder)

    async def recall_success(self) -> None:
        """Set the gauge of the last success from the runs on record, so that a restart does not look like an outage."""
        async with self._db.connection() as conn:
            ended = await repository.last_success(conn)
        if ended is not None:
            self._last_success.set(ended.timestamp())

    async def _run_locked(self) -> Report:
        started, counts = self._clock.monotonic(), Counts()
        async with self._db.transaction() as conn:
            run_id = await repository.begin_run(conn, self._clock.now())
        result: Result = "error"
        try:
            async for user_id in self._users():
                self._last_loop.set(time.time())
                counts.users += 1
                try:
                    await self._user(user_id, counts)
                except PeerError as error:
                    if error.status == 404:  # deleted since the list was read
                        continue
                    counts.users_failed += 1
                    log.warning("user_postponed", reason=f"{error.peer} {error.code}")
            result = "partial" if counts.users_failed else "ok"
        except PeerError as error:
            log.error("distillation_failed", error=error)
        finally:
            seconds = self._clock.monotonic() - started
            await self._note(run_id, result, counts, seconds)
        return Report(result, round(seconds, 3), counts)

    async def _note(self, run_id: UUID, result: Result, counts: Counts, seconds: float) -> None:
        now = self._clock.now()
        self._runs.labels(result).inc()
        self._jobs.labels(JOB, "ok" if result in {"ok", "partial"} else "retry").inc()
        self._seconds.observe(seconds)
        if result == "ok":
            self._last_success.set(now.timestamp())
        async with self._db.transaction() as conn:
            await repository.end_run(conn, run_id, ended_at=now, result=result, counts=counts)
        log.info(
            "distilled", result=result, ms=round(seconds * 1000), users=counts.users, failed=counts.users_failed,
            reflections=counts.reflections, stored=counts.stored, promoted=counts.promoted, purged=counts.purged,
        )  # fmt: skip

    async def _users(self) -> AsyncIterator[UUID]:
        after: UUID | None = None
        while True:
            params = {"limit": PAGE} | ({"after": str(after)} if after else {})
            page = await self._ask(UsersFound, "GET", "users", None, params=params)
            for user_id in page.users:
                yield user_id
            if page.next is None:
                return
            after = page.next

    async def _user(self, user_id: UUID, counts: Counts) -> None:
        while await self._page(user_id, counts):
            pass
        for name in ("promote", "purge"):
            more = True
            while more:
                done = await self._ask(BatchDone, "POST", name, user_id, json={"limit": PAGE})
                more = done.more
                if name == "promote":
                    counts.promoted += done.count
                else:
                    counts.purged += done.count

    async def _page(self, user_id: UUID, counts: Counts) -> bool:
        """Work on one page; return whether there may be another."""
        async with self._db.connection() as conn:
            mark = await repository.watermark(conn, user_id)
        page = await self._scan(user_id, mark)
        if not page:
            if mark.until is not None:  # begun by a killed run, and its reflections are gone since
                await self._end_page(user_id, mark.until)
            return mark.until is not None
        end: Cursor = (page[-1].created_at, page[-1].id)
        if mark.until is None:
            async with self._db.transaction() as conn:
                await repository.begin_page(conn, user_id, end)
        for topic, group in rules.grouped(page).items():
            await self._group(user_id, topic, group, counts)
        await self._end_page(user_id, mark.until or end)
        counts.reflections += len(page)
        return mark.until is not None or len(page) == PAGE

    async def _group(self, user_id: UUID, topic: str, group: list[Reflection], counts: Counts) -> None:
        drawn = rules.draw(topic, group)
        if drawn is None:
            counts.rejected += 1
            self._principles.labels("rejected").inc()
            return
        body = {
            "topic": drawn.topic,
            "principle": drawn.principle,
            "outcome": drawn.outcome,
            "confidence": drawn.confidence,
            "source_reflections": [str(one) for one in drawn.sources],
        }
        made = await self._ask(Distilled, "POST", "distilled", user_id, json=body)
        counts.stored += made.created
        counts.duplicate += not made.created
        self._principles.labels("stored" if made.created else "duplicate").inc()
        if made.contradicts:
            against = {"by": str(made.id), "ids": [str(one) for one in made.contradicts[:PAGE]]}
            done = await self._ask(BatchDone, "POST", "supersede", user_id, json=against)
            counts.superseded += done.count
            self._principles.labels("superseded").inc(done.count)

    async def _scan(self, user_id: UUID, mark: Watermark) -> list[Reflection]:
        params: dict[str, Any] = {"limit": PAGE}
        for name, cursor in (("after", mark.last), ("until", mark.until)):
            if cursor is not None:
                params |= {f"{name}_at": cursor[0].isoformat(), f"{name}_id": str(cursor[1])}
        return (await self._ask(ReflectionsFound, "GET", "scan", user_id, params=params)).reflections

    async def _end_page(self, user_id: UUID, last: Cursor) -> None:
        async with self._db.transaction() as conn:
            await repository.end_page(conn, user_id, last)

    async def _ask(
        self,
        model: type[P],
        method: str,
        name: str,
        user_id: UUID | None,
        *,
        json: Any = None,
        params: dict[str, Any] | None = None,
    ) -> P:
        answer = await self._peers.call(
            "memory", method, f"/internal/memory/{name}", json=json, params=params, act_for=user_id, internal=True
        )
        return model.model_validate(answer)
