"""Who may call a route, declared at the route. A route without a declaration stops the start-up.

Two tokens say everything: `X-Service-Token` who calls, `Authorization` for whom. `X-Act-For` names a user without his
token and counts only with permission `act:user`. No other header carries identity. The gateway's `*` is good only
together with a user token (`user_route`, `user_or_service_route`), never alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from fastapi import Depends, FastAPI, Request
from fastapi.routing import iter_route_contexts

from novacore.common import context
from novacore.common.errors import ServiceError, forbidden, unauthorized, validation_error
from novacore.common.keyring import KeyRings, TokenError
from novacore_contracts.identity import ACT_FOR_HEADER, SERVICE_TOKEN_HEADER, allows

if TYPE_CHECKING:
    from fastapi.dependencies.models import Dependant

SERVICE_REALM = "novacore-services"
USER_REALM = "novacore-api"

_SENTENCES = {
    "token_missing": "A token is needed here.",
    "token_expired": "The token has expired.",
    "kid_revoked": "The key that signed this token was revoked.",
}


@dataclass(frozen=True, slots=True)
class User:
    """The person a valid user token names."""

    id: UUID
    email: str = field(repr=False)
    role: str
    tier: str
    scope: str
    sv: int
    jti: str
    expires_at: datetime
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls (`service`, with its permissions) and for whom (`user`, or `act_for` without a token)."""

    service: str | None = None
    permissions: frozenset[str] = frozenset()
    user: User | None = None
    act_for: UUID | None = None

    @property
    def user_id(self) -> UUID:
        """The user this call is about: of the user token, or of `X-Act-For`. ServiceError 401 when there is none."""
        if self.user is not None:
            return self.user.id
        if self.act_for is not None:
            return self.act_for
        raise unauthorized("token_missing", _SENTENCES["token_missing"])


def read_user(keyrings: KeyRings, token: str, *, cache_seconds: float = 300) -> User:
    """Return the user of a token. TokenError when it is not a valid user token."""
    claims = keyrings.verify("userJwt", token, cache_seconds=cache_seconds)
    try:
        return User(
            id=UUID(claims["sub"]),
            email=str(claims["email"]),
            role=str(claims["role"]),
            tier=str(claims["tier"]),
            scope=str(claims["scope"]),
            sv=int(claims["sv"]),
            jti=str(claims["jti"]),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
            token=token,
        )
    except (KeyError, ValueError, TypeError):
        raise TokenError("token_invalid") from None


def bearer(authorization: str | None) -> str | None:
    """Return the token of an `Authorization: Bearer …` header, or None without one."""
    if not authorization:
        return None
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


Kind = Literal["public", "user", "service", "user_or_service"]


class Rule:
    """One declaration; FastAPI calls it as a dependency. Equal rules are one dependency per request."""

    def __init__(
        self, kind: Kind, permissions: Iterable[str] = (), *, scopes: Iterable[str] = ("api",), role: str | None = None
    ) -> None:
        self.kind = kind
        self.permissions = tuple(permissions)
        self.scopes = frozenset(scopes)
        self.role = role

    async def __call__(self, request: Request) -> Caller:
        """Return the caller, or refuse with 401 or 403."""
        caller = self._identify(request)
        trail = context.current()
        if trail is not None:
            trail.caller = caller.service
            trail.user_id = caller.user.id if caller.user else caller.act_for
        return caller

    def _identify(self, request: Request) -> Caller:
        keyrings: KeyRings = request.app.state.platform.keyrings
        if self.kind == "public":
            return Caller(user=self._optional_user(request, keyrings))
        service, granted = _service(request, keyrings)
        if self.kind == "service":
            self._need_permission(granted - {"*"})
            return Caller(service=service, permissions=granted)
        if self.kind == "user_or_service" and request.headers.get("authorization") is None:
            self._need_permission(granted - {"*"})
            return Caller(service=service, permissions=granted, act_for=_act_for(request, granted))
        self._need_permission(granted)
        user = self._user(request, keyrings, service)
        return Caller(service=service, permissions=granted, user=user)

    def _need_permission(self, granted: frozenset[str]) -> None:
        if not self.permissions and "*" in granted:
            return
        if any(allows(granted, permission) for permission in self.permissions):
            return
        raise forbidden("scope_missing", "This service may not call this route.")

    def _user(self, request: Request, keyrings: KeyRings, service: str) -> User:
        token = bearer(request.headers.get("authorization"))
        if token is None:
            raise unauthorized("token_missing", _SENTENCES["token_missing"])
        try:
            user = read_user(keyrings, token)
        except TokenError as error:
            raise refused_token(error, realm=USER_REALM) from None
        # mcp-server passes the token of a device on; its tools are what that scope was given for.
        if user.scope not in self.scopes and (user.scope, service) != ("mcp", "mcp-server"):
            raise forbidden("scope_missing", "This token is not meant for this route.")
        if self.role is not None and user.role != self.role:
            raise forbidden("role_required", f"This needs the role {self.role}.")
        return user

    def _optional_user(self, request: Request, keyrings: KeyRings) -> User | None:
        """A valid token is passed on to public routes; a bad one is as good as none there."""
        token = bearer(request.headers.get("authorization"))
        if token is None:
            return None
        try:
            return read_user(keyrings, token)
        except TokenError:
            return None


def refused_token(error: TokenError, *, realm: str) -> ServiceError:
    """Return the 401 of a refused token."""
    return unauthorized(error.code, _SENTENCES.get(error.code, "The token is not valid."), realm=realm)


def _service(request: Request, keyrings: KeyRings) -> tuple[str, frozenset[str]]:
    token = request.headers.get(SERVICE_TOKEN_HEADER)
    if not token:
        raise unauthorized("token_missing", "A service token is needed here.", realm=SERVICE_REALM)
    try:
        claims = keyrings.verify("serviceJwt", token)
        permissions = claims.get("permissions")
        if not isinstance(permissions, list):
            raise TokenError("token_invalid")
    except TokenError as error:
        raise refused_token(error, realm=SERVICE_REALM) from None
    return claims["sub"], frozenset(str(permission) for permission in permissions)


def _act_for(request: Request, granted: frozenset[str]) -> UUID:
    value = request.headers.get(ACT_FOR_HEADER)
    if value is None:
        raise unauthorized("token_missing", _SENTENCES["token_missing"])
    if "act:user" not in granted:
        raise forbidden("scope_missing", "This service may not act for a user.")
    try:
        return UUID(value)
    except ValueError:
        raise validation_error(f"{ACT_FOR_HEADER} is not a user id.") from None


def user_route(permission: str | None = None, *, scope: str = "api") -> Any:
    """Depends: a user token and the service token of a caller with `permission` (None: of the gateway only).

    `scope="mcp"` admits tokens of the device flow too; every other route takes `api` only.
    """
    scopes = ("api", "mcp") if scope == "mcp" else ("api",)
    return Depends(Rule("user", [permission] if permission else (), scopes=scopes))


def service_route(permission: str) -> Any:
    """Depends: a service token with the permission itself; the gateway's `*` does not count."""
    return Depends(Rule("service", [permission]))


def user_or_service_route(*permissions: str) -> Any:
    """Depends: like `user_route` when a user token came; else a service with a permission and `X-Act-For`."""
    return Depends(Rule("user_or_service", permissions))


def admin_route() -> Any:
    """Depends: as `user_route`, and the user is an admin."""
    return Depends(Rule("user", role="admin"))


def public() -> Any:
    """Depends: anyone. `caller.user` is set when a valid user token came along."""
    return Depends(Rule("public"))


def undeclared_routes(app: FastAPI) -> list[str]:
    """Return `METHOD /path` of every API route that declares no caller; must be empty."""
    missing = []
    for route in iter_route_contexts(app.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None and rule_of(dependant) is None:
            missing.append(f"{'|'.join(sorted(route.methods or ()))} {route.path}")
    return missing


def rule_of(dependant: Dependant | None) -> Rule | None:
    """Return the declaration among a route's dependencies, or None without one."""
    calls = _calls(dependant) if dependant is not None else iter(())
    return next((call for call in calls if isinstance(call, Rule)), None)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)
