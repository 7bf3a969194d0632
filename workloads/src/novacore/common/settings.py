"""Settings: one frozen, typed object per process, from mounted files; bad ones end the process with exit code 78.

Read from `settings.yaml` (written by the operator). A `NOVA_<KEY>` variable overrides a non-secret key (nested keys
with two underscores: `NOVA_LLM__PROVIDER`). Secrets never come through here: they are ring documents below
`Paths.creds`. The refusal names the setting, never its value.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from novacore_contracts.identity import SERVICE_TOKEN_SECONDS_MAX
from novacore_contracts.paths import ROOT_VARIABLE, Paths, paths
from novacore_contracts.releases import CURRENT

EX_CONFIG = 78
"""sysexits.h: configuration error. The operator reads it as "do not restart, look at the settings"."""

Tier = Literal["free_trial", "basic", "pro"]
TIERS: tuple[Tier, ...] = ("free_trial", "basic", "pro")


class Section(BaseModel):
    """A group of settings: unknown keys refused, frozen, values never echoed in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TierLimits(Section):
    """What one subscription tier may do; -1 is "no limit"."""

    llm_tokens_per_day: int = Field(ge=-1)
    memory_storage_bytes: int = Field(ge=-1)
    agent_minutes_per_month: int = Field(ge=-1)
    requests_per_minute: int = Field(ge=1)
    read_per_minute: int = Field(ge=1)
    ngs_max_level: int = Field(ge=1)
    mcp: bool


class Tiers(Section):
    """The three tiers."""

    free_trial: TierLimits = TierLimits(
        llm_tokens_per_day=1000, memory_storage_bytes=1 << 30, agent_minutes_per_month=0,
        requests_per_minute=10, read_per_minute=120, ngs_max_level=3, mcp=False,
    )  # fmt: skip
    basic: TierLimits = TierLimits(
        llm_tokens_per_day=50_000, memory_storage_bytes=10 << 30, agent_minutes_per_month=60,
        requests_per_minute=50, read_per_minute=300, ngs_max_level=24, mcp=False,
    )  # fmt: skip
    pro: TierLimits = TierLimits(
        llm_tokens_per_day=-1, memory_storage_bytes=-1, agent_minutes_per_month=-1,
        requests_per_minute=100, read_per_minute=600, ngs_max_level=24, mcp=True,
    )  # fmt: skip

    def of(self, tier: str) -> TierLimits:
        """Return the limits of a tier; an unknown one gets the least."""
        return {"basic": self.basic, "pro": self.pro}.get(tier, self.free_trial)


class PeerUrls(Section):
    """Where a peer listens, when it is not where the contracts say (tests, a developer's shell)."""

    service_url: str | None = None
    internal_url: str | None = None


class CommonSettings(Section):
    """Keys every service knows; a service subclasses it with its own."""

    version: str = CURRENT
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    profile: Literal["Development", "Production"] = "Development"
    tiers: Tiers = Tiers()
    peers: dict[str, PeerUrls] = {}
    postgres_insecure: bool = False
    postgres_pool_min: int = Field(default=2, ge=0)
    postgres_pool_max: int = Field(default=10, ge=1)
    postgres_statement_timeout_s: float = Field(default=5.0, gt=0)
    redis_timeout_s: float = Field(default=0.25, gt=0)
    redis_cache: Literal["shared", "separate"] = "shared"  # where it lies what may be lost
    drain_seconds: float = Field(default=5.0, ge=0)
    service_token_seconds: int = Field(default=SERVICE_TOKEN_SECONDS_MAX, ge=60, le=SERVICE_TOKEN_SECONDS_MAX)

    @model_validator(mode="after")
    def _production_is_verified(self) -> Self:
        if self.postgres_insecure and self.profile == "Production":
            raise ValueError("postgres_insecure is not allowed with profile Production")
        return self


S = TypeVar("S", bound=CommonSettings)


class SettingsError(ValueError):
    """Settings that this service must not start with. `setting` is the key's path."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}")
        self.setting = setting
        self.reason = reason


def load_settings(cls: type[S], *, paths_: Paths | None = None, env: Mapping[str, str] | None = None) -> S:
    """Return the settings of this process, or end it: one JSON line naming the setting, exit code 78."""
    try:
        return read_settings(cls, paths_=paths_ or paths(), env=os.environ if env is None else env)
    except SettingsError as error:
        refuse(error)


def refuse(error: SettingsError) -> NoReturn:
    """Write the one line and raise SystemExit(78)."""
    line = {"level": "error", "event": "settings_refused", "setting": error.setting, "reason": error.reason}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    raise SystemExit(EX_CONFIG)


def read_settings(cls: type[S], *, paths_: Paths, env: Mapping[str, str]) -> S:
    """Return the settings in `paths_.settings`, overridden by `NOVA_*`. SettingsError on anything doubtful."""
    file = paths_.settings / "settings.yaml"
    data = _read_yaml(file)
    for name, value in sorted(env.items()):
        if name.startswith("NOVA_") and name != ROOT_VARIABLE:
            _override(data, name, value)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise SettingsError(".".join(str(part) for part in first["loc"]) or "settings", first["msg"]) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise SettingsError("settings.yaml", "the file is missing; the operator writes it") from None
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError("settings.yaml", f"cannot be read: {type(error).__name__}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError("settings.yaml", "must be a mapping")
    return data


def _override(data: dict[str, Any], name: str, value: str) -> None:
    path = name.removeprefix("NOVA_").lower().split("__")
    if any(word in path[-1] for word in ("password", "secret", "token_key", "api_key", "dsn")):
        raise SettingsError(name, "a secret must not come by environment; mount it as a file")
    at = data
    for part in path[:-1]:
        at = at.setdefault(part, {})
    try:
        at[path[-1]] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise SettingsError(name, "is not a YAML scalar") from None
