"""The content as it lies in the package: one YAML file per level, read and checked before it reaches the database.

Invariants, checked on reading, so that a seed with a hole never starts:
CUR-1: levels 1..24, each with at least one lesson and one challenge; slugs are unique.
CUR-2: every lesson has its four texts and five questions or more; every challenge three checks or more.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from novacore.ngs_curriculum.checks import Check
from novacore.ngs_curriculum.quiz import Question
from novacore.ngs_curriculum.rules import LEVELS

Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]{3,64}$")]
Prose = Annotated[str, Field(min_length=40)]
Phase = Literal["Initiation", "Construction", "Integration", "Ascension"]
DEFAULT_PATH = "The way of the twenty-four"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LessonContent(_Part):
    """One lesson."""

    slug: Slug
    title: Annotated[str, Field(min_length=3, max_length=200)]
    description: Prose
    kind: Literal["tutorial", "exercise", "quiz", "challenge", "reflection"] = "tutorial"
    minutes: Annotated[int, Field(ge=1, le=600)]
    xp_reward: Annotated[int, Field(ge=1, le=1000)] = 50
    required: bool = True
    core_lesson: Prose
    human_practice: Prose
    reflection_prompt: Prose
    agent_unlock: Prose
    quiz: Annotated[list[Question], Field(min_length=5)]


class ChallengeContent(_Part):
    """One challenge. `solution` never leaves the server."""

    slug: Slug
    title: Annotated[str, Field(min_length=3, max_length=200)]
    description: Prose
    kind: Literal["coding", "design", "reflection", "collaboration"]
    difficulty: Literal["easy", "medium", "hard", "expert"]
    minutes: Annotated[int, Field(ge=1, le=600)] = 30
    xp_reward: Annotated[int, Field(ge=1, le=1000)] = 100
    tags: list[str] = []
    starter: str
    checks: Annotated[list[Check], Field(min_length=3)]
    solution: str


class LevelContent(_Part):
    """One file."""

    version: Literal[1]
    level: Annotated[int, Field(ge=1, le=LEVELS)]
    title: str
    phase: Phase
    description: Prose
    lessons: Annotated[list[LessonContent], Field(min_length=1)]
    challenges: Annotated[list[ChallengeContent], Field(min_length=1)]


class CurriculumError(ValueError):
    """The content is not what CUR-1 and CUR-2 say."""


@lru_cache(maxsize=1)
def load() -> tuple[LevelContent, ...]:
    """Return the 24 levels in order. CurriculumError or ValidationError when the content has a hole."""
    folder = resources.files("novacore.ngs_curriculum") / "content"
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".yaml")), key=lambda one: one.name)
    levels = tuple(LevelContent.model_validate(_read(one.read_text(encoding="utf-8"))) for one in files)
    if [one.level for one in levels] != list(range(1, LEVELS + 1)):
        raise CurriculumError(f"content: found levels {[one.level for one in levels]}, expected 1 to {LEVELS}")
    for what in ("lessons", "challenges"):
        slugs = [part.slug for level in levels for part in getattr(level, what)]
        twice = {slug for slug in slugs if slugs.count(slug) > 1}
        if twice:
            raise CurriculumError(f"content: {what} with the same slug: {', '.join(sorted(twice))}")
    return levels


def _read(text: str) -> Any:
    return yaml.safe_load(text)
