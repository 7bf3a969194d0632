"""What follows from Stripe's objects here: our copies, the ledger, and a person's tier and role.

`refresh` runs in a transaction of the caller's that holds the object (`repository.lock_object`): the fetch, the effect
and the event's mark are one step for everybody else. So two answers can never be applied in the wrong order, and a
second event about the same state finds nothing left to do.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from novacore.auth_billing.payments import repository
from novacore.auth_billing.payments.gate import Gate, Json
from novacore.auth_billing.payments.objects import (
    GRACE,
    Standing,
    merge_invoice,
    merge_subscription,
    named_user,
    read_invoice,
    read_subscription,
    standing,
    that_counts,
)
from novacore.auth_billing.payments.settings import StripeSettings
from novacore.common.clock import Clock
from novacore.common.log import get_logger

if TYPE_CHECKING:
    from novacore.common.database import Connection, Database

log = get_logger()

GRACE_BATCH = 200


class Tiers(Protocol):
    """Where a person's tier is changed (`accounts.Accounts`)."""

    async def settle_tier(self, conn: Connection, user_id: UUID, tier: str, *, role: str) -> None:
        """Change tier and role in the caller's transaction."""
        ...


class Effects:
    """Applies objects."""

    def __init__(self, *, db: Database, gate: Gate, tiers: Tiers, settings: StripeSettings, clock: Clock) -> None:
        self._db = db
        self._gate = gate
        self._tiers = tiers
        self._prices = settings.tiers()
        self._clock = clock

    async def refresh(
        self, conn: Connection, object_id: str, *, event_id: str | None = None, hinted_at: datetime | None = None
    ) -> bool:
        """Fetch a locked object and apply it; return whether there is one here. `event_id`: the hint's."""
        if object_id.startswith("sub_"):
            return await self._subscription(conn, object_id, hinted_at=hinted_at)
        if object_id.startswith("in_"):
            return await self._invoice(conn, object_id, event_id=event_id, hinted_at=hinted_at)
        return False

    async def compare(self, object_id: str) -> None:
        """Fetch and apply an object of which a comparison says that we have it differently."""
        async with self._db.transaction() as conn:
            await repository.lock_object(conn, object_id)
            await self.refresh(conn, object_id)

    async def end_grace(self) -> int:
        """Take the tier of those whose payment has failed for too long; return how many."""
        now = self._clock.now()
        async with self._db.connection() as conn:
            users = await repository.grace_is_over(conn, now - GRACE, limit=GRACE_BATCH)
        for user_id in users:
            async with self._db.transaction() as conn:
                await self._judge(conn, user_id)
        return len(users)

    async def _subscription(self, conn: Connection, subscription_id: str, *, hinted_at: datetime | None) -> bool:
        data = await self._gate.get(f"/v1/subscriptions/{subscription_id}")
        if data is None:
            return False
        seen = read_subscription(data, self._prices)
        if seen.price_id is not None and seen.price_id not in self._prices:
            log.error("stripe_price_unknown", price=seen.price_id, subscription=subscription_id)
        held = await repository.subscription(conn, subscription_id)
        merged = merge_subscription(held, seen, hinted_at=hinted_at, now=self._clock.now())
        user_id = await self._owner(conn, merged.user_id, merged.customer_id)
        if user_id is None:
            log.warning("stripe_customer_unknown", subscription=subscription_id)
        await repository.keep_subscription(conn, replace(merged, user_id=user_id))
        if user_id is not None:
            await self._judge(conn, user_id)
        return True

    async def _invoice(
        self, conn: Connection, invoice_id: str, *, event_id: str | None, hinted_at: datetime | None
    ) -> bool:
        data = await self._gate.get(f"/v1/invoices/{invoice_id}")
        if data is None:
            return False
        held = await repository.invoice(conn, invoice_id)
        merged = merge_invoice(held, read_invoice(data))
        if merged.subscription_id is not None:  # a payment that failed or came is a change of the subscription
            await repository.lock_object(conn, merged.subscription_id)
            await self._subscription(conn, merged.subscription_id, hinted_at=hinted_at)
        merged = replace(merged, user_id=await self._owner(conn, merged.user_id, merged.customer_id))
        await repository.keep_invoice(conn, merged)
        booked = held.amount_paid if held is not None else 0
        if merged.amount_paid != booked:
            await repository.book(conn, merged, merged.amount_paid - booked, event_id=event_id)
        return True

    async def _owner(self, conn: Connection, named: UUID | None, customer_id: str) -> UUID | None:
        """Return whose object this is: as its metadata say, as we know the customer, as the customer's metadata say."""
        found = await repository.existing_user(conn, named) if named is not None else None
        if found is None and customer_id:
            found = await repository.user_of_customer(conn, customer_id)
        if found is None and customer_id:
            customer: Json | None = await self._gate.get(f"/v1/customers/{customer_id}")
            named = named_user(customer) if customer is not None else None
            found = await repository.existing_user(conn, named) if named is not None else None
        return found

    async def _judge(self, conn: Connection, user_id: UUID) -> None:
        """Give a person what the subscription that counts gives."""
        account = await repository.role_and_tier(conn, user_id)  # locks it: two subscriptions may end at once
        counts = that_counts(await repository.subscriptions_of(conn, user_id))
        if account is None or counts is None:
            return
        await repository.judge(conn, user_id, counts)
        role, before = account
        after: Standing = standing(counts, now=self._clock.now())
        if role != "admin" and after != before:  # an administrator is what he is, whatever he pays
            await self._tiers.settle_tier(
                conn, user_id, after.tier, role="subscriber" if after.subscriber else "student"
            )
