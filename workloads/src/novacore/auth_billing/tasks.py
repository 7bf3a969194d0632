"""Background work of auth-billing: messages from other services, the sweep of holds, housekeeping, figures."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from novacore.auth_billing import quota, repository
from novacore.auth_billing.quota import RESOURCES
from novacore.auth_billing.schemas import AdjustPayload, ProgressPayload, SettleBody
from novacore.auth_billing.service import AuthBilling
from novacore.auth_billing.settings import AuthBillingSettings
from novacore.common.errors import ServiceError
from novacore.common.log import get_logger
from novacore.common.settings import TIERS
from novacore.common.streams import Envelope, PoisonError

if TYPE_CHECKING:
    from novacore.common.app import Platform

log = get_logger()

GROUP = "auth-billing"
TIDY_SECONDS = 3600.0
BANDS = (0, 50, 80, 95, 100)

P = TypeVar("P", bound=BaseModel)


class Messages:
    """Handlers of the streams this service consumes. Each is idempotent by the payload's own id."""

    def __init__(self, platform: Platform[AuthBillingSettings], service: AuthBilling) -> None:
        self._platform = platform
        self._ledger = service.ledger

    async def usage_settle(self, envelope: Envelope) -> None:
        """`usage.settle` of intelligence: the bill of a run whose direct call did not get through."""
        body = _payload(envelope, "usage.settle", SettleBody)
        try:
            await self._ledger.settle(body.hold_id, actual=body.actual, metadata=body.metadata)
        except ServiceError as error:
            _final(error)
            raise

    async def usage_adjust(self, envelope: Envelope) -> None:
        """`usage.adjust` of memory: storage given back by delete and expiry."""
        body = _payload(envelope, "usage.adjust", AdjustPayload)
        if envelope.user_id is None:
            raise PoisonError("usage.adjust without a user")
        try:
            await self._ledger.adjust(key=body.idempotency_key, user_id=envelope.user_id, delta=body.delta)
        except ServiceError as error:
            _final(error)
            raise

    async def progress_changed(self, envelope: Envelope) -> None:
        """`progress.changed` of ngs-curriculum: the copy for /auth/me."""
        body = _payload(envelope, "progress.changed", ProgressPayload)
        if envelope.user_id is None:
            raise PoisonError("progress.changed without a user")
        assert self._platform.db is not None
        async with self._platform.db.connection() as conn:
            await repository.copy_progress(conn, envelope.user_id, level=body.current_level, total_xp=body.total_xp)


async def sweep(platform: Platform[AuthBillingSettings], service: AuthBilling) -> None:
    """Expire overdue holds for ever. A database that is away is waited out."""
    while not platform.draining.is_set():
        try:
            await service.ledger.sweep()
        except ServiceError as error:
            log.warning("sweep_postponed", reason=error.code)
        await pause(platform, platform.settings.sweep_seconds)


async def tidy(platform: Platform[AuthBillingSettings]) -> None:
    """Delete what has had its day, for ever; the first time a minute after the start."""
    await pause(platform, 60)
    while not platform.draining.is_set():
        try:
            assert platform.db is not None
            async with platform.db.transaction() as conn:
                counts = await repository.tidy(conn, platform.clock.now())
            log.info("tidied", **counts)
        except ServiceError as error:
            log.warning("tidy_postponed", reason=error.code)
        await pause(platform, TIDY_SECONDS)


async def figures(platform: Platform[AuthBillingSettings]) -> None:
    """Keep the gauges that come from SQL, for ever."""
    while not platform.draining.is_set():
        try:
            await measure(platform)
            wait_s = platform.settings.figures_seconds
        except ServiceError:
            wait_s = 5.0
        await pause(platform, wait_s)


async def pause(platform: Platform[AuthBillingSettings], seconds: float) -> None:
    """Wait, but not longer than until the process drains."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await platform.draining.wait()


async def measure(platform: Platform[AuthBillingSettings]) -> None:
    """Set the gauges once."""
    assert platform.db is not None
    metrics, tiers, now = platform.metrics, platform.settings.tiers, platform.clock.now()
    async with platform.db.transaction(readonly=True) as conn:
        users = await repository.users_by_tier(conn)
        active = await repository.users_active(conn, now)
        holds, oldest = await repository.open_holds(conn)
        drift = await repository.drift(conn)
        bands = {
            resource: await repository.quota_bands(
                conn, resource, quota.window_of(resource, now), quota.caps(tiers, resource)
            )
            for resource in RESOURCES
        }
    for tier in TIERS:
        metrics.gauge("novacore_users").labels(tier).set(users.get(tier, 0))
    for window, count in active.items():
        metrics.gauge("novacore_users_active").labels(window).set(count)
    metrics.gauge("novacore_quota_holds_open").set(holds)
    metrics.gauge("novacore_quota_oldest_hold_timestamp_seconds").set(oldest.timestamp() if oldest else 0)
    for resource in RESOURCES:
        metrics.gauge("novacore_quota_ledger_drift").labels(resource).set(drift.get(resource, 0))
        for tier in TIERS:
            limit = quota.limit_of(tiers.of(tier), resource)
            metrics.gauge("novacore_quota_limit").labels(resource, tier).set(limit)
            for band in BANDS:
                gauge = metrics.gauge("novacore_quota_users").labels(resource, tier, str(band))
                gauge.set(bands[resource].get((tier, band), 0))


def _payload(envelope: Envelope, type_: str, model: type[P]) -> P:
    if envelope.type != type_:
        raise PoisonError(f"unexpected type {envelope.type[:40]!r}")
    try:
        return model.model_validate(envelope.payload)
    except ValidationError as error:
        raise PoisonError(f"{type_}: {error.errors(include_input=False)[0]['msg']}") from None


def _final(error: ServiceError) -> None:
    """A refusal that another attempt cannot change goes to the dead letters at once."""
    if error.status < 500:
        raise PoisonError(error.code) from error
