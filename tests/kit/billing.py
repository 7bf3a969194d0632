"""auth-billing with `stripechaos` as its Stripe: mounting its rings, waiting for its inbox, comparing its ledger."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from novacore.auth_billing.payments.service import Payments
from novacore_contracts.keyset import KeyState, RingDocument, RingKey, Tombstone
from tests.kit.harness import RunningService
from tests.kit.keys import Keys, put
from tests.kit.stripechaos import PRICES, Chaos

FIELD = {"stripeKey": "api_key", "stripeWebhook": "secret"}
COUNTED = """
CREATE TABLE public.done_log (event_id text NOT NULL);
CREATE FUNCTION public.log_done() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN INSERT INTO public.done_log VALUES (NEW.event_id); RETURN NULL; END $$;
CREATE TRIGGER counted AFTER UPDATE OF status ON auth.stripe_events FOR EACH ROW
    WHEN (NEW.status = 'done') EXECUTE FUNCTION public.log_done();
"""
"""Every transition to `done`, repeated ones too: how often each event had its effect."""


def settings_of(chaos: Chaos, **changes: Any) -> dict[str, Any]:
    """Settings of auth-billing with this Stripe; its loops are off unless `workers` says otherwise."""
    return {
        "sweep_seconds": 3600,
        "stripe": {
            "enabled": True,
            "prices": PRICES,
            "return_url": "https://app.example.org",
            "api_url": chaos.url,
            "workers": 0,
            "poll_seconds": 0.2,
            **changes,
        },
    }


def ring(
    keys: Keys, name: str, entries: Mapping[str, tuple[KeyState, str]], *, generation: int, revoked: Sequence[str] = ()
) -> bytes:
    """A signed document: entry `<ring>-<n>` -> (state, value)."""
    numbers = [int(id_.rpartition("-")[2]) for id_ in [*entries, *revoked]]
    document = RingDocument(
        ring=name,
        generation=generation,
        seq=max(numbers),
        issued_at=int(time.time()),
        active_kid=next(id_ for id_, (state, _) in entries.items() if state == "active"),
        keys=tuple(
            RingKey(id_, int(id_.rpartition("-")[2]), state, 0, {FIELD[name]: value})
            for id_, (state, value) in entries.items()
        ),
        tombstones=tuple(Tombstone(id_, "revoked", int(time.time()) + 86_400) for id_ in revoked),
    )
    return keys.sign(document)


@dataclass
class Billing:
    """One or more receivers on one database."""

    chaos: Chaos
    keys: Keys
    conn: asyncpg.Connection[Any]
    replicas: list[RunningService]
    generation: int = 1

    @property
    def payments(self) -> Payments:
        found: Payments = self.replicas[0].service.payments
        return found

    @property
    def url(self) -> str:
        return f"{self.replicas[0].url}/billing/webhooks"

    def mount(self, name: str, entries: Mapping[str, tuple[KeyState, str]], *, revoked: Sequence[str] = ()) -> None:
        """Mount a ring document in every replica, as the kubelet would, and let it be seen."""
        self.generation += 1
        for replica in self.replicas:
            document = ring(self.keys, name, entries, generation=self.generation, revoked=revoked)
            put(replica.platform.paths.creds / f"{name}.jws", document)
            replica.platform.keyrings.poll()

    async def work(self) -> int:
        """Work by hand until nothing is due; return how many passes did something."""
        passes = 0
        while await self.payments.inbox.work_once():
            passes += 1
        return passes

    async def settled(self, *, within_s: float = 60.0) -> None:
        """Wait until the loops have emptied the inbox."""
        async with asyncio.timeout(within_s):
            while await self.conn.fetchval("SELECT count(*) FROM auth.stripe_events WHERE status = 'pending'"):
                await asyncio.sleep(0.02)

    async def done(self) -> dict[str, int]:
        """How often each event had its effect."""
        rows = await self.conn.fetch("SELECT event_id, count(*) AS n FROM public.done_log GROUP BY event_id")
        return {row["event_id"]: row["n"] for row in rows}

    async def ledger(self) -> dict[str, tuple[int, int]]:
        """Invoice -> (sum of its movements, how many there are)."""
        rows = await self.conn.fetch(
            "SELECT invoice_id, sum(amount)::bigint AS total, count(*) AS n FROM auth.billing_ledger GROUP BY invoice_id"
        )
        return {row["invoice_id"]: (row["total"], row["n"]) for row in rows}

    async def differences(self) -> list[str]:
        """Every object that is not here what it is at Stripe, and every person whose tier does not follow from it."""
        found = []
        ledger = await self.ledger()
        for id_, paid in self.chaos.paid().items():
            if ledger.get(id_, (0, 0)) != (paid, 1 if paid else 0):
                found.append(f"{id_}: paid {paid}, ledger {ledger.get(id_)}")
        found += [f"{id_}: not at Stripe" for id_ in ledger.keys() - self.chaos.paid().keys()]
        for kind, table, column in (
            ("subscriptions", "stripe_subscriptions", "subscription_id"),
            ("invoices", "stripe_invoices", "invoice_id"),
        ):
            rows = {row[column]: row["status"] for row in await self.conn.fetch(f"SELECT * FROM auth.{table}")}
            theirs = {id_: one["status"] for id_, one in self.chaos.objects.get(kind, {}).items()}
            found += [
                f"{id_}: {rows.get(id_)}, at Stripe {theirs.get(id_)}"
                for id_ in rows.keys() | theirs.keys()
                if rows.get(id_) != theirs.get(id_)
            ]
        people = {
            row["id"]: (row["subscription_tier"], row["role"])
            for row in await self.conn.fetch("SELECT * FROM auth.users")
        }
        found += [
            f"{user}: {people[user]}, expected {want}" for user, want in self.expected().items() if people[user] != want
        ]
        return found

    def expected(self) -> dict[UUID, tuple[str, str]]:
        """What every customer must have now, computed from Stripe's side alone."""
        tiers = {price: tier for tier, price in PRICES.items()}
        order = {"active": 2, "trialing": 2, "past_due": 1}
        best: dict[UUID, tuple[tuple[int, int, str], dict[str, Any]]] = {}
        for one in self.chaos.objects.get("subscriptions", {}).values():
            user = UUID(self.chaos.objects["customers"][one["customer"]]["metadata"]["user_id"])
            rank = (order.get(one["status"], 0), one["created"], one["id"])
            if user not in best or rank > best[user][0]:
                best[user] = (rank, one)
        return {
            user: (tiers[one["items"]["data"][0]["price"]["id"]], "subscriber")
            if rank[0]
            else ("free_trial", "student")
            for user, (rank, one) in best.items()
        }


Run = Callable[..., AbstractAsyncContextManager[RunningService]]


async def connected(service: RunningService) -> None:
    """On a busy machine the first connection takes its time."""
    db = service.platform.db
    assert db is not None
    async with asyncio.timeout(30):
        while not await db.ping():
            await asyncio.sleep(0.05)


MakeUsers = Callable[[int], Awaitable[list[UUID]]]


def event_body(event: Mapping[str, Any]) -> bytes:
    """An event as it is sent."""
    return json.dumps(event, indent=2).encode()
