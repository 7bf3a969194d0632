"""ngs-curriculum on real stores, and what its tests hand in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from novacore.ngs_curriculum import curriculum, rules
from tests.kit.harness import RunningService
from tests.kit.keys import TestUser

LESSONS = {lesson.slug: lesson for level in curriculum.load() for lesson in level.lessons}
CHALLENGES = {challenge.slug: challenge for level in curriculum.load() for challenge in level.challenges}


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait until the condition (plain or awaitable) holds, at most 15 s."""
    deadline = asyncio.get_running_loop().time() + 15
    while True:
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert asyncio.get_running_loop().time() < deadline, f"not within 15 s: {what}"
        await asyncio.sleep(0.05)


class MovingClock:
    """A clock a test can move. Starts at noon, so that an hour more is the same day."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 2, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def forward(self, **by: float) -> None:
        self.time += timedelta(**by)


def right_answers(slug: str, *, wrong: int = 0) -> dict[str, str]:
    """Answers to a lesson's quiz, `wrong` of them wrong."""
    answers = {}
    for number, question in enumerate(LESSONS[slug].quiz):
        other = next(option for option in question.options if option != question.answer)
        answers[question.id] = other if number < wrong else question.answer
    return answers


@dataclass
class Ngs:
    """The running service and the calls its tests make most."""

    running: RunningService
    clock: MovingClock

    @property
    def stubs(self) -> dict[str, Any]:
        return self.running.stubs

    def headers(self, user: TestUser | None = None, **options: Any) -> dict[str, str]:
        return self.running.headers(user, **options)

    async def get(self, user: TestUser, path: str, **query: Any) -> httpx.Response:
        return await self.running.public.get(path, params=query, headers=self.headers(user))

    async def post(self, user: TestUser, path: str, body: Any, *, key: str | None = None) -> httpx.Response:
        headers = self.headers(user) | ({"Idempotency-Key": key} if key else {})
        return await self.running.public.post(path, json=body, headers=headers)

    async def lesson_of(self, user: TestUser, level: int = 1) -> dict[str, Any]:
        return (await self.get(user, f"/ngs/levels/{level}/lessons")).json()[0]

    async def challenge_of(self, user: TestUser, level: int = 1) -> dict[str, Any]:
        return (await self.get(user, f"/ngs/levels/{level}/challenges")).json()[0]

    async def complete(self, user: TestUser, level: int = 1, *, wrong: int = 0, **more: Any) -> httpx.Response:
        lesson = await self.lesson_of(user, level)
        body = {"answers": right_answers(lesson["slug"], wrong=wrong), **more}
        return await self.post(user, f"/ngs/lessons/{lesson['id']}/complete", body)

    async def progress(self, user: TestUser) -> dict[str, Any]:
        return (await self.get(user, "/ngs/progress")).json()


@pytest.fixture
async def ngs(client_for: Callable[..., Any]) -> AsyncIterator[Ngs]:
    async with client_for("ngs-curriculum") as running:
        clock = MovingClock()
        running.platform.clock = clock
        yield Ngs(running, clock)


@pytest.fixture
def give_xp(admin_conn: asyncpg.Connection[Any], ngs: Ngs) -> Callable[..., Any]:
    """Arrange a learner with a total of XP, as awards of long ago would have left it."""

    async def give(user: TestUser, total: int) -> None:
        await ngs.get(user, "/ngs/progress")
        have = await admin_conn.fetchval("SELECT total_xp FROM ngs.user_progress WHERE user_id = $1", user.id)
        await admin_conn.execute(
            "INSERT INTO ngs.xp_events (user_id, source, source_id, xp_awarded, created_at)"
            " VALUES ($1, 'unknown', $2, $3, $4)",
            user.id, str(uuid4()), total - have, datetime(2020, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        level = rules.level_for(total)
        await admin_conn.execute(
            "UPDATE ngs.user_progress SET total_xp = $2, current_level = $3, agent_creation_unlocked = $3 >= 12"
            " WHERE user_id = $1",
            user.id, total, level,
        )  # fmt: skip

    return give


@pytest.fixture
def books_balance(admin_conn: asyncpg.Connection[Any]) -> Callable[..., Any]:
    """EARN-1 of one learner: total = sum of events, level = f(total)."""

    async def check(user_id: UUID) -> int:
        row = await admin_conn.fetchrow("SELECT * FROM ngs.user_progress WHERE user_id = $1", user_id)
        total = await admin_conn.fetchval(
            "SELECT coalesce(sum(xp_awarded), 0)::bigint FROM ngs.xp_events WHERE user_id = $1", user_id
        )
        assert row["total_xp"] == total
        assert row["current_level"] == rules.level_for(total)
        return int(total)

    return check
