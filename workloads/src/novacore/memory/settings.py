"""Settings of memory; see novacore.common.settings for where they come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from novacore.common.settings import CommonSettings, Section


class EmbeddingSettings(Section):
    """Where vectors come from. `hash` is for tests: equal words give near vectors, meaning gives none."""

    provider: Literal["minilm", "hash"] = "minilm"
    model: Literal["all-MiniLM-L6-v2"] = "all-MiniLM-L6-v2"


class MemoryRules(Section):
    """How long memories stay and when they move up. Times in seconds."""

    stm_ttl: int = Field(default=3600, ge=1)
    itm_ttl: int = Field(default=604_800, ge=1)
    stm_max: int = Field(default=20, ge=1, le=1000)
    itm_max: int = Field(default=100, ge=1, le=10_000)
    promote_at: int = Field(default=3, ge=1)


class MemorySettings(CommonSettings):
    """All keys memory knows."""

    embeddings: EmbeddingSettings = EmbeddingSettings()
    memory: MemoryRules = MemoryRules()
    sweep_seconds: float = Field(default=30.0, gt=0)
    charge_grace_seconds: int = Field(default=120, ge=1)
