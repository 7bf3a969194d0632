"""Settings of auth-billing. Everything has a default; the operator writes what differs."""

from __future__ import annotations

from pydantic import Field

from novacore.auth_billing.payments.settings import StripeSettings
from novacore.common.settings import CommonSettings, Section
from novacore_contracts.identity import USER_TOKEN_SECONDS


class ThrottleSettings(Section):
    """When guessing stops."""

    login_failures: int = Field(default=10, ge=1)
    login_window_seconds: int = Field(default=900, ge=1)
    login_lock_seconds: int = Field(default=900, ge=1)
    refused_registrations: int = Field(default=5, ge=1)
    refused_registrations_window_seconds: int = Field(default=3600, ge=1)


class AuthBillingSettings(CommonSettings):
    """All of them."""

    user_token_seconds: int = Field(default=USER_TOKEN_SECONDS, ge=5, le=USER_TOKEN_SECONDS)
    refresh_token_days: int = Field(default=7, ge=1, le=90)
    trial_days: int = Field(default=7, ge=0)
    throttles: ThrottleSettings = ThrottleSettings()
    kube_api_url: str = Field(default="", pattern=r"^(https://.*)?$")
    """Empty: the API server that Kubernetes names in every pod's environment."""
    stripe: StripeSettings = StripeSettings()
    sweep_seconds: float = Field(default=10.0, gt=0)
    figures_seconds: float = Field(default=300.0, gt=0)
