"""Routes of auth-billing's internal port: service tokens, canaries, the quota ledger. Never published."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from novacore.auth_billing.repository import Closed
from novacore.auth_billing.schemas import (
    AdjustBody,
    AdjustRead,
    CanaryBody,
    CanaryRead,
    CheckpointBody,
    HoldRead,
    ReleaseBody,
    ReserveBody,
    ReserveRead,
    ServiceTokenRead,
    SettleBody,
    TokenBody,
)
from novacore.auth_billing.service import AuthBilling
from novacore.common.app import service_of
from novacore.common.callers import bearer, public, service_route
from novacore.common.caps import Cap
from novacore.common.errors import conflict, unauthorized

Service = Annotated[AuthBilling, Depends(service_of(AuthBilling))]

internal = APIRouter(prefix="/internal", tags=["internal"])

CAPS = {
    # A pod asks once in hours, and a few times in an emergency.
    "/internal/token": Cap(per_second=20, burst=60, body_bytes_max=1024),
    # The operator asks each signer for each ring's pending key, and once for the old one.
    "/internal/canary": Cap(per_second=50, burst=100, body_bytes_max=4096),
}
_WRITES_QUOTA = service_route("quota:write")


@internal.post("/token", dependencies=[public()])
async def token(request: Request, service: Service, body: TokenBody | None = None) -> ServiceTokenRead:
    """A service token for the pod that presents its projected ServiceAccount token."""
    bootstrap = bearer(request.headers.get("authorization"))
    if bootstrap is None:
        raise unauthorized("token_missing", "A ServiceAccount token is needed here.", realm="novacore-auth")
    signed, expires_in, generation = await service.issuer.service_token(
        bootstrap, min_generation=body.min_generation if body else 0
    )
    return ServiceTokenRead(token=signed, expires_in=expires_in, generation=generation)


@internal.post("/canary", dependencies=[public()])
async def canary(body: CanaryBody, service: Service) -> CanaryRead:
    """A token that proves that this replica holds the private half of a key. Who asks, shows it by a root signature."""
    return service.issuer.canary(body.request)


@internal.post("/quota/reserve", dependencies=[_WRITES_QUOTA])
async def reserve(body: ReserveBody, service: Service) -> ReserveRead:
    """Hold an amount for a while, or what is left of at least `min_amount`."""
    reserved, window = await service.ledger.reserve(
        hold_id=body.hold_id,
        user_id=body.user_id,
        resource=body.resource,
        amount=body.amount,
        min_amount=body.min_amount,
        ttl_s=body.ttl_s,
    )
    assert reserved.expires_at is not None
    return ReserveRead(
        granted=reserved.granted,
        remaining=reserved.remaining,
        limit=reserved.cap,
        resets_at=window.end,
        expires_at=reserved.expires_at,
    )


@internal.post("/quota/checkpoint", dependencies=[_WRITES_QUOTA])
async def checkpoint(body: CheckpointBody, service: Service) -> HoldRead:
    """Note the progress of a hold: what is billed if its owner dies. 409 when it is no longer held."""
    state = await service.ledger.checkpoint(body.hold_id, body.amount)
    if state != "held":
        raise conflict("conflict", f"This hold is {state}.")
    return HoldRead(hold_id=body.hold_id, state=state)


@internal.post("/quota/settle", dependencies=[_WRITES_QUOTA])
async def settle(body: SettleBody, service: Service) -> HoldRead:
    """Bill what was really used."""
    closed = await service.ledger.settle(body.hold_id, actual=body.actual, metadata=body.metadata)
    return _hold(body.hold_id, closed)


@internal.post("/quota/release", dependencies=[_WRITES_QUOTA])
async def release(body: ReleaseBody, service: Service) -> HoldRead:
    """Give a hold back unbilled."""
    return _hold(body.hold_id, await service.ledger.release(body.hold_id))


@internal.post("/quota/adjust", dependencies=[_WRITES_QUOTA])
async def adjust(body: AdjustBody, service: Service) -> AdjustRead:
    """Change a person's stored bytes."""
    adjusted = await service.ledger.adjust(key=body.idempotency_key, user_id=body.user_id, delta=body.delta)
    remaining = -1 if adjusted.cap < 0 else max(0, adjusted.cap - adjusted.used)
    return AdjustRead(used=adjusted.used, limit=adjusted.cap, remaining=remaining)


def _hold(hold_id: UUID, closed: Closed) -> HoldRead:
    return HoldRead(hold_id=hold_id, state=closed.state or "", billed=closed.billed, clamped=closed.clamped)


ROUTERS = (internal,)
