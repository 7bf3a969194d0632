"""The inbox is worked: object by object, the oldest first.

All waiting events of an object are one piece of work, because they say the same: fetch it. The worker takes the object
and locks its events; fetch, effect and the marks are one transaction (INBOX-2). A failure undoes it; the events wait
longer each time, and are given up after `PAUSES`, until the daily comparison tries once more.
Events that a leaked secret vouched for are asked for by id first: Stripe does not know what it did not send.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from novacore.auth_billing.payments import repository
from novacore.auth_billing.payments.effects import Effects
from novacore.auth_billing.payments.gate import Gate, StripeAwayError, StripeError
from novacore.auth_billing.payments.hints import hint_of
from novacore.common.clock import Clock
from novacore.common.errors import ServiceError
from novacore.common.keyring import KeyRings
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics

if TYPE_CHECKING:
    from novacore.common.database import Database

log = get_logger()

BATCH: Final = 32
PAUSES: Final = tuple(timedelta(seconds=min(3600, 2**n)) for n in range(1, 25))
"""A second, two, four … an hour: given up after half a day of failures of its own."""
AWAY_PAUSE_S: Final = 5.0


class Inbox:
    """Works on stored events. Any number of replicas may do it at once."""

    def __init__(
        self, *, db: Database, gate: Gate, effects: Effects, keyrings: KeyRings, clock: Clock, metrics: Metrics
    ) -> None:
        self._db = db
        self._gate = gate
        self._effects = effects
        self._keyrings = keyrings
        self._clock = clock
        self._woken = asyncio.Event()
        self._pending = metrics.gauge("novacore_stripe_inbox_pending")
        self._oldest = metrics.gauge("novacore_stripe_inbox_oldest_timestamp_seconds")

    def wake(self) -> None:
        """There is something new."""
        self._woken.set()

    async def run(self, draining: asyncio.Event, *, poll_s: float) -> None:
        """Work until the process drains."""
        while not draining.is_set():
            pause_s = poll_s
            try:
                while await self.work_once():
                    if draining.is_set():
                        return
            except (ServiceError, StripeAwayError) as error:
                pause_s = max(poll_s, AWAY_PAUSE_S)
                log.warning("stripe_inbox_waits", reason=getattr(error, "reason", None) or str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            self._woken.clear()

    async def work_once(self) -> int:
        """Work on what is due; return how many objects that were. StripeAwayError when it makes no sense to go on."""
        await self.examine()
        async with self._db.connection() as conn:
            objects = await repository.due_objects(conn, self._clock.now(), limit=BATCH)
        worked = 0
        for object_id in objects:
            worked += await self._settle(object_id)
        await self.measure()
        return worked

    async def measure(self) -> None:
        """Set the gauges."""
        async with self._db.connection() as conn:
            count, oldest = await repository.waiting(conn)
        self._pending.set(count)
        self._oldest.set(oldest.timestamp() if oldest else 0)

    async def examine(self) -> int:
        """Set apart what revoked secrets vouched for, and ask Stripe about each; return how many were asked about."""
        revoked = sorted(self._keyrings.revoked("stripeWebhook"))
        if not revoked:
            return 0
        async with self._db.transaction() as conn:
            await repository.set_apart(conn, revoked)
        examined = 0
        while True:
            async with self._db.transaction() as conn:
                ids = await repository.apart(conn, limit=1)
                for event_id in ids:
                    known = await self._gate.get(f"/v1/events/{event_id}")
                    now = self._clock.now()
                    if known is None:
                        log.error("stripe_event_forged", id=event_id)
                        await repository.condemn(conn, event_id, now)
                    else:
                        await repository.vouch(conn, event_id, hint_of(known), json.dumps(known).encode(), now)
            if not ids:
                return examined
            examined += len(ids)

    async def _settle(self, object_id: str) -> bool:
        """Do all that waits about one object; return whether that was anything."""
        try:
            async with self._db.transaction() as conn:
                if not await repository.try_lock_object(conn, object_id):
                    return False
                events = await repository.lock_events(conn, object_id)
                if not events:
                    return False
                newest, created, _ = events[-1]
                found = await self._effects.refresh(conn, object_id, event_id=newest, hinted_at=created)
                ids = [event_id for event_id, _, _ in events]
                status = "done" if found else "ignored"
                await repository.close_events(conn, ids, status=status, now=self._clock.now())
        except Exception as error:
            if isinstance(error, StripeAwayError) or (isinstance(error, ServiceError) and error.code != "deadline"):
                raise  # nothing of the object's: it stays due
            # One object that cannot be worked must not keep the others waiting.
            reason = error.reason if isinstance(error, StripeError) else type(error).__name__
            await self._postpone(object_id, reason, error)
        return True

    async def _postpone(self, object_id: str, reason: str, error: Exception) -> None:
        async with self._db.transaction() as conn:
            given_up = await repository.postpone_events(
                conn, object_id, reason=reason, now=self._clock.now(), pauses=PAUSES
            )
        log.error("stripe_object_postponed", error=error, object=object_id, reason=reason, given_up=given_up)
