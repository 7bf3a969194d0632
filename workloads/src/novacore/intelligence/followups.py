"""The end of a run, and what is owed after it.

Invariant END-1: prompt, run state, settlement order and reflection request are one transaction; whoever ends a run
first does it once. Invariant END-2: what comes after (settle at once, short-term memory, the conversation memory) is
repeated until it is confirmed, and is idempotent by the run's id: a crash in between repeats a step and loses none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from novacore.common import context, outbox
from novacore.common.database import Database
from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.common.peers import PeerError, Peers
from novacore.intelligence import repository
from novacore.intelligence.runs import Status
from novacore.intelligence.settings import IntelligenceSettings

log = get_logger()

SCHEMA = "chat"
FIRST_RETRY = timedelta(seconds=15)
"""Longer than the steps at the end of a run take with all their time-outs."""
LEASE = timedelta(seconds=5)
TRIES_MAX = 100
STEP_TIMEOUT_S = 5.0
OUTPUT_MAX = 32_000
FINAL = frozenset({400, 404, 409, 413, 415, 422})
"""A peer that answers so will answer so again."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run after its end."""

    id: UUID
    user_id: UUID
    session_id: UUID
    status: Status
    model: str
    billed: int
    prompt_tokens: int
    completion_tokens: int
    latency_ms: int
    ended_at: datetime
    asked: str
    answered: str
    error_code: str | None
    remember: bool
    request_id: str
    stm_done: bool = False
    memory_done: bool = False

    @property
    def kept(self) -> bool:
        """Whether this exchange belongs into the user's memory."""
        return self.remember and self.status is Status.DONE


class FollowUps:
    """Ends runs and pays what is owed."""

    def __init__(self, *, db: Database, peers: Peers, settings: IntelligenceSettings) -> None:
        self._db = db
        self._peers = peers
        self._budgets = settings.budgets

    async def end(self, run_id: UUID, user_id: UUID, end: repository.RunEnd) -> Ended | None:
        """End a run (END-1). None: it had ended already. ServiceError when Postgres is away."""
        async with self._db.transaction(user_id) as conn:
            row = await repository.end_run(conn, run_id, user_id, end, follow_up_in=FIRST_RETRY)
            if row is None:
                return None
            await outbox.add(
                conn, type="usage.settle", schema=SCHEMA, user_id=user_id,
                payload={"hold_id": str(run_id), "actual": end.billed_tokens, "metadata": _about(run_id, end.status)},
            )  # fmt: skip
            if end.status is Status.DONE:
                await outbox.add(
                    conn, type="reflection.requested", schema=SCHEMA, user_id=user_id,
                    payload={
                        "run_id": str(run_id), "session_id": str(row["session_id"]), "input": row["input_text"],
                        "output": end.output, "context_ids": list(row["context_ids"]),
                    },
                )  # fmt: skip
            ended = await repository.ended_run(conn, run_id, user_id)
        return read_ended(ended, user_id) if ended else None

    async def find(self, run_id: UUID, user_id: UUID) -> Ended | None:
        """Return an ended run, or None."""
        async with self._db.transaction(user_id, readonly=True) as conn:
            row = await repository.ended_run(conn, run_id, user_id)
        return read_ended(row, user_id) if row else None

    async def settle(self, run: Ended) -> bool:
        """Settle at once, so that the answer and the user's quota agree. False: the outbox will do it."""
        try:
            await self._peers.call(
                "auth-billing", "POST", "/internal/quota/settle", internal=True,
                json={"hold_id": str(run.id), "actual": run.billed, "metadata": _about(run.id, run.status)},
                timeout_s=self._budgets.reserve_ms / 1000,
            )  # fmt: skip
        except PeerError as error:
            log.warning("settle_delayed", reason=error.code)
            return False
        return True

    async def first_steps(self, run: Ended) -> tuple[bool, Ended]:
        """Settle and append to the short-term memory, at the same time. Return whether it is settled, and the run."""
        settled, stm = await asyncio.gather(self.settle(run), self._append_stm(run))
        return settled, replace(run, stm_done=stm)

    async def last_steps(self, run: Ended) -> None:
        """Store the conversation memory and note what is confirmed; what is not stays owed."""
        stm = run.stm_done or await self._append_stm(run)
        memory = run.memory_done or await self._store_memory(run)
        try:
            async with self._db.transaction(run.user_id) as conn:
                await repository.note_followed_up(
                    conn, run.id, run.user_id, stm=stm, memory=memory, all_done=stm and memory
                )
        except ServiceError:
            log.warning("follow_up_not_noted", reason="database")  # repeated later, without harm

    async def pay(self) -> int:
        """Do steps that are still owed, of any replica's runs. Return how many runs were taken up."""
        async with self._db.transaction() as conn:
            claimed = await repository.claim_owing(conn, lease=LEASE)
        for run_id, user_id, tries in claimed:
            run = await self.find(run_id, user_id)
            if run is None:
                continue
            with context.bind(request_id=run.request_id, user_id=user_id):
                if tries > TRIES_MAX:
                    log.error("follow_up_given_up", name=str(run_id))
                    run = replace(run, stm_done=True, memory_done=True)
                await self.last_steps(run)
        return len(claimed)

    async def _append_stm(self, run: Ended) -> bool:
        if not run.kept or run.stm_done:
            return True
        body = {
            "input": run.asked,
            "output": run.answered[:OUTPUT_MAX],
            "timestamp": run.ended_at.isoformat(),  # the same on every try: memory knows a repeated turn by it
            "tokens": run.billed,
        }
        return await self._step("stm", "/memory/stm/store", run, json=body, params={"session_id": str(run.session_id)})

    async def _store_memory(self, run: Ended) -> bool:
        if not run.kept or run.memory_done:
            return True
        body = {
            "session_id": str(run.session_id),
            "type": "conversation",
            "tier": "itm",
            "input_context": run.asked,
            "output_response": run.answered[:OUTPUT_MAX],
            "tags": ["chat"],
        }
        headers = {"Idempotency-Key": f"run-{run.id}"}
        return await self._step("memory", "/memory/store", run, json=body, headers=headers)

    async def _step(self, name: str, path: str, run: Ended, **call: Any) -> bool:
        """Return True when nothing more has to be done: stored, or refused for good."""
        try:
            await self._peers.call("memory", "POST", path, act_for=run.user_id, timeout_s=STEP_TIMEOUT_S, **call)
        except PeerError as error:
            if error.status == 429 and error.code == "quota_exceeded":
                log.info("memory_full", step=name)  # the reply stands
                return True
            if error.status in FINAL:
                log.error("follow_up_refused", name=name, status=error.status, code=error.code)
                return True
            log.warning("follow_up_delayed", name=name, reason=error.code)
            return False
        return True


def read_ended(row: dict[str, Any], user_id: UUID) -> Ended:
    """Return the run in a row of `repository.ended_run`."""
    return Ended(
        id=row["id"],
        user_id=user_id,
        session_id=row["session_id"],
        status=Status(row["status"]),
        model=row["model"],
        billed=row["billed_tokens"] or 0,
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        latency_ms=row["latency_ms"],
        ended_at=row["ended_at"],
        asked=row["input_text"],
        answered=row["output_text"],
        error_code=row["error_code"],
        remember=row["remember"],
        request_id=row["request_id"],
        stm_done=row["stm_at"] is not None,
        memory_done=row["memory_at"] is not None,
    )


def _about(run_id: UUID, status: Status) -> dict[str, str]:
    return {"run_id": str(run_id), "status": status.value}
