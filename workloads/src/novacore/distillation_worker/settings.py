"""Settings of distillation-worker; see novacore.common.settings for where they come from."""

from __future__ import annotations

from datetime import time

from pydantic import Field

from novacore.common.settings import CommonSettings


class DistillationWorkerSettings(CommonSettings):
    """All keys distillation-worker knows. `schedule`: the time of the daily run, HH:MM in UTC."""

    schedule: str = Field(default="02:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    retry_seconds: int = Field(default=600, ge=1)

    @property
    def at(self) -> time:
        """The time of the daily run (UTC)."""
        return time.fromisoformat(self.schedule)
