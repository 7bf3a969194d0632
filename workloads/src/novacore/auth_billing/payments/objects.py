"""Stripe's objects as this service keeps them, and what follows from them for a person. Pure.

Invariants: BILL-2 a terminal state is never left, whatever a later answer says; BILL-3 which of a person's
subscriptions counts, and what it gives, does not depend on the order in which they were heard of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from novacore.common.settings import Tier

LIVE: Final = frozenset({"active", "trialing"})
TERMINAL_SUBSCRIPTION: Final = frozenset({"canceled", "incomplete_expired"})
TERMINAL_INVOICE: Final = frozenset({"paid", "void"})
GRACE: Final = timedelta(days=7)
"""How long a subscription whose payment failed keeps its tier."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription. `tier` is that of its price, whatever its status."""

    subscription_id: str
    customer_id: str
    status: str
    price_id: str | None
    tier: Tier
    current_period_start: datetime | None
    current_period_end: datetime | None
    started_at: datetime
    user_id: UUID | None = None
    past_due_since: datetime | None = None
    last_event_created: datetime | None = None


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice; amounts in the currency's smallest unit."""

    invoice_id: str
    customer_id: str
    subscription_id: str | None
    status: str
    currency: str
    amount_due: int
    amount_paid: int
    issued_at: datetime
    user_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person's subscription gives: the tier, and whether the role is `subscriber`."""

    tier: Tier
    subscriber: bool


NOTHING: Final = Standing("free_trial", subscriber=False)


def read_subscription(data: Mapping[str, Any], prices: Mapping[str, Tier]) -> Subscription:
    """Return a subscription from Stripe's JSON. `prices`: price id -> tier; an unknown price gives nothing."""
    items = (data.get("items") or {}).get("data") or [{}]
    item = items[0]
    price = item.get("price") or {}
    price_id = price.get("id") if isinstance(price, dict) else price
    return Subscription(
        subscription_id=data["id"],
        customer_id=_id(data["customer"]) or "",
        status=data["status"],
        price_id=price_id,
        tier=prices.get(price_id or "", "free_trial"),
        # Periods moved from the subscription to its items with API version 2025-03-31.
        current_period_start=_time(item.get("current_period_start") or data.get("current_period_start")),
        current_period_end=_time(item.get("current_period_end") or data.get("current_period_end")),
        started_at=datetime.fromtimestamp(data["created"], UTC),
        user_id=named_user(data),
    )


def read_invoice(data: Mapping[str, Any]) -> Invoice:
    """Return an invoice from Stripe's JSON."""
    parent = (data.get("parent") or {}).get("subscription_details") or {}
    return Invoice(
        invoice_id=data["id"],
        customer_id=_id(data["customer"]) or "",
        # As for periods: under `parent` since API version 2025-03-31.
        subscription_id=_id(parent.get("subscription") or data.get("subscription")),
        status=data["status"] or "draft",
        currency=data["currency"],
        amount_due=int(data["amount_due"]),
        amount_paid=int(data["amount_paid"]),
        issued_at=datetime.fromtimestamp(data["created"], UTC),
    )


def named_user(data: Mapping[str, Any]) -> UUID | None:
    """Return the user that an object's metadata name: we put him there ourselves."""
    try:
        return UUID(str((data.get("metadata") or {}).get("user_id")))
    except ValueError:
        return None


def merge_subscription(
    held: Subscription | None, seen: Subscription, *, hinted_at: datetime | None, now: datetime
) -> Subscription:
    """Return what to keep of a subscription after it was fetched. `hinted_at`: creation of the newest event about it.

    Stripe does not say since when a payment is overdue, and the event at hand may be an old one: the grace begins when
    we first see it.
    """
    known = [at for at in (hinted_at, held.last_event_created if held else None) if at is not None]
    newest = max(known, default=None)
    if held is not None and held.status in TERMINAL_SUBSCRIPTION and seen.status != held.status:
        return replace(held, last_event_created=newest)  # an answer from a stale replica
    since = None
    if seen.status == "past_due":
        since = (held.past_due_since if held else None) or now
    return replace(
        seen,
        user_id=seen.user_id or (held.user_id if held else None),
        past_due_since=since,
        last_event_created=newest,
    )


def merge_invoice(held: Invoice | None, seen: Invoice) -> Invoice:
    """Return what to keep of an invoice after it was fetched. What was paid never becomes less."""
    if held is None:
        return seen
    user_id = seen.user_id or held.user_id
    if (held.status in TERMINAL_INVOICE and seen.status != held.status) or seen.amount_paid < held.amount_paid:
        return replace(held, user_id=user_id)
    return replace(seen, user_id=user_id)


def that_counts(subscriptions: Iterable[Subscription]) -> Subscription | None:
    """Return the subscription by which a person is judged: one in force before one that is not, then the newest."""
    return max(subscriptions, key=_rank, default=None)


def _rank(subscription: Subscription) -> tuple[int, datetime, str]:
    order = 2 if subscription.status in LIVE else 1 if subscription.status == "past_due" else 0
    return order, subscription.started_at, subscription.subscription_id


def standing(subscription: Subscription | None, *, now: datetime) -> Standing:
    """Return what a subscription gives at a moment."""
    if subscription is None or subscription.tier == "free_trial":
        return NOTHING
    if subscription.status in LIVE:
        return Standing(subscription.tier, subscriber=True)
    if subscription.status == "past_due":
        since = subscription.past_due_since
        if since is not None and now - since < GRACE:
            return Standing(subscription.tier, subscriber=True)
    return NOTHING


def _id(value: object) -> str | None:
    """Return an id, given as such or as an expanded object."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return value if isinstance(value, str) else None


def _time(value: object) -> datetime | None:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int) else None
