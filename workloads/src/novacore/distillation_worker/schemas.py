"""What memory's routes answer, as far as it is used here, and what a run reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

Result = Literal["ok", "partial", "error", "skipped"]


class UsersFound(BaseModel):
    """GET /internal/memory/users."""

    users: list[UUID]
    next: UUID | None


class Reflection(BaseModel):
    """One reflection of GET /internal/memory/scan."""

    id: UUID
    created_at: datetime
    tags: list[str]
    outcome: Literal["success", "failure", "neutral"]
    emotional_weight: float | None
    confidence_score: float | None
    improvement: str


class ReflectionsFound(BaseModel):
    """GET /internal/memory/scan."""

    reflections: list[Reflection]


class Distilled(BaseModel):
    """POST /internal/memory/distilled."""

    id: UUID
    created: bool
    contradicts: list[UUID]


class BatchDone(BaseModel):
    """POST /internal/memory/{promote,purge,supersede}."""

    count: int
    more: bool


@dataclass(slots=True)
class Counts:
    """What a run did."""

    users: int = 0
    users_failed: int = 0
    reflections: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    superseded: int = 0
    promoted: int = 0
    purged: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended. `skipped`: another one was at work."""

    result: Result
    seconds: float
    counts: Counts = field(default_factory=Counts)


class ReportRead(BaseModel):
    """POST /internal/distill/run."""

    result: Result
    seconds: float
    counts: dict[str, int]
