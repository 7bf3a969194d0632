"""Routes of auth-billing's service port: accounts, usage, public keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from novacore.auth_billing import quota
from novacore.auth_billing.accounts import Session
from novacore.auth_billing.ledger import Standing
from novacore.auth_billing.quota import RESOURCES, Resource
from novacore.auth_billing.repository import Account
from novacore.auth_billing.schemas import (
    BreakdownRead,
    Credentials,
    DayRead,
    LimitsRead,
    MeRead,
    NgsProgress,
    PasswordChange,
    QuotaAdvice,
    QuotaQuestion,
    QuotaRead,
    RefreshBody,
    RefreshRequired,
    SessionRead,
    StatsRead,
    StorageUsage,
    TierRead,
    TokenPair,
    Usage,
    UserRead,
    WindowUsage,
)
from novacore.auth_billing.service import AuthBilling
from novacore.common.app import service_of
from novacore.common.callers import Caller, Rule, User, public, user_route
from novacore.common.errors import ServiceError
from novacore.common.keyring import TokenError
from novacore.common.settings import TierLimits
from novacore_contracts.identity import SERVICE_TOKEN_HEADER

Service = Annotated[AuthBilling, Depends(service_of(AuthBilling))]
UserCaller = Annotated[Caller, user_route()]
Days = Annotated[int, Query(ge=1, le=90)]

auth = APIRouter(prefix="/auth", tags=["auth"])
usage = APIRouter(prefix="/usage", tags=["usage"])
keys = APIRouter(tags=["keys"])

_USER = Rule("user")


@auth.post("/register", status_code=201, dependencies=[public()])
async def register(body: Credentials, request: Request, service: Service) -> SessionRead:
    """Make an account and log in."""
    return _session(await service.accounts.register(body.email, body.password, address=client_address(request)))


@auth.post("/login", dependencies=[public()])
async def login(body: Credentials, request: Request, service: Service) -> SessionRead:
    """Log in."""
    return _session(await service.accounts.login(body.email, body.password, address=client_address(request)))


@auth.post("/refresh", dependencies=[public()])
async def refresh(body: RefreshRequired, service: Service) -> TokenPair:
    """Exchange a refresh token for a new pair."""
    assert body.token is not None
    return _pair(await service.accounts.refresh(body.token))


@auth.post("/logout", status_code=204, dependencies=[public()])
async def logout(request: Request, service: Service, body: RefreshBody | None = None) -> Response:
    """End this session: of the refresh token in the body, else of the access token."""
    token = body.token if body else None
    await service.accounts.logout(user=await _user_unless(token, request), refresh_token=token)
    return Response(status_code=204)


@auth.post("/logout-all", status_code=204, dependencies=[public()])
async def logout_all(request: Request, service: Service, body: RefreshBody | None = None) -> Response:
    """End all sessions of this person."""
    token = body.token if body else None
    await service.accounts.logout_all(user=await _user_unless(token, request), refresh_token=token)
    return Response(status_code=204)


@auth.post("/password", status_code=204)
async def change_password(body: PasswordChange, caller: UserCaller, request: Request, service: Service) -> Response:
    """Change the password; every session ends."""
    await service.accounts.change_password(
        _user(caller), current=body.current, new=body.new, address=client_address(request)
    )
    return Response(status_code=204)


@auth.get("/me")
async def me(caller: UserCaller, service: Service) -> MeRead:
    """The account as it is now."""
    account = await service.accounts.me(caller.user_id)
    return MeRead(
        **_account(account).model_dump(),
        created_at=account.created_at,
        subscription_status=account.subscription_status,
        current_period_end=account.current_period_end,
        ngs_progress=NgsProgress(current_level=account.ngs_level, total_xp=account.ngs_total_xp),
    )


@keys.get("/.well-known/jwks.json", dependencies=[public()])
async def jwks(service: Service, response: Response) -> dict[str, Any]:
    """The public keys of user tokens, for outsiders."""
    response.headers["Cache-Control"] = "public, max-age=60"
    return service.issuer.jwks()


@usage.get("/quota")
async def read_quota(caller: UserCaller, service: Service) -> QuotaRead:
    """Tier and allowances of the open windows."""
    standing = await service.ledger.standing(caller.user_id)
    return QuotaRead(
        tier=standing.account.tier,
        tokens=_window(standing, "llm_tokens"),
        storage=Usage(**_usage(standing, "memory_storage")),
        agent_minutes=_window(standing, "agent_minutes"),
    )


@usage.get("/stats")
async def stats(caller: UserCaller, service: Service, request: Request, days: Days = 30) -> StatsRead:
    """Amounts of the last days, percentages of the open windows."""
    standing = await service.ledger.standing(caller.user_id)
    billed = await service.ledger.billed(caller.user_id, days=days)
    return StatsRead(
        userId=caller.user_id,
        period=f"last_{days}_days",
        breakdown=[
            BreakdownRead(
                resourceType=resource,
                amount=billed[resource],
                humanReadable=quota.human_readable(resource, billed[resource]),
                percentage=standing.percentage(resource),
            )
            for resource in RESOURCES
        ],
        limits=_limits(standing.limits),
        warnings=quota.warnings(standing.used, standing.limits),
        timestamp=request.app.state.platform.clock.now(),
    )


@usage.get("/tokens")
async def tokens(caller: UserCaller, service: Service) -> WindowUsage:
    """Tokens since UTC midnight."""
    return _window(await service.ledger.standing(caller.user_id), "llm_tokens")


@usage.get("/storage")
async def storage(caller: UserCaller, service: Service) -> StorageUsage:
    """Bytes stored now."""
    standing = await service.ledger.standing(caller.user_id)
    return StorageUsage(
        **_usage(standing, "memory_storage"),
        humanReadable=quota.human_readable("memory_storage", standing.used["memory_storage"]),
    )


@usage.get("/timeseries/{resource}")
async def timeseries(resource: Resource, caller: UserCaller, service: Service, days: Days = 30) -> list[DayRead]:
    """Billed amount per UTC day, zeros included."""
    series = await service.ledger.series(caller.user_id, resource, days=days)
    return [DayRead(date=day.date().isoformat(), amount=amount) for day, amount in series]


@usage.get("/tier")
async def tier(caller: UserCaller, service: Service) -> TierRead:
    """Tier and its limits."""
    standing = await service.ledger.standing(caller.user_id)
    account = standing.account
    return TierRead(tier=account.tier, limits=_limits(standing.limits), trial_ends_at=account.trial_ends_at)


@usage.post("/check-quota")
async def check_quota(body: QuotaQuestion, caller: UserCaller, service: Service) -> QuotaAdvice:
    """Advice whether an amount would fit; reserves nothing."""
    standing = await service.ledger.standing(caller.user_id)
    resource = body.resourceType
    taken = standing.used[resource] + standing.reserved[resource]
    if quota.has_room(taken, standing.limit(resource), body.amount):
        return QuotaAdvice(hasQuota=True, message="There is room for that.")
    left = quota.human_readable(resource, max(0, standing.limit(resource) - taken))
    return QuotaAdvice(hasQuota=False, message=f"Only {left} are left.")


def client_address(request: Request) -> str:
    """Return the client's address: what the gateway says when the gateway calls, else the peer's."""
    peer = request.client.host if request.client else "unknown"
    token = request.headers.get(SERVICE_TOKEN_HEADER)
    if token is None:
        return peer
    try:
        claims = request.app.state.platform.keyrings.verify("serviceJwt", token)
    except TokenError:
        return peer
    forwarded = request.headers.get("x-forwarded-for", "").split(",")[-1].strip()
    return forwarded[:64] if claims["sub"] == "gateway" and forwarded else peer


async def _user_unless(refresh_token: str | None, request: Request) -> User | None:
    """Return the user of the access token; a refresh token in the body stands in for a missing one."""
    if refresh_token is not None and request.headers.get("authorization") is None:
        return None
    try:
        return (await _USER(request)).user
    except ServiceError:
        if refresh_token is not None:
            return None  # an expired access token must not keep anybody logged in
        raise


def _user(caller: Caller) -> User:
    assert caller.user is not None  # user_route() lets nobody else in
    return caller.user


def _account(account: Account) -> UserRead:
    return UserRead(
        id=account.id,
        email=account.email,
        role=account.role,
        subscription_tier=account.tier,
        trial_ends_at=account.trial_ends_at,
    )


def _pair(session: Session) -> TokenPair:
    return TokenPair(
        accessToken=session.access,
        access_token=session.access,
        refreshToken=session.refresh,
        refresh_token=session.refresh,
        expires_in=session.expires_in,
    )


def _session(session: Session) -> SessionRead:
    return SessionRead(**_pair(session).model_dump(), user=_account(session.account))


def _usage(standing: Standing, resource: Resource) -> dict[str, Any]:
    return {
        "used": standing.used[resource],
        "limit": standing.limit(resource),
        "percentage": standing.percentage(resource),
    }


def _window(standing: Standing, resource: Resource) -> WindowUsage:
    return WindowUsage(**_usage(standing, resource), resets_at=standing.windows[resource].end)


def _limits(limits: TierLimits) -> LimitsRead:
    return LimitsRead(
        llmTokensDay=limits.llm_tokens_per_day,
        memoryStorageBytes=limits.memory_storage_bytes,
        agentMinutesMonth=limits.agent_minutes_per_month,
    )


ROUTERS = (auth, usage, keys)
