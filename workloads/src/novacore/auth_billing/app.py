"""auth-billing as data: what it is made of and what runs beside the requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from novacore.auth_billing import endpoints, endpoints_billing, endpoints_internal, tasks
from novacore.auth_billing.accounts import Accounts
from novacore.auth_billing.identity import Issuer
from novacore.auth_billing.ledger import Ledger
from novacore.auth_billing.passwords import Passwords
from novacore.auth_billing.repository import SCHEMA
from novacore.auth_billing.review import TokenReviewer
from novacore.auth_billing.revocation import Revocations
from novacore.auth_billing.service import AuthBilling
from novacore.auth_billing.settings import AuthBillingSettings
from novacore.auth_billing.signer import Signer
from novacore.common.app import Platform, ServiceDefinition
from novacore.common.outbox import Relay
from novacore.common.streams import Consumer

if TYPE_CHECKING:
    from novacore.auth_billing.payments.service import Payments


@asynccontextmanager
async def start(platform: Platform[AuthBillingSettings]) -> AsyncIterator[AuthBilling]:
    """Build the service and start its loops."""
    assert platform.db is not None
    assert platform.redis is not None
    users = Signer("userJwt", platform.paths.user_jwt_private, platform.keyrings, platform.clock)
    services = Signer("serviceJwt", platform.paths.service_jwt_private, platform.keyrings, platform.clock)
    for signer in (users, services):
        signer.load()
        platform.spawn(f"signer_{signer.ring}", signer.watch)
    platform.signer_report = lambda: {signer.ring: signer.report() for signer in (services, users)}
    platform.readiness.add_startup("signing_keys", lambda: users.ready and services.ready)
    passwords = Passwords()
    service = build(platform, users=users, services=services, passwords=passwords)
    messages = tasks.Messages(platform, service)
    for schema, handler, job in (
        ("chat", messages.usage_settle, "usage_settle"),
        ("memory", messages.usage_adjust, "usage_adjust"),
        ("ngs", messages.progress_changed, "progress_copy"),
    ):
        consumer = Consumer(platform.redis, f"stream:outbox:{schema}", tasks.GROUP, handler, platform=platform, job=job)
        platform.spawn(f"consumer_{schema}", consumer.run)
    relay = Relay(db=platform.db, redis=platform.redis, schema=SCHEMA, platform=platform)
    platform.spawn("outbox", relay.run)
    platform.spawn("quota_sweep", lambda: tasks.sweep(platform, service))
    platform.spawn("tidy", lambda: tasks.tidy(platform))
    platform.spawn("figures", lambda: tasks.figures(platform))
    if service.payments is not None:
        from novacore.auth_billing.payments.service import start as start_payments

        start_payments(platform, service.payments)
    try:
        yield service
    finally:
        passwords.close()
        if service.payments is not None:
            await service.payments.gate.close()


def build(
    platform: Platform[AuthBillingSettings], *, users: Signer, services: Signer, passwords: Passwords
) -> AuthBilling:
    """Return the service on a running platform."""
    assert platform.db is not None
    assert platform.redis is not None
    settings, clock, metrics = platform.settings, platform.clock, platform.metrics
    reviewer = TokenReviewer(platform.paths, platform.session, url=settings.kube_api_url)
    issuer = Issuer(
        settings=settings,
        keyrings=platform.keyrings,
        users=users,
        services=services,
        reviewer=reviewer,
        clock=clock,
        metrics=metrics,
    )
    accounts = Accounts(
        db=platform.db,
        issuer=issuer,
        passwords=passwords,
        revocations=Revocations(platform.redis),
        settings=settings,
        clock=clock,
        metrics=metrics,
    )
    return AuthBilling(
        accounts=accounts,
        issuer=issuer,
        ledger=Ledger(db=platform.db, tiers=settings.tiers, clock=clock, metrics=metrics),
        payments=_payments(platform, accounts) if settings.stripe.enabled else None,
    )


def _payments(platform: Platform[AuthBillingSettings], accounts: Accounts) -> Payments:
    from novacore.auth_billing.payments import service  # with the `stripe` library: 13 MiB, only where it is used

    return service.build(platform, accounts)


DEFINITION = ServiceDefinition(
    name="auth-billing",
    settings=AuthBillingSettings,
    start=start,
    routers=(*endpoints.ROUTERS, *endpoints_billing.ROUTERS),
    internal_routers=endpoints_internal.ROUTERS,
    internal_caps=endpoints_internal.CAPS,
    body_bytes_max=64 * 1024,
    larger_bodies={endpoints_billing.WEBHOOK_PATH: endpoints_billing.WEBHOOK_BYTES_MAX},
)
