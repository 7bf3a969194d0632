"""Accounts and sessions: register, log in, refresh, log out, change the password.

Nothing here tells a stranger whether an address is known: log-in and refresh refuse with one body and the same work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from novacore.auth_billing import repository, sessions
from novacore.auth_billing.identity import Issuer
from novacore.auth_billing.passwords import Passwords
from novacore.auth_billing.quota import RESOURCES, limit_of
from novacore.auth_billing.repository import SCHEMA, Account
from novacore.auth_billing.revocation import LIFE_SECONDS, Revocations
from novacore.auth_billing.sessions import Verdict
from novacore.auth_billing.settings import AuthBillingSettings
from novacore.common import outbox
from novacore.common.callers import User
from novacore.common.clock import Clock
from novacore.common.errors import ServiceError, conflict, not_found, rate_limited, unauthorized
from novacore.common.log import get_logger, user_hash
from novacore.common.metrics import Metrics

if TYPE_CHECKING:
    from novacore.common.database import Connection, Database

log = get_logger()

ACCESS_LIFE = timedelta(seconds=LIFE_SECONDS)


@dataclass(frozen=True, slots=True)
class Session:
    """An account with a fresh pair of tokens."""

    account: Account
    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires_in: int


class Accounts:
    """The people of this installation."""

    def __init__(
        self,
        *,
        db: Database,
        issuer: Issuer,
        passwords: Passwords,
        revocations: Revocations,
        settings: AuthBillingSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._db = db
        self._issuer = issuer
        self._passwords = passwords
        self._revocations = revocations
        self._settings = settings
        self._clock = clock
        self._logins = metrics.counter("novacore_logins_total")
        self._issued = metrics.counter("novacore_tokens_issued_total")
        self._reused = metrics.counter("novacore_refresh_reuse_total")
        self._tier_changes = metrics.counter("novacore_subscription_changes_total")

    async def register(self, email: str, password: str, *, address: str) -> Session:
        """Make an account. 409 `registration_refused` when the address is taken; 429 after too many of these."""
        now = self._clock.now()
        key = _throttle_key("register", address)
        throttles = self._settings.throttles
        async with self._db.connection() as conn:
            locked = await repository.locked_until(conn, key, now)
        if locked is not None:
            raise rate_limited((locked - now).total_seconds())
        password_hash = await self._passwords.hash(password)  # first, so that a taken address takes as long
        async with self._db.transaction() as conn:
            account = await repository.add_account(
                conn,
                email=email,
                password_hash=password_hash,
                now=now,
                trial_ends_at=now + timedelta(days=self._settings.trial_days),
            )
            if account is None:
                window = timedelta(seconds=throttles.refused_registrations_window_seconds)
                await repository.throttle_hit(
                    conn, key, now=now, window=window, limit=throttles.refused_registrations, lock=window
                )
            else:
                session = await self._open_session(conn, account, now)
                await _announce(conn, "user.registered", account)
        if account is None:
            raise conflict("registration_refused", "This registration is not possible.")
        log.info("user_registered", user=user_hash(account.id), tier=account.tier)
        return session

    async def login(self, email: str, password: str, *, address: str) -> Session:
        """Return a new session. 401 `invalid_credentials`, the same for an unknown account and a locked one."""
        now = self._clock.now()
        key = _throttle_key("login", email, address)
        async with self._db.connection() as conn:
            locked = await repository.locked_until(conn, key, now)
            account = None if locked else await repository.account_by_email(conn, email)
        right = await self._passwords.verify(account.password_hash if account else None, password)
        if account is None or not right:
            await self._count_failure(key, now, locked=locked is not None)
            raise _invalid_credentials()
        fresh_hash = None
        if self._passwords.is_outdated(account.password_hash):
            fresh_hash = await self._passwords.hash(password)
        async with self._db.transaction() as conn:
            current = await repository.lock_account(conn, account.id)
            if current is None or current.password_hash != account.password_hash:
                raise _invalid_credentials()  # deleted, or the password changed, while it was being checked
            if fresh_hash is not None:
                await repository.set_password(conn, current.id, fresh_hash)
            await repository.clear_throttle(conn, key)
            await repository.seen(conn, current.id, now)
            session = await self._open_session(conn, current, now)
        self._logins.labels("ok").inc()
        return session

    async def refresh(self, token: str) -> Session:
        """Rotate a refresh token. 401 `token_invalid` for anything unusable; a reuse also revokes its family."""
        now = self._clock.now()
        dead: list[UUID] = []
        session: Session | None = None
        async with self._db.transaction() as conn:
            held = await repository.refresh_token(conn, sessions.digest(token))
            account = await repository.lock_account(conn, held.user_id) if held else None
            if account is not None:
                held = await repository.refresh_token(conn, sessions.digest(token))  # again, now that nobody else may
            verdict = sessions.judge(held, now) if account is not None else Verdict.REFUSE
            if held is not None and verdict is Verdict.REUSE:
                dead = await repository.revoke_family(conn, held.family, now, access_life=ACCESS_LIFE)
            elif held is not None and account is not None and verdict is not Verdict.REFUSE:
                await repository.use_refresh_token(conn, held.id, now)
                await repository.seen(conn, account.id, now)
                session = await self._issue(conn, account, now, family=held.family, parent_id=held.id)
        if verdict is Verdict.REUSE:
            self._reused.inc()
            log.warning("refresh_token_reused", user=user_hash(held.user_id) if held else None)
            await self._revocations.tokens(dead)
        if session is None:
            raise unauthorized("token_invalid", "The refresh token is not valid.")
        return session

    async def logout(self, *, user: User | None, refresh_token: str | None) -> None:
        """End one session: of the refresh token, else of the access token. An unknown refresh token is already out."""
        now = self._clock.now()
        dead: list[UUID | str] = [user.jti] if user else []
        async with self._db.transaction() as conn:
            family = None
            if refresh_token is not None:
                held = await repository.refresh_token(conn, sessions.digest(refresh_token))
                if held is not None and (user is None or held.user_id == user.id):
                    await repository.lock_account(conn, held.user_id)
                    family = held.family
            elif user is not None and (jti := _uuid(user.jti)) is not None:
                await repository.lock_account(conn, user.id)
                family = await repository.family_of(conn, user.id, jti)
            if family is not None:
                dead += await repository.revoke_family(conn, family, now, access_life=ACCESS_LIFE)
        await self._revocations.tokens(dict.fromkeys(str(jti) for jti in dead))

    async def logout_all(self, *, user: User | None, refresh_token: str | None) -> None:
        """End every session of a person. 401 when neither token says who that is."""
        now = self._clock.now()
        async with self._db.transaction() as conn:
            user_id = user.id if user else None
            if user_id is None and refresh_token is not None:
                held = await repository.refresh_token(conn, sessions.digest(refresh_token))
                if sessions.judge(held, now) in (Verdict.ROTATE, Verdict.SIBLING) and held is not None:
                    user_id = held.user_id
            if user_id is None or await repository.lock_account(conn, user_id) is None:
                raise unauthorized("token_invalid", "The token is not valid.")
            version = await repository.end_sessions(conn, user_id, now)
        await self._revocations.sessions(user_id, version)

    async def change_password(self, user: User, *, current: str, new: str, address: str) -> None:
        """Set a new password and end every session. 401 when the current one is wrong, counted like a log-in."""
        now = self._clock.now()
        key = _throttle_key("login", user.email, address)
        async with self._db.connection() as conn:
            locked = await repository.locked_until(conn, key, now)
            account = await repository.account(conn, user.id)
        right = await self._passwords.verify(account.password_hash if account and not locked else None, current)
        if account is None or not right:
            await self._count_failure(key, now, locked=locked is not None)
            raise _invalid_credentials()
        password_hash = await self._passwords.hash(new)
        async with self._db.transaction() as conn:
            held = await repository.lock_account(conn, user.id)
            if held is None or held.password_hash != account.password_hash:
                raise conflict("conflict", "The password was changed a moment ago.")
            await repository.set_password(conn, user.id, password_hash)
            version = await repository.end_sessions(conn, user.id, now)
        await self._revocations.sessions(user.id, version)

    async def me(self, user_id: UUID) -> Account:
        """Return the account. 401 when it was deleted while its token lives."""
        async with self._db.connection() as conn:
            account = await repository.account(conn, user_id)
        if account is None:
            raise unauthorized("token_invalid", "The token is not valid.")
        return account

    async def change_tier(self, user_id: UUID, tier: str) -> None:
        """Give a person another tier, at once: balance caps, outbox, gateway. 404 when there is no such account."""
        async with self._db.transaction() as conn:
            old = await self._write_tier(conn, user_id, tier, role=None)
        await self._revocations.tier(user_id, tier)
        if old != tier:
            self._tier_changes.labels(old, tier).inc()

    async def settle_tier(self, conn: Connection, user_id: UUID, tier: str, *, role: str) -> None:
        """Give a person tier and role in the caller's transaction, which must not commit before the gateway knows.

        So a Redis that is away undoes it, and whoever works on it tries again. 404 when there is no such account.
        """
        old = await self._write_tier(conn, user_id, tier, role=role)
        await self._revocations.tier(user_id, tier)
        if old != tier:
            self._tier_changes.labels(old, tier).inc()

    async def _write_tier(self, conn: Connection, user_id: UUID, tier: str, *, role: str | None) -> str:
        """Write tier, caps and role, and tell the others by the outbox; return the old tier."""
        limits = self._settings.tiers.of(tier)
        caps = {resource: limit_of(limits, resource) for resource in RESOURCES}
        before = await repository.account(conn, user_id)
        old = await repository.set_tier(conn, user_id, tier, caps, self._clock.now())
        if old is None or before is None:
            raise not_found()
        if role is not None and role != before.role:
            await repository.set_role(conn, user_id, role)
        account = await repository.account(conn, user_id)
        if account is not None and (account.tier, account.role) != (old, before.role):
            await _announce(conn, "tier.changed", account)
        return old

    async def _count_failure(self, key: str, now: datetime, *, locked: bool) -> None:
        self._logins.labels("locked" if locked else "bad_credentials").inc()
        if locked:
            return
        throttles = self._settings.throttles
        async with self._db.connection() as conn:
            await repository.throttle_hit(
                conn,
                key,
                now=now,
                window=timedelta(seconds=throttles.login_window_seconds),
                limit=throttles.login_failures,
                lock=timedelta(seconds=throttles.login_lock_seconds),
            )

    async def _open_session(self, conn: Connection, account: Account, now: datetime) -> Session:
        return await self._issue(conn, account, now, family=uuid4(), parent_id=None)

    async def _issue(
        self, conn: Connection, account: Account, now: datetime, *, family: UUID, parent_id: UUID | None
    ) -> Session:
        """Sign inside the transaction: without a signing key nothing is used up."""
        access = self._issuer.access_token(account)
        refresh = sessions.new_refresh_token()
        await repository.add_refresh_token(
            conn,
            user_id=account.id,
            family=family,
            token_hash=sessions.digest(refresh),
            access_jti=access.jti,
            parent_id=parent_id,
            now=now,
            expires_at=now + timedelta(days=self._settings.refresh_token_days),
        )
        self._issued.labels("refresh").inc()
        return Session(account=account, access=access.token, refresh=refresh, expires_in=access.expires_in)


async def _announce(conn: Connection, type_: str, account: Account) -> None:
    payload = {"user_id": str(account.id), "tier": account.tier, "role": account.role}
    await outbox.add(conn, type=type_, payload=payload, user_id=account.id, schema=SCHEMA)


def _throttle_key(*parts: str) -> str:
    """An HMAC under the installation's key: the table names neither address nor account."""
    return f"{parts[0]}:{user_hash('|'.join(parts))}"


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None


def _invalid_credentials() -> ServiceError:
    return unauthorized("invalid_credentials", "E-mail address or password is wrong.")
