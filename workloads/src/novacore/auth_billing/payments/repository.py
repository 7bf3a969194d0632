"""SQL of Stripe's tables in schema `auth`. Every function takes the connection first; transactions are the callers'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asyncpg import Record

from novacore.auth_billing.payments.hints import Hint
from novacore.auth_billing.payments.objects import Invoice, Standing, Subscription

if TYPE_CHECKING:
    from novacore.common.database import Connection

_SUBSCRIPTION = (
    "subscription_id, customer_id, status, price_id, tier, current_period_start, current_period_end, started_at,"
    " user_id, past_due_since, last_event_created"
)
_INVOICE = "invoice_id, customer_id, subscription_id, status, currency, amount_due, amount_paid, issued_at, user_id"


# The inbox


async def store(conn: Connection, hint: Hint, raw: bytes, *, via: str, secret_id: str | None, now: datetime) -> bool:
    """Store an event; return whether it was new (INBOX-1)."""
    found = await conn.fetchval(
        "INSERT INTO auth.stripe_events"
        " (event_id, type, created, object_id, raw, via, secret_id, status, due_at, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT DO NOTHING RETURNING true",
        hint.event_id, hint.type, hint.created, hint.object_id, raw, via, secret_id,
        "pending" if hint.counts else "ignored", now,
    )  # fmt: skip
    return bool(found)


async def due_objects(conn: Connection, now: datetime, *, limit: int) -> list[str]:
    """Return the objects whose events wait the longest."""
    rows = await conn.fetch(
        "SELECT object_id FROM (SELECT object_id, due_at FROM auth.stripe_events"
        " WHERE status = 'pending' AND due_at <= $1 ORDER BY due_at LIMIT $2) AS e"
        " GROUP BY object_id ORDER BY min(due_at)",
        now, limit * 8,
    )  # fmt: skip
    return [row["object_id"] for row in rows[:limit]]


async def try_lock_object(conn: Connection, object_id: str) -> bool:
    """Take an object until the transaction ends, unless another worker has it: fetch and effect are one step."""
    taken = await conn.fetchval("SELECT pg_try_advisory_xact_lock($1, hashtext($2))", _LOCK_CLASS, object_id)
    return bool(taken)


async def lock_object(conn: Connection, object_id: str) -> None:
    """Take an object until the transaction ends; wait for whoever has it."""
    await conn.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK_CLASS, object_id)


_LOCK_CLASS = 0x7374  # "st"


async def lock_events(conn: Connection, object_id: str) -> list[tuple[str, datetime, int]]:
    """Lock the waiting events of an object; return (id, created, attempts), the newest last."""
    rows = await conn.fetch(
        "SELECT event_id, created, attempts FROM auth.stripe_events WHERE object_id = $1 AND status = 'pending'"
        " ORDER BY created, event_id FOR UPDATE",
        object_id,
    )
    return [(row["event_id"], row["created"], row["attempts"]) for row in rows]


async def close_events(conn: Connection, event_ids: Sequence[str], *, status: str, now: datetime) -> None:
    """Mark events, in the transaction of their effect (INBOX-2)."""
    await conn.execute(
        "UPDATE auth.stripe_events SET status = $2, done_at = $3, attempts = attempts + 1, last_error = NULL"
        " WHERE event_id = ANY($1)",
        list(event_ids), status, now,
    )  # fmt: skip


async def postpone_events(
    conn: Connection, object_id: str, *, reason: str, now: datetime, pauses: Sequence[timedelta]
) -> int:
    """Let an object's events wait the longer the more often they failed; give up after the last pause. Returns how many
    were given up.
    """
    rows = await conn.fetch(
        "UPDATE auth.stripe_events SET attempts = attempts + 1, last_error = $2,"
        " status = CASE WHEN attempts + 1 >= cardinality($4::interval[]) THEN 'failed' ELSE status END,"
        " due_at = $3::timestamptz + ($4::interval[])[least(attempts + 1, cardinality($4::interval[]))]"
        " WHERE object_id = $1 AND status = 'pending' RETURNING status",
        object_id, reason, now, list(pauses),
    )  # fmt: skip
    return sum(row["status"] == "failed" for row in rows)


async def waiting(conn: Connection) -> tuple[int, datetime | None]:
    """Return how many events wait, and when the oldest of them came."""
    row = await conn.fetchrow(
        "SELECT count(*) AS n, min(created_at) AS oldest FROM auth.stripe_events"
        " WHERE status IN ('pending', 'quarantined')"
    )
    assert row is not None
    return row["n"], row["oldest"]


async def known_events(conn: Connection, event_ids: Sequence[str]) -> set[str]:
    """Return which of these are stored."""
    rows = await conn.fetch("SELECT event_id FROM auth.stripe_events WHERE event_id = ANY($1)", list(event_ids))
    return {row["event_id"] for row in rows}


async def revive(conn: Connection, now: datetime) -> int:
    """Give what was given up another life: the daily comparison tries again."""
    result = await conn.execute(
        "UPDATE auth.stripe_events SET status = 'pending', attempts = 0, due_at = $1 WHERE status = 'failed'", now
    )
    return int(result.rpartition(" ")[2])


# Quarantine


async def set_apart(conn: Connection, secret_ids: Sequence[str]) -> int:
    """Quarantine what leaked secrets vouched for and nobody has asked Stripe about yet."""
    result = await conn.execute(
        "UPDATE auth.stripe_events SET status = 'quarantined', due_at = now()"
        " WHERE secret_id = ANY($1) AND status IN ('pending', 'done', 'ignored', 'failed')",
        list(secret_ids),
    )
    return int(result.rpartition(" ")[2])


async def apart(conn: Connection, *, limit: int) -> list[str]:
    """Lock and return some quarantined events."""
    rows = await conn.fetch(
        "SELECT event_id FROM auth.stripe_events WHERE status = 'quarantined' ORDER BY event_id LIMIT $1"
        " FOR UPDATE SKIP LOCKED",
        limit,
    )
    return [row["event_id"] for row in rows]


async def vouch(conn: Connection, event_id: str, hint: Hint, raw: bytes, now: datetime) -> None:
    """Put a quarantined event that Stripe knows back, as Stripe tells it; it is worked again."""
    await conn.execute(
        "UPDATE auth.stripe_events SET status = $6, type = $2, created = $3, object_id = $4, raw = $5,"
        " secret_id = NULL, via = 'reconcile', attempts = 0, due_at = $7 WHERE event_id = $1",
        event_id, hint.type, hint.created, hint.object_id, raw, "pending" if hint.counts else "ignored", now,
    )  # fmt: skip


async def condemn(conn: Connection, event_id: str, now: datetime) -> None:
    """Mark an event that Stripe does not know."""
    await conn.execute(
        "UPDATE auth.stripe_events SET status = 'forged', done_at = $2 WHERE event_id = $1", event_id, now
    )


# Subscriptions


def _subscription(row: Record | None) -> Subscription | None:
    return Subscription(**dict(row.items())) if row is not None else None


async def subscription(conn: Connection, subscription_id: str) -> Subscription | None:
    """Return our copy of a subscription."""
    return _subscription(
        await conn.fetchrow(
            f"SELECT {_SUBSCRIPTION} FROM auth.stripe_subscriptions WHERE subscription_id = $1",  # noqa: S608 - constant
            subscription_id,
        )
    )


async def subscriptions_of(conn: Connection, user_id: UUID) -> list[Subscription]:
    """Return all subscriptions a person has or had."""
    rows = await conn.fetch(
        f"SELECT {_SUBSCRIPTION} FROM auth.stripe_subscriptions WHERE user_id = $1",  # noqa: S608 - constant
        user_id,
    )
    return [Subscription(**dict(row.items())) for row in rows]


async def keep_subscription(conn: Connection, one: Subscription) -> None:
    """Write our copy."""
    await conn.execute(
        f"INSERT INTO auth.stripe_subscriptions ({_SUBSCRIPTION})"  # noqa: S608 - constant
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (subscription_id) DO UPDATE SET"
        " customer_id = $2, status = $3, price_id = $4, tier = $5, current_period_start = $6, current_period_end = $7,"
        " started_at = $8, user_id = $9, past_due_since = $10, last_event_created = $11",
        *asdict(one).values(),
    )


async def judge(conn: Connection, user_id: UUID, one: Subscription) -> None:
    """Write by which subscription a person is judged."""
    await conn.execute(
        "INSERT INTO auth.subscriptions (user_id, stripe_subscription_id, stripe_customer_id, status, tier,"
        " current_period_start, current_period_end, past_due_since, last_event_created)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (user_id) DO UPDATE SET stripe_subscription_id = $2,"
        " stripe_customer_id = $3, status = $4, tier = $5, current_period_start = $6, current_period_end = $7,"
        " past_due_since = $8, last_event_created = $9",
        user_id, one.subscription_id, one.customer_id, one.status, one.tier, one.current_period_start,
        one.current_period_end, one.past_due_since, one.last_event_created,
    )  # fmt: skip


async def open_checkout(conn: Connection, user_id: UUID, customer_id: str) -> None:
    """Note a person's customer at Stripe, before there is a subscription."""
    await conn.execute(
        "INSERT INTO auth.subscriptions (user_id, stripe_customer_id, status, tier)"
        " VALUES ($1, $2, 'incomplete', 'free_trial') ON CONFLICT (user_id) DO UPDATE SET stripe_customer_id = $2",
        user_id, customer_id,
    )  # fmt: skip


async def customer_of(conn: Connection, user_id: UUID) -> str | None:
    """Return a person's customer at Stripe."""
    found: str | None = await conn.fetchval(
        "SELECT stripe_customer_id FROM auth.subscriptions WHERE user_id = $1", user_id
    )
    return found


async def user_of_customer(conn: Connection, customer_id: str) -> UUID | None:
    """Return whose customer this is."""
    found: UUID | None = await conn.fetchval(
        "SELECT user_id FROM auth.subscriptions WHERE stripe_customer_id = $1"
        " UNION ALL SELECT user_id FROM auth.stripe_subscriptions"
        " WHERE customer_id = $1 AND user_id IS NOT NULL LIMIT 1",
        customer_id,
    )
    return found


async def existing_user(conn: Connection, user_id: UUID | None) -> UUID | None:
    """Return the id if there is such an account."""
    found: UUID | None = await conn.fetchval("SELECT id FROM auth.users WHERE id = $1", user_id)
    return found


async def role_and_tier(conn: Connection, user_id: UUID) -> tuple[str, Standing] | None:
    """Lock an account; return its role, and its tier as a standing."""
    row = await conn.fetchrow("SELECT role, subscription_tier FROM auth.users WHERE id = $1 FOR NO KEY UPDATE", user_id)
    if row is None:
        return None
    return row["role"], Standing(row["subscription_tier"], subscriber=row["role"] == "subscriber")


async def grace_is_over(conn: Connection, since: datetime, *, limit: int) -> list[UUID]:
    """Return the people whose payment has failed for longer than is borne, and who still have their tier."""
    rows = await conn.fetch(
        "SELECT s.user_id FROM auth.subscriptions AS s JOIN auth.users AS u ON u.id = s.user_id"
        " WHERE s.status = 'past_due' AND s.past_due_since <= $1"
        " AND (u.subscription_tier <> 'free_trial' OR u.role = 'subscriber') LIMIT $2",
        since, limit,
    )  # fmt: skip
    return [row["user_id"] for row in rows]


# Invoices and the ledger


async def invoice(conn: Connection, invoice_id: str) -> Invoice | None:
    """Return our copy of an invoice."""
    row = await conn.fetchrow(
        f"SELECT {_INVOICE} FROM auth.stripe_invoices WHERE invoice_id = $1",  # noqa: S608 - constant
        invoice_id,
    )
    return Invoice(**dict(row.items())) if row is not None else None


async def keep_invoice(conn: Connection, one: Invoice) -> None:
    """Write our copy."""
    await conn.execute(
        f"INSERT INTO auth.stripe_invoices ({_INVOICE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"  # noqa: S608 - constant
        " ON CONFLICT (invoice_id) DO UPDATE SET customer_id = $2, subscription_id = $3, status = $4, currency = $5,"
        " amount_due = $6, amount_paid = $7, issued_at = $8, user_id = $9",
        *asdict(one).values(),
    )


async def book(conn: Connection, one: Invoice, amount: int, *, event_id: str | None) -> None:
    """Add a movement of money to the ledger (BILL-1)."""
    await conn.execute(
        "INSERT INTO auth.billing_ledger (invoice_id, user_id, amount, currency, event_id) VALUES ($1, $2, $3, $4, $5)",
        one.invoice_id, one.user_id, amount, one.currency, event_id,
    )  # fmt: skip


async def known_objects(conn: Connection, ids: Sequence[str]) -> Mapping[str, tuple[Any, ...]]:
    """Return what a comparison looks at, of subscriptions and invoices."""
    rows = await conn.fetch(
        "SELECT subscription_id AS id, status, price_id, NULL::bigint AS paid FROM auth.stripe_subscriptions"
        " WHERE subscription_id = ANY($1)"
        " UNION ALL SELECT i.invoice_id, i.status, NULL, coalesce((SELECT sum(l.amount) FROM auth.billing_ledger AS l"
        " WHERE l.invoice_id = i.invoice_id), 0)::bigint FROM auth.stripe_invoices AS i WHERE i.invoice_id = ANY($1)",
        list(ids),
    )
    return {row["id"]: (row["status"], row["price_id"], row["paid"]) for row in rows}


# Cursors


async def claim(conn: Connection, name: str, *, now: datetime, pause: timedelta) -> tuple[bool, datetime | None]:
    """Take a turn unless one was taken within `pause`; return whether, and the watermark.

    A claim far in the future is that of a clock gone wrong. One a little ahead is another replica's, a moment ago.
    """
    row = await conn.fetchrow(
        "UPDATE auth.stripe_cursors SET claimed_at = $2 WHERE name = $1"
        " AND (claimed_at IS NULL OR claimed_at <= $2::timestamptz - $3::interval"
        " OR claimed_at > $2::timestamptz + interval '5 minutes')"
        " RETURNING watermark",
        name, now, pause,
    )  # fmt: skip
    return row is not None, row["watermark"] if row is not None else None


async def release(conn: Connection, names: Sequence[str]) -> None:
    """Give turns back that came to nothing."""
    await conn.execute("UPDATE auth.stripe_cursors SET claimed_at = NULL WHERE name = ANY($1)", list(names))


async def advance(conn: Connection, name: str, *, watermark: datetime | None, now: datetime) -> None:
    """Note that a turn has ended; the watermark only grows."""
    await conn.execute(
        "UPDATE auth.stripe_cursors SET watermark = greatest(watermark, $2), done_at = $3 WHERE name = $1",
        name, watermark, now,
    )  # fmt: skip


async def tidy(conn: Connection, now: datetime) -> int:
    """Delete worked events that Stripe itself has long forgotten (it lists 30 days)."""
    result = await conn.execute(
        "DELETE FROM auth.stripe_events WHERE ctid = ANY (ARRAY(SELECT ctid FROM auth.stripe_events"
        " WHERE created < $1 AND status IN ('done', 'ignored') LIMIT 5000))",
        now - timedelta(days=90),
    )
    return int(result.rpartition(" ")[2])
