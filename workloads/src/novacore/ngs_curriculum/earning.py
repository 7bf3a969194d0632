"""The one place where XP is made: event, total, level, achievements and outbox row, in the caller's transaction.

Invariants:
EARN-1: total_xp is the sum of the learner's xp_events; current_level is `level_for(total_xp)`.
EARN-2: one (source, source_id) pays once, however often and from however many replicas it is asked for.
EARN-3: a change of the total and the event that tells others of it commit together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from novacore.common import outbox
from novacore.common.database import Connection
from novacore.ngs_curriculum import repository
from novacore.ngs_curriculum.repository import Achievement, Progress
from novacore.ngs_curriculum.rules import XP, DailyCaps, Source, capped, level_for

SCHEMA = "ngs"


@dataclass(slots=True)
class Earned:
    """What one transaction brought a learner. `events` are (source, XP), for the metrics after the commit."""

    progress: Progress
    xp: int = 0
    achievements: list[Achievement] = field(default_factory=list)
    events: list[tuple[Source, int]] = field(default_factory=list)


def day_start(now: datetime) -> datetime:
    """Return the midnight (UTC) with which the day of `now` began."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


class Ledger:
    """Awards XP to one learner in one transaction. Made by `open_ledger`, which holds the progress row."""

    def __init__(
        self, conn: Connection, progress: Progress, *, now: datetime, caps: DailyCaps, agent_unlock_level: int
    ) -> None:
        self._conn = conn
        self._now = now
        self._caps = caps
        self._agent_unlock_level = agent_unlock_level
        self.earned = Earned(progress)

    @property
    def user_id(self) -> UUID:
        """The learner."""
        return self.earned.progress.user_id

    async def award(self, source: Source, source_id: str, amount: int, metadata: dict[str, Any] | None = None) -> int:
        """Return the XP awarded: `amount`, less where a daily cap cuts it, 0 when it was awarded before."""
        day = await repository.day_so_far(self._conn, self.user_id, since=day_start(self._now))
        most = self._caps.events(source)
        if most is not None and day.events.get(source, 0) >= most:
            return 0
        xp = capped(amount, earned_today=day.xp, caps=self._caps)
        new = await repository.add_xp_event(
            self._conn, self.user_id, source=source, source_id=source_id, xp=xp, metadata=metadata or {}, at=self._now
        )
        if not new:
            return 0
        self.earned.xp += xp
        self.earned.events.append((source, xp))
        if xp:
            await self._advance(xp)
        return xp

    async def streak(self) -> int:
        """Award the daily streak when yesterday brought something too; once a day. Return the XP."""
        today = day_start(self._now)
        yesterday = today - timedelta(days=1)
        if not await repository.active_between(self._conn, self.user_id, start=yesterday, end=today):
            return 0
        return await self.award(Source.DAILY_STREAK, today.date().isoformat(), XP[Source.DAILY_STREAK])

    async def _advance(self, xp: int) -> None:
        before = self.earned.progress
        total = before.total_xp + xp
        level = level_for(total)
        unlocked = before.agent_creation_unlocked or level >= self._agent_unlock_level
        await repository.write_progress(self._conn, self.user_id, total_xp=total, level=level, unlocked=unlocked)
        if level > before.current_level:
            await self._achieve("level_up", {"from": before.current_level, "to": level, "xp": total})
        if unlocked and not before.agent_creation_unlocked:
            await self._achieve("agent_creation_unlocked", {"level": level})
        self.earned.progress = Progress(
            user_id=self.user_id,
            current_level=level,
            total_xp=total,
            agent_creation_unlocked=unlocked,
            handle=before.handle,
            leaderboard_visible=before.leaderboard_visible,
        )
        await outbox.add(
            self._conn,
            type="progress.changed",
            payload={"current_level": level, "total_xp": total},
            user_id=self.user_id,
            schema=SCHEMA,
        )

    async def _achieve(self, kind: str, data: dict[str, Any]) -> None:
        reached = await repository.add_achievement(self._conn, self.user_id, kind=kind, data=data, at=self._now)
        if reached is not None:
            self.earned.achievements.append(reached)


async def open_ledger(
    conn: Connection, user_id: UUID, *, now: datetime, caps: DailyCaps, agent_unlock_level: int
) -> Ledger:
    """Return a ledger that holds the learner's row until the transaction ends: parallel requests wait here."""
    await repository.ensure_progress(conn, user_id)
    progress = await repository.lock_progress(conn, user_id)
    return Ledger(conn, progress, now=now, caps=caps, agent_unlock_level=agent_unlock_level)
