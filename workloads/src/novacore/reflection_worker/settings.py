"""Settings of reflection-worker; see novacore.common.settings for where they come from."""

from __future__ import annotations

from pydantic import Field

from novacore.common.settings import CommonSettings, Section


class ReflectionSettings(Section):
    """Whether to reflect, and how long one message may wait for peers that are away."""

    enabled: bool = True
    job_seconds: float = Field(default=300.0, gt=0)
    concurrency: int = Field(default=4, ge=1, le=16)


class ReflectionWorkerSettings(CommonSettings):
    """All keys reflection-worker knows."""

    reflection: ReflectionSettings = ReflectionSettings()
