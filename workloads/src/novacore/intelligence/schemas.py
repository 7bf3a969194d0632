"""What comes in and goes out over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MESSAGE_MAX = 4000
CONTEXT_MAX = 32_000

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MESSAGE_MAX)]


class ChatCreate(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid")

    message: Text
    session_id: UUID | None = None
    use_memory: bool = True
    stream: bool | None = Field(default=None, description="Ignored; old clients send it.")
    max_tokens: int = Field(default=2000, ge=1, le=2000)
    temperature: float = Field(default=0.7, ge=0, le=2, allow_inf_nan=False)


class RunCreate(ChatCreate):
    """One message with an attached text; the text is cut to what the model can read."""

    context: str | None = Field(default=None, max_length=CONTEXT_MAX)


class ChatRead(BaseModel):
    """A whole answer. The field names of old clients."""

    response: str
    session_id: UUID
    tokens_used: int
    latency_ms: int
    run_id: UUID
    model: str
    status: str


class RunAccepted(BaseModel):
    """A run that goes on by itself."""

    run_id: UUID
    session_id: UUID


class RunRead(BaseModel):
    """Where a run stands."""

    run_id: UUID
    session_id: UUID
    status: str
    model: str
    tokens_used: int
    started_at: datetime | None
    ended_at: datetime | None


class SessionRead(BaseModel):
    """One conversation."""

    id: UUID
    status: str
    model_name: str
    created_at: datetime
    ended_at: datetime | None
    prompt_count: int


class SessionEnded(BaseModel):
    """A conversation that was closed."""

    id: UUID
    status: str
    ended_at: datetime


class PromptRead(BaseModel):
    """One exchange."""

    id: UUID
    input_text: str
    output_text: str
    tokens_used: int
    latency_ms: int
    created_at: datetime
