"""All SQL of ngs-curriculum. Every query on a learner's table names `user_id`; row-level security is the second wall.

Whoever writes XP holds the learner's progress row (`lock_progress`) for the rest of the transaction, so the counts read
after it ("how many today?") cannot be passed by a parallel request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from novacore.common.database import Connection


class UnknownUserError(Exception):
    """There is no such user (any more)."""


class HandleTakenError(Exception):
    """Someone else has this handle, letter case apart."""


@dataclass(frozen=True, slots=True)
class Level:
    """A row of `ngs.curriculum_levels`."""

    level_number: int
    title: str
    phase: str
    description: str
    unlock_requirements: dict[str, Any]
    xp_required: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """A row of `ngs.lessons`, with whether the learner has completed it."""

    id: UUID
    level_number: int
    slug: str
    title: str
    description: str
    lesson_order: int
    lesson_type: str
    content_markdown: str | None
    core_lesson: str
    human_practice: str
    reflection_prompt: str
    agent_unlock: str
    quiz: list[dict[str, Any]] = field(repr=False)
    xp_reward: int
    estimated_minutes: int
    prerequisites: list[str]
    is_required: bool
    completed: bool


@dataclass(frozen=True, slots=True)
class Challenge:
    """A row of `ngs.challenges`, with the learner's best score. `test_cases` never leaves the server."""

    id: UUID
    level_number: int
    lesson_id: UUID | None
    slug: str
    title: str
    description: str
    challenge_type: str
    difficulty: str
    starter_code: str
    test_cases: list[dict[str, Any]] = field(repr=False)
    xp_reward: int
    time_limit_minutes: int | None
    tags: list[str]
    best_score: int | None


@dataclass(frozen=True, slots=True)
class Progress:
    """A row of `ngs.user_progress`."""

    user_id: UUID
    current_level: int
    total_xp: int
    agent_creation_unlocked: bool
    handle: str
    leaderboard_visible: bool


@dataclass(frozen=True, slots=True)
class Achievement:
    """A row of `ngs.achievements`."""

    achievement_type: str
    achievement_data: dict[str, Any]
    unlocked_at: datetime


@dataclass(frozen=True, slots=True)
class Reflection:
    """A row of `ngs.user_reflections`."""

    id: UUID
    lesson_id: UUID | None
    level_number: int
    reflection_prompt: str
    reflection_text: str
    quality_score: float
    xp_awarded: int
    is_public: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Submission:
    """A row of `ngs.challenge_submissions`, with its challenge's title."""

    id: UUID
    challenge_id: UUID
    title: str
    status: str
    passed: bool
    score: int
    feedback: str
    time_taken_seconds: int | None
    submitted_at: datetime


@dataclass(frozen=True, slots=True)
class Day:
    """What a UTC day has brought so far."""

    xp: int
    events: dict[str, int]


# Progress

_PROGRESS = (
    "SELECT user_id, current_level, total_xp, agent_creation_unlocked, handle, leaderboard_visible"
    " FROM ngs.user_progress WHERE user_id = $1"
)
_LOCK_PROGRESS = f"{_PROGRESS} FOR UPDATE"


async def ensure_progress(conn: Connection, user_id: UUID) -> Progress:
    """Return the learner's progress, made if missing. UnknownUserError when the user does not exist."""
    progress = await _progress(conn, user_id, lock=False)
    if progress is not None:
        return progress
    try:
        await conn.execute(
            "INSERT INTO ngs.user_progress (user_id, handle)"
            " VALUES ($1, 'learner-' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 12))"
            " ON CONFLICT (user_id) DO NOTHING",
            user_id,
        )
        await conn.execute(
            "INSERT INTO ngs.user_learning_paths (user_id, learning_path_id)"
            " SELECT $1, id FROM ngs.learning_paths WHERE is_default ON CONFLICT (user_id) DO NOTHING",
            user_id,
        )
    except asyncpg.ForeignKeyViolationError:
        raise UnknownUserError from None
    progress = await _progress(conn, user_id, lock=False)
    assert progress is not None  # made above, in this transaction or in the one that was waited for
    return progress


async def lock_progress(conn: Connection, user_id: UUID) -> Progress:
    """Return the learner's progress and hold its row until the transaction ends. The row must exist."""
    progress = await _progress(conn, user_id, lock=True)
    if progress is None:
        raise UnknownUserError
    return progress


async def _progress(conn: Connection, user_id: UUID, *, lock: bool) -> Progress | None:
    row = await conn.fetchrow(_LOCK_PROGRESS if lock else _PROGRESS, user_id)
    return Progress(**dict(row)) if row else None


async def write_progress(conn: Connection, user_id: UUID, *, total_xp: int, level: int, unlocked: bool) -> None:
    """Store the totals that follow from an XP event."""
    await conn.execute(
        "UPDATE ngs.user_progress SET total_xp = $2, current_level = $3, agent_creation_unlocked = $4,"
        " updated_at = now() WHERE user_id = $1",
        user_id, total_xp, level, unlocked,
    )  # fmt: skip
    await conn.execute(
        "UPDATE ngs.user_learning_paths SET current_position = $2, updated_at = now()"
        " WHERE user_id = $1 AND current_position <> $2",
        user_id, level,
    )  # fmt: skip


async def set_visibility(conn: Connection, user_id: UUID, *, visible: bool, handle: str | None) -> Progress:
    """Store the leaderboard setting; `handle` None keeps the old one. HandleTakenError when it is someone else's."""
    try:
        row = await conn.fetchrow(
            "UPDATE ngs.user_progress SET leaderboard_visible = $2, handle = coalesce($3, handle), updated_at = now()"
            " WHERE user_id = $1"
            " RETURNING user_id, current_level, total_xp, agent_creation_unlocked, handle, leaderboard_visible",
            user_id, visible, handle,
        )  # fmt: skip
    except asyncpg.UniqueViolationError:
        raise HandleTakenError from None
    if row is None:
        raise UnknownUserError
    return Progress(**dict(row))


# Curriculum


async def levels(conn: Connection) -> list[Level]:
    """Return the 24 levels in order."""
    rows = await conn.fetch(
        "SELECT level_number, title, phase, description, unlock_requirements, xp_required"
        " FROM ngs.curriculum_levels ORDER BY level_number"
    )
    return [Level(**dict(row)) for row in rows]


async def missing_required(conn: Connection, user_id: UUID) -> frozenset[int]:
    """Return the levels that hold a required lesson the learner has not completed."""
    rows = await conn.fetch(
        "SELECT DISTINCT l.level_id FROM ngs.lessons l LEFT JOIN ngs.lesson_completions c"
        " ON c.lesson_id = l.id AND c.user_id = $1 WHERE l.is_required AND c.id IS NULL",
        user_id,
    )
    return frozenset(row["level_id"] for row in rows)


_LESSON = (
    "SELECT l.id, l.level_id AS level_number, l.slug, l.title, l.description, l.lesson_order, l.lesson_type,"
    " l.content_markdown, l.core_lesson, l.human_practice, l.reflection_prompt, l.agent_unlock, l.quiz, l.xp_reward,"
    " l.estimated_minutes, l.prerequisites, l.is_required, c.id IS NOT NULL AS completed"
    " FROM ngs.lessons l LEFT JOIN ngs.lesson_completions c ON c.lesson_id = l.id AND c.user_id = $1"
)


async def lessons_of(conn: Connection, user_id: UUID, level: int) -> list[Lesson]:
    """Return the lessons of a level in order."""
    rows = await conn.fetch(f"{_LESSON} WHERE l.level_id = $2 ORDER BY l.lesson_order", user_id, level)
    return [Lesson(**dict(row)) for row in rows]


async def lesson(conn: Connection, user_id: UUID, lesson_id: UUID) -> Lesson | None:
    """Return one lesson, or None."""
    row = await conn.fetchrow(f"{_LESSON} WHERE l.id = $2", user_id, lesson_id)
    return Lesson(**dict(row)) if row else None


_CHALLENGE = (
    "SELECT c.id, c.level_id AS level_number, c.lesson_id, c.slug, c.title, c.description, c.challenge_type,"
    " c.difficulty, c.starter_code, c.test_cases, c.xp_reward, c.time_limit_minutes, c.tags,"
    " (SELECT max(s.score) FROM ngs.challenge_submissions s WHERE s.user_id = $1 AND s.challenge_id = c.id)"
    " AS best_score FROM ngs.challenges c"
)


async def challenges_of(conn: Connection, user_id: UUID, level: int) -> list[Challenge]:
    """Return the active challenges of a level."""
    rows = await conn.fetch(f"{_CHALLENGE} WHERE c.level_id = $2 AND c.is_active ORDER BY c.slug", user_id, level)
    return [Challenge(**dict(row)) for row in rows]


async def challenge(conn: Connection, user_id: UUID, challenge_id: UUID) -> Challenge | None:
    """Return one active challenge, or None."""
    row = await conn.fetchrow(f"{_CHALLENGE} WHERE c.id = $2 AND c.is_active", user_id, challenge_id)
    return Challenge(**dict(row)) if row else None


# What learners did


async def add_completion(
    conn: Connection,
    user_id: UUID,
    *,
    lesson_id: UUID,
    score: int | None,
    time_spent_seconds: int | None,
    reflection_text: str | None,
    data: dict[str, Any],
    at: datetime,
) -> bool:
    """Store a completed lesson; False when it was completed before."""
    return bool(
        await conn.fetchval(
            "INSERT INTO ngs.lesson_completions"
            " (user_id, lesson_id, score, time_spent_seconds, reflection_text, completion_data, completed_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id, lesson_id) DO NOTHING RETURNING true",
            user_id, lesson_id, score, time_spent_seconds, reflection_text, data, at,
        )
    )  # fmt: skip


async def completion_score(conn: Connection, user_id: UUID, lesson_id: UUID) -> int | None:
    """Return the score with which a lesson was completed; None without a quiz or when it was not."""
    score: int | None = await conn.fetchval(
        "SELECT score FROM ngs.lesson_completions WHERE user_id = $1 AND lesson_id = $2", user_id, lesson_id
    )
    return score


async def count_attempts(conn: Connection, user_id: UUID, lesson_id: UUID, *, since: datetime) -> int:
    """Return how many tries at a lesson failed since `since`."""
    return int(
        await conn.fetchval(
            "SELECT count(*) FROM ngs.lesson_attempts WHERE user_id = $1 AND lesson_id = $2 AND attempted_at >= $3",
            user_id, lesson_id, since,
        )
    )  # fmt: skip


async def add_attempt(conn: Connection, user_id: UUID, *, lesson_id: UUID, score: int, at: datetime) -> None:
    """Store a try that failed."""
    await conn.execute(
        "INSERT INTO ngs.lesson_attempts (user_id, lesson_id, score, attempted_at) VALUES ($1, $2, $3, $4)",
        user_id, lesson_id, score, at,
    )  # fmt: skip


async def reflections(conn: Connection, user_id: UUID, *, limit: int, offset: int = 0) -> list[Reflection]:
    """Return one's own reflections, newest first."""
    rows = await conn.fetch(
        "SELECT id, lesson_id, level_number, reflection_prompt, reflection_text, quality_score, xp_awarded, is_public,"
        " created_at FROM ngs.user_reflections WHERE user_id = $1 ORDER BY created_at DESC, id LIMIT $2 OFFSET $3",
        user_id, limit, offset,
    )  # fmt: skip
    return [Reflection(**dict(row)) for row in rows]


async def reflection_texts(conn: Connection, user_id: UUID, *, limit: int) -> list[str]:
    """Return the texts of the newest reflections, to compare a new one with."""
    rows = await conn.fetch(
        "SELECT reflection_text FROM ngs.user_reflections WHERE user_id = $1 ORDER BY created_at DESC LIMIT $2",
        user_id, limit,
    )  # fmt: skip
    return [row["reflection_text"] for row in rows]


async def paid_reflection_prompts(conn: Connection, user_id: UUID, *, since: datetime) -> list[str]:
    """Return the prompts of the reflections that brought XP since `since`."""
    rows = await conn.fetch(
        "SELECT reflection_prompt FROM ngs.user_reflections"
        " WHERE user_id = $1 AND created_at >= $2 AND xp_awarded > 0",
        user_id, since,
    )  # fmt: skip
    return [row["reflection_prompt"] for row in rows]


async def add_reflection(
    conn: Connection,
    user_id: UUID,
    *,
    reflection_id: UUID,
    lesson_id: UUID | None,
    level: int,
    prompt: str,
    text: str,
    quality: float,
    xp: int,
    public: bool,
    at: datetime,
) -> None:
    """Store a reflection."""
    await conn.execute(
        "INSERT INTO ngs.user_reflections (id, user_id, lesson_id, level_number, reflection_prompt, reflection_text,"
        " quality_score, xp_awarded, is_public, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        reflection_id, user_id, lesson_id, level, prompt, text, quality, xp, public, at,
    )  # fmt: skip


async def submissions(conn: Connection, user_id: UUID, *, limit: int, offset: int = 0) -> list[Submission]:
    """Return one's own submissions, newest first."""
    rows = await conn.fetch(
        "SELECT s.id, s.challenge_id, c.title, s.status, s.passed, s.score, s.feedback, s.time_taken_seconds,"
        " s.submitted_at FROM ngs.challenge_submissions s JOIN ngs.challenges c ON c.id = s.challenge_id"
        " WHERE s.user_id = $1 ORDER BY s.submitted_at DESC, s.id LIMIT $2 OFFSET $3",
        user_id, limit, offset,
    )  # fmt: skip
    return [Submission(**dict(row)) for row in rows]


async def add_submission(
    conn: Connection,
    user_id: UUID,
    *,
    challenge_id: UUID,
    code: str,
    results: Sequence[dict[str, Any]],
    passed: bool,
    score: int,
    feedback: str,
    time_taken_seconds: int | None,
    at: datetime,
) -> UUID:
    """Store a graded submission and return its id."""
    submission_id: UUID = await conn.fetchval(
        "INSERT INTO ngs.challenge_submissions (user_id, challenge_id, submission_code, test_results, status, passed,"
        " score, feedback, time_taken_seconds, submitted_at) VALUES ($1, $2, $3, $4, 'graded', $5, $6, $7, $8, $9)"
        " RETURNING id",
        user_id, challenge_id, code, list(results), passed, score, feedback, time_taken_seconds, at,
    )  # fmt: skip
    return submission_id


# XP


async def day_so_far(conn: Connection, user_id: UUID, *, since: datetime) -> Day:
    """Return XP and number of events per source since `since`."""
    rows = await conn.fetch(
        "SELECT source, count(*) AS events, sum(xp_awarded)::bigint AS xp FROM ngs.xp_events"
        " WHERE user_id = $1 AND created_at >= $2 GROUP BY source",
        user_id, since,
    )  # fmt: skip
    return Day(xp=sum(row["xp"] for row in rows), events={row["source"]: row["events"] for row in rows})


async def active_between(conn: Connection, user_id: UUID, *, start: datetime, end: datetime) -> bool:
    """Return whether the learner earned anything in [start, end)."""
    return bool(
        await conn.fetchval(
            "SELECT EXISTS (SELECT 1 FROM ngs.xp_events WHERE user_id = $1 AND created_at >= $2 AND created_at < $3)",
            user_id, start, end,
        )
    )  # fmt: skip


async def add_xp_event(
    conn: Connection,
    user_id: UUID,
    *,
    source: str,
    source_id: str,
    xp: int,
    metadata: dict[str, Any],
    at: datetime,
) -> bool:
    """Store an XP event; False when this (source, source_id) has paid before."""
    return bool(
        await conn.fetchval(
            "INSERT INTO ngs.xp_events (user_id, source, source_id, xp_awarded, metadata, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id, source, source_id) DO NOTHING RETURNING true",
            user_id, source, source_id, xp, metadata, at,
        )
    )  # fmt: skip


async def add_achievement(
    conn: Connection, user_id: UUID, *, kind: str, data: dict[str, Any], at: datetime
) -> Achievement | None:
    """Store an achievement; None when it was reached before."""
    row = await conn.fetchrow(
        "INSERT INTO ngs.achievements (user_id, achievement_type, achievement_data, unlocked_at)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING achievement_type, achievement_data, unlocked_at",
        user_id, kind, data, at,
    )  # fmt: skip
    return Achievement(**dict(row)) if row else None


async def achievements(conn: Connection, user_id: UUID) -> list[Achievement]:
    """Return one's own achievements, newest first."""
    rows = await conn.fetch(
        "SELECT achievement_type, achievement_data, unlocked_at FROM ngs.achievements"
        " WHERE user_id = $1 ORDER BY unlocked_at DESC, achievement_type",
        user_id,
    )
    return [Achievement(**dict(row)) for row in rows]


async def leaders(conn: Connection, *, limit: int) -> list[dict[str, Any]]:
    """Return `rank handle total_xp current_level` of those who want to be seen; ties share a rank."""
    rows = await conn.fetch("SELECT rank, handle, total_xp, current_level FROM ngs.leaderboard($1)", limit)
    return [dict(row) for row in rows]


# Seed: by natural key; an unchanged row is not written again


async def put_level(conn: Connection, level: Level) -> None:
    """Insert a level or bring it up to date."""
    await conn.execute(
        "INSERT INTO ngs.curriculum_levels AS old"
        " (id, level_number, title, phase, description, unlock_requirements, xp_required)"
        " VALUES ($1, $1, $2, $3, $4, $5, $6) ON CONFLICT (level_number) DO UPDATE SET title = EXCLUDED.title,"
        " phase = EXCLUDED.phase, description = EXCLUDED.description,"
        " unlock_requirements = EXCLUDED.unlock_requirements, xp_required = EXCLUDED.xp_required, updated_at = now()"
        " WHERE (old.title, old.phase, old.description, old.unlock_requirements, old.xp_required) IS DISTINCT FROM"
        " (EXCLUDED.title, EXCLUDED.phase, EXCLUDED.description, EXCLUDED.unlock_requirements, EXCLUDED.xp_required)",
        level.level_number, level.title, level.phase, level.description, level.unlock_requirements, level.xp_required,
    )  # fmt: skip


_LESSON_COLUMNS = (
    "level_id", "slug", "title", "description", "lesson_order", "lesson_type", "core_lesson", "human_practice",
    "reflection_prompt", "agent_unlock", "quiz", "xp_reward", "estimated_minutes", "prerequisites", "metadata",
    "is_required",
)  # fmt: skip
_CHALLENGE_COLUMNS = (
    "slug", "lesson_id", "level_id", "title", "description", "challenge_type", "difficulty", "starter_code",
    "test_cases", "solution_template", "xp_reward", "time_limit_minutes", "tags", "metadata",
)  # fmt: skip


async def put_lesson(conn: Connection, values: dict[str, Any]) -> None:
    """Insert a lesson (columns `_LESSON_COLUMNS`) or bring it up to date."""
    await conn.execute(_put("ngs.lessons", _LESSON_COLUMNS), *(values[name] for name in _LESSON_COLUMNS))


async def put_challenge(conn: Connection, values: dict[str, Any]) -> None:
    """Insert a challenge (columns `_CHALLENGE_COLUMNS`) or bring it up to date."""
    await conn.execute(_put("ngs.challenges", _CHALLENGE_COLUMNS), *(values[name] for name in _CHALLENGE_COLUMNS))


async def lesson_id_of(conn: Connection, slug: str) -> UUID:
    """Return the id of a seeded lesson."""
    lesson_id: UUID = await conn.fetchval("SELECT id FROM ngs.lessons WHERE slug = $1", slug)
    return lesson_id


async def put_default_path(conn: Connection, *, name: str, description: str, sequence: Sequence[int]) -> None:
    """Insert the one default learning path or bring it up to date."""
    await conn.execute(
        "INSERT INTO ngs.learning_paths AS old (name, description, level_sequence, is_default)"
        " VALUES ($1, $2, $3, true) ON CONFLICT (name) DO UPDATE SET description = EXCLUDED.description,"
        " level_sequence = EXCLUDED.level_sequence, is_default = true, updated_at = now()"
        " WHERE (old.description, old.level_sequence, old.is_default)"
        " IS DISTINCT FROM (EXCLUDED.description, EXCLUDED.level_sequence, true)",
        name, description, list(sequence),
    )  # fmt: skip


def _put(table: str, columns: Sequence[str]) -> str:
    """Return an upsert by `slug` that leaves an equal row alone. The names are constants above, never input."""
    rest = [name for name in columns if name != "slug"]
    values = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in rest)
    old, new = (", ".join(f"{side}.{name}" for name in rest) for side in ("old", "EXCLUDED"))
    return (
        f"INSERT INTO {table} AS old ({', '.join(columns)}) VALUES ({values})"  # noqa: S608 - constants, see above
        f" ON CONFLICT (slug) DO UPDATE SET {changes}, updated_at = now() WHERE ({old}) IS DISTINCT FROM ({new})"
    )
