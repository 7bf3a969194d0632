"""What comes in and goes out of noble-spirit. No answer carries a pattern."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from novacore.noble_spirit.document import PolicyDocument, Principle
from novacore.noble_spirit.scoring import Decision, Result

Text = Annotated[str, Field(min_length=1, max_length=32_000)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ValidateBody(_In):
    """Body of POST /policy/validate. `user_id` and `session_id` are ignored (old clients send them)."""

    content: Text
    context: Any = None
    direction: Literal["input", "output"] = "input"
    user_id: Any = None
    session_id: Any = None


class ViolationRead(BaseModel):
    """A broken rule."""

    rule_id: str
    category: str
    principle: str


class ValidateRead(BaseModel):
    """Its answer."""

    result: Result
    decision: Decision
    score: float
    passed: bool
    violations: list[ViolationRead]
    warnings: list[ViolationRead]
    principles_checked: list[Principle]
    policy_version: int
    timestamp: datetime


class AlignmentBody(_In):
    """Body of POST /policy/validate-alignment. `user_id` is ignored."""

    input_context: Text
    output_response: Annotated[str, Field(max_length=32_000)]
    self_assessment: Annotated[str, Field(max_length=32_000)] | None = None
    user_id: Any = None


class AlignmentRead(BaseModel):
    """Its answer."""

    aligned: bool
    alignment_score: float
    principle_scores: dict[Principle, float]
    recommendations: list[str]
    concerns: list[str]
    policy_version: int
    timestamp: datetime


class RuleRead(BaseModel):
    """A rule without its patterns."""

    id: str
    category: str
    action: str
    principles: dict[Principle, float]


class ActiveRead(BaseModel):
    """Answer of GET /policy/active."""

    version: int
    policy_name: str
    description: str
    content_hash: str
    activated_at: datetime | None
    thresholds: dict[str, float]
    rules: list[RuleRead]


class PrincipleRead(BaseModel):
    """A principle, its weight and the rules that touch it."""

    name: Principle
    weight: float
    rules: list[str]


class PrinciplesRead(BaseModel):
    """Answer of GET /policy/principles."""

    policy_version: int
    principles: list[PrincipleRead]


class PolicyCreate(_In):
    """Body of POST /policy/create."""

    policy_name: str = Field(min_length=1, max_length=200)
    policy_content: PolicyDocument
    description: str = Field(default="", max_length=2000)


class RollbackBody(_In):
    """Body of POST /policy/rollback."""

    to: int = Field(ge=1)


class VersionRead(BaseModel):
    """A version without its content."""

    version: int
    policy_name: str
    description: str
    content_hash: str
    kid: str
    is_active: bool
    created_at: datetime
    activated_at: datetime | None


class VersionsRead(BaseModel):
    """Answer of GET /policy/versions."""

    versions: list[VersionRead]
    total: int
    limit: int
    offset: int


class AuditRead(BaseModel):
    """One audit row."""

    seq: int
    action: str
    policy_version: int | None
    context: dict[str, Any]
    created_at: datetime


class AuditPage(BaseModel):
    """Answer of GET /policy/audit."""

    entries: list[AuditRead]
    total: int
    limit: int
    offset: int
