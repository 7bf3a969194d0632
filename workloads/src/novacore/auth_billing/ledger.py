"""The quota ledger as other services see it: reserve, checkpoint, settle, release, adjust; and what a person may read.

The decisions are in the SQL functions of `0002_quota.sql`; this module gives them time and limits and turns their
results into answers. Ledger unreachable means 503, never "allowed".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from novacore.auth_billing import quota, repository
from novacore.auth_billing.quota import RESOURCES, Resource, Window
from novacore.auth_billing.repository import Account, Adjusted, Closed, Reserved
from novacore.common.clock import Clock
from novacore.common.errors import ServiceError, conflict, not_found, payment_required, quota_exceeded, unauthorized
from novacore.common.log import get_logger
from novacore.common.metrics import Metrics
from novacore.common.settings import TierLimits, Tiers

if TYPE_CHECKING:
    from novacore.common.database import Database

log = get_logger()

EXPIRE_BATCH = 200
ADJUSTED: Resource = "memory_storage"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a person has used in the open windows, and may use."""

    account: Account
    limits: TierLimits
    used: dict[Resource, int]
    reserved: dict[Resource, int]
    windows: dict[Resource, Window]

    def limit(self, resource: Resource) -> int:
        """The allowance of a resource; -1 is none."""
        return quota.limit_of(self.limits, resource)

    def percentage(self, resource: Resource) -> float:
        """How much of it is used, in percent."""
        return quota.percentage(self.used[resource], self.limit(resource))


class Ledger:
    """Reservations and bills."""

    def __init__(self, *, db: Database, tiers: Tiers, clock: Clock, metrics: Metrics) -> None:
        self._db = db
        self._tiers = tiers
        self._clock = clock
        self._reservations = metrics.counter("novacore_quota_reservations_total")
        self._usage = metrics.counter("novacore_usage_total")
        self._seconds = metrics.histogram("novacore_quota_reserve_seconds")

    async def reserve(
        self, *, hold_id: UUID, user_id: UUID, resource: Resource, amount: int, min_amount: int | None, ttl_s: int
    ) -> tuple[Reserved, Window]:
        """Take an amount for a while. 402 `trial_over`, 429 `quota_exceeded`, 404 unknown user, 409 foreign id."""
        now = self._clock.now()
        window = quota.window_of(resource, now)
        try:
            with self._seconds.time():
                async with self._db.connection() as conn:
                    reserved = await repository.quota_reserve(
                        conn,
                        hold_id=hold_id,
                        user_id=user_id,
                        resource=resource,
                        amount=amount,
                        min_amount=min_amount or amount,
                        ttl=timedelta(seconds=ttl_s),
                        now=now,
                        window=window,
                        caps=quota.caps(self._tiers, resource),
                    )
        except Exception:
            self._reservations.labels(resource, "free_trial", "error").inc()  # whose tier it was is not known now
            raise
        granted = reserved.result in ("granted", "repeated")
        self._reservations.labels(resource, reserved.tier, "granted" if granted else "denied").inc()
        if not granted:
            raise _refusal(reserved.result, resource, used=reserved.used, limit=reserved.cap, window=window, now=now)
        return reserved, window

    async def checkpoint(self, hold_id: UUID, amount: int) -> str:
        """Note the progress of a hold; return its state. 404 when there is none."""
        async with self._db.connection() as conn:
            state = await repository.quota_checkpoint(conn, hold_id, amount)
        if state is None:
            raise not_found()
        return state

    async def settle(self, hold_id: UUID, *, actual: int, metadata: Mapping[str, Any]) -> Closed:
        """Bill what was really used, at most what was granted. Repeating it changes nothing. 404 when there is none."""
        closed = await self._close(hold_id, state="settled", actual=actual, metadata=metadata)
        if closed.clamped and closed.result == "closed":
            log.warning("usage_clamped", resource=closed.resource, clamped=closed.clamped)
        return closed

    async def release(self, hold_id: UUID) -> Closed:
        """Give a hold back unbilled. 404 when there is none."""
        return await self._close(hold_id, state="released", actual=0, metadata={})

    async def adjust(self, *, key: str, user_id: UUID, delta: int) -> Adjusted:
        """Change a person's stored bytes, once per key. 402, 404, 409, and 429 when an increase does not fit."""
        now = self._clock.now()
        window = quota.window_of(ADJUSTED, now)
        async with self._db.transaction() as conn:
            adjusted = await repository.quota_adjust(
                conn,
                key=f"adjust:{user_id}:{key}",
                user_id=user_id,
                resource=ADJUSTED,
                delta=delta,
                now=now,
                window=window,
                caps=quota.caps(self._tiers, ADJUSTED),
            )
        fits = adjusted.result in ("applied", "repeated")
        if delta > 0:
            self._reservations.labels(ADJUSTED, adjusted.tier, "granted" if fits else "denied").inc()
        if not fits:
            raise _refusal(adjusted.result, ADJUSTED, used=adjusted.used, limit=adjusted.cap, window=window, now=now)
        if adjusted.applied > 0:
            self._usage.labels(ADJUSTED, adjusted.tier).inc(adjusted.applied)
        return adjusted

    async def sweep(self) -> int:
        """Expire overdue holds and bill their progress; return how many."""
        total = 0
        while True:
            async with self._db.transaction() as conn:
                expired = await repository.quota_expire(conn, self._clock.now(), limit=EXPIRE_BATCH)
            for resource, tier, billed in expired:
                self._usage.labels(resource, tier).inc(billed)
            total += len(expired)
            if len(expired) < EXPIRE_BATCH:
                break
        if total:
            log.info("holds_expired", count=total)
        return total

    async def standing(self, user_id: UUID) -> Standing:
        """Return what a person has used and may use. 401 when the account is gone."""
        now = self._clock.now()
        windows = {resource: quota.window_of(resource, now) for resource in RESOURCES}
        async with self._db.connection() as conn:
            account = await repository.account(conn, user_id)
            if account is None:
                raise unauthorized("token_invalid", "The token is not valid.")
            balances = await repository.used_now(conn, user_id, windows)
        return Standing(
            account=account,
            limits=self._tiers.of(account.tier),
            used={resource: used for resource, (used, _) in balances.items()},
            reserved={resource: reserved for resource, (_, reserved) in balances.items()},
            windows=windows,
        )

    async def billed(self, user_id: UUID, *, days: int) -> dict[Resource, int]:
        """Return what was billed in the last `days` UTC days; for storage what is used now."""
        standing = await self.standing(user_id)
        since = quota.days_back(self._clock.now(), days)[0]
        async with self._db.connection() as conn:
            sums = await repository.billed_since(conn, user_id, since)
        return {
            resource: standing.used[resource] if resource == "memory_storage" else sums.get(resource, 0)
            for resource in RESOURCES
        }

    async def series(self, user_id: UUID, resource: Resource, *, days: int) -> list[tuple[datetime, int]]:
        """Return (UTC day, billed amount) for each of the last `days` days, zeros included, today last."""
        wanted = quota.days_back(self._clock.now(), days)
        async with self._db.connection() as conn:
            found = await repository.billed_per_day(conn, user_id, resource, wanted[0])
        return [(day, found.get(day, 0)) for day in wanted]

    async def _close(self, hold_id: UUID, *, state: str, actual: int, metadata: Mapping[str, Any]) -> Closed:
        async with self._db.transaction() as conn:
            closed = await repository.quota_close(
                conn, hold_id, state=state, actual=actual, metadata=metadata, now=self._clock.now()
            )
        if closed.result == "unknown_hold":
            raise not_found()
        if closed.newly_billed and closed.resource and closed.tier:
            self._usage.labels(closed.resource, closed.tier).inc(closed.newly_billed)
        return closed


def _refusal(result: str, resource: Resource, *, used: int, limit: int, window: Window, now: datetime) -> ServiceError:
    if result == "exceeded":
        return quota_exceeded(
            resource=resource,
            used=used,
            limit=limit,
            resets_at=window.end.isoformat().replace("+00:00", "Z") if window.end else None,
            retry_after_s=(window.end - now).total_seconds() if window.end else 3600,
        )
    if result == "trial_over":
        return payment_required("trial_over", "The trial is over. Choose a plan to go on.")
    if result == "unknown_user":
        return not_found("There is no such account.")
    if result == "closed":
        return conflict("conflict", "This hold is already closed.")
    return conflict("idempotency_conflict", "This id was used for something else.")
