"""What the gateway itself answers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class ServiceStatus(BaseModel):
    """One service as last seen."""

    model_config = ConfigDict(extra="forbid")

    name: str
    status: Literal["up", "degraded", "down", "unknown"]
    circuit: Literal["closed", "open", "half_open"]
    checked_at: str | None
    latency_ms: float | None


class StatusRead(BaseModel):
    """The platform as last seen, at most 15 s ago."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ok", "degraded", "down"]
    timestamp: str
    services: list[ServiceStatus]
