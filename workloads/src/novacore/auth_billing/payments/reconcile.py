"""What no webhook brought: Stripe is asked itself.

Every few minutes, after each change of a key or secret, and on demand, all events since the watermark (less an overlap,
for those that become listable late) are listed, and the missing ones put into the inbox. Once a day the ids of 30 days,
as long as Stripe lists them, and the states of all subscriptions and of 30 days' invoices are compared.
Invariant RECON-1: the watermark moves only after every page was stored, so a listing that broke off is repeated whole.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from novacore.auth_billing.payments import repository
from novacore.auth_billing.payments.effects import Effects
from novacore.auth_billing.payments.gate import Gate, Json, StripeError
from novacore.auth_billing.payments.hints import TYPES, hint_of
from novacore.auth_billing.payments.objects import read_invoice, read_subscription
from novacore.auth_billing.payments.settings import StripeSettings
from novacore.auth_billing.payments.worker import Inbox
from novacore.common.clock import Clock
from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics

if TYPE_CHECKING:
    from novacore.common.database import Database

log = get_logger()

OVERLAP: Final = timedelta(minutes=15)
LISTABLE: Final = timedelta(days=30)
ON_ITS_WAY: Final = timedelta(seconds=60)
"""An event younger than this may still be brought by its webhook: stored, but not counted as missed."""
CHECK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """What one turn found."""

    listed: int
    stored: int
    missed: int
    differing: int = 0


class Reconciler:
    """Asks Stripe. Of several replicas, one takes each turn."""

    def __init__(
        self, *, db: Database, gate: Gate, inbox: Inbox, effects: Effects, settings: StripeSettings, clock: Clock,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self._db = db
        self._gate = gate
        self._inbox = inbox
        self._effects = effects
        self._settings = settings
        self._clock = clock
        self._wanted = asyncio.Event()
        self._whole = False
        self._missed = metrics.counter("novacore_stripe_events_missed_total")

    def request(self, *, whole: bool = False) -> None:
        """Ask for a turn soon: a key or a secret has changed. `whole`: one leaked, the watermark is not believed."""
        self._whole |= whole
        self._wanted.set()

    async def run(self, draining: asyncio.Event) -> None:
        """Take turns until the process drains."""
        while not draining.is_set():
            try:
                await self.turn(at_once=self._wanted.is_set())
            except (StripeError, ServiceError) as error:
                log.warning("stripe_reconcile_postponed", reason=getattr(error, "reason", None) or str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(min(CHECK_SECONDS, self._settings.reconcile_seconds)):
                    await self._wanted.wait()

    async def turn(self, *, at_once: bool = False) -> Report | None:
        """Do what is due: the listing, once a day the comparison. None when another replica did it lately."""
        now = self._clock.now()
        pause = timedelta(0) if at_once else timedelta(seconds=self._settings.reconcile_seconds)
        async with self._db.connection() as conn:
            mine, watermark = await repository.claim(conn, "events", now=now, pause=pause)
            daily, _ = await repository.claim(
                conn, "diff", now=now, pause=timedelta(seconds=self._settings.diff_seconds)
            )
        self._wanted.clear()
        whole, self._whole = self._whole or daily, False
        try:
            report = await self.reconcile(since=None if whole else watermark) if mine or daily else None
            await self._effects.end_grace()
            if daily:
                await self._daily()
        except (StripeError, ServiceError):
            self._whole |= whole
            async with self._db.connection() as conn:
                await repository.release(conn, [*(["events"] if mine else []), *(["diff"] if daily else [])])
            raise
        return report

    async def _daily(self) -> None:
        differing = await self.compare()
        async with self._db.transaction() as conn:
            revived = await repository.revive(conn, self._clock.now())
            await repository.advance(conn, "diff", watermark=None, now=self._clock.now())
            await repository.tidy(conn, self._clock.now())
        log.info("stripe_compared", differing=differing, revived=revived)

    async def reconcile(self, *, since: datetime | None) -> Report:
        """Store every event from `since` on (None: all that Stripe lists) that is missing here."""
        now = self._clock.now()
        start = max(since - OVERLAP, now - LISTABLE) if since is not None else now - LISTABLE
        listed = stored = missed = 0
        newest: datetime | None = None
        params = {"types": list(TYPES), "created": {"gte": int(start.timestamp())}}
        async for page in self._gate.pages("/v1/events", params):
            fresh = await self._store(page, now)
            listed, stored = listed + len(page), stored + len(fresh)
            missed += sum(now - created > ON_ITS_WAY for created in fresh)
            newest = max([_created(event) for event in page] + ([newest] if newest else []))
        async with self._db.connection() as conn:
            await repository.advance(conn, "events", watermark=newest, now=self._clock.now())
        self._missed.inc(missed)
        if stored:
            self._inbox.wake()
            log.warning("stripe_events_found", listed=listed, stored=stored, missed=missed)
        return Report(listed, stored, missed)

    async def compare(self) -> int:
        """Compare the states of subscriptions and of late invoices, and mend ours; return how many differed."""
        now = self._clock.now()
        since = {"created": {"gte": int((now - LISTABLE).timestamp())}}
        differing: list[str] = []
        async for page in self._gate.pages("/v1/subscriptions", {"status": "all"}):
            differing += await self._differing({data["id"]: self._subscription_view(data) for data in page})
        async for page in self._gate.pages("/v1/invoices", since):
            settled = [data for data in page if data["status"] != "draft"]
            differing += await self._differing({data["id"]: _invoice_view(data) for data in settled})
        for object_id in differing:
            await self._effects.compare(object_id)
        if differing:
            log.warning("stripe_objects_differed", count=len(differing))
        return len(differing)

    async def _store(self, page: list[Json], now: datetime) -> list[datetime]:
        """Store what is missing of a page; return when those were created."""
        async with self._db.transaction() as conn:
            known = await repository.known_events(conn, [event["id"] for event in page])
            fresh = []
            for event in page:
                if event["id"] in known:
                    continue
                raw = json.dumps(event).encode()
                if await repository.store(conn, hint_of(event), raw, via="reconcile", secret_id=None, now=now):
                    fresh.append(_created(event))
        return fresh

    async def _differing(self, theirs: dict[str, tuple[Any, ...]]) -> list[str]:
        async with self._db.connection() as conn:
            ours = await repository.known_objects(conn, list(theirs))
        return [id_ for id_, view in theirs.items() if ours.get(id_) != view]

    def _subscription_view(self, data: Json) -> tuple[Any, ...]:
        one = read_subscription(data, self._settings.tiers())
        return one.status, one.price_id, None


def _invoice_view(data: Json) -> tuple[Any, ...]:
    one = read_invoice(data)
    return one.status, None, one.amount_paid


def _created(event: Json) -> datetime:
    return datetime.fromtimestamp(event["created"], UTC)
