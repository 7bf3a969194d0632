"""The seed step of `novacore migrate`: the curriculum in the package becomes rows. A second run changes nothing.

What left the content stays in the database: learners' completions point at it.
"""

from __future__ import annotations

from novacore.common.database import Connection
from novacore.ngs_curriculum import curriculum, repository
from novacore.ngs_curriculum.curriculum import ChallengeContent, LessonContent, LevelContent
from novacore.ngs_curriculum.rules import LEVELS, xp_required


async def seed(conn: Connection) -> None:
    """Bring levels, lessons, challenges and the default learning path to the content of this release."""
    before: LevelContent | None = None
    for level in curriculum.load():
        await _seed_level(conn, level, before)
        before = level
    await repository.put_default_path(
        conn,
        name=curriculum.DEFAULT_PATH,
        description="All levels in their order.",
        sequence=range(1, LEVELS + 1),
    )


async def _seed_level(conn: Connection, level: LevelContent, before: LevelContent | None) -> None:
    required = [one.slug for one in before.lessons if one.required] if before else []
    await repository.put_level(
        conn,
        repository.Level(
            level_number=level.level,
            title=level.title,
            phase=level.phase,
            description=level.description,
            unlock_requirements={"xp": xp_required(level.level), "lessons": required},
            xp_required=xp_required(level.level),
        ),
    )
    for order, lesson in enumerate(level.lessons, start=1):
        await repository.put_lesson(conn, _lesson_row(level, order, lesson, required))
    first = await repository.lesson_id_of(conn, level.lessons[0].slug)
    for challenge in level.challenges:
        await repository.put_challenge(conn, _challenge_row(level, challenge) | {"lesson_id": first})


def _lesson_row(level: LevelContent, order: int, lesson: LessonContent, required: list[str]) -> dict[str, object]:
    return {
        "level_id": level.level,
        "slug": lesson.slug,
        "title": lesson.title,
        "description": lesson.description,
        "lesson_order": order,
        "lesson_type": lesson.kind,
        "core_lesson": lesson.core_lesson.strip(),
        "human_practice": lesson.human_practice.strip(),
        "reflection_prompt": lesson.reflection_prompt,
        "agent_unlock": lesson.agent_unlock.strip(),
        "quiz": [question.model_dump(mode="json") for question in lesson.quiz],
        "xp_reward": lesson.xp_reward,
        "estimated_minutes": lesson.minutes,
        "prerequisites": required,
        "metadata": {"content_version": level.version},
        "is_required": lesson.required,
    }


def _challenge_row(level: LevelContent, challenge: ChallengeContent) -> dict[str, object]:
    return {
        "slug": challenge.slug,
        "level_id": level.level,
        "title": challenge.title,
        "description": challenge.description.strip(),
        "challenge_type": challenge.kind,
        "difficulty": challenge.difficulty,
        "starter_code": challenge.starter,
        "test_cases": [check.model_dump(mode="json") for check in challenge.checks],
        "solution_template": challenge.solution,
        "xp_reward": challenge.xp_reward,
        "time_limit_minutes": challenge.minutes,
        "tags": challenge.tags,
        "metadata": {"content_version": level.version},
    }
