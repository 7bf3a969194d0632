"""What comes in and goes out. Both spellings of the tokens are contract."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from novacore.auth_billing.emails import canonical
from novacore.auth_billing.quota import Resource

Email = Annotated[str, Field(max_length=320), AfterValidator(canonical)]
Password = Annotated[str, Field(min_length=8, max_length=128, repr=False)]
Amount = Annotated[int, Field(ge=0, le=10**15)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Credentials(_In):
    """Body of register and login."""

    email: Email
    password: Password


class RefreshBody(_In):
    """A refresh token in either spelling."""

    refresh_token: str | None = Field(default=None, min_length=1, max_length=256, repr=False)
    refreshToken: str | None = Field(default=None, min_length=1, max_length=256, repr=False)  # noqa: N815 - the contract's name

    @property
    def token(self) -> str | None:
        """The token, whichever spelling it came in."""
        return self.refresh_token or self.refreshToken


class RefreshRequired(RefreshBody):
    """A refresh token that must be there."""

    @model_validator(mode="after")
    def _one_is_there(self) -> Self:
        if self.token is None:
            raise ValueError("refresh_token is missing")
        return self


class PasswordChange(_In):
    """Body of POST /auth/password."""

    current: str = Field(min_length=1, max_length=128, repr=False)
    new: Password


class UserRead(BaseModel):
    """The account inside a token answer."""

    id: UUID
    email: str
    role: str
    subscription_tier: str
    trial_ends_at: datetime | None


class TokenPair(BaseModel):
    """A new pair, in both spellings."""

    accessToken: str  # noqa: N815 - the contract's name
    access_token: str
    refreshToken: str  # noqa: N815 - the contract's name
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the scheme's name
    expires_in: int


class SessionRead(TokenPair):
    """Answer of register and login."""

    user: UserRead


class NgsProgress(BaseModel):
    """Copy of the curriculum's progress."""

    current_level: int
    total_xp: int


class MeRead(BaseModel):
    """Answer of GET /auth/me."""

    id: UUID
    email: str
    role: str
    subscription_tier: str
    trial_ends_at: datetime | None
    created_at: datetime
    subscription_status: str | None
    current_period_end: datetime | None
    ngs_progress: NgsProgress


class Usage(BaseModel):
    """Used, limit (-1: none) and percentage (0 without a limit)."""

    used: int
    limit: int
    percentage: float


class WindowUsage(Usage):
    """The same with the end of the window."""

    resets_at: datetime | None


class StorageUsage(Usage):
    """The same for people."""

    humanReadable: str  # noqa: N815 - the contract's name


class QuotaRead(BaseModel):
    """Answer of GET /usage/quota."""

    tier: str
    tokens: WindowUsage
    storage: Usage
    agent_minutes: WindowUsage


class LimitsRead(BaseModel):
    """Limits of a tier."""

    llmTokensDay: int  # noqa: N815 - the contract's name
    memoryStorageBytes: int  # noqa: N815 - the contract's name
    agentMinutesMonth: int  # noqa: N815 - the contract's name


class BreakdownRead(BaseModel):
    """One resource in the statistics."""

    resourceType: Resource  # noqa: N815 - the contract's name
    amount: int
    humanReadable: str  # noqa: N815 - the contract's name
    percentage: float


class StatsRead(BaseModel):
    """Answer of GET /usage/stats."""

    userId: UUID  # noqa: N815 - the contract's name
    period: str
    breakdown: list[BreakdownRead]
    limits: LimitsRead
    warnings: list[str]
    timestamp: datetime


class TierRead(BaseModel):
    """Answer of GET /usage/tier."""

    tier: str
    limits: LimitsRead
    trial_ends_at: datetime | None


class DayRead(BaseModel):
    """One UTC day of a time series."""

    date: str
    amount: int


class QuotaQuestion(_In):
    """Body of POST /usage/check-quota."""

    resourceType: Resource  # noqa: N815 - the contract's name
    amount: int = Field(ge=1, le=10**9)


class QuotaAdvice(BaseModel):
    """Its answer; nothing is reserved."""

    hasQuota: bool  # noqa: N815 - the contract's name
    message: str


class ReserveBody(_In):
    """Body of POST /internal/quota/reserve."""

    hold_id: UUID
    user_id: UUID
    resource: Resource
    amount: int = Field(ge=1, le=10**12)
    min_amount: int | None = Field(default=None, ge=1, le=10**12)
    ttl_s: int = Field(default=900, ge=1, le=900)

    @model_validator(mode="after")
    def _min_is_less(self) -> Self:
        if self.min_amount is not None and self.min_amount > self.amount:
            raise ValueError("min_amount is above amount")
        return self


class ReserveRead(BaseModel):
    """Its answer. `remaining` and `limit` are -1 without a limit."""

    granted: int
    remaining: int
    limit: int
    resets_at: datetime | None
    expires_at: datetime


class CheckpointBody(_In):
    """Body of POST /internal/quota/checkpoint."""

    hold_id: UUID
    amount: Amount


class SettleBody(_In):
    """Body of POST /internal/quota/settle, and payload of `usage.settle`."""

    hold_id: UUID
    actual: Amount
    metadata: dict[str, Any] = Field(default_factory=dict, max_length=20)


class ReleaseBody(_In):
    """Body of POST /internal/quota/release."""

    hold_id: UUID


class HoldRead(BaseModel):
    """State of a hold after checkpoint, settle or release."""

    hold_id: UUID
    state: str
    billed: int = 0
    clamped: int = 0


class AdjustBody(_In):
    """Body of POST /internal/quota/adjust."""

    idempotency_key: str = Field(min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$")
    user_id: UUID
    delta: int = Field(ge=-(10**15), le=10**15)


class AdjustPayload(_In):
    """Payload of `usage.adjust`; the user is the envelope's."""

    idempotency_key: str = Field(min_length=1, max_length=128)
    delta: int


class AdjustRead(BaseModel):
    """Its answer."""

    used: int
    limit: int
    remaining: int


class ProgressPayload(BaseModel):
    """Payload of `progress.changed`."""

    model_config = ConfigDict(extra="ignore")

    current_level: int = Field(ge=1, le=24)
    total_xp: int = Field(ge=0)


class TokenBody(_In):
    """Body of POST /internal/token."""

    min_generation: int = Field(default=0, ge=0)


class ServiceTokenRead(BaseModel):
    """Its answer."""

    token: str
    expires_in: int
    generation: int


class CanaryBody(_In):
    """Body of POST /internal/canary: a `CanaryRequest`, signed by a root key, as a compact JWS."""

    request: str = Field(min_length=1, max_length=2048)


class CanaryRead(BaseModel):
    """Its answer."""

    token: str
    kid: str
    generation: int


class CheckoutBody(_In):
    """Body of POST /billing/create-checkout."""

    tier: Literal["basic", "pro"]


class CheckoutRead(BaseModel):
    """A page to pay on."""

    sessionId: str  # noqa: N815 - the contract's name
    url: str


class PortalRead(BaseModel):
    """A page to manage a subscription on."""

    url: str


class WebhookRead(BaseModel):
    """Answer to Stripe: stored, now or earlier."""

    received: bool
