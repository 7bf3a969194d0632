"""`spec.stripe`: the payment provider."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from novacore_operator.api.fields import Model, rules
from novacore_operator.api.models import SecretKeyRef


class WebhookSecretRef(SecretKeyRef):
    """One key of a Secret in the resource's namespace."""

    key: str = Field(
        default="webhookSecret", pattern=r"^[-._a-zA-Z0-9]+$", max_length=253, description="Key within the Secret."
    )


class Webhook(Model):
    """The endpoint at Stripe that calls `/api/billing/webhooks` of the gateway."""

    managed: Literal["external"] = Field(
        default="external", description="external: you make the endpoint at Stripe, and name its secret in secretRef."
    )
    secret_ref: WebhookSecretRef = Field(description="The endpoint's signing secret (whsec_…).")


def _price(name: str) -> dict[str, Any]:
    return rules(
        (
            "self.matches('^price_[A-Za-z0-9_]+$')",
            f"stripe.prices.{name} must be the id of a price at Stripe, such as price_1AbC",
        )
    )


class Prices(Model):
    """Ids of the prices at Stripe: a subscription to one gives the tier of that name."""

    basic: str | None = Field(
        default=None, max_length=255, description="Price of tier basic.", json_schema_extra=_price("basic")
    )
    pro: str | None = Field(
        default=None, max_length=255, description="Price of tier pro.", json_schema_extra=_price("pro")
    )


class Stripe(Model):
    """Stripe. Not enabled: routes of money answer 503, the rest works."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.enabled || (has(self.apiKeySecretRef) && has(self.webhook))",
                "stripe.enabled needs stripe.apiKeySecretRef and stripe.webhook.secretRef: name both Secrets",
            ),
            (
                "!self.enabled || has(self.prices.basic) || has(self.prices.pro)",
                "stripe.enabled needs a price: set stripe.prices.basic, stripe.prices.pro, or both",
            ),
        )
    )

    enabled: bool = Field(default=False, description="Whether subscriptions are sold and followed.")
    api_key_secret_ref: SecretKeyRef | None = Field(
        default=None, alias="apiKeySecretRef", description="A restricted API key (rk_…) of this installation's own."
    )
    webhook: Webhook | None = Field(default=None, description="How Stripe's calls are told from others.")
    prices: Prices = Field(default=Prices(), description="What is sold.")
    return_url: str | None = Field(
        default=None,
        alias="returnURL",
        max_length=512,
        description="Where Stripe's pages lead back to, without the path. Absent: nothing new is sold.",
        json_schema_extra=rules(
            ("self.matches('^https?://[^ ]+$')", "stripe.returnURL must start with http:// or https://")
        ),
    )

    def secrets(self) -> tuple[tuple[str, SecretKeyRef], ...]:
        """Return field and reference of each Secret that is needed; none while Stripe is not enabled."""
        if not self.enabled or self.api_key_secret_ref is None or self.webhook is None:
            return ()
        return (
            ("spec.stripe.apiKeySecretRef", self.api_key_secret_ref),
            ("spec.stripe.webhook.secretRef", self.webhook.secret_ref),
        )
