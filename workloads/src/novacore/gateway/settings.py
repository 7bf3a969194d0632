"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field, field_validator

from novacore.common.settings import CommonSettings, Section


class Limits(Section):
    """Rate limits per minute that do not depend on a tier (`spec.limits`)."""

    auth_per_minute: int = Field(default=10, ge=1)
    login_per_account_per_minute: int = Field(default=5, ge=1)
    anon_per_minute: int = Field(default=60, ge=1)
    webhook_per_minute: int = Field(default=600, ge=1)


class GatewaySettings(CommonSettings):
    """Keys of the gateway's `settings.yaml`."""

    limits: Limits = Limits()
    cors_origins: tuple[str, ...] = ()
    trusted_proxy_hops: int = Field(default=0, ge=0, le=8)
    frontend_url: str = ""
    in_flight_max: int = Field(default=200, ge=1)

    @field_validator("cors_origins")
    @classmethod
    def _no_wildcard(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if any("*" in origin or not origin.startswith(("http://", "https://")) for origin in origins):
            raise ValueError("each origin is scheme://host[:port]; `*` is not allowed")
        return tuple(origin.rstrip("/") for origin in origins)
