"""Settings of intelligence. Every key has a working default; the operator writes what the resource says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from novacore.common.settings import CommonSettings, Section

ProviderName = Literal["embedded", "ollama", "openai", "echo"]


class EchoSettings(Section):
    """The deterministic provider of tests and load runs. `fail_at` n: fails after n tokens (0: before the first)."""

    delay_ms: float = Field(default=0.0, ge=0, le=60_000)
    tokens: int = Field(default=32, ge=1, le=100_000)
    fail_at: int | None = Field(default=None, ge=0)


class ProviderSettings(Section):
    """One place tokens come from."""

    provider: ProviderName = "embedded"
    model: str = ""
    """Empty: the provider's own default (`smollm2-135m-instruct`, `mistral:7b-instruct-q4`, `gpt-4o-mini`, `echo`)."""
    base_url: str = ""
    timeout_seconds: float = Field(default=120.0, gt=0, le=600)
    """Longest whole generation."""
    parallel: int = Field(default=4, ge=1, le=256)
    """Generations at once; further ones wait in the queue. `embedded` has a context of 2048 tokens for each."""
    queue: int = Field(default=64, ge=1, le=10_000)
    """Longest queue; a message beyond it is refused with 503 `shed`."""
    window: int = Field(default=8192, ge=512, le=2_000_000)
    """Context window in tokens of `ollama` and `openai`; `embedded` and `echo` know their own."""
    echo: EchoSettings = EchoSettings()


class LlmSettings(ProviderSettings):
    """The first choice and, in order, what answers when it cannot (only before the first byte)."""

    max_tokens: int = Field(default=2000, ge=1, le=100_000)
    fallbacks: tuple[ProviderSettings, ...] = Field(default=(), max_length=5)
    gpu: bool = False


class Budgets(Section):
    """How long a peer may take, in milliseconds.

    The contract's figures are context 300, policy 150, reserve 250. Context keeps its figure: a late answer is left
    out and counted, the chat goes on. Policy and reserve fail closed, so a late answer is a lost chat. Measured over
    60 chats with the real peers on 2 cores at a load average of 55 (p50, p95, longest): policy 12, 110, 220; reserve
    25, 195, 209; context 54, 245, 376. So 150 and 250 lose chats on a machine that busy, and the defaults leave an
    order of magnitude; an installation with cores to spare sets the contract's figures. What the calls take there is
    in `http_client_request_duration_seconds{peer}`.
    """

    context_ms: int = Field(default=300, ge=10, le=60_000)
    policy_ms: int = Field(default=2000, ge=10, le=60_000)
    reserve_ms: int = Field(default=2000, ge=10, le=60_000)
    first_byte_ms: int = Field(default=20_000, ge=100, le=600_000)


class RunSettings(Section):
    """The pulse of runs. A run silent for `stale_s` is closed by any replica within two sweeps."""

    heartbeat_s: float = Field(default=1.0, gt=0, le=5)
    stale_s: float = Field(default=10.0, gt=0, le=60)
    sweep_s: float = Field(default=1.0, gt=0, le=10)
    drain_s: float = Field(default=25.0, ge=0, le=45)
    checkpoint_tokens: int = Field(default=32, ge=1, le=1000)
    session_idle_hours: int = Field(default=24, ge=1)


class IntelligenceSettings(CommonSettings):
    """Everything intelligence reads from settings.yaml."""

    llm: LlmSettings = LlmSettings()
    policy_strict: bool = False
    """A `warn` of the constitution stops a reply as a `block` does."""
    budgets: Budgets = Budgets()
    runs: RunSettings = RunSettings()
