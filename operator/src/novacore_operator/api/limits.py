"""`spec.limits` and `spec.tiers`: what addresses and subscribers may use."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from novacore_operator.api.fields import Model, rules


def _rate(default: int, what: str) -> int:
    rate: int = Field(
        default=default,
        description=f"{what} per minute.",
        json_schema_extra=rules(("self >= 1 && self <= 1000000", "a rate limit must be 1 to 1000000 per minute")),
    )
    return rate


class Limits(Model):
    """Rate limits of the gateway, per address unless said otherwise."""

    auth_per_minute: int = _rate(10, "Calls to register, login and refresh")
    login_per_account_per_minute: int = _rate(5, "Logins to one account")
    anon_per_minute: int = _rate(60, "Calls without a token")
    webhook_per_minute: int = _rate(600, "Webhook calls")


class Tier(Model):
    """What one subscription tier may use. -1 is unlimited."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (f"self.{field} >= -1", f"tiers: {field} must be 0 or more, or -1 for unlimited")
                for field in ("tokensPerDay", "memoryGiB", "agentMinutesPerMonth")
            ),
            *(
                (f"self.{field} >= 1 && self.{field} <= 1000000", f"tiers: {field} must be 1 to 1000000")
                for field in ("requestsPerMinute", "readPerMinute")
            ),
            ("self.ngsMaxLevel >= 1 && self.ngsMaxLevel <= 24", "tiers: ngsMaxLevel must be 1 to 24"),
        ),
    )

    tokens_per_day: int = Field(description="Model tokens per UTC day.")
    memory_gi_b: int = Field(alias="memoryGiB", description="Storage for memories, in GiB.")
    agent_minutes_per_month: int = Field(description="Agent minutes per UTC month.")
    requests_per_minute: int = Field(description="Calls that cost (chat, memory store, MCP) per minute and user.")
    read_per_minute: int = Field(description="Other calls per minute and user.")
    ngs_max_level: int = Field(description="Highest curriculum level.")
    mcp: bool = Field(description="Whether the MCP server may be used.")


class FreeTrial(Tier):
    """Tier `free_trial`."""

    tokens_per_day: int = Field(default=1000, description="Model tokens per UTC day.")
    memory_gi_b: int = Field(default=1, alias="memoryGiB", description="Storage for memories, in GiB.")
    agent_minutes_per_month: int = Field(default=0, description="Agent minutes per UTC month.")
    requests_per_minute: int = Field(default=10, description="Calls that cost, per minute and user.")
    read_per_minute: int = Field(default=120, description="Other calls, per minute and user.")
    ngs_max_level: int = Field(default=3, description="Highest curriculum level.")
    mcp: bool = Field(default=False, description="Whether the MCP server may be used.")


class Basic(Tier):
    """Tier `basic`."""

    tokens_per_day: int = Field(default=50_000, description="Model tokens per UTC day.")
    memory_gi_b: int = Field(default=10, alias="memoryGiB", description="Storage for memories, in GiB.")
    agent_minutes_per_month: int = Field(default=60, description="Agent minutes per UTC month.")
    requests_per_minute: int = Field(default=50, description="Calls that cost, per minute and user.")
    read_per_minute: int = Field(default=300, description="Other calls, per minute and user.")
    ngs_max_level: int = Field(default=24, description="Highest curriculum level.")
    mcp: bool = Field(default=False, description="Whether the MCP server may be used.")


class Pro(Tier):
    """Tier `pro`."""

    tokens_per_day: int = Field(default=-1, description="Model tokens per UTC day.")
    memory_gi_b: int = Field(default=-1, alias="memoryGiB", description="Storage for memories, in GiB.")
    agent_minutes_per_month: int = Field(default=-1, description="Agent minutes per UTC month.")
    requests_per_minute: int = Field(default=100, description="Calls that cost, per minute and user.")
    read_per_minute: int = Field(default=600, description="Other calls, per minute and user.")
    ngs_max_level: int = Field(default=24, description="Highest curriculum level.")
    mcp: bool = Field(default=True, description="Whether the MCP server may be used.")


class Tiers(Model):
    """The three subscription tiers."""

    free_trial: FreeTrial = Field(default=FreeTrial(), description="Tier `free_trial`.")
    basic: Basic = Field(default=Basic(), description="Tier `basic`.")
    pro: Pro = Field(default=Pro(), description="Tier `pro`.")
