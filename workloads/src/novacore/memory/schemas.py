"""What comes in and goes out over HTTP. Unknown fields are refused; bounds are inclusive."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from novacore.memory.rules import Tier

MemoryType = Literal["lesson", "task", "conversation", "error", "reflection", "achievement"]
Outcome = Literal["success", "failure", "neutral"]


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character U+0000")  # Postgres has no such text
    return text


def _lone_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Text = Annotated[str, AfterValidator(_no_nul)]
SessionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
Tag = Annotated[Text, Field(min_length=1, max_length=64)]
Tags = Annotated[list[Tag], Field(max_length=20), AfterValidator(lambda tags: list(dict.fromkeys(tags)))]
Weight = Annotated[float, BeforeValidator(_lone_number), Field(ge=-1, le=1, allow_inf_nan=False)]
Score = Annotated[float, BeforeValidator(_lone_number), Field(ge=0, le=1, allow_inf_nan=False)]


class Body(BaseModel):
    """A request body."""

    model_config = ConfigDict(extra="forbid")


class MemoryCreate(Body):
    """POST /memory/store."""

    session_id: SessionId | None = None
    type: MemoryType
    input_context: Annotated[Text, Field(min_length=1, max_length=16_000)]
    output_response: Annotated[Text, Field(max_length=32_000)] | None = None
    outcome: Outcome = "neutral"
    emotional_weight: Weight | None = None
    confidence_score: Score | None = None
    tags: Tags = []
    tier: Tier = "stm"


class MemoryUpdate(Body):
    """PATCH /memory/update/{id}: what is left out stays; the two numbers may be set to null."""

    outcome: Outcome = "neutral"
    emotional_weight: Weight | None = None
    confidence_score: Score | None = None
    tags: Tags = []
    tier: Tier = "stm"

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("name at least one field to change")
        return self


class MemoryRead(BaseModel):
    """One memory."""

    id: UUID
    user_id: UUID
    session_id: str | None
    type: MemoryType
    input_context: str
    output_response: str | None
    outcome: Outcome
    emotional_weight: float | None
    confidence_score: float | None
    constitution_valid: bool
    tags: list[str]
    tier: Tier
    access_count: int
    last_accessed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class MemoryList(BaseModel):
    """GET /memory/list. `total` counts what the filters let through, not this page."""

    memories: list[MemoryRead]
    total: int
    limit: int
    offset: int


class SearchRequest(Body):
    """POST /memory/search."""

    query: Annotated[Text, Field(min_length=1, max_length=1000)]
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    tier: Tier | None = None
    memory_type: MemoryType | None = None
    min_confidence: Score | None = None


class SearchHit(MemoryRead):
    """A memory found, why, and how surely (0..1)."""

    similarity_score: float
    reasons: dict[str, float]


class SearchResponse(BaseModel):
    """Hits, best first. `total` counts the memories that the filters let through."""

    results: list[SearchHit]
    total: int
    query: str


class PromoteRequest(Body):
    """POST /memory/promote/{id}."""

    target_tier: Tier


class Stats(BaseModel):
    """GET /memory/stats. `storage_limit_mb` is -1 without a limit."""

    stm_count: int
    itm_count: int
    ltm_count: int
    total_memories: int
    storage_used_mb: float
    storage_limit_mb: float
    tier_breakdown: dict[str, dict[str, int]]


class TurnCreate(Body):
    """POST /memory/stm/store: one exchange of a session."""

    input: Annotated[Text, Field(min_length=1, max_length=16_000)]
    output: Annotated[Text, Field(max_length=32_000)]
    timestamp: datetime | None = None
    tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None


class Turn(BaseModel):
    """One exchange in short-term memory."""

    input: str
    output: str
    timestamp: datetime | None = None
    tokens: int | None = None


class TurnStored(BaseModel):
    """Answer to a stored exchange; `size` is the session's length afterwards."""

    stored: bool
    size: int


class Turns(BaseModel):
    """GET /memory/stm/retrieve/{session}: oldest first."""

    session_id: str
    items: list[Turn]
    count: int


class Intermediate(BaseModel):
    """GET /memory/itm/retrieve: most used first."""

    items: list[MemoryRead]
    count: int


class ContextRequest(Body):
    """POST /memory/context."""

    query: Annotated[Text, Field(max_length=4000)] = ""
    session_id: SessionId | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 10


class ContextItm(BaseModel):
    """An intermediate memory for a prompt; `input` is cut to 200 characters."""

    id: UUID
    type: MemoryType
    input: str
    outcome: Outcome
    access_count: int


class ContextLtm(BaseModel):
    """A long-term memory for a prompt."""

    id: UUID
    type: MemoryType
    input: str
    confidence: float


class Principle(BaseModel):
    """What distillation concluded from several reflections."""

    id: UUID
    topic: str
    principle: str
    confidence: float


class Context(BaseModel):
    """What a prompt may draw on, best first (the turns: oldest first)."""

    stm: list[Turn]
    itm: list[ContextItm]
    ltm: list[ContextLtm]
    principles: list[Principle]


class Usage(BaseModel):
    """GET /memory/usage."""

    used_bytes: int
    limit_bytes: int
    percentage: float
    memory_count: int


class QuotaCheck(BaseModel):
    """GET /memory/usage/quota-check: advice, reserves nothing."""

    has_quota: bool
    used_bytes: int
    limit_bytes: int


class ReflectionCreate(Body):
    """POST /internal/memory/reflections."""

    run_id: UUID
    self_assessment: Annotated[Text, Field(min_length=1, max_length=16_000)]
    alignment_score: Score
    improvement_notes: Annotated[Text, Field(max_length=16_000)] = ""
    emotional_weight: Weight
    metadata: dict[str, Any] = {}


class ReflectionRead(BaseModel):
    """The ids of a stored reflection; `created` is false when the run had one already."""

    id: UUID
    memory_id: UUID
    created: bool


class ExchangesRequest(Body):
    """POST /internal/memory/exchanges."""

    run_ids: Annotated[list[UUID], Field(min_length=1, max_length=100)]


class Exchange(BaseModel):
    """What was said in one run."""

    run_id: UUID
    session_id: str | None
    input: str
    output: str


class Exchanges(BaseModel):
    """The exchanges that are still kept, of those asked for."""

    exchanges: list[Exchange]


class UsersPage(BaseModel):
    """GET /internal/memory/users; `next` is the cursor of the following page, null at the end."""

    users: list[UUID]
    next: UUID | None


class ScannedReflection(BaseModel):
    """A reflection as distillation reads it."""

    id: UUID
    memory_id: UUID
    created_at: datetime
    tags: list[str]
    outcome: Outcome
    emotional_weight: float | None
    confidence_score: float | None
    improvement: str


class ScanPage(BaseModel):
    """GET /internal/memory/scan: oldest first."""

    reflections: list[ScannedReflection]


class DistilledCreate(Body):
    """POST /internal/memory/distilled."""

    topic: Annotated[Text, Field(min_length=1, max_length=64)]
    principle: Annotated[Text, Field(min_length=1, max_length=500)]
    outcome: Literal["success", "failure"]
    confidence: Score
    source_reflections: Annotated[list[UUID], Field(min_length=2, max_length=100)]


class DistilledRead(BaseModel):
    """`contradicts`: older principles in force on the topic that say the opposite of this one."""

    id: UUID
    created: bool
    contradicts: list[UUID]


class SupersedeRequest(Body):
    """POST /internal/memory/supersede: `by` takes the place of `ids`, which stay, no longer in force."""

    by: UUID
    ids: Annotated[list[UUID], Field(min_length=1, max_length=100)]


class Batch(Body):
    """POST /internal/memory/{promote,purge}."""

    limit: Annotated[int, Field(ge=1, le=100)] = 100


class BatchResult(BaseModel):
    """`more`: whether another call finds work."""

    count: int
    more: bool
