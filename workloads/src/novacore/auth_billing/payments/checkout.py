"""Buying and managing a subscription: pages of Stripe's that we only lead to. What was bought comes as an event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from novacore.auth_billing import repository as accounts
from novacore.auth_billing.payments import repository
from novacore.auth_billing.payments.gate import Gate, Json, StripeError, as_service_error
from novacore.auth_billing.payments.objects import LIVE
from novacore.auth_billing.payments.settings import StripeSettings
from novacore.common import ids
from novacore.common.errors import conflict, not_found, unauthorized, unavailable

if TYPE_CHECKING:
    from novacore.common.database import Database


@dataclass(frozen=True, slots=True)
class Checkout:
    """A page to pay on."""

    session_id: str
    url: str


class Shop:
    """Opens pages of Stripe's."""

    def __init__(self, *, db: Database, gate: Gate, settings: StripeSettings) -> None:
        self._db = db
        self._gate = gate
        self._settings = settings

    async def checkout(self, user_id: UUID, tier: str, *, key: str | None) -> Checkout:
        """Return a page where a tier can be paid. 409 with a subscription in force, 503 when it is not sold.

        `key`: the client's Idempotency-Key; the same one leads to the same page.
        """
        price = self._settings.price_of(tier)
        if not price or not self._settings.return_url:
            raise unavailable("billing_disabled", "This tier is not sold in this installation.", retry_after_s=3600)
        async with self._db.connection() as conn:
            account = await accounts.account(conn, user_id)
            customer = await repository.customer_of(conn, user_id)
        if account is None:
            raise unauthorized("token_invalid", "The token is not valid.")
        if account.subscription_status in LIVE | {"past_due"}:
            raise conflict("conflict", "There is a subscription already: change it in the portal.")
        operation = f"checkout:{user_id}:{tier}:{key or ids.uuid7()}"
        try:
            if customer is None:
                customer = await self._customer(user_id, account.email)
            session = await self._gate.post(
                "/v1/checkout/sessions",
                {
                    "mode": "subscription",
                    "customer": customer,
                    "line_items": [{"price": price, "quantity": 1}],
                    "success_url": self._settings.return_url + "/billing/success?session_id={CHECKOUT_SESSION_ID}",
                    "cancel_url": self._settings.return_url + "/billing/cancel",
                    "metadata": {"user_id": str(user_id), "tier": tier, "operation": operation},
                    "subscription_data": {"metadata": {"user_id": str(user_id), "tier": tier}},
                },
                idempotency_key=operation,
                find=lambda: self._find("/v1/checkout/sessions", {"customer": customer}, "operation", operation),
            )
        except StripeError as error:
            raise as_service_error(error) from None
        return Checkout(session["id"], session["url"])

    async def portal(self, user_id: UUID) -> str:
        """Return the address of the page where a subscription is managed. 404 without a customer."""
        async with self._db.connection() as conn:
            customer = await repository.customer_of(conn, user_id)
        if customer is None:
            raise not_found("There is no subscription to manage.")
        try:
            session = await self._gate.post(
                "/v1/billing_portal/sessions",
                {"customer": customer, "return_url": f"{self._settings.return_url}/billing"},
                idempotency_key=f"portal:{ids.uuid7()}",
                find=_never,  # a page more harms nobody
            )
        except StripeError as error:
            raise as_service_error(error) from None
        url: str = session["url"]
        return url

    async def _customer(self, user_id: UUID, email: str) -> str:
        """Return a person's customer, made once; the metadata say whose it is."""
        operation = f"customer:{user_id}"
        made = await self._gate.post(
            "/v1/customers",
            {"email": email, "metadata": {"user_id": str(user_id)}},
            idempotency_key=operation,
            find=lambda: self._find("/v1/customers", {"email": email}, "user_id", str(user_id)),
            tried_before=True,  # an earlier visit may have made it and then lost the answer
        )
        customer: str = made["id"]
        async with self._db.transaction() as conn:
            await repository.open_checkout(conn, user_id, customer)
        return customer

    async def _find(self, path: str, params: Json, name: str, value: str) -> Json | None:
        """Return the object whose metadata say that it is the one."""
        async for page in self._gate.pages(path, params):
            for data in page:
                if (data.get("metadata") or {}).get(name) == value:
                    return data
        return None


async def _never() -> None:
    return None
