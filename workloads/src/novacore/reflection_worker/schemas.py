"""What arrives in `stream:reflection`, and what noble-spirit answers."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

STREAM = "stream:reflection"
REQUESTED = "reflection.requested"
BATCH = "reflection.batch"


class ReflectionRequested(BaseModel):
    """One finished run."""

    model_config = ConfigDict(extra="forbid")

    run_id: UUID
    session_id: str | None = None
    input: str
    output: str
    context_ids: list[str] = []


class ReflectionBatch(BaseModel):
    """Runs to be reflected again or late; their texts are looked up at memory."""

    model_config = ConfigDict(extra="forbid")

    run_ids: Annotated[list[UUID], Field(min_length=1, max_length=100)]


class Alignment(BaseModel):
    """The answer of POST /policy/validate-alignment, as far as it is used here."""

    aligned: bool
    alignment_score: Annotated[float, Field(ge=0, le=1)]
    principle_scores: dict[str, float] = {}
    recommendations: list[str] = []
    concerns: list[str] = []
    policy_version: int | None = None


class ExchangeFound(BaseModel):
    """One run's exchange, as memory keeps it."""

    run_id: UUID
    session_id: str | None
    input: str
    output: str


class ExchangesFound(BaseModel):
    """The answer of POST /internal/memory/exchanges."""

    exchanges: list[ExchangeFound]
