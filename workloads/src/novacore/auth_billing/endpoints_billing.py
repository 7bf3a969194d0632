"""Routes of money: checkout, portal, and Stripe's calls. Without Stripe in the installation: 503, the rest works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Depends, Header, Request

from novacore.auth_billing.schemas import CheckoutBody, CheckoutRead, PortalRead, WebhookRead
from novacore.auth_billing.service import AuthBilling
from novacore.common.app import service_of
from novacore.common.callers import Caller, public, user_route
from novacore.common.errors import ServiceError, unavailable

if TYPE_CHECKING:
    from novacore.auth_billing.payments.service import Payments

Service = Annotated[AuthBilling, Depends(service_of(AuthBilling))]
UserCaller = Annotated[Caller, user_route()]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=128)]

WEBHOOK_PATH: Final = "/billing/webhooks"
WEBHOOK_BYTES_MAX: Final = 256 * 1024
"""As at the gateway. Stripe's events are a few KiB; an invoice with many lines comes to 100."""

billing = APIRouter(prefix="/billing", tags=["billing"])


@billing.post("/create-checkout")
async def create_checkout(
    body: CheckoutBody, caller: UserCaller, service: Service, idempotency_key: IdempotencyKey = None
) -> CheckoutRead:
    """Open a page where a subscription can be paid. 409 with one in force; 503 without a payment provider."""
    made = await _payments(service).shop.checkout(caller.user_id, body.tier, key=idempotency_key)
    return CheckoutRead(sessionId=made.session_id, url=made.url)


@billing.get("/portal")
async def portal(caller: UserCaller, service: Service) -> PortalRead:
    """Open the page where a subscription is managed. 404 without one; 503 without a payment provider."""
    return PortalRead(url=await _payments(service).shop.portal(caller.user_id))


@billing.post("/webhooks", dependencies=[public()])
async def webhooks(request: Request, service: Service) -> WebhookRead:
    """Take an event of Stripe's, signed over exactly the bytes that came."""
    receiver = _payments(service).receiver
    await receiver.take(await request.body(), request.headers.get("stripe-signature"))
    return WebhookRead(received=True)


def _payments(service: AuthBilling) -> Payments:
    if service.payments is None:
        raise _billing_disabled()
    return service.payments


def _billing_disabled() -> ServiceError:
    return unavailable("billing_disabled", "Billing is not set up in this installation.", retry_after_s=3600)


ROUTERS = (billing,)
