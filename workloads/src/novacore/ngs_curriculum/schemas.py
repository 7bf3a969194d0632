"""What comes in and goes out over HTTP. Unknown fields are refused, except two of old clients (`score`, `amount`)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from novacore.ngs_curriculum.gates import LockReason
from novacore.ngs_curriculum.quiz import QuestionView
from novacore.ngs_curriculum.rules import LEVELS

METADATA_MAX = 8_000


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character U+0000")  # Postgres has no such text
    return text


def _storable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata that Postgres takes as jsonb: no U+0000, no half of a surrogate pair, not endless."""
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    if len(text) > METADATA_MAX:
        raise ValueError(f"must not be longer than {METADATA_MAX} characters of JSON")
    if "\\u0000" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("must not contain U+0000 or half of a surrogate pair")
    return metadata


Text = Annotated[str, AfterValidator(_no_nul)]
LevelNumber = Annotated[int, Field(ge=1, le=LEVELS)]
Seconds = Annotated[int, Field(ge=0, le=86_400)]
Metadata = Annotated[dict[str, Any], Field(max_length=20), AfterValidator(_storable)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


# Progress and levels


class LevelInfo(BaseModel):
    """A level as the curriculum describes it, the same for everybody."""

    level_number: int
    title: str
    phase: str
    description: str
    xp_required: int


class ProgressRead(BaseModel):
    """Where a learner stands."""

    user_id: UUID
    current_level: int
    total_xp: int
    agent_creation_unlocked: bool
    current_level_info: LevelInfo
    next_level_info: LevelInfo | None
    xp_to_next_level: int
    progress_percent: float


class LevelRead(LevelInfo):
    """A level with its lock."""

    unlock_requirements: dict[str, Any]
    locked: bool
    lock_reason: LockReason | None


# Lessons


class LessonListed(BaseModel):
    """A lesson in the list of its level."""

    id: UUID
    slug: str
    level_number: int
    title: str
    description: str
    lesson_order: int
    lesson_type: str
    xp_reward: int
    estimated_minutes: int
    is_required: bool
    completed: bool
    locked: bool
    lock_reason: LockReason | None


class LessonRead(LessonListed):
    """A whole lesson. The quiz comes without its answers."""

    core_lesson: str
    human_practice: str
    reflection_prompt: str
    agent_unlock: str
    content_markdown: str | None
    quiz: list[QuestionView]
    prerequisites: list[str]


class LessonComplete(_In):
    """What a learner hands in. The server grades the answers; a `score` sent along is ignored."""

    answers: Annotated[dict[str, Annotated[str, Field(max_length=32)]], Field(max_length=50)] | None = None
    time_spent_seconds: Seconds | None = None
    reflection_text: Annotated[Text, Field(max_length=5000)] | None = None
    metadata: Metadata | None = None
    score: Any = Field(default=None, deprecated=True, exclude=True)


class LessonCompleteByBody(LessonComplete):
    """The same for the route without an id in its path."""

    lesson_id: UUID


class AchievementRead(BaseModel):
    """Something reached once."""

    achievement_type: str
    achievement_data: dict[str, Any]
    unlocked_at: datetime


class LessonResult(BaseModel):
    """What handing in a lesson brought. Not completed: the quiz was below 60; `attempts_left` more tries today."""

    completed: bool
    xp_awarded: int
    score: int | None
    attempts_left: int | None
    progress: ProgressRead
    achievements: list[AchievementRead]


# Reflections


class ReflectionCreate(_In):
    """A reflection to be stored."""

    lesson_id: UUID | None = None
    level_number: LevelNumber
    reflection_prompt: Annotated[Text, Field(min_length=1, max_length=1000)]
    reflection_text: Annotated[Text, Field(min_length=1, max_length=5000)]
    is_public: bool = False


class ReflectionRead(BaseModel):
    """A stored reflection of one's own."""

    id: UUID
    lesson_id: UUID | None
    level_number: int
    reflection_prompt: str
    reflection_text: str
    quality_score: float
    xp_awarded: int
    is_public: bool
    created_at: datetime


class ReflectionResult(BaseModel):
    """What a reflection brought."""

    id: UUID
    quality_score: float
    xp_awarded: int


# Challenges


class ChallengeListed(BaseModel):
    """A challenge in the list of its level."""

    id: UUID
    slug: str
    level_number: int
    lesson_id: UUID | None
    title: str
    challenge_type: str
    difficulty: str
    xp_reward: int
    time_limit_minutes: int | None
    tags: list[str]
    completed: bool
    locked: bool
    lock_reason: LockReason | None


class ChallengeRead(ChallengeListed):
    """A whole challenge: the task, where to start, what the open checks want. No solution, no hidden check."""

    description: str
    starter_code: str
    checks: list[str]
    best_score: int | None


class SubmissionCreate(_In):
    """A solution handed in."""

    submission_code: Annotated[Text, Field(min_length=1, max_length=50_000)]
    time_taken_seconds: Seconds | None = None


class SubmissionResult(BaseModel):
    """How it was graded."""

    id: UUID
    passed: bool
    score: int
    feedback: str
    xp_awarded: int


class SubmissionRead(BaseModel):
    """A submission of one's own, as listed."""

    id: UUID
    challenge_id: UUID
    title: str
    status: str
    passed: bool
    score: int
    feedback: str
    time_taken_seconds: int | None
    submitted_at: datetime


# Leaderboard, awards


class LeaderRead(BaseModel):
    """A row of the leaderboard. Ties share a rank; no user ids."""

    rank: int
    handle: str
    total_xp: int
    current_level: int


class VisibilityUpdate(_In):
    """Whether one is seen on the leaderboard, and under which name."""

    visible: bool
    handle: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{3,32}$")] | None = None


class VisibilityRead(BaseModel):
    """The setting in force."""

    visible: bool
    handle: str


class AwardCreate(_In):
    """An award by an admin. The table decides the XP; an `amount` sent along is ignored."""

    user_id: UUID
    source: Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]
    source_id: Annotated[Text, Field(min_length=1, max_length=200)]
    metadata: Metadata | None = None
    amount: Any = Field(default=None, deprecated=True, exclude=True)


class AwardResult(BaseModel):
    """What the award brought; 0 when this (source, source_id) was awarded before or a daily cap is reached."""

    source: str
    xp_awarded: int
    progress: ProgressRead
    achievements: list[AchievementRead]


class AboutRead(BaseModel):
    """Answer of GET /."""

    service: str
    version: str
