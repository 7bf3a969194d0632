"""`novacore stripe reconcile`: ask Stripe at once what is missing here, run inside an auth-billing pod.

What is found goes into the inbox; the service's own workers do it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from novacore.auth_billing.admin import service_on
from novacore.auth_billing.app import DEFINITION
from novacore.auth_billing.settings import AuthBillingSettings
from novacore.common.app import Platform, make_apps
from novacore.common.errors import ServiceError
from novacore.common.settings import load_settings

if TYPE_CHECKING:
    from novacore.auth_billing.payments.service import Payments


async def reconcile(days: int) -> str:
    """List the events of the last days; return what to print. SystemExit with a sentence when it is not possible."""
    from novacore.auth_billing.payments.gate import StripeError

    platform = make_apps(DEFINITION, load_settings(AuthBillingSettings)).platform
    async with platform.running_():
        try:
            return await reconcile_on(platform, days=days)
        except StripeError as error:
            raise SystemExit(f"novacore stripe: Stripe did not answer as it should: {error.reason}") from None
        except ServiceError as error:
            raise SystemExit(f"novacore stripe: {error.detail}") from None


async def reconcile_on(platform: Platform[AuthBillingSettings], *, days: int) -> str:
    """List the events of the last days on a running platform, and compare subscriptions and invoices."""
    async with service_on(platform) as service:
        payments: Payments | None = service.payments
        if payments is None:
            raise SystemExit("novacore stripe: Stripe is not set up: set spec.stripe of the NovaCoreDeployment")
        try:
            found = await payments.reconciler.reconcile(since=platform.clock.now() - timedelta(days=days))
            differing = await payments.reconciler.compare()
        finally:
            await payments.gate.close()
    return (
        f"{found.listed} events listed, {found.stored} were missing here ({found.missed} of them older than a minute); "
        f"{differing} subscriptions and invoices differed and were mended"
    )
