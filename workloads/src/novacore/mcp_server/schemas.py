"""What comes in and goes out, the same for REST routes and MCP tools. Unknown fields of a body are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Action = Literal["edit", "save", "run", "debug"]
Outcome = Literal["success", "failure", "neutral"]
Tier = Literal["stm", "itm", "ltm"]
MemoryType = Literal["lesson", "task", "conversation", "error", "reflection", "achievement"]

_NO_NUL = r"^[^\x00]*$"  # Postgres has no such text; (?s) is not needed: a class matches line ends
FilePath = Annotated[str, Field(min_length=1, max_length=1024, pattern=_NO_NUL, description="Path of the file at hand")]
FileText = Annotated[str, Field(max_length=200_000, description="Text of the file")]
Language = Annotated[str, Field(max_length=64, description="Language of the file, such as python")]
FewLimit = Annotated[int, Field(ge=1, le=20, description="At most so many memories")]
SearchLimit = Annotated[int, Field(ge=1, le=100, description="At most so many memories")]
Query = Annotated[str, Field(min_length=1, max_length=1000, pattern=_NO_NUL, description="What to look for")]
LogText = Annotated[str, Field(max_length=16_000, pattern=_NO_NUL, description="What was done, or to which text")]
Task = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4000),
    Field(description="The question or task, in plain words"),
]
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="Least confidence of a memory")]
Metadata = Annotated[dict[str, Any], Field(max_length=20, description="A few extra facts")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ContextFetch(_In):
    """POST /mcp/context/fetch."""

    file_path: FilePath
    file_content: FileText | None = None
    language: Language | None = None
    limit: FewLimit = 5


class ContextMemory(BaseModel):
    """A memory that fits the file."""

    id: UUID
    content: str
    tier: Tier
    confidence_score: float | None
    created_at: datetime


class ContextRead(BaseModel):
    """What is remembered about a file."""

    memories: list[ContextMemory]
    context_summary: str


class MemoryLog(_In):
    """POST /mcp/memory/log."""

    file_path: FilePath
    action: Action
    content: LogText | None = None
    outcome: Outcome | None = None
    metadata: Metadata | None = None


class MemoryLogged(BaseModel):
    """The stored memory."""

    memory_id: UUID
    stored: bool
    message: str


class TaskSubmit(_In):
    """POST /mcp/task/submit."""

    task_description: Task
    file_context: FileText | None = None
    session_id: UUID | None = None


class TaskRead(BaseModel):
    """The model's whole answer."""

    session_id: UUID
    response: str
    tokens_used: int


class MemorySearch(_In):
    """Arguments of the tool `memory_search`."""

    query: Query
    limit: SearchLimit = 10
    tier: Tier | None = None
    memory_type: MemoryType | None = None
    min_confidence: Confidence | None = None


class MemoryFound(BaseModel):
    """A memory, as an editor needs it."""

    id: UUID
    type: str
    input_context: str
    output_response: str | None
    outcome: str
    tags: list[str]
    tier: str
    confidence_score: float | None
    created_at: datetime
    similarity_score: float


class MemoriesFound(BaseModel):
    """Hits, best first."""

    results: list[MemoryFound]
    total: int


class LevelRead(BaseModel):
    """A level of the curriculum."""

    level_number: int
    title: str
    phase: str


class ProgressRead(BaseModel):
    """Where the user stands in the curriculum."""

    current_level: int
    total_xp: int
    agent_creation_unlocked: bool
    current_level_info: LevelRead
    xp_to_next_level: int
    progress_percent: float


class ResourceMetadata(BaseModel):
    """RFC 9728: where one signs in for this resource."""

    resource: str
    resource_name: str
    authorization_servers: list[str]
    scopes_supported: list[str]
    bearer_methods_supported: list[str]


class HealthRead(BaseModel):
    """GET /mcp/health."""

    status: str
    service: str
    timestamp: str
    version: str
