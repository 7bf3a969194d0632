"""`novacore admin …`: accounts that no route may make, run inside an auth-billing pod.

`create --email X` makes an administrator, or makes an existing account one, and prints a new password once.
`tier --email X --tier pro` gives an account a tier, with everything that follows from it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from novacore.auth_billing import repository
from novacore.auth_billing.app import DEFINITION, build
from novacore.auth_billing.emails import canonical
from novacore.auth_billing.passwords import Passwords
from novacore.auth_billing.service import AuthBilling
from novacore.auth_billing.settings import AuthBillingSettings
from novacore.auth_billing.signer import Signer
from novacore.common.app import Platform, make_apps
from novacore.common.errors import ServiceError
from novacore.common.settings import load_settings


async def create(email: str) -> str:
    """Make an administrator; return what to print. SystemExit with a sentence when it is not possible."""
    platform = make_apps(DEFINITION, load_settings(AuthBillingSettings)).platform
    async with platform.running_():
        return await _told(create_admin(platform, email))


async def tier(email: str, tier: str) -> str:
    """Give an account a tier; return what to print. SystemExit with a sentence when it is not possible."""
    platform = make_apps(DEFINITION, load_settings(AuthBillingSettings)).platform
    async with platform.running_():
        return await _told(give_tier(platform, email, tier))


async def create_admin(platform: Platform[AuthBillingSettings], email: str) -> str:
    """Make an administrator on a running platform, or make an existing account one (its password stays)."""
    address = canonical(email)
    assert platform.db is not None
    password = secrets.token_urlsafe(18)
    passwords = Passwords()
    try:
        password_hash = await passwords.hash(password)
    finally:
        passwords.close()
    now = platform.clock.now()
    async with platform.db.transaction() as conn:
        made = await repository.add_account(
            conn,
            email=address,
            password_hash=password_hash,
            now=now,
            trial_ends_at=None,
            role="admin",
            tier="pro",
        )
        existing = None if made else await repository.account_by_email(conn, address)
        if existing is not None:
            await repository.set_role(conn, existing.id, "admin")
            await repository.end_sessions(conn, existing.id, now)  # its tokens carry the old role
    if existing is not None:
        return "This account is an administrator now. Its password is unchanged; it has to log in again."
    return f"Administrator made. Password, shown this once: {password}"


async def give_tier(platform: Platform[AuthBillingSettings], email: str, tier: str) -> str:
    """Give an account a tier on a running platform."""
    assert platform.db is not None
    async with platform.db.connection() as conn:
        account = await repository.account_by_email(conn, canonical(email))
    if account is None:
        raise ValueError("there is no such account")
    async with service_on(platform) as service:
        await service.accounts.change_tier(account.id, tier)
    return f"The account has tier {tier} now."


@asynccontextmanager
async def service_on(platform: Platform[AuthBillingSettings]) -> AsyncIterator[AuthBilling]:
    """Yield the service of a running platform, for one command; none of its loops runs."""
    keyrings, clock = platform.keyrings, platform.clock
    passwords = Passwords()
    try:
        yield build(
            platform,
            users=Signer("userJwt", platform.paths.user_jwt_private, keyrings, clock),
            services=Signer("serviceJwt", platform.paths.service_jwt_private, keyrings, clock),
            passwords=passwords,
        )
    finally:
        passwords.close()


async def _told(work: Coroutine[Any, Any, str]) -> str:
    try:
        return await work
    except ValueError as error:
        raise SystemExit(f"novacore admin: {error}") from None
    except ServiceError as error:
        raise SystemExit(f"novacore admin: {error.detail}") from None
