"""Settings of Stripe. Keys and secrets are not here: they are the rings `stripeKey` and `stripeWebhook`."""

from __future__ import annotations

from pydantic import Field

from novacore.common.settings import Section, Tier


class PriceSettings(Section):
    """Ids of the prices that are sold."""

    basic: str = Field(default="", pattern=r"^(price_[A-Za-z0-9_]{1,250})?$")
    pro: str = Field(default="", pattern=r"^(price_[A-Za-z0-9_]{1,250})?$")


class StripeSettings(Section):
    """Stripe."""

    enabled: bool = False
    prices: PriceSettings = PriceSettings()
    return_url: str = Field(default="", pattern=r"^(https?://[^ ]+)?$")
    """Where a checkout and the portal lead back to, without the path. Empty: nothing is sold, what was sold goes on."""
    api_url: str = Field(default="", pattern=r"^(https?://[^ ]+)?$")
    """Empty: Stripe's own. For tests, a double on this machine."""
    workers: int = Field(default=2, ge=0, le=8)
    """Loops that work on the inbox; 0: this process receives only, and asks Stripe nothing by itself."""
    poll_seconds: float = Field(default=2.0, gt=0)
    """How often the inbox is looked at when nothing came here: another replica may have stored something."""
    reconcile_seconds: float = Field(default=300.0, gt=0)
    diff_seconds: float = Field(default=86_400.0, gt=0)

    def tiers(self) -> dict[str, Tier]:
        """Return price id -> tier."""
        sold: tuple[tuple[str, Tier], ...] = ((self.prices.basic, "basic"), (self.prices.pro, "pro"))
        return {price: tier for price, tier in sold if price}

    def price_of(self, tier: str) -> str:
        """Return the price of a tier; empty when it is not sold."""
        return {"basic": self.prices.basic, "pro": self.prices.pro}.get(tier, "")
