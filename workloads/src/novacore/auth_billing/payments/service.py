"""The parts of Stripe, put together where it is set up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from novacore.auth_billing.payments.checkout import Shop
from novacore.auth_billing.payments.effects import Effects, Tiers
from novacore.auth_billing.payments.gate import Gate
from novacore.auth_billing.payments.proofs import Proofs
from novacore.auth_billing.payments.receiver import Receiver
from novacore.auth_billing.payments.reconcile import Reconciler
from novacore.auth_billing.payments.worker import Inbox

if TYPE_CHECKING:
    from novacore.auth_billing.settings import AuthBillingSettings
    from novacore.common.app import Platform


@dataclass(frozen=True, slots=True)
class Payments:
    """What routes and loops work with."""

    gate: Gate
    receiver: Receiver
    inbox: Inbox
    reconciler: Reconciler
    shop: Shop
    proofs: Proofs


def build(platform: Platform[AuthBillingSettings], tiers: Tiers) -> Payments:
    """Return Stripe's parts on a running platform."""
    assert platform.db is not None
    db, keyrings, clock, metrics = platform.db, platform.keyrings, platform.clock, platform.metrics
    settings = platform.settings.stripe
    gate = Gate(keyrings, settings)
    effects = Effects(db=db, gate=gate, tiers=tiers, settings=settings, clock=clock)
    inbox = Inbox(db=db, gate=gate, effects=effects, keyrings=keyrings, clock=clock, metrics=metrics)
    reconciler = Reconciler(
        db=db, gate=gate, inbox=inbox, effects=effects, settings=settings, clock=clock, metrics=metrics
    )
    receiver = Receiver(db=db, keyrings=keyrings, clock=clock, metrics=metrics, wake=inbox.wake)
    return Payments(
        gate=gate,
        receiver=receiver,
        inbox=inbox,
        reconciler=reconciler,
        shop=Shop(db=db, gate=gate, settings=settings),
        proofs=Proofs(keyrings=keyrings, gate=gate, receiver=receiver, clock=clock, report=platform.proofs),
    )


def start(platform: Platform[AuthBillingSettings], payments: Payments) -> None:
    """Run the loops, and look again after each change of a key or a secret."""
    settings, keyrings = platform.settings.stripe, platform.keyrings

    def changed(ring: str) -> None:
        if ring in ("stripeKey", "stripeWebhook"):
            payments.reconciler.request(whole=bool(keyrings.revoked(ring)))
            payments.inbox.wake()
            payments.proofs.wake()

    keyrings.on_change(changed)
    for number in range(settings.workers):
        platform.spawn(
            f"stripe_inbox_{number}",
            lambda: payments.inbox.run(platform.draining, poll_s=settings.poll_seconds),
        )
    platform.spawn("stripe_proofs", lambda: payments.proofs.run(platform.draining))
    if settings.workers:
        platform.spawn("stripe_reconcile", lambda: payments.reconciler.run(platform.draining))
